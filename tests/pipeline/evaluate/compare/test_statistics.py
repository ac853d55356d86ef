"""Known p-values, and intervals that cover the truth as often as they say."""

import numpy as np
import pytest

from pipeline.evaluate.compare import statistics
from pipeline.evaluate.compare.statistics import Outcomes, bootstrap, bootstrap_p, holm, interval, mcnemar, moved_units, score


def hits(*checkpoints) -> Outcomes:
    points = np.array(checkpoints, dtype=float)
    return Outcomes(points[:, :, None], np.ones((points.shape[1], 1)))


@pytest.mark.parametrize(
    ("first_only", "second_only", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 0.0625),
        (1, 9, 0.021484375),
        (9, 1, 0.021484375),
        (2, 12, 0.012939453125),
        (121, 59, 4.434449e-06),
        (150, 86, 3.715936e-05),  # Agresti's approval ratings; both as scipy.stats.binomtest gives them
    ],
)
def test_mcnemar(first_only, second_only, p) -> None:
    assert mcnemar(first_only, second_only) == pytest.approx(p, rel=1e-6)


def test_mcnemar_of_many_questions_does_not_overflow() -> None:
    assert mcnemar(20_000, 20_000) == 1.0
    assert 0 <= mcnemar(9_000, 11_000) < 1e-40


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_score_is_the_mean_over_parts() -> None:
    """Two units of two and one rows; the second part counts each unit once."""
    points = np.array([[[2, 1], [0, 0]], [[1, 0], [1, 1]]], dtype=float)
    assert score(Outcomes(points, np.array([[2.0, 1.0], [1.0, 1.0]]))) == pytest.approx([(2 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2])


def test_resamples_are_those_of_drawing_units() -> None:
    """Mean and spread of 20,000 resamples against the binomial's, and of a difference of paired outcomes."""
    a, b = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 0] * 10), np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1] * 10)
    drawn = bootstrap(hits(a, b), [7], 20_000)
    assert drawn.shape == (20_000, 2)
    assert drawn.mean(axis=0) == pytest.approx([0.4, 0.4], abs=0.002)
    assert drawn.std(axis=0) == pytest.approx([(0.24 / 100) ** 0.5] * 2, rel=0.03)
    assert (drawn[:, 1] - drawn[:, 0]).std() == pytest.approx((0.2 / 100) ** 0.5, rel=0.03)


def test_the_same_seed_in_any_block_size(monkeypatch) -> None:
    outcomes = hits(np.arange(50) % 3 == 0, np.arange(50) % 7 / 7)
    whole = bootstrap(outcomes, [3, 1], 500)
    monkeypatch.setattr(statistics, "BLOCK", 40)
    assert np.allclose(bootstrap(outcomes, [3, 1], 500), whole, atol=1e-12)
    assert not np.allclose(bootstrap(outcomes, [3, 2], 500), whole)


def test_intervals_cover_the_truth() -> None:
    """600 samples of 200 questions at 30 %: about 95 % of the intervals hold 0.3; half-width intervals would not."""
    rng = np.random.default_rng(0)
    covered = narrow = 0
    for trial in range(600):
        low, high = interval(bootstrap(hits(rng.random(200) < 0.3), [1, trial], 1000)[:, 0])
        covered += low <= 0.3 <= high
        middle, half = (low + high) / 2, (high - low) / 4
        narrow += middle - half <= 0.3 <= middle + half
    assert 0.92 <= covered / 600 <= 0.975
    assert narrow / 600 < 0.8


def test_paired_p_is_uniform_where_nothing_differs() -> None:
    """Of 200 comparisons without a true difference about 5 % fall below 0.05."""
    rng = np.random.default_rng(1)
    below = 0
    for trial in range(200):
        common = rng.random(100)
        drawn = bootstrap(hits(*(np.round(0.7 * common + 0.3 * rng.random(100), 1) for _ in range(2))), [2, trial], 1000)
        below += bootstrap_p(drawn[:, 1] - drawn[:, 0], 999) < 0.05
    assert 0.02 <= below / 200 <= 0.09


@pytest.mark.parametrize(
    ("differences", "p"), [([0.0] * 999, 1.0), ([1.0] * 999, 0.002), ([-1.0] * 999, 0.002), ([1.0] * 979 + [-1.0] * 20, 0.042)]
)
def test_bootstrap_p(differences, p) -> None:
    assert bootstrap_p(np.array(differences), 999) == pytest.approx(p)


@pytest.mark.parametrize(("moved", "p"), [(0, 1.0), (1, 1.0), (2, 0.5), (6, 0.03125), (20, 0.002)])
def test_few_units_that_all_moved_alike_are_not_sure(moved, p) -> None:
    assert bootstrap_p(np.array([1.0] * 999), moved) == pytest.approx(p)


def test_moved_units() -> None:
    assert moved_units(hits([1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0])) == (0, 2, 0)


def test_no_units() -> None:
    with pytest.raises(ValueError, match="found no units"):
        bootstrap(hits([]), [1])
