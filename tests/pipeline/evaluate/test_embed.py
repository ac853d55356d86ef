"""Many sequences at once embed as each would alone."""

import copy

import pytest
import torch

from data_prep.chorus import keep_chorus
from data_prep.samples import Side
from pipeline.batches.collate import Job
from pipeline.evaluate.embed import embed, embed_nested


@pytest.fixture(scope="module")
def sequences(encoder, picture):
    texts = [Side(f"{'a red circle, ' * (i % 4)}number {i}") for i in range(8)]
    images = [Side("look" * (i % 2), tuple(picture(i + n, 56 + 28 * n) for n in range(1 + i % 3))) for i in range(6)]
    return [encoder.sequence(side) for pair in zip(texts, images + images[:2], strict=True) for side in pair]


@pytest.mark.parametrize("batch_tokens", [1, 300, 600, 100_000])
def test_order_and_budget(model, collator, sequences, batch_tokens: int) -> None:
    alone = torch.cat([model(collator([[Job(sequence)]]))[0].detach() for sequence in sequences])
    embeddings = embed(model, collator, sequences, batch_tokens)
    torch.testing.assert_close(embeddings, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(sequences)))
    torch.testing.assert_close(embed(model, collator, sequences[::-1], batch_tokens), alone.flip(0), atol=1e-5, rtol=0)
    assert not embeddings.requires_grad


def test_a_long_sequence_widens_its_batch(model, collator, encoder) -> None:
    long = encoder.sequence(Side("how many green triangles? " * 40))
    short = encoder.sequence(Side("ring"))
    assert len(long) > 256
    torch.testing.assert_close(embed(model, collator, [short, long]).flip(0), embed(model, collator, [long, short]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_k_tokens_embed_as_the_first_k_of_more(model, collator, sequences, k: int) -> None:
    """One forward with K chorus tokens serves every k."""
    alone = embed(model, collator, [keep_chorus(sequence, k) for sequence in sequences])
    nested = embed_nested(model, collator, sequences, [k, None], batch_tokens=600)
    assert nested.shape == (2, len(sequences), 64)
    torch.testing.assert_close(nested[0], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(nested[1], embed(model, collator, sequences), atol=1e-5, rtol=0)
    assert k == 4 or (nested[0] - nested[1]).norm(dim=1).min() > 1e-2


def test_a_broken_checkpoint_is_refused(model, collator, sequences) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.backbone.model.language_model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="16 embeddings are not finite; the checkpoint is broken"):
        embed(broken, collator, sequences)


def test_nothing_to_embed_is_refused(model, collator) -> None:
    with pytest.raises(ValueError, match="found no sequences to embed"):
        embed(model, collator, [])
