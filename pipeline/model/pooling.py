"""From chorus states to the embedding. Pure tensor maths."""

import torch.nn.functional as F
from torch import Tensor


def pool_chorus(hidden_ND: Tensor, index_SK: Tensor) -> Tensor:
    """h = mean over the K final-layer chorus states, scaled to unit length so that dot products are cosines (CREM, retrieval).

    Args:
        hidden_ND: final-layer states of N = R * T flattened tokens.
        index_SK: where each sequence's chorus stands (`mask.chorus_index`).

    Returns:
        float32 [S, D], unit length.
    """
    return F.normalize(hidden_ND[index_SK].float().mean(dim=1), dim=-1)
