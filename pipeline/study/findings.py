"""Which of the paper's findings reappear: pairs of figures, their difference, and whether noise alone could be behind it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pipeline.evaluate import published
from pipeline.study.arms import Arm
from pipeline.study.scores import Difference, Scores, compare

Measure = Literal["p_at_1", "native", "compressed"]
MEASURES: dict[Measure, str] = {"p_at_1": "Precision@1", "native": "native answers", "compressed": "compressed answers"}
Verdict = Literal["yes", "within noise", "no", "not measured"]

Results = Mapping[str, Mapping[int, Scores]]
"""Scores by arm and by chorus tokens used in the evaluation."""


class Claim(NamedTuple):
    """That one (arm, k) scores more than another. `paper`: the two published figures in percent, None where it gives none."""

    statement: str
    measure: Measure
    more: tuple[str, int]
    less: tuple[str, int]
    paper: tuple[float, float] | None = None


class Finding(NamedTuple):
    """A claim and what was seen of it here."""

    claim: Claim
    difference: Difference | None
    verdict: Verdict


def judge(claims: Sequence[Claim], results: Results) -> list[Finding]:
    """Hold each claim against the scores; a claim about what has not been run is "not measured"."""
    out = []
    for claim in claims:
        more, less = (results.get(name, {}).get(k) for name, k in (claim.more, claim.less))
        difference = compare(getattr(more, claim.measure), getattr(less, claim.measure)) if more and less else None
        out.append(Finding(claim, difference, verdict(difference)))
    return out


def verdict(difference: Difference | None) -> Verdict:
    """In one word; within the noise of the questions asked nothing is claimed."""
    if difference is None:
        return "not measured"
    if difference.within_noise:
        return "within noise"
    return "yes" if difference.value > 0 else "no"


def claims(arms: Sequence[Arm]) -> list[Claim]:
    """What these arms can say anything about."""
    own = {arm.name: arm for arm in arms}
    return [*_parts(own), *_sweep(arms), *_elastic(own)]


def _parts(own: Mapping[str, Arm]) -> list[Claim]:
    pairs: tuple[tuple[str, Measure, str, str], ...] = (
        ("retrieval only loses native answers", "native", "full", "retrieval_only"),
        ("generation only cannot retrieve", "p_at_1", "full", "generation_only"),
        ("answer training helps retrieval (both losses over retrieval only)", "p_at_1", "both_losses", "retrieval_only"),
        ("the full method answers better than both losses alone", "native", "full", "both_losses"),
        ("the full method retrieves better than both losses alone", "p_at_1", "full", "both_losses"),
        ("a chorus helps retrieval without answer training", "p_at_1", "retrieval_only_chorus", "retrieval_only"),
        ("compression-driven training makes the chorus readable", "compressed", "full", "both_losses_chorus"),
        ("compression-driven training helps retrieval", "p_at_1", "full", "both_losses_chorus"),
        ("both kinds of answers beat homogeneous ones alone", "native", "full", "homogeneous_only"),
        ("both kinds of answers beat heterogeneous ones alone", "native", "full", "heterogeneous_only"),
    )
    return [
        Claim(statement, measure, _whole(own[more]), _whole(own[less]), _paper(own[more], own[less], measure))
        for statement, measure, more, less in pairs
        if more in own and less in own
    ]


def _sweep(arms: Sequence[Arm]) -> list[Claim]:
    """The most chorus tokens against the fewest, among runs of the full method."""
    sizes = {arm.k: arm for arm in arms if arm.name == "full" or arm.name == f"k{arm.k}"}
    if len(sizes) < 2:
        return []
    low, high = sizes[min(sizes)], sizes[max(sizes)]
    rows = {row.chorus: row for row in published.CHORUS}
    out = []
    for measure, words in MEASURES.items():
        column = "mmeb" if measure == "p_at_1" else measure
        paper = (getattr(rows[high.k], column), getattr(rows[low.k], column)) if {high.k, low.k} <= rows.keys() else None
        statement = f"more chorus tokens help {words} ({high.k} over {low.k})"
        out.append(Claim(statement, measure, _whole(high), _whole(low), paper))
    return out


def _elastic(own: Mapping[str, Arm]) -> list[Claim]:
    """The elastic run at each size against the run of that size. The paper has no such run."""
    sizes = own["elastic"].evaluate_at if "elastic" in own else ()
    return [
        Claim(f"elastic at k = {k} over fixed K = {k}, {words}", measure, ("elastic", k), (f"k{k}", k))
        for measure, words in MEASURES.items()
        for k in sizes
        if f"k{k}" in own
    ]


def _whole(arm: Arm) -> tuple[str, int]:
    return arm.name, arm.k


def _paper(more: Arm, less: Arm, measure: Measure) -> tuple[float, float] | None:
    if more.published is None or less.published is None:
        return None
    column = "mmeb" if measure == "p_at_1" else measure
    figures = getattr(more.published, column), getattr(less.published, column)
    return None if None in figures else figures
