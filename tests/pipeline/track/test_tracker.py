"""The record against a real SQLite store: nothing twice, nothing lost, nothing secret, and never in training's way."""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from pydantic import ValidationError

from pipeline.redact import flatten
from pipeline.track import Tracker, TrackSettings, log_to_run, scored_run_tags


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackSettings:
    """One database for all tests here: creating its tables takes seconds."""
    root = tmp_path_factory.mktemp("store")
    return TrackSettings(
        uri=f"sqlite:///{root}/made/on/demand/mlflow.db", artifacts=str(root / "artifacts"), system_metrics=False
    )


@pytest.fixture
def client(store: TrackSettings) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(store.uri)


def _start(store: TrackSettings, run_dir: Path, **more: object) -> Tracker:
    return Tracker.start(store, "test", run_dir, **({"params": {}, "tags": {}} | more))


def _journal(run_dir: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run_dir / name).read_text().splitlines()]


def _until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    assert done()


@pytest.fixture
def dead_uri() -> Iterator[str]:
    """A loopback port that nobody listens on, held so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_run_is_recorded(store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    many = {f"p{n}": n for n in range(250)}
    with _start(store, tmp_path / "run", params={"loss": {"tau": 0.02}, **many}, tags={"kind": "train"}) as tracker:
        tracker.metrics(0, {"loss": 2.0, "odd key/é?": 1, "bad": float("nan"), "worse": float("-inf")})
        tracker.metrics(1, {"loss": 1.5})
        tracker.params({"long": "x" * 7000})
        tracker.tags({"late": "yes"})
        tracker.artifact(tmp_path / "note.txt", "notes")
        tracker.table("scores", [{"set": "a", "p": 0.5}, {"set": "b", "p": 0.25}])
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "test")
    assert run.data.metrics == {"loss": 1.5, "odd key/__": 1.0}
    assert run.data.params["loss.tau"] == "0.02"
    assert len(run.data.params) == 252
    assert len(run.data.params["long"]) == 6000
    assert run.data.tags["kind"] == "train"
    assert run.data.tags["late"] == "yes"
    assert Path(client.download_artifacts(run.info.run_id, "notes/note.txt")).read_text() == "hello"
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "tables/scores.json")).read_text())
    assert table == {"columns": ["set", "p"], "data": [["a", 0.5], ["b", 0.25]]}
    assert [row["metrics"] for row in _journal(tmp_path / "run")] == [
        {"loss": 2.0, "odd key/__": 1.0, "bad": None, "worse": None},
        {"loss": 1.5},
    ]
    assert tracker.unsent == 0


def test_more_metrics_than_one_batch_holds(store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    with _start(store, tmp_path) as tracker:
        for step in range(600):
            tracker.metrics(step, {"a": step, "b": -step})
    assert [m.value for m in client.get_metric_history(tracker.run_id, "a")] == list(range(600))


def test_a_figure_is_kept_and_uploaded(store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    with _start(store, tmp_path) as tracker:
        path = tracker.figure("../curve", Figure())
    assert path == tmp_path / "figures" / "curve.png"
    assert [file.path for file in client.list_artifacts(tracker.run_id, "figures")] == ["figures/curve.png"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit(0), "FINISHED"), (SystemExit(3), "FAILED")],
)
def test_how_a_run_ends(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)), _start(store, tmp_path) as tracker:
        raise error
    assert client.get_run(tracker.run_id).info.status == status


def test_resume_logs_no_step_twice(store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    """A run dies after step 9, without an ending; its checkpoint is of step 5, so steps 6-9 are done again."""
    first = _start(store, tmp_path, params={"lr": 1, "kept": "a"})
    for step in range(10):
        first.metrics(step, {"loss": step})
    _until(lambda: first.unsent == 0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "time_ms": 1, "metr')  # torn by the crash
    with _start(store, tmp_path, params={"lr": 2, "new": 3}, resume_run_id=first.run_id, resume_step=6) as second:
        for step in range(6, 12):
            second.metrics(step, {"loss": step})
    assert second.run_id == first.run_id
    assert Counter(m.step for m in client.get_metric_history(first.run_id, "loss")) == Counter(range(12))
    assert [row["step"] for row in _journal(tmp_path)] == list(range(12))
    aside = (tmp_path / "metrics.dropped.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in aside[:4]] == [6, 7, 8, 9]
    assert aside[4:] == ['{"step": 10, "time_ms": 1, "metr']
    run = client.get_run(first.run_id)
    assert run.data.params == {"lr": "1", "kept": "a", "new": "3"}
    assert run.info.status == "FINISHED"
    first.finish()


def test_what_a_dead_server_missed_is_sent_on_resume(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, dead_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with Tracker.start(TrackSettings(uri=dead_uri), "test", tmp_path, {"a": 1}, {}) as lost:
        for step in range(5):
            lost.metrics(step, {"loss": step})
    assert time.monotonic() - began < 15
    assert (lost.run_id, lost.unsent) == (None, 6)  # five values, one batch of params
    assert "MLflow is out of reach" in caplog.text
    assert not log_to_run(dead_uri, "some run", {"a": 1.0})
    with _start(store, tmp_path, resume_step=4) as found:
        found.metrics(4, {"loss": 40})
    history = {m.step: m.value for m in client.get_metric_history(found.run_id, "loss")}
    assert history == {0: 0, 1: 1, 2: 2, 3: 3, 4: 40}


def test_a_server_that_never_answers_costs_a_bounded_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # 5 unless the user says otherwise
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        tracker = Tracker.start(
            TrackSettings(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"), "test", tmp_path, {}, {}
        )
        tracker.metrics(0, {"loss": 1})
        assert time.monotonic() - began < 6
    assert _journal(tmp_path)[0]["metrics"] == {"loss": 1}
    tracker.finish()


def test_an_outage_in_the_middle_blocks_nothing_and_loses_nothing(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    tracker = _start(store, tmp_path)
    tracker.metrics(0, {"loss": 0})
    _until(lambda: tracker.unsent == 0)
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


def test_a_job_that_cannot_succeed_does_not_hold_up_the_rest(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with _start(store, tmp_path) as tracker:
        tracker.artifact(tmp_path / "never written")
        tracker.tags({"after": "it"})
    assert client.get_run(tracker.run_id).data.tags["after"] == "it"
    assert tracker.unsent == 1


def test_a_run_that_is_gone_is_replaced_from_the_journal(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with _start(store, tmp_path) as first:
        first.metrics(0, {"loss": 7})
    with _start(store, tmp_path, resume_run_id="0" * 32, resume_step=1) as second:
        second.metrics(1, {"loss": 6})
    assert second.run_id not in (first.run_id, "0" * 32)
    assert [m.value for m in client.get_metric_history(second.run_id, "loss")] == [7, 6]


def test_an_evaluation_is_a_child_of_the_run_it_scores(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with _start(store, tmp_path / "train") as training:
        pass
    with _start(store, tmp_path / "eval", tags=scored_run_tags(training.run_id)) as evaluation:
        evaluation.metrics(100, {"eval/p_at_1/all": 0.5})
    assert log_to_run(store.uri, training.run_id, {"eval/p_at_1/all": 0.5}, step=100)
    parent = client.get_parent_run(evaluation.run_id)
    assert parent.info.run_id == training.run_id
    assert client.get_run(evaluation.run_id).data.tags["crem.scored_run_id"] == training.run_id
    assert client.get_run(training.run_id).data.metrics == {"eval/p_at_1/all": 0.5}
    assert not log_to_run(store.uri, "0" * 32, {"a": 1.0})


def test_system_metrics(
    store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with _start(store.model_copy(update={"system_metrics": True}), tmp_path) as tracker:
        _until(lambda: "system/cpu_utilization_percentage" in client.get_run(tracker.run_id).data.metrics)
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_disabled_keeps_the_journal_only(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/none.db"
    with Tracker.start(TrackSettings(uri=uri, enabled=False), "x", tmp_path / "run", {"a": 1}, {}) as tracker:
        tracker.metrics(3, {"loss": 1})
        tracker.artifact(tmp_path)
    assert (tracker.run_id, tracker.unsent) == (None, 0)
    assert _journal(tmp_path / "run")[0]["step"] == 3
    assert not (tmp_path / "none.db").exists()


CANARY = "cAnArY7"
LEAKS = [
    {"password": CANARY},
    {"db": {"db_password": CANARY}},
    {"hf_token": CANARY},
    {"secrets": {"value": CANARY}},
    {"apiKey": CANARY},
    {"api_keys": [CANARY, "x"]},
    {"AWS_SECRET_ACCESS_KEY": CANARY},
    {"keys": {"a": CANARY}},
    {"headers": {"Authorization": f"Basic {CANARY}"}},
    {"uri": f"postgresql://user:{CANARY}@host/db"},
    {"uri": f"https://{CANARY}@host/path"},
    {"uri": f"https://user:a/b{CANARY}@host/path"},
    {"url": f"https://host/x?token={CANARY}&page=2"},
    {"url": f"https://host/x?api_key={CANARY}"},
    {"note": f"Authorization: Bearer {CANARY}"},
    {"note": f"use bearer {CANARY} here"},
    {"command": f"train --hf-token {CANARY} --lr 1"},
    {"command": f"train --password={CANARY}"},
    {"json": f'{{"client_secret": "{CANARY}"}}'},
    {"text": f"hf_{CANARY}abcdefghij"},
    {"text": f"ghp_{CANARY}abcdefghijklmnop"},
    {"text": f"sk-{CANARY}abcdefghijklmnop"},
    {"text": f"eyJhbGci{CANARY}.eyJzdWIi.c2ln"},
    {"text": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END"},
    {"text": f"from the environment: env-{CANARY}-value"},
]


def test_planted_secrets_never_reach_the_store(
    store: TrackSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """25 forms, each as a param, a tag and a table cell: none may be in the database, the files or the logs."""
    monkeypatch.setenv("PLANTED_TOKEN", f"env-{CANARY}-value")
    with _start(store, tmp_path / "run", params=dict(enumerate(LEAKS))) as tracker:
        for number, leak in enumerate(LEAKS):
            ((key, value),) = flatten(leak)
            tracker.tags({f"t{number}.{key}": str(value)})
            tracker.table(f"t{number}", [{key: str(value)}])
        tracker.metrics(0, {"loss": 1})
    run = mlflow.MlflowClient(store.uri).get_run(tracker.run_id)
    assert len(run.data.params) >= len(LEAKS)
    assert len([key for key in run.data.tags if key.startswith("t")]) == len(LEAKS)
    root = Path(store.uri.removeprefix("sqlite:///")).parents[3]
    files = [path for path in (*root.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert len(files) > len(LEAKS)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in caplog.text


def test_settings_are_strict() -> None:
    for wrong in ({"url": "x"}, {"uri": "http://me:pw@host"}):
        with pytest.raises(ValidationError):
            TrackSettings(**wrong)
    assert all(field.description for field in TrackSettings.model_fields.values())


def test_importing_is_cheap_and_recording_is_silent(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
import pipeline.track as track
assert "mlflow" not in sys.modules
settings = track.TrackSettings(uri="sqlite:///a/mlflow.db", artifacts="a/files")
with track.Tracker.start(settings, "x", Path("run"), {"a": 1}, {}) as tracker:
    tracker.metrics(0, {"loss": 1})
assert tracker.run_id and not tracker.unsent
assert (os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"], os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) == ("1", "5")
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_can_be_nested_and_a_scored_run_goes_before(store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    with _start(store, tmp_path / "parent") as parent:
        nested = store.model_copy(update={"parent": parent.run_id})
        with _start(nested, tmp_path / "child") as child:
            pass
        with _start(nested, tmp_path / "evaluation", tags=scored_run_tags(child.run_id)) as evaluation:
            pass
    seen = [client.get_run(tracker.run_id).data.tags.get("mlflow.parentRunId") for tracker in (parent, child, evaluation)]
    assert seen == [None, parent.run_id, child.run_id]
