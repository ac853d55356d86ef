"""How sure a difference between checkpoints is that answered the same questions. Pure numpy; all scores are fractions.

The bootstrap resamples *units*: a query, or a group of rows that a protocol scores together (rotations of a question, a figure with its
questions). All checkpoints are resampled together, so that differences are paired. Drawing N units with replacement and counting how
often each distinct outcome came is a multinomial draw over the distinct outcomes: the same distribution as drawing the units one by one,
in far less work, since right-or-wrong outcomes of C checkpoints have at most 2^C kinds.

What it cannot see: the luck of another training seed, and, where every unit is right or every one wrong, any uncertainty at all.

Shapes: C checkpoints, N units, P parts of a score (1, or HallusionBench's 3), R resamples, U distinct outcomes.
Sources: Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; McNemar (1947), exact form; Holm (1979).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
BLOCK = 2_000_000
"""Numbers drawn at a time: bounds memory at any number of units."""


class Outcomes(NamedTuple):
    """Points that C checkpoints got in each unit, and the rows each unit holds; `score` says what they mean."""

    points_CNP: np.ndarray
    size_NP: np.ndarray


def score(outcomes: Outcomes) -> np.ndarray:
    """Each checkpoint's score, [C]: points per row within each part, then the mean over the parts."""
    return (outcomes.points_CNP.sum(axis=1) / outcomes.size_NP.sum(axis=0)).mean(axis=1)


def bootstrap(outcomes: Outcomes, seed: Sequence[int], resamples: int = RESAMPLES) -> np.ndarray:
    """Scores of resampled units, [R, C]; the same seed, the same resamples, whatever BLOCK is.

    Raises:
        ValueError: there are no units.
    """
    checkpoints, units, parts = outcomes.points_CNP.shape
    if not units:
        raise ValueError("found no units; expected at least one question to resample")
    flat_NF = np.concatenate([outcomes.points_CNP.transpose(1, 0, 2).reshape(units, -1), outcomes.size_NP], axis=1)
    kinds_UF, counts_U = np.unique(flat_NF, axis=0, return_counts=True)
    rng = np.random.default_rng(list(seed))
    out_RC = np.empty((resamples, checkpoints))
    step = max(1, BLOCK // len(kinds_UF))
    for start in range(0, resamples, step):
        drawn_BU = rng.multinomial(units, counts_U / units, size=min(step, resamples - start))
        sums_BF = drawn_BU @ kinds_UF
        points_BCP, size_BP = sums_BF[:, : checkpoints * parts].reshape(-1, checkpoints, parts), sums_BF[:, checkpoints * parts :]
        out_RC[start : start + step] = (points_BCP / size_BP[:, None]).mean(axis=2)
    return out_RC


def interval(resampled_R: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of a resampled figure."""
    low, high = np.quantile(resampled_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p(differences_R: np.ndarray, moved: int) -> float:
    """Two-sided p of a resampled difference: twice the smaller share on either side of zero, at least 2 / (R + 1) and 2 / 2^moved.

    The last is what a sign-flip test of as many units could say at the most: a handful of units that all moved alike show no spread, and
    resampling them would be sure. Above that it agrees with `interval`: below 1 - level where that leaves out zero.

    Args:
        moved: units in which the two checkpoints differ.
    """
    at_most, at_least = int((differences_R <= 0).sum()), int((differences_R >= 0).sum())
    return min(1.0, max(2.0 ** (1 - moved), 2 * (min(at_most, at_least) + 1) / (len(differences_R) + 1)))


def moved_units(outcomes: Outcomes) -> tuple[int, ...]:
    """For every checkpoint, in how many units its points differ from the first one's."""
    return tuple(int((own_NP != outcomes.points_CNP[0]).any(axis=1).sum()) for own_NP in outcomes.points_CNP)


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar test of equal hit rates, from the questions that one checkpoint alone got right.

    Under the null each of those is a fair coin; no approximation, however few there are (1.0 where there are none).
    """
    n, fewer = first_only + second_only, min(first_only, second_only)
    term = tail = 1  # whole numbers: (n choose i), and their sum up to `fewer`
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the chance of one false claim among them stays below the level (Holm's step-down)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, running = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[i]))
        out[i] = running
    return out
