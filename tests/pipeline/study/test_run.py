"""A study as users start it, end to end (slow); what it does with a folder that has results already (quick)."""

import json
import subprocess
import sys

import pytest

from data_prep.samples import DataError
from data_prep.shards import write_json
from pipeline.study.children import ROOT
from pipeline.study.identity import identity
from pipeline.study.run import Clock, run_study
from pipeline.study.settings import StudySettings, read_plan


def finished(settings: StudySettings) -> None:
    """Give every arm the folder of a finished one, with scores of its own."""
    plan = read_plan(settings)
    for number, arm in enumerate(plan.arms, 1):
        folder = settings.out / "arms" / arm.name
        (folder / f"eval-k{arm.k}").mkdir(parents=True)
        write_json(folder / "arm.json", {"identity": identity(arm, plan.configs[arm.name], plan.inputs), "seconds": 60.0})
        retrieval = [{"split": "IND", "p_at_1": number / 10, "queries": 100, "chance": 0.1}]
        answers = [
            {"name": "MCQ", "mode": mode, "score": number / 5, "rows": 100, "chance": None, "cache_share": share}
            for mode, share in (("native", 1.0), ("compressed", 0.1))
        ]
        write_json(folder / f"eval-k{arm.k}" / "scores.json", {"retrieval": retrieval, "answers": answers})


def test_finished_arms_are_told_not_run(settings):
    finished(settings)
    said = []
    results = run_study(settings, said.append)
    assert said[0] == f"study ablation: 2 arms, 2 of them done; {settings.out}" and len(said) == 2
    assert results["full"][4].p_at_1.value == 0.2 and results["both_losses"][0].compressed is None
    assert sorted(path.name for path in settings.out.iterdir() if not path.name.startswith(".")) == [
        "arms",
        "inputs.json",
        "metrics.jsonl",
        "plots",
        "record.jsonl",
        "study.json",
        "study.md",
        "tracked_run.json",
    ]
    assert (
        "| the full method answers better than both losses alone | native answers | 40.0 | 20.0 | \\+20.0 | 6.3 | yes | 53.1 | 47.2 |"
        in (settings.out / "study.md").read_text()
    )
    _tracked(settings, runs=1)
    run_study(settings, said.append)  # again: the same MLflow run, nothing doubled
    _tracked(settings, runs=1)


def _tracked(settings: StudySettings, runs: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(settings.track_uri)
    assert len(client.search_runs([client.get_experiment_by_name("crem").experiment_id])) == runs
    run = client.get_run(json.loads((settings.out / "tracked_run.json").read_text())["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["crem.study"] == "ablation"
    assert run.data.metrics["full/native"] == pytest.approx(0.4)
    assert len(client.get_metric_history(run.info.run_id, "full/native")) == 1
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"study.json", "study.md", "plots"}


def test_a_changed_setting_is_refused_before_any_work(settings):
    finished(settings)
    changed = settings.model_copy(update={"words": (*settings.words, "--seed", "1")})
    with pytest.raises(DataError, match=r"arm both_losses: found results of other settings \(training\.seed: 0 then, 1 now\)"):
        run_study(changed, print)
    assert not (settings.out / "study.md").exists()


def test_other_inputs_are_refused(settings):
    settings.out.mkdir()
    write_json(settings.out / "inputs.json", read_plan(settings).inputs | {"data": "another"})
    with pytest.raises(DataError, match=r"study of other inputs \(data: another then,"):
        run_study(settings, print)


def test_time_left_comes_from_arms_that_are_done(settings):
    finished(settings)
    arms = read_plan(settings).arms
    assert Clock(settings.out, arms, [arms[1]]).left() == "(1 to do, about 00:01:00 left)"
    clock = Clock(settings.out, arms, list(arms))
    assert clock.left() == "(2 to do; time left is known after the first)"
    clock.done(arms[0], 3700.0)
    assert clock.left() == "(1 to do, about 01:01:40 left)"


@pytest.mark.slow
def test_two_arms_end_to_end(settings):
    """Real chorus, Ray shards, two ranks, evaluations; a failure in the middle, the same command again, and once more when all is done."""
    obstacle = settings.out / "k4" / "shards"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("in the way")
    stopped = study(settings)
    assert stopped.returncode == 2 and str(settings.out / "k4" / "shards.log") in stopped.stderr
    first = settings.out / "arms" / "both_losses" / "eval-k0" / "scores.json"
    written = first.stat().st_mtime_ns
    assert "arm 2/2 full" in stopped.stdout and not (settings.out / "study.md").exists()
    obstacle.unlink()
    done = study(settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "2 arms, 1 of them done" in done.stdout and "arm 1/2" not in done.stdout and "step 4/4" in done.stdout
    assert first.stat().st_mtime_ns == written
    value = json.loads((settings.out / "study.json").read_text())
    assert [list(arm["scores"]) for arm in value["arms"]] == [["0"], ["4"]]
    assert value["arms"][1]["scores"]["4"]["cache"] > 0 and value["arms"][0]["scores"]["0"]["compressed"] is None
    names = {"ablation_p_at_1.png", "ablation_native.png", "ablation_compressed.png"}
    assert {path.name for path in (settings.out / "plots").iterdir()} == names
    _nested(settings)
    again = study(settings)
    assert again.returncode == 0 and "2 arms, 2 of them done" in again.stdout and "training" not in again.stdout
    _nested(settings)


def study(settings: StudySettings) -> subprocess.CompletedProcess:
    """The command as a user types it."""
    options = ["--checkpoint", settings.checkpoint, "--shards-from", *settings.shards_from, "--mmeb", settings.mmeb]
    options += ["--benchmarks", settings.benchmarks, "--out", settings.out, "--arms", ",".join(settings.arms)]
    options += ["--track-uri", settings.track_uri, "--track-artifacts", settings.track_artifacts, *settings.words]
    command = [sys.executable, "-m", "pipeline.study", settings.kind, *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def _nested(settings: StudySettings) -> None:
    """One parent; two trainings under it; one evaluation under each of these."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.track_uri)
    runs = client.search_runs([client.get_experiment_by_name("crem").experiment_id])
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    kinds = {kind: [run.info.run_id for run in runs if run.data.tags["crem.kind"] == kind] for kind in ("study", "training", "evaluation")}
    assert {kind: len(ids) for kind, ids in kinds.items()} == {"study": 1, "training": 2, "evaluation": 2}
    (top,) = kinds["study"]
    assert parents[top] is None and [parents[run] for run in kinds["training"]] == [top, top]
    assert {parents[run] for run in kinds["evaluation"]} == set(kinds["training"])
    assert {run.info.status for run in runs} == {"FINISHED"}
