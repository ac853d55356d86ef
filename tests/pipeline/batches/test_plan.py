"""The order of the data: pure, exact, and never to change by accident. The golden values below are the contract."""

import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batches import plan
from pipeline.batches.phases import CYCLE
from pipeline.batches.plan import Mixture, SourceRows, choose, draw, hash64, permute

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


def test_more_sources_than_turns_take_a_longer_cycle() -> None:
    """241 sources, one of them as heavy as all others: two cycles' worth of turns, in which each has one at least."""
    many = [SourceRows(str(i), 2 * i, 2) for i in range(CYCLE + 1)]
    weights = {source.name: 1.0 for source in many} | {"0": 240.0}
    owners = Counter(row // 2 for row in Mixture(many, weights, 1, 0).rows(0, 2 * CYCLE))
    assert len(owners) == CYCLE + 1 and owners.pop(0) == CYCLE and set(owners.values()) == {1}


@given(st.integers(0, 99), st.integers(1, 7), st.integers(1, 3))
def test_a_cap_keeps_a_source_to_that_many_rows(seed: int, cap: int, group: int) -> None:
    """The same ones every epoch, each once; a larger cap keeps a smaller one's; a cap of all rows is no cap."""

    def mixture(**more) -> Mixture:
        return Mixture([SOURCES[1]], {"b": 1}, group, seed, **more)

    rows = mixture(caps={"b": cap}).rows(0, 3 * cap)
    assert all(len(set(rows[i : i + cap])) == cap for i in range(0, 3 * cap * group, cap))
    assert len(set(rows)) == cap and set(rows) <= set(range(5, 12))
    assert set(rows) < set(mixture(caps={"b": cap + 1}).rows(0, 2 * cap + 2)) or cap == 7
    assert mixture(caps={"b": 7}).rows(0, 30) == mixture(caps={"a": 1}).rows(0, 30) == mixture().rows(0, 30)


def test_capped_rows_depend_on_the_seed() -> None:
    assert len({tuple(sorted(set(Mixture(SOURCES, {"c": 1}, 5, seed, {"c": 5}).rows(0, 1)))) for seed in range(20)}) == 20


@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.1, 5), st.none() | st.floats(0.5, 4)), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_source_ends_after_its_epochs(sources: list[tuple], group: int, seed: int) -> None:
    """As one who walks through turn by turn would count it: so many passes, named at their end; then only the others, by weight."""
    rows = [SourceRows(str(i), 100 * i, count) for i, (count, *_) in enumerate(sources)]
    weights = {str(i): weight for i, (_, weight, _) in enumerate(sources)}
    epochs = {str(i): limit for i, (count, _, limit) in enumerate(sources) if limit is not None and int(limit * count) >= group}
    mixture = Mixture(rows, weights, group, seed, epochs=epochs)
    quotas = {name: int(round(limit * rows[int(name)].count, 6)) // group for name, limit in epochs.items()}
    walked, turn = Counter(), 0
    while turn < 4 * CYCLE and turn != mixture.turns:
        assert dict(zip(weights, mixture.taken(turn), strict=True)) == {name: walked[name] * group for name in weights}
        drawn = mixture.rows(turn, 1)
        [name] = {str(row // 100) for row in drawn}
        walked[name] += 1
        assert mixture.ended(turn, 1) == ([name] if walked[name] == quotas.get(name) else [])
        turn += 1
    assert all(walked[name] <= quota for name, quota in quotas.items())
    if mixture.turns is None:
        assert len(epochs) < len(sources)
    else:
        assert len(epochs) == len(sources) and mixture.turns == sum(quotas.values()) and mixture.turns >= turn
        with pytest.raises(IndexError, match=r"every source has had its last turn"):
            mixture.rows(mixture.turns, 1)


def test_passes_are_whole_before_a_source_ends() -> None:
    """Two passes over the five rows of a, then b alone; half a pass over c is 50 of its rows, none twice."""
    mixture = Mixture(SOURCES, {"a": 1, "b": 1, "c": 1}, 1, 0, epochs={"a": 2, "c": 0.5})
    rows = mixture.rows(0, 300)
    assert Counter(row for row in rows if row < 5) == {row: 2 for row in range(5)}
    c = [row for row in rows if row >= 12]
    assert len(c) == len(set(c)) == 50
    assert mixture.ended(0, 300) == ["a", "c"] and [phase.ends for phase in mixture.phases] == [0, 2, None]
    first, second = mixture.phases[0].stop, mixture.phases[1].stop
    assert 28 <= first <= 30 and Counter(row >= 12 for row in rows[first:second])[True] in (40, 41)
    assert all(5 <= row < 12 for row in rows[second:])


def test_an_epoch_of_less_than_a_sub_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5 passes over a's 5 rows are less than one sub-batch of 3"):
        Mixture(SOURCES, WEIGHTS, 3, 0, epochs={"a": 0.5})
    # 0.29 x 100 is 28.999... in floating point
    assert Mixture(SOURCES, {"c": 1}, 29, 0, epochs={"c": 0.29}).turns == 1


BIG = [SourceRows(str(i), i * 10**7, 10**7) for i in range(40)]


def test_any_step_costs_the_same(monkeypatch) -> None:
    """Ten million rows a source: counted in calls of the mixing function, step 10^6 costs what step 0 does; nothing is laid out."""
    calls = Counter()
    monkeypatch.setattr(plan, "_mix", lambda value, mix=plan._mix: (calls.update(["mix"]), mix(value))[1])
    monkeypatch.setattr(plan, "hash64", lambda *parts, hash64=hash64: (calls.update(["hash"]), hash64(*parts))[1])
    tracemalloc.start()
    weights = {source.name: 1.0 + number for number, source in enumerate(BIG)}
    mixture = Mixture(BIG, weights, 64, 0, caps={"3": 10**6}, epochs={str(i): 1.5 for i in range(20)})
    found = []
    for step in (0, 10**3, 10**6, 10**9):
        calls.clear()
        rows = mixture.rows(step * 16, 16)
        assert len(set(rows)) > 1000 and all(0 <= row < 40 * 10**7 for row in rows)
        assert calls["hash"] <= 2 * 1024
        found.append(calls["mix"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # a walk takes 2^24 / 10^7 = 1.7 rounds of four on average
    assert all(1024 * 4 <= count <= 1024 * 4 * 2.5 for count in found), found
    assert peak < 2 * 2**20, peak


@given(st.integers(0, 10**9), st.integers(0, 39), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_far_positions_hold_each_row_once(place: int, number: int, seed: int) -> None:
    """In a source of ten million rows, any thousand positions of one epoch hold different rows of it."""
    mixture = Mixture([BIG[number]], {str(number): 1}, 1000, seed)
    start = place // 10**4 * 10**4 + place % 9999  # turns of a thousand rows, ten thousand of them an epoch
    rows = mixture.rows(start, 1)
    assert len(set(rows)) == 1000 and all(BIG[number].first <= row < BIG[number].first + 10**7 for row in rows)
