"""Embeddings of many sequences: longest first, packed into batches of a token budget, returned in the order given.

Nothing of a batch reaches a sequence's embedding (packed rows are separated by the mask), so the result does not depend on the budget
beyond floating-point rounding. Chorus tokens are causal: the states of the first k are those of a sequence that has k of them, so one
forward serves every k. What all sequences begin with is run once (`shared_head`). Pictures of the next batch are decoded while the model
runs.

Shapes: N sequences, P sizes k, S sequences of a batch, K chorus tokens, D hidden.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from data_prep.samples import DataError
from data_prep.sequence import TokenSequence
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator, Job, pack
from pipeline.evaluate.shared_head import read_head, shared_length, without_head
from pipeline.model.crem import Crem
from pipeline.model.pooling import pool_chorus

NARROWEST = 128
"""Tokens of a row at least. A row's attention grows with its square; narrower ones, with a few short sequences each, waste more places."""

Batches = Sequence[Sequence[Sequence[int]]]
"""Batches of rows of numbers of sequences."""


def embed(model: Crem, collator: Collator, sequences: Sequence[TokenSequence], batch_tokens: int = 8192, title: str = "embed") -> Tensor:
    """Unit-length float32 [N, D] on the CPU, pooled over every chorus token of the sequences.

    Raises:
        DataError: an embedding is not finite (a broken checkpoint must not become a score).
    """
    return embed_nested(model, collator, sequences, (None,), batch_tokens, title)[0]


def embed_nested(
    model: Crem,
    collator: Collator,
    sequences: Sequence[TokenSequence],
    sizes: Sequence[int | None],
    batch_tokens: int = 8192,
    title: str = "embed",
) -> Tensor:
    """Embeddings pooled over the first k chorus tokens, for each k of `sizes` (None: all), from one forward.

    Returns:
        Unit-length float32 [P, N, D] on the CPU.

    Raises:
        DataError: an embedding is not finite (a broken checkpoint must not become a score).
    """
    if not sequences:
        raise ValueError("found no sequences to embed; expected at least one")
    shared = shared_length(sequences, collator.image_id)
    batches = by_length([len(sequence) - shared for sequence in sequences], batch_tokens)
    out_PND = embed_batches(model, collator, sequences, batches, sizes, shared, title)
    broken_N = ~torch.isfinite(out_PND).all(2).all(0)
    if broken_N.any():
        raise DataError(
            f"{int(broken_N.sum())} embeddings are not finite; the checkpoint is broken: found NaN or infinity in so many of "
            f"{len(broken_N)}, expected none; a score over the others would have another denominator. Export an earlier checkpoint"
        )
    return out_PND


def by_length(lengths: Sequence[int], batch_tokens: int) -> Batches:
    """Every sequence once, longest first; a batch has sequences of like length, about `batch_tokens` tokens of them (one at least)."""
    batches: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > room:
            batches.append([])
            room = max(batch_tokens, lengths[i])
        batches[-1].append(i)
        room -= lengths[i]
    packed = []
    for batch in batches:
        own = [lengths[i] for i in batch]
        packed.append([[batch[place] for place in row] for row in pack(own, max(NARROWEST, own[0]))])
    return packed


@torch.no_grad()
def embed_batches(
    model: Crem,
    collator: Collator,
    sequences: Sequence[TokenSequence],
    batches: Batches,
    sizes: Sequence[int | None] = (None,),
    shared: int = 0,
    title: str = "embed",
) -> Tensor:
    """As `embed_nested`, in batches of the caller's, and unchecked: a sequence that is in none keeps zeros.

    Args:
        shared: tokens that all sequences begin with (`shared_length`), to be run once.
    """
    device = next(model.parameters()).device
    head = read_head(model, collator, sequences[0], shared) if shared else None
    parts = [without_head(sequence, shared) for sequence in sequences]

    def collate(batch: Sequence[Sequence[int]]) -> PackedBatch:
        packed = collator([[Job(parts[i]) for i in row] for row in batch])
        return replace(packed, positions=packed.positions + shared)

    out_PND: Tensor | None = None
    progress = tqdm(batches, desc=title, disable=None, leave=False)
    for rows, packed in zip(progress, _ahead(collate, batches), strict=True):
        packed = packed.to(device)
        hidden_TD = model.hidden(packed, head.before(len(rows)) if head else None).flatten(0, 1)
        embeddings_PSD = torch.stack([pool_chorus(hidden_TD, packed.chorus_index[:, :k]) for k in sizes]).cpu()
        if out_PND is None:
            out_PND = embeddings_PSD.new_zeros((len(sizes), len(sequences), embeddings_PSD.shape[2]))
        out_PND[:, [i for row in rows for i in row]] = embeddings_PSD
    return out_PND


def _ahead(make: Callable, given: Iterable) -> Iterator:
    """`make` of each, the next one being made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for each in given:
            made, waiting = waiting, thread.submit(make, each)
            if made is not None:
                yield made.result()
        if waiting is not None:
            yield waiting.result()
