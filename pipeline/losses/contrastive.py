"""InfoNCE over local rows against all candidates. Tensors in, tensors out: no ranks, no model.

The gather stays outside: the caller hands in everything any rank embedded. A loss is a sum, and is divided once, by the global
number of pairs, so that its weight does not change with the number of ranks or chunks.

Shapes: B local pairs, G pairs of all ranks, C all candidates (G positives, then hard negatives), D hidden.
"""

import math
from dataclasses import dataclass, replace

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

    @property
    def positives(self) -> Tensor:
        """Each query's own positive."""
        return self.candidates_CD[: len(self.query_keys_G)]


@dataclass(frozen=True)
class ContrastiveOutput:
    """Sums over the local rows."""

    loss_sum: Tensor
    """Nats."""
    correct: Tensor
    """Rows whose positive scores highest among everything that is not known to be positive too; `margin` changes nothing here."""
    left_out: Tensor
    """Candidates that `margin` took away from these rows' queries."""


def info_nce(inputs: ContrastiveInputs, temperature: float, symmetric: bool = False, margin: float | None = None) -> ContrastiveOutput:
    """Sum of -log softmax(cos / temperature) at the positive, over the local rows.

    A candidate that any row of the batch pairs with the same query is a positive, not a negative: it is left out of the denominator,
    whether it stands there as a target or as a hard negative. With `symmetric`, targets are also scored against all queries and the two
    directions are averaged.

    With a `margin`, candidate j is also left out of row i where cos(i, j) > cos(i, positive of i) + margin: closer to the query than
    its own positive by that much, it is more likely an unlabelled match than a negative (false-negative filter of Qwen3-Embedding,
    arXiv 2506.05176; a negative margin is NV-Retriever's, arXiv 2407.15831). Strictly greater; applied to in-batch and hard negatives,
    and to the queries of the backward direction, against the same positive score. The comparison has no gradient.
    """
    local = inputs.local_B
    pairs = len(inputs.query_keys_G)
    # keys renumbered from zero, so that a (query, target) pair is one number
    target_C = inputs.candidate_keys_C.unique(return_inverse=True)[1]
    query_G = inputs.query_keys_G.unique(return_inverse=True)[1] * len(target_C)
    positives_G = query_G + target_C[:pairs]
    cosines_BC = inputs.queries_GD[local] @ inputs.candidates_CD.T
    known_BC = torch.isin(query_G[local, None] + target_C, positives_G)
    out = _cross_entropy(cosines_BC, temperature, local, known_BC, margin)
    if not symmetric:
        return out
    cosines_BG = inputs.candidates_CD[local] @ inputs.queries_GD.T
    known_BG = torch.isin(query_G + target_C[local, None], positives_G)
    backward = _cross_entropy(cosines_BG, temperature, local, known_BG, margin)
    return replace(out, loss_sum=(out.loss_sum + backward.loss_sum) / 2)


def _cross_entropy(
    cosines_BC: Tensor, temperature: float, positive_B: Tensor, ignored_BC: Tensor, margin: float | None
) -> ContrastiveOutput:
    row_B = torch.arange(len(positive_B), device=positive_B.device)
    keep_BC = ~ignored_BC
    keep_BC[row_B, positive_B] = True
    logits_BC = (cosines_BC / temperature).masked_fill(~keep_BC, float("-inf"))
    # before the margin: a positive that everything closer is taken away from would always score highest
    correct = (logits_BC.argmax(dim=1) == positive_B).sum()
    near_BC = torch.zeros_like(keep_BC)
    if margin is not None:
        own_B = cosines_BC[row_B, positive_B]
        near_BC = keep_BC & (cosines_BC > (own_B + margin)[:, None])
        near_BC[row_B, positive_B] = False  # a negative margin must not take the positive itself
        logits_BC = logits_BC.masked_fill(near_BC, float("-inf"))
    return ContrastiveOutput(F.cross_entropy(logits_BC, positive_B, reduction="sum"), correct, near_BC.sum())


MAX_SCALE = 100.0
"""Largest 1 / temperature of a learnt temperature (CLIP, arXiv 2103.00020, section 2.5)."""


def learnt_temperature(start: float, log_scale: float) -> float:
    """start * exp(-log_scale), but never under 1 / MAX_SCALE; at log_scale = 0 it is exactly `start`."""
    return max(start * math.exp(-log_scale), 1 / MAX_SCALE)


def log_scale_gradient(queries_GD: Tensor, grad_GD: Tensor, temperature: float) -> Tensor:
    """Gradient of the InfoNCE sum with respect to log(1 / temperature), from its gradient with respect to the queries: float64 [].

    Queries and scale enter the loss only as the product scale * <query, candidate>, so d loss / d log(scale) = sum over queries of
    <query, d loss / d query> (Euler's identity): what gradient caching has anyway is enough, over all ranks and chunks.

    Where the temperature is at its lower limit and a descent step would lower it further, the gradient is zero (projection); one that
    raises it passes, so that the limit holds the temperature but never traps it.
    """
    slope = (queries_GD.double() * grad_GD.double()).sum()
    return slope.clamp(min=0.0) if temperature <= 1 / MAX_SCALE else slope
