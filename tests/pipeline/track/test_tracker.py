"""The record against a real SQLite store: what is recorded, under which names, and how a run ends."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from pipeline.track import Tracker, TrackSettings, log_to_run, scored_run_tags

Start = Callable[..., Tracker]


def test_a_run_is_recorded(start: Start, client: mlflow.MlflowClient, tmp_path: Path, journal: Callable) -> None:
    (tmp_path / "note.txt").write_text("hello")
    many = {f"p{n}": n for n in range(250)}
    with start(tmp_path / "run", params={"loss": {"tau": 0.02}, **many}, tags={"kind": "train"}) as tracker:
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
    assert [row["metrics"] for row in journal(tmp_path / "run")] == [
        {"loss": 2.0, "odd key/__": 1.0, "bad": None, "worse": None},
        {"loss": 1.5},
    ]
    assert tracker.unsent == 0


def test_more_metrics_than_one_batch_holds(start: Start, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    with start(tmp_path) as tracker:
        for step in range(600):
            tracker.metrics(step, {"a": step, "b": -step})
    assert [m.value for m in client.get_metric_history(tracker.run_id, "a")] == list(range(600))


def test_a_figure_is_kept_and_uploaded(start: Start, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    with start(tmp_path) as tracker:
        path = tracker.figure("../curve", Figure())
    assert path == tmp_path / "figures" / "curve.png"
    assert [file.path for file in client.list_artifacts(tracker.run_id, "figures")] == ["figures/curve.png"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit(0), "FINISHED"), (SystemExit(3), "FAILED")],
)
def test_how_a_run_ends(start: Start, client: mlflow.MlflowClient, tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)), start(tmp_path) as tracker:
        raise error
    assert client.get_run(tracker.run_id).info.status == status


def test_an_evaluation_is_a_child_of_the_run_it_scores(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with start(tmp_path / "train") as training:
        pass
    with start(tmp_path / "eval", tags=scored_run_tags(training.run_id)) as evaluation:
        evaluation.metrics(100, {"eval/p_at_1/all": 0.5})
    assert log_to_run(store.uri, training.run_id, {"eval/p_at_1/all": 0.5}, step=100)
    parent = client.get_parent_run(evaluation.run_id)
    assert parent.info.run_id == training.run_id
    assert client.get_run(evaluation.run_id).data.tags["crem.scored_run_id"] == training.run_id
    assert client.get_run(training.run_id).data.metrics == {"eval/p_at_1/all": 0.5}
    assert not log_to_run(store.uri, "0" * 32, {"a": 1.0})


def test_a_run_can_be_nested_and_a_scored_run_goes_before(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with start(tmp_path / "parent") as parent:
        nested = store.model_copy(update={"parent": parent.run_id})
        with start(settings=nested, run_dir=tmp_path / "child") as child:
            pass
        with start(settings=nested, run_dir=tmp_path / "evaluation", tags=scored_run_tags(child.run_id)) as evaluation:
            pass
    seen = [client.get_run(tracker.run_id).data.tags.get("mlflow.parentRunId") for tracker in (parent, child, evaluation)]
    assert seen == [None, parent.run_id, child.run_id]


def test_system_metrics(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with start(tmp_path, settings=store.model_copy(update={"system_metrics": True})) as tracker:
        until(lambda: "system/cpu_utilization_percentage" in client.get_run(tracker.run_id).data.metrics)
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_disabled_keeps_the_journal_only(tmp_path: Path, journal: Callable) -> None:
    uri = f"sqlite:///{tmp_path}/none.db"
    with Tracker.start(TrackSettings(uri=uri, enabled=False), "x", tmp_path / "run", {"a": 1}, {}) as tracker:
        tracker.metrics(3, {"loss": 1})
        tracker.artifact(tmp_path)
    assert (tracker.run_id, tracker.unsent) == (None, 0)
    assert journal(tmp_path / "run")[0]["step"] == 3
    assert not (tmp_path / "none.db").exists()


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
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
