"""Turns in proportion to weights, and what is left of them when a source has had its own."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches.phases import CYCLE, apportion, interleave, phases


def test_phases_in_numbers() -> None:
    """Weights 1 : 1, three turns for the first: it has turns 0, 2 and 4, and is left out from turn 5 on."""
    first, second = phases([1, 1], [3, None])
    assert (first.start, first.stop, first.ends, list(first.before)) == (0, 5, 0, [0, 0])
    assert list(first.cycle[:6]) == [0, 1, 0, 1, 0, 1]
    assert (second.start, second.stop, second.ends, list(second.before)) == (5, None, None, [3, 2])
    assert set(second.cycle) == {1} and second.turns(0, 1000) == 3 and second.turns(1, 1000) == 997


def test_limits_beyond_the_cycle() -> None:
    """Weights 1 : 2 and a hundred thousand turns: found by division, 1249 cycles of 80 turns and one more, not by walking."""
    [first, *_] = phases([1, 2], [100_000, None])
    assert first.stop == 1249 * CYCLE + first.places[0][79] + 1
    assert first.turns(0, first.stop) == 100_000 and first.turns(1, first.stop) == first.stop - 100_000


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=CYCLE))
def test_weights_are_kept_within_a_turn(weights: list[float]) -> None:
    turns = apportion(weights, CYCLE)
    assert sum(turns) == CYCLE
    assert min(turns) >= 1
    exact = [CYCLE * weight / sum(weights) for weight in weights]
    if min(exact) >= 1:
        assert all(abs(turn - value) < 1 + 1e-6 for turn, value in zip(turns, exact, strict=True))
    else:  # the light ones have one turn each, and only the others pay for it
        assert all(turn <= max(1, value + 1) for turn, value in zip(turns, exact, strict=True))


@pytest.mark.parametrize(
    ("weights", "seats", "expected"),
    [([1, 2, 3], 240, [40, 80, 120]), ([1, 1, 1], 10, [4, 3, 3]), ([100, 1, 1, 1], 6, [3, 1, 1, 1]), ([5], 240, [240])],
)
def test_apportion(weights: list, seats: int, expected: list[int]) -> None:
    assert apportion(weights, seats) == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_interleave_spreads_evenly(turns: list[int]) -> None:
    cycle = interleave(turns)
    assert Counter(cycle) == dict(enumerate(turns))
    for i, count in enumerate(turns):
        for end in range(len(cycle) + 1):  # never far from the fair share
            assert abs(cycle[:end].count(i) - count * end / len(cycle)) <= 0.5 * len(turns) + 0.5
