"""The command: from folders, from an MLflow store, and what it refuses."""

import json

import pytest

from pipeline.evaluate.compare.__main__ import labels, main
from pipeline.track import Tracker, TrackSettings


@pytest.fixture
def folders(written, make):
    """Two evaluations of the same twelve queries."""
    eval_set = make.words("Own", 12)
    hits = {"a": [i < 6 for i in range(12)], "b": [i < 9 for i in range(12)]}
    return [written(f"{name}/eval").set(eval_set, own).done() for name, own in hits.items()]


def test_folders(folders, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main([*map(str, folders), "--out", str(out), "--resamples", "1000"]) == 0
    assert "b/eval against a/eval: better in 0, worse in 0, within noise in 1 of 1 rows" in capsys.readouterr().out
    names = ["compare.html", "comparison.json", "comparison.md", "differences.png", "differences.svg"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_mlflow_runs(folders, tmp_path, capsys) -> None:
    """Evaluations that a real store keeps give what their folders give; a run that it lacks is named."""
    settings = TrackSettings(uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=str(tmp_path / "artifacts"), system_metrics=False)
    ids = []
    for number, folder in enumerate(folders):
        with Tracker.start(settings, "evaluate", tmp_path / f"run{number}", {}, {}) as tracker:
            tracker.artifact(folder / "scores.json")
            tracker.artifact(folder / "predictions", "predictions")
            ids.append(tracker.run_id)
    words = ["--resamples", "1000", "--track-uri", settings.uri]
    assert main([*ids, *words, "--out", str(tmp_path / "runs")]) == 0
    assert main([*map(str, folders), *words, "--out", str(tmp_path / "folders")]) == 0
    runs, plain = (json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("runs", "folders"))
    assert runs["lines"] == plain["lines"]
    assert runs["labels"] == [one[:8] for one in ids] and runs["places"] == [f"MLflow run {one}" for one in ids]
    assert main([str(folders[0]), "0" * 32, *words, "--out", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert f"MLflow run {'0' * 32}" in said and "check the id and --track-uri" in said and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "found 1 evaluation"), (["nowhere"], "nowhere/scores.json: cannot be read"), (["--resamples", "10"], "found too few")],
)
def test_refusals(folders, tmp_path, capsys, words, said) -> None:
    named = folders if "--resamples" in words else folders[:1]
    assert main([*map(str, named), *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_labels_tell_apart() -> None:
    assert labels(["work/eval/run", "work/eval/run-k4"]) == ["run", "run-k4"]
    assert labels(["/x/a/eval", "/x/b/eval"]) == ["a/eval", "b/eval"]
    assert labels(["/x/eval", "/x/eval"]) == ["1: /x/eval", "2: /x/eval"]
    assert labels(["ab" * 16, "/x/eval"]) == ["abababab", "eval"]
    assert labels(["/x/" + "long" * 20, "/y/short"])[0] == "…" + ("long" * 20)[-23:]
