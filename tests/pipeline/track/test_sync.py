"""`python -m pipeline.track sync`: what MLflow missed arrives, once, however often it is called."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from pipeline.track import Tracker, TrackSettings
from pipeline.track.__main__ import main
from pipeline.track.record import MARK, Entry, Record

Start = Callable[..., Tracker]


def _everything(start: Start, run_dir: Path, settings: TrackSettings) -> Tracker:
    """A run with one of each kind of entry and three steps."""
    with start(run_dir, settings=settings, params={"lr": 1, "long": "x" * 7000}, tags={"kind": "train"}) as tracker:
        for step in range(3):
            tracker.metrics(step, {"loss": step, "bad": float("nan")})
        (run_dir / "note.txt").write_text("hello")
        tracker.artifact(run_dir / "note.txt", "notes")
        tracker.tags({"late": "yes"})
        tracker.table("scores", [{"set": "a", "p": 0.5}, {"set": "b", "p": float("nan")}])
    return tracker


def test_all_that_a_dead_server_missed(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, dead_uri: str, capsys
) -> None:
    lost = _everything(start, tmp_path, TrackSettings(uri=dead_uri, artifacts=store.artifacts, system_metrics=False))
    assert (lost.run_id, lost.unsent) == (None, 7)
    assert main(["sync", str(tmp_path)]) == 2
    assert "MLflow is out of reach" in capsys.readouterr().err
    for said in ("(new): 3 values were missing, 4 params", ": 0 values were missing, 4 params"):
        assert main(["sync", str(tmp_path), "--uri", store.uri]) == 0
        assert said in capsys.readouterr().out
    run_id = Record.open(tmp_path).run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "test")
    assert run.data.tags["kind"] == "train" and run.data.tags["late"] == "yes"
    assert run.data.params["lr"] == "1" and len(run.data.params["long"]) == 6000
    assert Counter(m.step for m in client.get_metric_history(run_id, "loss")) == Counter(range(3))
    assert Path(client.download_artifacts(run_id, "notes/note.txt")).read_text() == "hello"
    assert json.loads(Path(client.download_artifacts(run_id, "tables/scores.json")).read_text())["data"] == [["a", 0.5], ["b", None]]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "tables/scores.json", "type": "table"}]


def test_a_whole_run_gains_nothing(start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, capsys) -> None:
    tracker = _everything(start, tmp_path, store)
    before = client.get_run(tracker.run_id).data
    assert main(["sync", str(tmp_path)]) == 0
    assert f"run {tracker.run_id}: 0 values were missing" in capsys.readouterr().out
    after = client.get_run(tracker.run_id).data
    assert (before.params, before.tags, before.metrics) == (after.params, after.tags, after.metrics)
    assert len(client.get_metric_history(tracker.run_id, "loss")) == 3


def test_a_double_that_a_slow_server_made_goes_unless_it_holds_metrics(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    tracker = _everything(start, tmp_path, store)
    own = client.get_run(tracker.run_id)
    mark = {MARK: own.data.tags[MARK]}
    empty, used, other = (client.create_run(own.info.experiment_id, tags=tags).info.run_id for tags in (mark, mark, {MARK: "another's"}))
    client.log_metric(used, "loss", 1.0)
    assert main(["sync", str(tmp_path)]) == 0
    stages = [client.get_run(run_id).info.lifecycle_stage for run_id in (tracker.run_id, used, other, empty)]
    assert stages == ["active", "active", "active", "deleted"]


def test_a_file_that_is_gone_is_said(start: Start, tmp_path: Path, capsys) -> None:
    with start(tmp_path) as tracker:
        tracker.artifact(tmp_path / "never written")
    assert main(["sync", str(tmp_path)]) == 1
    assert "refused: artifact: FileNotFoundError" in capsys.readouterr().err


def test_a_folder_without_a_record(tmp_path: Path, capsys) -> None:
    assert main(["sync", str(tmp_path)]) == 2
    assert "found no record.jsonl; expected the folder of a run" in capsys.readouterr().err


def test_a_torn_record_goes_on(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    record.begin(TrackSettings(uri="sqlite:///here/mlflow.db"), "name", {})
    with open(tmp_path / "record.jsonl", "a") as file:
        file.write('{"kind": "tags", "ta')
    again = Record.open(tmp_path)
    again.append(Entry("status", {"status": "KILLED"}))
    found = Record.open(tmp_path)
    assert [entry.kind for entry in found.entries] == ["run", "status"]
    assert found.status == "KILLED" and found.run_id is None
    assert found.start.values["settings"]["uri"] == f"sqlite:///{Path('here/mlflow.db').resolve()}"
    found.begin(TrackSettings(), "name", {})
    assert found.status is None, "it goes on"
    assert found.start.values["tags"] == again.start.values["tags"], "under the same mark"
    assert Record.open(tmp_path, fresh=True).entries == []


@pytest.mark.parametrize("words", [[], ["sync"], ["sync", "x", "--url", "y"]])
def test_wrong_words(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
