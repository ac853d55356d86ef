"""One checkpoint's evaluation: everything is planned first (`units`), then computed by whoever is there (`crew`) and kept (`kept`), then
scored from what is kept."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep.encode import Encoder
from data_prep.sources.benchmarks import Benchmark
from data_prep.sources.mmeb_eval import EvalSet
from pipeline.evaluate import attention, identity, report
from pipeline.evaluate.crew import Crew
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.kept import Kept, kept_in
from pipeline.evaluate.mmeb import plan_set, score_set
from pipeline.evaluate.open import Opened, open_checkpoint
from pipeline.evaluate.protocols import MMEB_IMAGE_TOKENS
from pipeline.evaluate.units import Task
from pipeline.evaluate.vlm import plan_benchmark, score_benchmark
from pipeline.evaluate.worker import Job


@dataclass(frozen=True)
class _Plan:
    """Everything to compute, set by set, and benchmark by benchmark in every mode."""

    retrieval: list[tuple[EvalSet, Task]]
    asked: list[tuple[Benchmark, str, Task]]

    @property
    def tasks(self) -> list[Task]:
        return [task for *_, task in (*self.retrieval, *self.asked)]


def score(
    checkpoint: str,
    encoder: Encoder,
    sets: list[EvalSet],
    benchmarks: list[Benchmark],
    out: Path,
    judge: Judge | None = None,
    max_new_tokens: int | None = None,
    crew: Crew = Crew(),
    cache: bool = True,
) -> report.Report:
    """All scores of one checkpoint, and the attention of its chorus over the first query images (drawn into `out/plots/attention`).

    What is computed is kept in `out/cache`, and not computed again (`kept`); without `cache` nothing is kept. No other evaluation may be
    at work in `out`: each takes away what the other has computed.
    """
    opened = functools.cache(lambda: open_checkpoint(checkpoint, encoder))
    here = Path(checkpoint).is_dir()
    if not here:
        opened()  # a hub id: opening it is what downloads the weights, and every key needs their digest
    numerics = crew.numerics()
    sized = encoder.with_image_tokens(None, MMEB_IMAGE_TOKENS)
    plan = _plan(checkpoint, numerics, sets, sized, benchmarks, encoder, max_new_tokens)
    place = str(Path(checkpoint).resolve()) if here else checkpoint  # workers may stand in another folder
    job = Job(place, None if encoder.baseline else encoder.k, numerics)
    with kept_in(out / "cache", cache) as kept:
        crew.compute(plan.tasks, job, kept, opened)
        found, answers = _scored(plan, kept, out, judge)
        size = kept.keep_only({unit.key for task in plan.tasks for unit in task.units})
    if cache:
        print(f"{size / 2**20:.1f} MiB of results are kept in {out / 'cache'}: what has not changed is not computed again", file=sys.stderr)
    facts = {"checkpoint": str(checkpoint)} | _chorus_in_words(encoder) | ({"judge": judge.in_words()} if judge else {})
    seen, in_words = ({}, {}) if encoder.baseline else _attention(opened, sets, sized, out)
    title = f"{'Baseline' if encoder.baseline else 'CREM'} evaluation of {checkpoint}"
    return report.Report(title, found, answers, facts | in_words, seen)


def _plan(
    checkpoint: str,
    numerics: dict,
    sets: list[EvalSet],
    sized: Encoder,
    benchmarks: list[Benchmark],
    encoder: Encoder,
    max_new_tokens: int | None,
) -> _Plan:
    """Cut all data into units: sets at the image sizes of `sized`, benchmarks natively and, where there is a chorus, from it."""
    of_run = identity.of_run(checkpoint, numerics)
    modes = ("native",) if encoder.baseline else ("native", "compressed")
    retrieval = [(eval_set, plan_set(eval_set, sized, of_run)) for eval_set in sets]
    return _Plan(retrieval, [(b, mode, plan_benchmark(b, mode, encoder, of_run, max_new_tokens)) for b in benchmarks for mode in modes])


def _scored(
    plan: _Plan, kept: Kept, out: Path, judge: Judge | None
) -> tuple[tuple[report.RetrievalScore, ...], tuple[report.AnswerScore, ...]]:
    """Scores from what is kept; every prediction is written."""
    found = tuple(score_set(eval_set, task, kept, out / "predictions") for eval_set, task in plan.retrieval)
    answers = (score_benchmark(b, mode, task, kept, out / "predictions", judge) for b, mode, task in plan.asked)
    return found, tuple(one for several in answers for one in several)


def _attention(opened: Callable[[], Opened], sets: list[EvalSet], encoder: Encoder, out: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Where the chorus looks in the first query images: drawn, as figures, and as a fact of the report; nothing where there are none."""
    items = [(side, encoder.sequence(side)) for side in attention.first_queries(sets)]
    if not items:
        return {}, {}
    with identity.one_thread():
        figures = attention.draw(opened(), items, out / "plots" / "attention").figures
    return figures, {"chorus attention": f"{attention.in_words(figures)}; {len(items)} queries"}


def _chorus_in_words(encoder: Encoder) -> dict[str, str]:
    """What is pooled, for the report."""
    if encoder.baseline:
        return {"chorus tokens": "-", "pooling": report.BASELINE, "compressed answers": "-"}
    return {"chorus tokens": f"{encoder.k} of {len(encoder.chorus_ids)}"}
