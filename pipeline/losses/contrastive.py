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

    A candidate that is a positive of the same query under another row (the same target, or the target of the same query) is not a
    negative: it is left out of the denominator. With `symmetric`, targets are also scored against all queries and the two directions are
    averaged.
    """
    local = inputs.local_B
    pairs = len(inputs.query_keys_G)
    same_query_BG = inputs.query_keys_G[local, None] == inputs.query_keys_G[None]
    same_target_BC = inputs.candidate_keys_C[local, None] == inputs.candidate_keys_C[None]
    false_negative_BC = same_target_BC.clone()
    false_negative_BC[:, :pairs] |= same_query_BG
    logits_BC = inputs.queries_GD[local] @ inputs.candidates_CD.T / temperature
    loss, correct = _cross_entropy(logits_BC, local, false_negative_BC)
    if symmetric:
        logits_BG = inputs.candidates_CD[local] @ inputs.queries_GD.T / temperature
        backward, _ = _cross_entropy(logits_BG, local, same_query_BG | same_target_BC[:, :pairs])
        loss = (loss + backward) / 2
    return ContrastiveOutput(loss, correct)


def _cross_entropy(logits_BC: Tensor, positive_B: Tensor, ignored_BC: Tensor) -> tuple[Tensor, Tensor]:
    keep_BC = ~ignored_BC
    keep_BC[torch.arange(len(positive_B)), positive_B] = True
    logits_BC = logits_BC.masked_fill(~keep_BC, float("-inf"))
    correct = (logits_BC.argmax(dim=1) == positive_B).sum()
    return F.cross_entropy(logits_BC, positive_B, reduction="sum"), correct
