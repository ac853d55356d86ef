"""What counts as a spike and as a slow rank, and how often it is said."""

import math

import pytest

from pipeline.losses.geometry import Geometry
from pipeline.train.health import Slowest, Watch, slowest, spike

STEADY = [1.0, 1.1, 0.9, 1.05, 0.95] * 4
"""Median 1.0; median distance 0.05, so one robust deviation is 0.07413."""


@pytest.mark.parametrize(
    ("past", "value", "expected"),
    [
        (STEADY, 1.5, None),  # 6.7 deviations
        (STEADY, 1.6, 8.0938),
        (STEADY, 2.0, 13.4898),
        (STEADY, 0.1, None),  # falling
        (STEADY, math.nan, None),  # refused elsewhere
        (STEADY[:19], 9.0, None),  # too little to compare with
        ([1.0] * 20, 1.1, None),  # flat: a deviation is 2 % of the median
        ([1.0] * 20, 1.2, 10.0),
        ([3.0 - 0.1 * i for i in range(25)], 0.5, None),
        ([-1.0] * 20, -0.5, 25.0),
    ],
)
def test_spike(past: list[float], value: float, expected: float | None) -> None:
    assert spike(past, value) == (None if expected is None else pytest.approx(expected, abs=1e-4))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0, 1.0], Slowest(0, 0.0)),
        ([1.0, 2.0], Slowest(1, 0.5)),
        ([1.0, 4.0, 1.0, 2.0], Slowest(1, 0.75)),
        ([0.0, 0.0], Slowest(0, 0.0)),
        ([3.0], Slowest(0, 0.0)),
    ],
)
def test_slowest(seconds: list[float], expected: Slowest) -> None:
    assert slowest(seconds) == expected


def test_of_spikes_in_a_row_the_first_is_told() -> None:
    watch = Watch()
    said = [watch.loss(step, loss) for step, loss in enumerate([*STEADY, 5.0, 6.0, 1.0, 7.0])]
    assert [step for step, words in enumerate(said) if words] == [20, 23]
    assert "step 20: loss spike: 5.000, usual 1.000 (54 robust deviations" in said[20]
    assert watch.spiking


def test_a_new_level_becomes_usual() -> None:
    watch = Watch()
    for step, loss in enumerate(STEADY + [5.0, 5.1, 4.9, 5.05] * 30):
        watch.loss(step, loss)
    assert not watch.spiking
    assert watch.loss(999, 5.2) is None


def test_a_slow_rank_is_named_at_its_second_look_and_once() -> None:
    looks = [[1, 1], [1, 2], [1, 1.2], [1, 2], [1, 3], [1, 3], [9, 1], [9, 1]]
    watch = Watch()
    said = [watch.ranks(step, seconds) for step, seconds in enumerate(looks)]
    assert [step for step, words in enumerate(said) if words] == [4, 7]
    assert "step 4: rank 1 is slow: 67% of its computing time" in said[4]
    assert "rank 0 is slow" in said[7]


def test_a_collapse_is_said_once() -> None:
    watch = Watch()
    collapsed = Geometry(0.1, -0.2, 1.34, full_rank=71)
    assert watch.geometry(1, None) is None
    assert watch.geometry(2, Geometry(0.5, -1.5, 40.0, full_rank=71)) is None
    assert "effective rank 1.3 of 71" in watch.geometry(3, collapsed)
    assert watch.geometry(4, collapsed) is None
