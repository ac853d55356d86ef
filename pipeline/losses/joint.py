"""L = a_r L_r + a_g L_g, from sums and global counts (CREM, joint objective). Tensors in, tensors out."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """`retrieval` and `generation` are a_r and a_g; `pairs` and `answer_tokens` are counts over all ranks and chunks of the step."""

    retrieval: float
    generation: float
    pairs: int
    answer_tokens: int


def joint_loss(retrieval_sum: Tensor | float, generation_sum: Tensor | float, weights: Weights) -> Tensor | float:
    """Weighted sum of two means: nats per pair and nats per answer token. A part without rows contributes nothing."""
    return retrieval_sum * retrieval_scale(weights) + generation_sum * generation_scale(weights)


def retrieval_scale(weights: Weights) -> float:
    """What a nat of the retrieval sum weighs in L."""
    return weights.retrieval / max(weights.pairs, 1)


def generation_scale(weights: Weights) -> float:
    """What a nat of the generation sum weighs in L."""
    return weights.generation / max(weights.answer_tokens, 1)
