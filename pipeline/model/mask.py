"""The compression-aware attention mask. Pure tensor maths.

CREM's rule: attention is causal, except that a token of Q or A (PROMPT, ANSWER) may not look at a token of V or T (CONTEXT) when the
sample's z is 1. Several sequences (documents) may share one row; a token never looks outside its own document.

Shapes: R rows, T tokens a row.
"""

import torch
from torch import Tensor

from data_prep.schema import Role


def compression_mask(roles_RT: Tensor, documents_RT: Tensor, compressed_RT: Tensor) -> Tensor:
    """Who may look at whom.

    Args:
        roles_RT: `schema.Role` of every token.
        documents_RT: id of the sequence each token belongs to, unique within a row; -1 for padding,
            which looks at padding only, so no row of the mask is empty.
        compressed_RT: bool, z of the token's sequence.

    Returns:
        bool [R, 1, T, T], True where query token (dim 2) may look at key token (dim 3).
        M[i, j] = 0 if z and i in (Q, A) and j in (V, T); otherwise causal within the document (CREM, attention mask).
    """
    same_RTT = documents_RT[:, :, None] == documents_RT[:, None, :]
    tokens = roles_RT.shape[1]
    causal_TT = torch.ones(tokens, tokens, dtype=torch.bool, device=roles_RT.device).tril()
    reader_RT = compressed_RT & (roles_RT >= Role.PROMPT)
    context_RT = roles_RT == Role.CONTEXT
    return (same_RTT & causal_TT & ~(reader_RT[:, :, None] & context_RT[:, None, :]))[:, None]
