"""The arms of a study, one after the other: chorus, shards, training, evaluations; then the result. What is done is not done again.

OUT/k4/init, OUT/k4/shards        made once for each number of chorus tokens
OUT/arms/NAME/arm.json            what the arm was begun with (its identity) and the seconds it took
OUT/arms/NAME/run, eval-k4        the trainer's and the evaluation's own folders
OUT/study.json, study.md, plots   the result
"""

import fcntl
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.samples import DataError
from data_prep.shards import MANIFEST, write_json
from pipeline.ports import free_port
from pipeline.study import plots, tables
from pipeline.study.arms import Arm
from pipeline.study.children import ROOT, run_command
from pipeline.study.findings import Results
from pipeline.study.identity import decide, differences, digest, identity
from pipeline.study.scores import Scores, read_scores
from pipeline.study.settings import Plan, StudySettings, read_plan
from pipeline.track import Tracker, TrackSettings
from pipeline.train.commit import newest

RECORD, INPUTS, TRACKED = "arm.json", "inputs.json", "tracked_run.json"

Say = Callable[[str], None]


def run_study(settings: StudySettings, say: Say = print) -> Results:
    """Run what is left of a study, then write and track its result.

    Raises:
        DataError: unusable input, results of other settings in the folder, another study at work there, or (`StudyError`) a failed
            command, whose log is named.
    """
    plan = read_plan(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    with _locked(settings.out):
        _claim(settings.out, plan.inputs)
        wanted = {arm.name: identity(arm, plan.configs[arm.name], plan.inputs) for arm in plan.arms}
        left = [arm for arm in plan.arms if _decision(settings.out, arm, wanted[arm.name]) != "done"]
        say(f"study {settings.kind}: {len(plan.arms)} arms, {len(plan.arms) - len(left)} of them done; {settings.out}")
        with _parent(settings, plan) as tracker:
            clock = Clock(settings.out, plan.arms, left)
            for arm in left:
                say(f"arm {plan.arms.index(arm) + 1}/{len(plan.arms)} {arm.name}: {arm.title}  {clock.left()}")
                start = time.perf_counter()
                _run_arm(settings, plan, arm, wanted[arm.name], tracker.run_id, say)
                clock.done(arm, time.perf_counter() - start)
            results = {arm.name: _scores(settings.out, arm) for arm in plan.arms}
            _write(settings, plan, results, wanted, tracker)
    say(f"\n{tables.console(plan.arms, results)}\n\nresult: {settings.out / 'study.md'}, study.json and {settings.out / 'plots'}")
    return results


class Clock:
    """Time left, from the arms that are done, in this job or an earlier one."""

    def __init__(self, out: Path, arms: tuple[Arm, ...], left: list[Arm]):
        self.out, self.waiting = out, len(left)
        records = [_record(out, arm) for arm in arms if arm not in left]
        self.seconds = [record["seconds"] for record in records if record and "seconds" in record]

    def left(self) -> str:
        """In words, for the arms that are not done."""
        if not self.seconds:
            return f"({self.waiting} to do; time left is known after the first)"
        seconds = self.waiting * sum(self.seconds) / len(self.seconds)
        return f"({self.waiting} to do, about {int(seconds // 3600):02}:{int(seconds % 3600 // 60):02}:{int(seconds % 60):02} left)"

    def done(self, arm: Arm, seconds: float) -> None:
        """Count an arm, and keep its time for a later job."""
        self.seconds.append(seconds)
        self.waiting -= 1
        write_json(self.out / "arms" / arm.name / RECORD, _record(self.out, arm) | {"seconds": seconds})


def _run_arm(settings: StudySettings, plan: Plan, arm: Arm, wanted: dict, parent: str | None, say: Say) -> None:
    folder = settings.out / "arms" / arm.name
    init, shards = _prepared(settings, arm.k, say)
    if _record(settings.out, arm) is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, {"identity": wanted})
    run = folder / "run"
    if not _trained(run, plan.configs[arm.name].steps):
        say(f"  training, {plan.configs[arm.name].steps} steps")
        resume = ["--resume"] if newest(run / "checkpoints") else []
        words = [*plan.words[arm.name], *resume, "--out", run, "--model.checkpoint", init, "--data.shards", shards]
        words += ["--track.uri", settings.track_uri, "--track.artifacts", settings.track_artifacts]
        words += ["--track.parent", parent] if parent else []
        launcher = ["deepspeed", "--master_port", str(free_port()), str(ROOT / "launchers/train.sh")]  # other trainings may run here
        run_command([*launcher, settings.recipe, *map(str, words)], folder / "train.log", say)
    for k in arm.evaluate_at:
        if not _scored(out := folder / f"eval-k{k}"):
            say(f"  evaluation, {k} chorus tokens" if k else "  evaluation")
            words = [run / "export", "--mmeb", settings.mmeb, "--benchmarks", settings.benchmarks, "--out", out]
            words += ["--track-uri", settings.track_uri, "--track-artifacts", settings.track_artifacts]
            words += ["--k", k] if k != arm.k else []
            words += ["--max-pixels", settings.max_pixels] if settings.max_pixels else []
            run_command([sys.executable, "-m", "pipeline.evaluate", *map(str, words)], folder / f"eval-k{k}.log", say)


def _prepared(settings: StudySettings, k: int, say: Say) -> tuple[Path, Path]:
    """Checkpoint with k chorus tokens, and shards for it: the tokens of a sequence depend on k."""
    folder = settings.out / f"k{k}"
    init, shards = folder / "init", folder / "shards"
    if not init.is_dir():
        command = [sys.executable, "-m", "pipeline.model", "chorus", str(settings.checkpoint), str(init), "--k", str(k)]
        run_command(command, folder / "init.log", say)
    if not (shards / MANIFEST).is_file():
        say(f"  shards for K = {k}")
        words = [*settings.shards_from, "--checkpoint", init, "--out", shards]
        words += ["--max-pixels", settings.max_pixels] if settings.max_pixels else []
        run_command([sys.executable, "-m", "data_prep", "prepare", *map(str, words)], folder / "shards.log", say)
    return init, shards


def _decision(out: Path, arm: Arm, wanted: dict) -> str:
    record = _record(out, arm)
    scored = all(_scored(out / "arms" / arm.name / f"eval-k{k}") for k in arm.evaluate_at)
    return decide(arm.name, record and record["identity"], wanted, scored)


def _record(out: Path, arm: Arm) -> dict | None:
    path = out / "arms" / arm.name / RECORD
    return json.loads(path.read_text()) if path.is_file() else None


def _trained(run: Path, steps: int) -> bool:
    """The trainer's own word, written after its last barrier."""
    path = run / "result.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    return result.get("status") == 0 and result.get("steps") == steps


def _scored(folder: Path) -> bool:
    """scores.json is written whole or not at all."""
    return (folder / "scores.json").is_file()


def _scores(out: Path, arm: Arm) -> dict[int, Scores]:
    folder = out / "arms" / arm.name
    return {k: read_scores(json.loads((folder / f"eval-k{k}" / "scores.json").read_text()), chorus=arm.k > 0) for k in arm.evaluate_at}


def _claim(out: Path, inputs: dict[str, str]) -> None:
    """Bind the folder to what goes in: its checkpoints and shards were made from that."""
    path = out / INPUTS
    if not path.is_file():
        write_json(path, inputs)
    elif changed := differences(json.loads(path.read_text()), inputs):
        raise DataError(
            f"{out}: found a study of other inputs ({'; '.join(changed)}); expected the same, or its arms would not compare. "
            "Name another --out"
        )


@contextmanager
def _parent(settings: StudySettings, plan: Plan) -> Iterator[Tracker]:
    """The MLflow run that the arms' runs are nested under; the same one when the study goes on."""
    path = settings.out / TRACKED
    known = json.loads(path.read_text())["run_id"] if path.is_file() else None
    track = TrackSettings(uri=settings.track_uri, artifacts=settings.track_artifacts, system_metrics=False)
    params = settings.model_dump(mode="json", exclude={"arms", "sizes", "words"}) | {"words": " ".join(settings.words)}
    tags = {"crem.kind": "study", "crem.study": settings.kind}
    with Tracker.start(track, f"study-{settings.kind}", settings.out, params, tags, resume_run_id=known) as tracker:
        if tracker.run_id:
            write_json(path, {"run_id": tracker.run_id})
        yield tracker


def _write(settings: StudySettings, plan: Plan, results: Results, wanted: dict[str, dict], tracker: Tracker) -> None:
    facts = {"base checkpoint": str(settings.checkpoint), "data": " ".join(map(str, settings.shards_from)), "recipe": settings.recipe}
    config = next(iter(plan.configs.values()))
    facts |= {"steps of every arm": str(config.steps), "seed": str(config.seed), "options": " ".join(settings.words) or "none"}
    digests = {name: digest(value) for name, value in wanted.items()}
    text = {
        "study.json": tables.as_json(settings.kind, plan.arms, results, facts, digests),
        "study.md": tables.markdown(settings.kind, plan.arms, results, facts),
    }
    for path in tables.write(settings.out, text):
        tracker.artifact(path)
    if plots.draw(plan.arms, results, settings.out / "plots"):
        tracker.artifact(settings.out / "plots", "plots")
    tracker.metrics(0, tables.headline(results))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One study at a time in a folder; the kernel lets go of it when this process ends."""
    with (out / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{out}: found another study at work here; expected none. Wait for it, or name another --out") from error
        yield
