"""The order of the data: pure, exact, and never to change by accident. The golden values below are the contract."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches.plan import CYCLE, Mixture, SourceRows, apportion, choose, draw, hash64, interleave, permute

SOURCES = [SourceRows("a", 0, 5), SourceRows("b", 5, 7), SourceRows("c", 12, 100)]
WEIGHTS = {"a": 1, "b": 2, "c": 3}


def test_golden_values() -> None:
    """A change here changes the data order, or z, of every run and every resumed run."""
    assert hash64("a") == 3405396810240292928
    assert hash64(0, "mmeb_train/MSCOCO", 3) == 11137590769855341745
    assert [permute(i, 10, 7) for i in range(10)] == [1, 4, 2, 9, 5, 0, 8, 7, 3, 6]
    assert permute(123456, 1000003, 2**63 + 5) == 113594
    assert [step for step in range(16) if draw(0.5, 0, step, "mmeb/00042")] == [1, 6, 8, 11, 12]
    assert [choose((1, 2, 4, 8), "chorus", 0, step) for step in range(12)] == [8, 4, 4, 1, 2, 2, 8, 2, 2, 1, 2, 1]
    mixture = Mixture(SOURCES, WEIGHTS, group=2, seed=3)
    assert mixture.rows(0, 6) == [40, 35, 6, 5, 4, 1, 19, 81, 11, 10, 82, 100]
    assert mixture.rows(10**9, 3) == [7, 8, 64, 107, 37, 70]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=7, unique=True), st.integers(0, 99))
def test_choose_draws_evenly(options: list[int], seed: int) -> None:
    """Within five standard deviations of a fair die's."""
    counts = Counter(choose(options, seed, step) for step in range(700))
    assert set(counts) <= set(options)
    fair = 700 / len(options)
    assert all(abs(counts[option] - fair) <= 5 * fair**0.5 for option in options)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(count: int, key: int) -> None:
    assert sorted(permute(i, count, key) for i in range(count)) == list(range(count))


def test_permute_mixes() -> None:
    """Other keys give other orders, and no place stays put more often than by chance."""
    orders = {tuple(permute(i, 50, key) for i in range(50)) for key in range(200)}
    assert len(orders) == 200
    assert 100 <= sum(order[i] == i for order in orders for i in range(50)) <= 320  # 200 expected


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(0, 4))
def test_each_epoch_visits_each_row_once(seed: int, group: int, epoch: int) -> None:
    """Row by row, whatever the size of a turn."""
    mixture = Mixture(SOURCES, WEIGHTS, group, seed)
    rows = mixture.rows(0, 2 * CYCLE)
    for source in SOURCES:
        own = [row for row in rows if source.first <= row < source.first + source.count]
        start = epoch * source.count
        one = own[start : start + source.count]
        assert len(one) < source.count or sorted(one) == list(range(source.first, source.first + source.count))
    assert len(rows) == 2 * CYCLE * group


def test_epochs_and_seeds_differ() -> None:
    first, other = (Mixture([SOURCES[2]], {"c": 1}, 100, seed).rows(0, 2) for seed in (0, 1))
    assert first[:100] != first[100:]
    assert first != other


@given(st.integers(0, 10**7), st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 5))
def test_pieces_equal_the_whole(start: int, sizes: list[int], group: int) -> None:
    mixture = Mixture(SOURCES, WEIGHTS, group, seed=0)
    pieces, turn = [], start
    for size in sizes:
        pieces += mixture.rows(turn, size)
        turn += size
    assert pieces == Mixture(SOURCES, WEIGHTS, group, seed=0).rows(start, sum(sizes))


def test_a_turn_has_one_source() -> None:
    rows = Mixture(SOURCES, WEIGHTS, 4, seed=0).rows(0, CYCLE)
    owners = [next(s.name for s in SOURCES if s.first <= row < s.first + s.count) for row in rows]
    turns = [set(owners[i : i + 4]) for i in range(0, len(owners), 4)]
    assert all(len(turn) == 1 for turn in turns)
    assert Counter(turn.pop() for turn in turns) == {"a": 40, "b": 80, "c": 120}


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


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (0.25, 5000), (0.5, 10000), (1.0, 20000)])
def test_draw_has_the_right_mean(probability: float, expected: int) -> None:
    drawn = sum(draw(probability, 0, step, f"sample/{i}") for step in range(20) for i in range(1000))
    assert abs(drawn - expected) <= 4 * (20000 * probability * (1 - probability)) ** 0.5


def test_draw_depends_on_its_whole_key() -> None:
    keys = [(seed, step, sample) for seed in range(4) for step in range(4) for sample in "ab"]
    streams = {tuple(draw(0.5, *key, i) for i in range(64)) for key in keys}
    assert len(streams) == len(keys)
    assert hash64("ab", "c") != hash64("a", "bc")


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"other": 1.0}])
def test_nothing_to_draw_from_is_refused(weights: dict) -> None:
    with pytest.raises(ValueError, match="found 0 sources"):
        Mixture(SOURCES, weights, 1, 0)


def test_a_source_without_weight_is_left_out() -> None:
    assert set(Mixture(SOURCES, {"a": 0, "b": 1}, 3, 0).rows(0, 50)) == set(range(5, 12))


def test_more_sources_than_turns_are_refused() -> None:
    many = [SourceRows(str(i), i, 1) for i in range(CYCLE + 1)]
    with pytest.raises(ValueError, match=r"found 241 sources .* expected 1 to 240"):
        Mixture(many, {source.name: 1.0 for source in many}, 1, 0)
