"""A sequence with fewer chorus tokens is one that was encoded for fewer."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.chorus import chorus_size, keep_chorus
from data_prep.encode import Encoder
from data_prep.samples import DataError, Side, Turn
from data_prep.sequence import TokenSequence
from pipeline.model.chorus import add_chorus
from tests.data_prep.test_encode import noise


@pytest.fixture(scope="module")
def smaller(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Encoder]:
    """Encoders of checkpoints that were given k chorus tokens, by k."""
    folder = tmp_path_factory.mktemp("smaller")
    for k in (1, 2, 3):
        add_chorus(base_checkpoint, folder / str(k), k)
    return {k: Encoder(folder / str(k)) for k in (1, 2, 3)}


def same(ours: TokenSequence, other: TokenSequence) -> bool:
    arrays = [(ours.ids, other.ids), (ours.roles, other.roles)]
    return ours.images == other.images and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)


words = st.text(max_size=12)


@settings(max_examples=150)
@given(
    text=words,
    sizes=st.lists(st.sampled_from([(56, 56), (84, 56), (112, 84)]), max_size=3),
    turns=st.lists(st.tuples(words, words), max_size=3),
    question=st.none() | words,
    k=st.sampled_from([1, 2, 3]),
)
def test_keeping_k_chorus_tokens_is_encoding_with_k(encoder, smaller, text, sizes, turns, question, k) -> None:
    """Elastic chorus: a shard made with K serves every smaller k, wherever images, turns and an open question stand."""
    side = Side(text, tuple(noise(*size, seed) for seed, size in enumerate(sizes)))
    asked = tuple(Turn(*turn) for turn in turns)
    full = encoder.sequence(side, asked, question)
    assert len(full) == len(keep_chorus(full, k)) + 4 - k
    assert same(keep_chorus(full, k), smaller[k].sequence(side, asked, question))
    assert same(keep_chorus(full, k), encoder.shortened(k).sequence(side, asked, question))
    assert same(keep_chorus(full, 4), full)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_chorus_tokens_that_a_sequence_does_not_have(encoder: Encoder, k: int) -> None:
    with pytest.raises(DataError, match=f"k = {k}: found a checkpoint of 4 chorus tokens; expected 1 to 4"):
        keep_chorus(encoder.sequence(Side("a ring")), k)


def test_how_many_there_may_be() -> None:
    assert [chorus_size(k, 4) for k in (1, 4, None)] == [1, 4, 4] and chorus_size(None, 0) == 0
    with pytest.raises(DataError, match=r"^chorus\.elastic = 5: found a checkpoint of 4 chorus tokens; expected 1 to 4\."):
        chorus_size(5, 4, "chorus.elastic")
    with pytest.raises(DataError, match=r"^k = 1: found a checkpoint without chorus tokens"):
        chorus_size(1, 0)
