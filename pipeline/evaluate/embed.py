"""Embeddings of many sequences: longest first, packed into batches of a token budget, returned in the order given.

Nothing of a batch reaches a sequence's embedding (packed rows are separated by the mask), so the result does not depend on the budget
beyond floating-point rounding. Chorus tokens are causal: the states of the first k are those of a sequence that has k of them, so one
forward serves every k.

Shapes: N sequences, P sizes k, S sequences of a batch, K chorus tokens, D hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from data_prep.encode import TokenSequence
from data_prep.samples import DataError
from pipeline.batches.collate import Collator, Job, pack
from pipeline.model.crem import Crem
from pipeline.model.pooling import pool_chorus


def embed(model: Crem, collator: Collator, sequences: Sequence[TokenSequence], batch_tokens: int = 8192, title: str = "embed") -> Tensor:
    """Unit-length float32 [N, D] on the CPU, pooled over every chorus token of the sequences.

    Raises:
        DataError: an embedding is not finite (a broken checkpoint must not become a score).
    """
    return embed_nested(model, collator, sequences, (None,), batch_tokens, title)[0]


@torch.no_grad()
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
    device = next(model.parameters()).device
    lengths = [len(sequence) for sequence in sequences]
    width = max(256, *lengths) if lengths else 256
    rows = pack(lengths, width)
    out_PND: Tensor | None = None
    per_batch = max(1, batch_tokens // width)
    for start in tqdm(range(0, len(rows), per_batch), desc=title, disable=None, leave=False):
        some = rows[start : start + per_batch]
        batch = collator([[Job(sequences[i]) for i in row] for row in some]).to(device)
        hidden_TD = model.hidden(batch).flatten(0, 1)
        embeddings_PSD = torch.stack([pool_chorus(hidden_TD, batch.chorus_index[:, :k]) for k in sizes]).cpu()
        if out_PND is None:
            out_PND = embeddings_PSD.new_zeros((len(sizes), len(sequences), embeddings_PSD.shape[2]))
        out_PND[:, [i for row in some for i in row]] = embeddings_PSD
    if out_PND is None:
        raise ValueError("found no sequences to embed; expected at least one")
    broken_N = ~torch.isfinite(out_PND).all(2).all(0)
    if broken_N.any():
        raise DataError(
            f"{int(broken_N.sum())} embeddings are not finite; the checkpoint is broken: found NaN or infinity in so many of "
            f"{len(broken_N)}, expected none; a score over the others would have another denominator. Export an earlier checkpoint"
        )
    return out_PND
