"""The rows of a comparison: each checkpoint's score with its interval, and its difference from the first one's, tested.

Hits of single questions: McNemar's exact test, which needs no resampling and holds however few questions differ. Everything else (means
over sets, string recall, figure groups): the paired bootstrap that also gives the intervals. Means resample the queries within each set;
the sets themselves are taken as given. p-values are corrected over all rows of one checkpoint (Holm), so that the chance of any false
"better" or "worse" among them stays below 5 %.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluate.compare.evaluations import Evaluation, Item, Key, same_questions
from pipeline.evaluate.compare.statistics import (
    LEVEL,
    RESAMPLES,
    Outcomes,
    bootstrap,
    bootstrap_p,
    holm,
    interval,
    mcnemar,
    moved_units,
    score,
)
from pipeline.evaluate.metrics import AVERAGES

MCNEMAR, BOOTSTRAP = "McNemar", "bootstrap"


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Tested:
    """One checkpoint against the first: difference, p by `method`, p corrected over the rows, and what that says."""

    difference: Estimate
    p: float
    method: str
    corrected: float = 1.0

    @property
    def verdict(self) -> str:
        if self.corrected >= 1 - LEVEL:
            return "within noise"
        return "better" if self.difference.value > 0 else "worse"


@dataclass(frozen=True)
class Line:
    """A set, a benchmark in one mode, or a mean over `sets` of them. `estimates`: one per checkpoint; `tests`: one per further one.

    None stands for a checkpoint without a chorus where compressed answers are compared, and for a test that one of its two has no part in.
    """

    name: str
    mode: str
    questions: int
    sets: int
    estimates: tuple[Estimate | None, ...]
    tests: tuple[Tested | None, ...]


@dataclass(frozen=True)
class Comparison:
    """All rows, means first. `labels` and `places` of the checkpoints; `left_out`: what was not compared, and why."""

    labels: tuple[str, ...]
    places: tuple[str, ...]
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]
    seed: int
    resamples: int


@dataclass(frozen=True)
class _Drawn:
    """What is known of one row before correction: scores [C], resampled scores [R, C], in how many units each differs from the first, and
    hits lost and gained against it.

    C counts `holders`, the numbers of the checkpoints that have this row, of `all`.
    """

    holders: tuple[int, ...]
    all: int
    questions: int
    score_C: np.ndarray
    resampled_RC: np.ndarray
    moved: tuple[int, ...]
    discordant: tuple[tuple[int, int], ...] | None = None


def compare(evaluations: Sequence[Evaluation], seed: int = 0, resamples: int = RESAMPLES, common: bool = False) -> Comparison:
    """Compare two or more evaluations of the same questions with the first of them.

    Raises:
        DataError: they were asked different questions (named).
    """
    keys = same_questions(evaluations, common)
    drawn = {key: _draw([one.items.get(key) for one in evaluations], (seed, zlib.crc32("/".join(key).encode())), resamples) for key in keys}
    rows: list[tuple[Key, int, _Drawn]] = []
    for name, members in groups(evaluations[0], keys).items():
        rows.append((name, len(members), _mean([drawn[key] for key in members])))
    rows += [(key, 1, drawn[key]) for key in keys]
    tests = [_corrected([_test(row, other) for _, _, row in rows]) for other in range(1, len(evaluations))]
    lines = [
        Line(key.name, key.mode, row.questions, sets, _estimates(row), tuple(of[number] for of in tests))
        for number, (key, sets, row) in enumerate(rows)
    ]
    why = [f"{key.name} ({key.mode}), {one.label}: {reason}" for one in evaluations for key, reason in one.left_out.items()]
    why += [f"{k.name} ({k.mode}): not in all" for k in dict.fromkeys(k for one in evaluations for k in one.items) if k not in keys]
    labels, places = tuple(one.label for one in evaluations), tuple(one.place for one in evaluations)
    return Comparison(labels, places, tuple(lines), tuple(why), seed, resamples)


def groups(first: Evaluation, keys: Sequence[Key]) -> dict[Key, list[Key]]:
    """Which sets stand behind each mean: MMEB's averages, and the plain mean over benchmarks by mode; none of a single set."""
    retrieval = [key for key in keys if key.mode == "P@1"]
    out = {Key("mean all", "P@1"): retrieval}
    for name in AVERAGES[:-1]:
        out[Key(f"mean {name}", "P@1")] = [key for key in retrieval if name in (first.items[key].meta, first.items[key].split)]
    for mode in ("native", "compressed"):
        out[Key("mean answers", mode)] = [key for key in keys if key.mode == mode]
    return {name: members for name, members in out.items() if len(members) > 1}


def _draw(items: Sequence[Item | None], seed: Sequence[int], resamples: int) -> _Drawn:
    holders, every = tuple(number for number, item in enumerate(items) if item is not None), len(items)
    items = [items[number] for number in holders]
    outcomes = Outcomes(np.stack([item.points_NP for item in items]), items[0].size_NP)
    discordant = None
    if all(item.plain for item in items):
        hits_CN = outcomes.points_CNP[:, :, 0] == 1
        discordant = tuple((int((hits_CN[0] & ~own).sum()), int((own & ~hits_CN[0]).sum())) for own in hits_CN[1:])
    resampled = bootstrap(outcomes, seed, resamples)
    return _Drawn(holders, every, len(items[0].digests), score(outcomes), resampled, moved_units(outcomes), discordant)


def _mean(members: Sequence[_Drawn]) -> _Drawn:
    scores = np.mean([one.score_C for one in members], axis=0)
    resampled = np.mean([one.resampled_RC for one in members], axis=0)
    moved = tuple(sum(units) for units in zip(*(one.moved for one in members), strict=True))
    return _Drawn(members[0].holders, members[0].all, sum(one.questions for one in members), scores, resampled, moved)


def _estimates(row: _Drawn) -> tuple[Estimate | None, ...]:
    found = [Estimate(float(value), *interval(own)) for value, own in zip(row.score_C, row.resampled_RC.T, strict=True)]
    return tuple(found[row.holders.index(number)] if number in row.holders else None for number in range(row.all))


def _test(row: _Drawn, other: int) -> Tested | None:
    if not {0, other} <= set(row.holders):
        return None
    other = row.holders.index(other)
    moved_R = row.resampled_RC[:, other] - row.resampled_RC[:, 0]
    difference = Estimate(float(row.score_C[other] - row.score_C[0]), *interval(moved_R))
    if row.discordant is None:
        return Tested(difference, bootstrap_p(moved_R, row.moved[other]), BOOTSTRAP)
    return Tested(difference, mcnemar(*row.discordant[other - 1]), MCNEMAR)


def _corrected(tests: Sequence[Tested | None]) -> list[Tested | None]:
    corrected = iter(holm([test.p for test in tests if test]))
    return [test and Tested(test.difference, test.p, test.method, next(corrected)) for test in tests]
