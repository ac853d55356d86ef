"""An arm's scores, from the evaluation's scores.json: means with their standard errors. Pure. All figures are fractions in [0, 1]."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from data_prep.samples import DataError

Z95 = 1.96
"""Standard errors on either side of a value within which a normal variable falls in 95 of 100 cases."""


class Mean(NamedTuple):
    """A mean over sets, and the binomial standard error that its number of questions gives it."""

    value: float
    error: float


class Scores(NamedTuple):
    """What a study compares. None: not measured, or (compressed, cache) there is no chorus to answer from."""

    p_at_1: Mean | None
    ind: Mean | None
    ood: Mean | None
    native: Mean | None
    compressed: Mean | None
    cache: float | None
    """Mean share of the key-value cache that compressed answers read."""
    guess_p_at_1: float | None
    """What guessing scores among the candidates."""
    guess_answers: float | None
    """What guessing an option scores; open questions cannot be guessed and count as 0."""


class Difference(NamedTuple):
    """a - b, the standard error of that difference, and what it says."""

    a: float
    b: float
    error: float

    @property
    def value(self) -> float:
        return self.a - self.b

    @property
    def within_noise(self) -> bool:
        """Zero lies within the difference's 95 % interval."""
        return abs(self.value) <= Z95 * self.error


def mean_of_sets(sets: Iterable[tuple[float, int]]) -> Mean | None:
    """Plain mean over sets of (score, questions); None where there is no set.

    The error is that of independent right-or-wrong questions: sqrt(sum of p (1 - p) / n) / number of sets. It knows nothing of other
    seeds, and is only near for scores that are no shares of questions (string recall; circular multiple choice counts rotations).
    """
    sets = list(sets)
    if not sets:
        return None
    variance = sum(p * (1 - p) / n for p, n in sets)
    return Mean(sum(p for p, _ in sets) / len(sets), math.sqrt(variance) / len(sets))


def compare(a: Mean | None, b: Mean | None) -> Difference | None:
    """a against b, their errors taken as independent (the arms answer the same questions: the true error is rather smaller)."""
    if a is None or b is None:
        return None
    return Difference(a.value, b.value, math.hypot(a.error, b.error))


def read_scores(report: Mapping, chorus: bool) -> Scores:
    """The figures of one evaluation.

    Args:
        report: scores.json, as `pipeline.evaluate.report` writes it.
        chorus: whether the arm has chorus tokens; without them compressed answers mean nothing and are left out.

    Raises:
        DataError: an entry is missing.
    """
    try:
        retrieval = [(row["split"], (row["p_at_1"], row["queries"])) for row in report["retrieval"]]
        candidates = [row["chance"] for row in report["retrieval"]]
        first = {(row["name"], row["mode"]): row for row in reversed(report["answers"]) if row["score"] is not None}
        scored = [row for row in report["answers"] if row is first.get((row["name"], row["mode"]))]  # a judge's score before others
        options = [row["chance"] or 0.0 for row in scored if row["mode"] == "native"]
        answers = [(row["mode"], (row["score"], row["rows"]), row["cache_share"]) for row in scored]
    except KeyError as error:
        raise DataError(f"scores.json: found no entry {error}; expected one that this project's evaluation wrote. Remove it") from error
    shares = [share for mode, _, share in answers if mode == "compressed" and chorus and share is not None]
    return Scores(
        p_at_1=mean_of_sets(score for _, score in retrieval),
        ind=mean_of_sets(score for split, score in retrieval if split == "IND"),
        ood=mean_of_sets(score for split, score in retrieval if split == "OOD"),
        native=mean_of_sets(score for mode, score, _ in answers if mode == "native"),
        compressed=mean_of_sets(score for mode, score, _ in answers if mode == "compressed" and chorus),
        cache=sum(shares) / len(shares) if shares else None,
        guess_p_at_1=sum(candidates) / len(candidates) if candidates else None,
        guess_answers=sum(options) / len(options) if options else None,
    )
