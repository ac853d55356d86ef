"""A resume against a real SQLite store: nothing twice, nothing lost."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from pipeline.track import Tracker, TrackSettings, log_to_run

Start = Callable[..., Tracker]


def test_resume_logs_no_step_twice(start: Start, client: mlflow.MlflowClient, tmp_path: Path, until: Callable, journal: Callable) -> None:
    """A run dies after step 9, without an ending; its checkpoint is of step 5, so steps 6-9 are done again."""
    first = start(tmp_path, params={"lr": 1, "kept": "a"})
    for step in range(10):
        first.metrics(step, {"loss": step})
    until(lambda: first.unsent == 0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "time_ms": 1, "metr')  # torn by the crash
    with start(tmp_path, params={"lr": 2, "new": 3}, resume_run_id=first.run_id, resume_step=6) as second:
        for step in range(6, 12):
            second.metrics(step, {"loss": step})
    assert second.run_id == first.run_id
    assert Counter(m.step for m in client.get_metric_history(first.run_id, "loss")) == Counter(range(12))
    assert [row["step"] for row in journal(tmp_path)] == list(range(12))
    aside = (tmp_path / "metrics.dropped.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in aside[:4]] == [6, 7, 8, 9]
    assert aside[4:] == ['{"step": 10, "time_ms": 1, "metr']
    run = client.get_run(first.run_id)
    assert run.data.params == {"lr": "1", "kept": "a", "new": "3"}
    assert run.info.status == "FINISHED"
    first.finish()


def test_what_a_dead_server_missed_is_sent_on_resume(
    start: Start, client: mlflow.MlflowClient, tmp_path: Path, dead_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with Tracker.start(TrackSettings(uri=dead_uri), "test", tmp_path, {"a": 1}, {}) as lost:
        for step in range(5):
            lost.metrics(step, {"loss": step})
    assert time.monotonic() - began < 15
    assert (lost.run_id, lost.unsent) == (None, 6)  # five values, one batch of params
    assert "MLflow is out of reach" in caplog.text
    assert not log_to_run(dead_uri, "some run", {"a": 1.0})
    with start(tmp_path, resume_step=4) as found:
        found.metrics(4, {"loss": 40})
    history = {m.step: m.value for m in client.get_metric_history(found.run_id, "loss")}
    assert history == {0: 0, 1: 1, 2: 2, 3: 3, 4: 40}


def test_a_run_that_is_gone_is_replaced_from_the_journal(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with start(tmp_path) as first:
        first.metrics(0, {"loss": 7})
    elsewhere = store.model_copy(update={"experiment": "another"})
    with start(settings=elsewhere, run_dir=tmp_path, resume_run_id="0" * 32, resume_step=1) as second:
        second.metrics(1, {"loss": 6})
    assert second.run_id not in (first.run_id, "0" * 32)
    assert [m.value for m in client.get_metric_history(second.run_id, "loss")] == [7, 6]


def test_a_run_whose_id_was_lost_is_found_by_its_mark(start: Start, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    with start(tmp_path) as first:
        for step in range(3):
            first.metrics(step, {"loss": step})
    lines = (tmp_path / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(line for line in lines if "run_id" not in line))
    with start(tmp_path, resume_step=1) as second:
        second.metrics(1, {"loss": 1})
        second.metrics(2, {"loss": 2})
        second.metrics(3, {"loss": 3})
    assert second.run_id == first.run_id
    assert Counter(m.step for m in client.get_metric_history(first.run_id, "loss")) == Counter(range(4))
