"""What all sequences begin with is run once, and nobody notices, in every family."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from data_prep.checkpoint import FAMILIES
from data_prep.samples import Side
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from pipeline.batches.collate import Job
from pipeline.evaluate.embed import by_length, embed_batches
from pipeline.evaluate.shared_head import shared_length

IMAGE = 9


def sequence(ids: list[int], roles: str) -> TokenSequence:
    """Roles by their first letters."""
    names = {"c": Role.CONTEXT, "u": Role.CHORUS, "p": Role.PROMPT}
    return TokenSequence(np.array(ids, np.int32), np.array([names[role] for role in roles], np.uint8))


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], 0),  # alone: nothing is saved
        ([([1, 2, 3, 4, 7], "ccccu")], 4),
        ([([1, 2, 3, 5, 7], "ccccu")], 3),
        ([([1, 2, 3, 5, 7], "ccccu"), ([1, 8, 3, 4, 7], "ccccu")], 1),
        ([([2, 2, 3, 4, 7], "ccccu")], 0),
        ([([1, 2, 7], "ccu")], 2),
        ([([1, 2, 3, 4, 7], "cccuu")], 3),  # the same token, but a chorus
        ([([1, 2, 3, 4, 7], "ccpuu")], 2),
    ],
)
def test_length(others: list, expected: int) -> None:
    assert shared_length([sequence([1, 2, 3, 4, 7], "ccccu"), *(sequence(*other) for other in others)], IMAGE) == expected


def test_no_picture_is_shared() -> None:
    assert shared_length([sequence([1, 2, IMAGE, IMAGE, 7], "ccccu")] * 2, IMAGE) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_same_embeddings_in_every_family(kit_of, picture, family: str) -> None:
    kit = kit_of(family)
    sides = [Side("a ring"), Side("a red circle " * 9), Side(images=(picture(0),)), Side("look", (picture(1, 84, 56), picture(2)))]
    sequences = [kit.encoder.sequence(side) for side in sides]
    shared = shared_length(sequences, kit.encoder.image_id)
    assert shared >= 10, "the system line and what stands around it"
    alone = torch.cat([kit.model(kit.collator([[Job(one)]]))[0].detach() for one in sequences])
    lengths = [len(one) - shared for one in sequences]
    for batches in (by_length(lengths, 64), [[[3, 0], [2, 1]]], [[[0, 1, 2, 3]]]):
        found = embed_batches(kit.model, kit.collator, sequences, batches, shared=shared)[0]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    wrong = embed_batches(kit.model, kit.collator, sequences, by_length(lengths, 64))[0]
    torch.testing.assert_close(wrong, alone, atol=1e-5, rtol=0)  # batches made for shorter sequences serve whole ones too
    changed = [TokenSequence(np.r_[one.ids[:3] + 1, one.ids[3:]], one.roles, one.images) for one in sequences]
    other = embed_batches(kit.model, kit.collator, [changed[0], *sequences[1:]], by_length(lengths, 64), shared=shared)[0]
    assert (other - alone).norm(dim=1).min() > 1e-3, "the head reaches every embedding"


def test_batches_hold_everything_once_longest_first() -> None:
    random = np.random.default_rng(0)
    for budget in (1, 100, 8192):
        lengths = random.integers(1, 400, 300).tolist()
        batches = by_length(lengths, budget)
        assert sorted(i for batch in batches for row in batch for i in row) == list(range(300))
        sums = [sum(lengths[i] for row in batch for i in row) for batch in batches]
        assert max(sums) <= max(budget, max(lengths))
        ranges = [(min(lengths[i] for row in batch for i in row), max(lengths[i] for row in batch for i in row)) for batch in batches]
        assert all(before[0] >= after[1] for before, after in pairwise(ranges))
        for batch, (_, longest) in zip(batches, ranges, strict=True):
            assert max(sum(lengths[i] for i in row) for row in batch) <= max(128, longest)
