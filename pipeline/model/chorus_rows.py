"""The chorus embeddings as a module of their own, for runs that freeze the matrix they are rows of.

Shapes: R rows, T tokens a row, K chorus tokens, D hidden.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChorusRows(nn.Module):
    """K embedding rows that train on their own.

    A parameter in a module of its own, because ZeRO-3 gathers a parameter in the forward of the module that holds it.

    Args:
        token_ids: the chorus tokens, in the order of the rows.
        rows_KD: initial rows.
    """

    def __init__(self, token_ids: Sequence[int], rows_KD: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows_KD)
        self.register_buffer("token_ids", torch.tensor(token_ids), persistent=False)

    def forward(self) -> Tensor:
        """The rows [K, D]: a copy, since ZeRO-3 takes the parameter back when this call ends."""
        return self.rows.clone()


def embed_chorus(rows_KD: Tensor, token_ids_K: Tensor, ids_RT: Tensor, embeds_RTD: Tensor) -> Tensor:
    """Token embeddings [R, T, D] with `rows_KD` at the chorus positions. The rows are in the graph even where no token is chorus."""
    match_RTK = ids_RT[..., None] == token_ids_K
    own_RTD = F.embedding(match_RTK.int().argmax(dim=-1), rows_KD)
    return torch.where(match_RTK.any(dim=-1, keepdim=True), own_RTD, embeds_RTD)
