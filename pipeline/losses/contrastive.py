"""InfoNCE over local rows against all candidates. Tensors in, tensors out: no ranks, no model.

The gather stays outside: the caller hands in everything any rank embedded. A loss is a sum, and is divided once, by the global
number of pairs, so that its weight does not change with the number of ranks or chunks.

Shapes: B local pairs, G pairs of all ranks, C all candidates (G positives, then hard negatives), D hidden.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ContrastiveInputs:
    """One rank's part of a contrastive batch. Embeddings have unit length; keys are content hashes."""

    queries_GD: Tensor
    """All queries, in global order."""
    candidates_CD: Tensor
    """All positives in the same order, then all hard negatives."""
    query_keys_G: Tensor
    """int64: equal keys mean the same query."""
    candidate_keys_C: Tensor
    """int64: equal keys mean the same target."""
    local_B: Tensor
    """int64: which of the G pairs are this rank's own."""


@dataclass(frozen=True)
class ContrastiveOutput:
    """`loss_sum` over the local rows in nats; `correct` rows whose positive scores highest."""

    loss_sum: Tensor
    correct: Tensor


def info_nce(inputs: ContrastiveInputs, temperature: float, symmetric: bool = False) -> ContrastiveOutput:
    """Sum of -log softmax(cos / temperature) at the positive, over the local rows.

    A candidate that any row of the batch pairs with the same query is a positive, not a negative: it is left out of the denominator,
    whether it stands there as a target or as a hard negative. With `symmetric`, targets are also scored against all queries and the two
    directions are averaged.
    """
    local = inputs.local_B
    pairs = len(inputs.query_keys_G)
    # keys renumbered from zero, so that a (query, target) pair is one number
    target_C = inputs.candidate_keys_C.unique(return_inverse=True)[1]
    query_G = inputs.query_keys_G.unique(return_inverse=True)[1] * len(target_C)
    positives_G = query_G + target_C[:pairs]
    logits_BC = inputs.queries_GD[local] @ inputs.candidates_CD.T / temperature
    loss, correct = _cross_entropy(logits_BC, local, torch.isin(query_G[local, None] + target_C, positives_G))
    if symmetric:
        logits_BG = inputs.candidates_CD[local] @ inputs.queries_GD.T / temperature
        backward, _ = _cross_entropy(logits_BG, local, torch.isin(query_G + target_C[local, None], positives_G))
        loss = (loss + backward) / 2
    return ContrastiveOutput(loss, correct)


def _cross_entropy(logits_BC: Tensor, positive_B: Tensor, ignored_BC: Tensor) -> tuple[Tensor, Tensor]:
    keep_BC = ~ignored_BC
    keep_BC[torch.arange(len(positive_B)), positive_B] = True
    logits_BC = logits_BC.masked_fill(~keep_BC, float("-inf"))
    correct = (logits_BC.argmax(dim=1) == positive_B).sum()
    return F.cross_entropy(logits_BC, positive_B, reduction="sum"), correct
