"""MLflow out of reach, in ways that need no server: a silent port, a locked store, a file that is not there."""

import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from pipeline.track import Tracker, TrackSettings

Start = Callable[..., Tracker]


def test_a_server_that_never_answers_costs_a_bounded_wait(tmp_path: Path, journal: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # 5 unless the user says otherwise
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        tracker = Tracker.start(TrackSettings(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"), "test", tmp_path, {}, {})
        tracker.metrics(0, {"loss": 1})
        assert time.monotonic() - began < 6
    assert journal(tmp_path)[0]["metrics"] == {"loss": 1}
    tracker.finish()


def test_an_outage_in_the_middle_blocks_nothing_and_loses_nothing(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, until: Callable
) -> None:
    tracker = start(tmp_path)
    tracker.metrics(0, {"loss": 0})
    until(lambda: tracker.unsent == 0)
    lock = sqlite3.connect(store.uri.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    for step in range(1, 100):
        tracker.metrics(step, {"loss": step})
    assert time.monotonic() - began < 1
    time.sleep(2.5)  # the door tries in vain
    assert tracker.unsent == 99
    lock.execute("ROLLBACK")
    tracker.finish()
    assert tracker.unsent == 0
    assert Counter(m.step for m in client.get_metric_history(tracker.run_id, "loss")) == Counter(range(100))


def test_a_job_that_cannot_succeed_does_not_hold_up_the_rest(start: Start, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    with start(tmp_path) as tracker:
        tracker.artifact(tmp_path / "never written")
        tracker.tags({"after": "it"})
    assert client.get_run(tracker.run_id).data.tags["after"] == "it"
    assert tracker.unsent == 1
