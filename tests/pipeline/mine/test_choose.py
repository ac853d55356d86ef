"""Ranks, margin, what is never a negative, and the draw."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.mine.choose import ChooseSettings, Chosen, choose
from pipeline.mine.search import NONE

FOUND = np.arange(100, 110)
SCORES = np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
ALL = ChooseSettings(negatives=10, first_rank=1, last_rank=10, margin=0)


def chosen(positive: float = 1.0, never: tuple[int, ...] = (), **changes) -> Chosen:
    return choose("row/1", FOUND, SCORES, positive, never, ALL.model_copy(update=changes))


def test_the_window_of_ranks() -> None:
    assert chosen() == Chosen(tuple(range(100, 110)), 10, 0)
    assert chosen(first_rank=3, last_rank=5) == Chosen((102, 103, 104), 3, 0)
    assert chosen(first_rank=9, last_rank=50) == Chosen((108, 109), 2, 0)
    assert chosen(first_rank=11, last_rank=50) == Chosen((), 0, 0)


def test_too_near_the_positive_is_dropped_and_counted() -> None:
    assert chosen(positive=0.8) == Chosen(tuple(range(103, 110)), 10, 3)
    assert chosen(positive=0.8, margin=0.15) == Chosen(tuple(range(105, 110)), 10, 5)
    assert chosen(positive=0.8, margin=-0.08) == Chosen(tuple(range(102, 110)), 10, 2)
    assert chosen(positive=0.1) == Chosen((), 10, 10)


def test_what_is_never_a_negative_has_no_rank() -> None:
    assert chosen(never=(100, 103), first_rank=1, last_rank=3) == Chosen((101, 102, 104), 3, 0)


def test_missing_neighbours_are_none() -> None:
    found, scores = np.array([7, NONE, NONE]), np.array([0.5, -np.inf, -np.inf])
    assert choose("a", found, scores, 0.9, (), ALL) == Chosen((7,), 1, 0)


def test_the_draw_depends_on_row_and_seed_and_covers_the_window() -> None:
    few = ALL.model_copy(update={"negatives": 2, "first_rank": 2, "last_rank": 6})
    draws = [choose(f"row/{i}", FOUND, SCORES, 1.0, (), few).numbers for i in range(200)]
    assert draws == [choose(f"row/{i}", FOUND, SCORES, 1.0, (), few).numbers for i in range(200)]
    other = few.model_copy(update={"seed": 1})
    assert draws != [choose(f"row/{i}", FOUND, SCORES, 1.0, (), other).numbers for i in range(200)]
    assert all(len(draw) == 2 and draw[0] < draw[1] for draw in draws)
    counts = [sum(number in draw for draw in draws) for number in FOUND]
    assert counts[0] == 0 == sum(counts[6:]) and min(counts[1:6]) > 50  # 80 expected of each


@pytest.mark.parametrize("wrong", [{"first_rank": 0}, {"negatives": 0}, {"first_rank": 20, "last_rank": 19}, {"margin": 3}, {"ranks": 1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        ChooseSettings(**wrong)
