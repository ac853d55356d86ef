"""Embeddings of many sequences: longest first, packed into batches of a token budget, returned in the order given.

Nothing of a batch reaches a sequence's embedding (packed rows are separated by the mask), so the result does not depend on the budget
beyond floating-point rounding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from data_prep.encode import TokenSequence
from pipeline.batches.collate import Collator, Job, pack
from pipeline.model.crem import Crem


@torch.no_grad()
def embed(model: Crem, collator: Collator, sequences: Sequence[TokenSequence], batch_tokens: int = 8192, title: str = "embed") -> Tensor:
    """Unit-length float32 [len(sequences), D] on the CPU.

    Raises:
        ValueError: an embedding is not finite (a broken checkpoint must not become a score).
    """
    device = next(model.parameters()).device
    lengths = [len(sequence) for sequence in sequences]
    width = max(256, *lengths) if lengths else 256
    rows = pack(lengths, width)
    out_ND: Tensor | None = None
    per_batch = max(1, batch_tokens // width)
    for start in tqdm(range(0, len(rows), per_batch), desc=title, disable=None, leave=False):
        some = rows[start : start + per_batch]
        batch = collator([[Job(sequences[i]) for i in row] for row in some]).to(device)
        embeddings_SD = model(batch)[0].cpu()
        if out_ND is None:
            out_ND = embeddings_SD.new_zeros((len(sequences), embeddings_SD.shape[1]))
        out_ND[[i for row in some for i in row]] = embeddings_SD
    if out_ND is None:
        raise ValueError("found no sequences to embed; expected at least one")
    if not torch.isfinite(out_ND).all():
        raise ValueError(f"{int((~torch.isfinite(out_ND)).any(1).sum())} embeddings are not finite; the checkpoint is broken")
    return out_ND
