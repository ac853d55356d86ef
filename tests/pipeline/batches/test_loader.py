"""One rank's step: the same rows, z and content on any number of ranks."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.encode import EncodedSample
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from data_prep.stored import PreparedImage
from pipeline.batches.loader import StepLoader, content_key
from pipeline.batches.reader import ShardReader
from pipeline.config import BatchSettings, ChorusSettings, DataSettings, LossSettings, RunConfig


@pytest.fixture(scope="module")
def make(shards, collator):
    """Makes a rank's loader; keyword arguments are of `BatchSettings`."""
    reader = ShardReader(shards)

    def make(
        rank: int = 0,
        world: int = 1,
        weights: dict | None = None,
        seed: int = 0,
        p: float = 0.5,
        elastic: tuple = (),
        steps: int = 2000,
        data: dict | None = None,
        **batch,
    ) -> StepLoader:
        settings = BatchSettings(**(dict(pairs=8, conversations=4, sub_batch=4, row_tokens=64, chunk_tokens=256) | batch))
        data = DataSettings(weights=weights or {}, **(data or {}))
        chorus, loss = ChorusSettings(elastic=elastic), LossSettings(compression_probability=p)
        config = RunConfig(steps=steps, batch=settings, data=data, seed=seed, chorus=chorus, loss=loss)
        return StepLoader(reader, collator, config, rank, world)

    return make


def shown(work) -> Counter:
    """Every sequence a rank runs: its tokens, its z, and whether its embedding is asked for."""
    out = Counter()
    for chunk in work.chunks:
        for document, slot in enumerate(chunk.embedding_slots.tolist()):
            own = chunk.documents == document
            out[tuple(chunk.ids[own].tolist()), bool(chunk.compressed[own][0]), slot >= 0] += 1
    return out


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("step", [0, 5])
def test_ranks_share_one_ranks_step(make, world: int, step: int) -> None:
    """The union over ranks is one rank's step: each sequence with the same z."""
    whole = make().step(step)
    parts = [make(rank, world).step(step) for rank in range(world)]
    assert sum((shown(part) for part in parts), Counter()) == shown(whole)
    assert [part.pairs for part in parts] == [8 // world] * world
    for name in ("slots", "answer_tokens", "rows"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)
    assert sorted(key for part in parts for key in part.keys.tolist()) == sorted(whole.keys.tolist())


@given(st.integers(0, 10**9), st.integers(0, 3))
@settings(max_examples=20)
def test_ranks_share_one_list_of_rows(make, step: int, seed: int) -> None:
    """The order of the rows is one, whatever the ranks: theirs, dealt out in turn, is one rank's; also with caps and epochs."""
    for limits in ({}, {"data": {"caps": {"plain": 6, "chats": 3}, "epochs": {"asked": 2}}}):
        whole = make(seed=seed, **limits)
        for world in (2, 4):
            parts = [make(rank, world, seed=seed, **limits) for rank in range(world)]
            for rows in ("pair_rows", "conversation_rows"):
                expected = getattr(whole, rows)(step)
                shares = [getattr(part, rows)(step)[rank::world] for rank, part in enumerate(parts)]
                assert [row for turn in zip(*shares, strict=True) for row in turn] == expected


def test_the_plan_is_shown(make) -> None:
    """13 rows of plain capped at 6, 9 of asked gone through twice in sub-batches of 4 (so 4 turns), 7 of chats."""
    loader = make(steps=10, weights={"plain": 3, "asked": 1}, data={"caps": {"plain": 6}, "epochs": {"asked": 2}})
    assert loader.plan().splitlines() == [
        "  plan of 10 steps",
        "    source  kind                            rows      weight    share    passes",
        "    plain   pairs                        6 of 13           3   80.00%     10.67",
        "    asked   pairs                              9           1   20.00%      1.78  left out after step 8",
        "    chats   conversations                      7           7  100.00%      5.71",
    ]
    assert [step for step in range(40) if loader.exhausted(step)] == [7]
    assert loader.step(7).exhausted == ("asked",) and loader.step(6).exhausted == ()
    assert {loader.reader.row(row).source for step in range(8, 30) for row in loader.pair_rows(step)} == {"plain"}
    assert len({row for step in range(30) for row in loader.pair_rows(step) if row < 13}) == 6


def test_a_weight_follows_from_the_rows_used(make) -> None:
    assert make().pairs.weights == [13, 9]
    assert make(data={"caps": {"plain": 6, "asked": 100}}).pairs.weights == [6, 9]
    assert make(data={"caps": {"plain": 4}, "mix_exponent": 0.5}).pairs.weights == [2, 3]


def test_z_depends_on_seed_step_and_sample_alone(make) -> None:
    loader = make()
    rows = [loader.reader.row(i) for i in range(29)]

    def z(seed: int, step: int) -> list[bool]:
        return [make(seed=seed)._compressed(step, row) for row in rows]

    assert z(0, 0) == [make(1, 4, sub_batch=2)._compressed(0, row) for row in rows]
    assert len({tuple(z(seed, step)) for seed in range(3) for step in range(3)}) == 9
    drawn = [x for step in range(100) for x in z(0, step)]
    assert 0.46 < np.mean(drawn) < 0.54


def test_every_sequence_of_a_step_has_its_k(make, encoder) -> None:
    """Queries, positives, hard negatives and conversations keep the first k chorus tokens and lose nothing else."""
    whole, elastic = make(), make(elastic=(1, 3))
    seen = set()
    for number in range(8):
        work, full = elastic.step(number), whole.step(number)
        seen.add(work.chorus)
        left_out = encoder.chorus_ids[work.chorus :]
        expected = Counter()
        for (ids, z, needed), count in shown(full).items():
            expected[tuple(i for i in ids if i not in left_out), z, needed] += count
        assert shown(work) == expected
        assert {chunk.chorus_index.shape[1] for chunk in work.chunks} == {work.chorus}
        assert (work.slots, work.answer_tokens, work.rows) == (full.slots, full.answer_tokens, full.rows)
        assert work.keys.equal(full.keys), "the same content, whatever k"
        assert full.chorus == 4
    assert seen == {1, 3}


def test_k_depends_on_seed_and_step_alone(make) -> None:
    """The same on every rank, on any number of ranks, and for a loader that starts late."""
    drawn = [make(elastic=(1, 2, 4)).step(number).chorus for number in range(6)]
    for rank, world in ((0, 2), (1, 2), (3, 4)):
        assert [work.chorus for work in make(rank, world, elastic=(1, 2, 4)).steps(0, 6)] == drawn
    assert [work.chorus for work in make(elastic=(1, 2, 4)).steps(3, 6)] == drawn[3:]
    assert len({tuple(make(elastic=(1, 2, 4), seed=seed).chorus(step) for step in range(12)) for seed in range(5)}) == 5


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_targets_and_negatives_are_never_compressed(make, p: float) -> None:
    """z belongs to samples with answers: the queries of pairs and the conversations."""
    work = make(p=p, weights={"plain": 0, "asked": 1}).step(0)
    for chunk in work.chunks:
        for document, slot in enumerate(chunk.embedding_slots.tolist()):
            z = bool(chunk.compressed[chunk.documents == document][0])
            assert z == (p == 1.0 and slot < work.pairs)


def test_slots_are_queries_positives_negatives(make) -> None:
    loader = make(rank=1, world=2, weights={"plain": 0, "asked": 1})
    rows: list[EncodedSample] = [loader.reader.row(i) for i in loader.pair_rows(3)[1::2]]
    expected = [row.query for row in rows] + [row.positive for row in rows] + [n for row in rows for n in row.negatives]
    work = loader.step(3)
    found = {}
    for chunk in work.chunks:
        for document, slot in enumerate(chunk.embedding_slots.tolist()):
            found.setdefault(slot, []).append(chunk.ids[chunk.documents == document].tolist())
    assert len(found.pop(-1)) == 2  # conversations
    assert {slot: ids for slot, [ids] in found.items()} == {i: s.ids.tolist() for i, s in enumerate(expected)}
    assert work.keys.tolist() == [content_key(sequence) for sequence in expected]
    assert work.slots == len(expected) > 2 * work.pairs
    assert work.answer_tokens == sum(len(chunk.answer_index) for chunk in work.chunks) > 0


@given(st.integers(0, 50), st.sampled_from([1, 32, 64, 200]), st.sampled_from([1, 3, 8]))
@settings(max_examples=30)
def test_chunks_hold_everything_within_the_budget(make, step: int, row_tokens: int, budget: int) -> None:
    loader = make(row_tokens=row_tokens, chunk_tokens=row_tokens * budget)
    work = loader.step(step)
    assert sum(len(chunk.embedding_slots) for chunk in work.chunks) == work.slots + 4
    slots = torch.cat([chunk.embedding_slots for chunk in work.chunks])
    assert sorted(slots[slots >= 0].tolist()) == list(range(work.slots))
    for chunk in work.chunks:
        assert chunk.ids.shape[0] == 1 or chunk.ids.numel() <= row_tokens * budget


@pytest.mark.parametrize("row_tokens", [32, 200])
def test_chunks_are_packed_when_asked_for(make, monkeypatch, row_tokens: int) -> None:
    """The first at once, the others each time; always the same, and no more than two at a time beside it."""
    loader = make(row_tokens=row_tokens, chunk_tokens=max(200, row_tokens))
    calls = []
    monkeypatch.setattr(loader, "collator", lambda rows, collator=loader.collator: (calls.append(len(rows)), collator(rows))[1])
    work = loader.step(0)
    assert len(calls) == 1 and len(work.chunks) > 2
    walked = []
    for number, chunk in enumerate(work.chunks):
        assert len(calls) <= number + 2
        walked.append(chunk)
    for number, chunk in enumerate(walked):
        again = work.chunks[number]
        assert all(torch.equal(value, vars(again)[name]) for name, value in vars(chunk).items())
    assert work.tokens == sum(chunk.tokens for chunk in walked)
    assert work.places == sum(chunk.ids.numel() for chunk in walked)


def test_steps_ahead_equal_steps_alone(make) -> None:
    loader = make()
    ahead = list(loader.steps(2, 5))
    assert [shown(work) for work in ahead] == [shown(loader.step(number)) for number in (2, 3, 4)]
    assert shown(ahead[0]) != shown(ahead[1])


def test_a_broken_row_ends_the_steps(make, monkeypatch) -> None:
    """An error in the preparing thread reaches the caller."""
    loader = make()
    monkeypatch.setattr(loader, "pair_rows", lambda number: [10**6])
    with pytest.raises(IndexError):
        next(loader.steps(0, 2))


def test_sub_batches_have_one_source(make) -> None:
    loader = make(sub_batch=4)
    for step in range(10):
        sources = [loader.reader.row(row).source for row in loader.pair_rows(step)]
        assert len(set(sources[:4])) == len(set(sources[4:])) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(weights={"plane": 1.0}), r"data.weights names \['plane'\], which the shards do not have; they have: plain, asked, chats"),
        (dict(data={"caps": {"plane": 1}}), r"data.caps names \['plane'\], which the shards do not have"),
        (dict(data={"epochs": {"plane": 1}}), r"data.epochs names \['plane'\], which the shards do not have"),
        (
            dict(data={"epochs": {"plain": 4, "asked": 4}}),
            "data.epochs ends every source of pairs after 11 steps, but the run has 2000: raise",
        ),
        (dict(data={"epochs": {"chats": 4}}), "data.epochs ends every source of conversations after 7 steps, but the run has 2000"),
        (dict(data={"epochs": {"asked": 0.4}}), "0.4 passes over asked's 9 rows are less than one sub-batch of 4"),
        (dict(world=3), "batch.pairs = 8 does not divide over 3 ranks"),
        (dict(weights={"plain": 0.0, "asked": 0.0}), "found 0 sources with rows and a positive weight"),
        (dict(weights={"chats": 0.0}), "found 0 sources with rows and a positive weight"),
    ],
)
def test_impossible_requests_are_refused(make, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_no_conversations(write_data, raw_samples, collator, tmp_path) -> None:
    reader = ShardReader(write_data(tmp_path / "shards", {"asked": raw_samples["asked"]}))
    batch = dict(pairs=4, sub_batch=4)
    with pytest.raises(ValueError, match=r"batch.conversations = 2, but the shards hold no conversations; .* set it to 0"):
        StepLoader(reader, collator, RunConfig(batch=BatchSettings(conversations=2, **batch)), 0, 1)
    assert StepLoader(reader, collator, RunConfig(batch=BatchSettings(conversations=0, **batch)), 0, 1).step(0).rows == 4


def test_no_pairs(write_data, raw_samples, collator, tmp_path) -> None:
    reader = ShardReader(write_data(tmp_path / "shards", {"chats": raw_samples["chats"]}))
    with pytest.raises(ValueError, match="found 0 sources"):
        StepLoader(reader, collator, RunConfig(), 0, 1)


def sequence(ids: list[int], roles: list[int], *images: bytes) -> TokenSequence:
    pictures = tuple(PreparedImage(data, 56, 56) for data in images)
    return TokenSequence(np.array(ids, np.int32), np.array(roles, np.uint8), pictures)


def test_content_key_is_equal_for_equal_content_only() -> None:
    V, U, Q, A = Role.CONTEXT, Role.CHORUS, Role.PROMPT, Role.ANSWER
    base = content_key(sequence([7, 8, 90], [V, V, U], b"image"))
    assert base == content_key(sequence([7, 8, 90, 4, 5], [V, V, U, Q, A], b"image")), "what follows the chorus is not content"
    others = [
        sequence([8, 7, 90], [V, V, U], b"image"),
        sequence([7, 90], [V, U], b"image"),
        sequence([7, 8, 90], [V, V, U], b"imagf"),
        sequence([7, 8, 90], [V, V, U]),
        sequence([7, 8, 90], [V, V, U], b"image", b"image"),
    ]
    assert len({base, *map(content_key, others)}) == 6
    assert -(2**63) <= min(map(content_key, others)) < 0 < max(map(content_key, others)) < 2**63
