"""Where things stand in packed rows, read from roles and document ids. Pure tensor maths.

Shapes: R rows, T tokens a row, S sequences, K chorus tokens, N answer tokens.
"""

import torch
from torch import Tensor

from data_prep.schema import Role

PAD_DOCUMENT = -1
"""Document id of padding."""


def chorus_index(roles_RT: Tensor, documents_RT: Tensor, sequences: int) -> Tensor:
    """Where each sequence's chorus stands, as indices into the flattened [R * T] tokens.

    Returns:
        int64 [S, K], in order of document id 0 .. S - 1.

    Raises:
        ValueError: the sequences do not all have the same number of chorus tokens.
    """
    at_N = (roles_RT == Role.CHORUS).flatten().nonzero()[:, 0]
    owner_N = documents_RT.flatten()[at_N]
    counts_S = torch.bincount(owner_N, minlength=sequences)
    if sequences == 0 or counts_S.min() != counts_S.max():
        raise ValueError(f"found {counts_S.tolist()} chorus tokens per sequence; expected the same number in each")
    return at_N[owner_N.argsort(stable=True)].view(sequences, -1)


def answer_index(roles_RT: Tensor, documents_RT: Tensor) -> Tensor:
    """Positions whose *next* token is an answer token of the same document, as indices into the flattened tokens: int64 [N]."""
    predicts_RT = (roles_RT[:, 1:] == Role.ANSWER) & (documents_RT[:, 1:] == documents_RT[:, :-1])
    return torch.nn.functional.pad(predicts_RT, (0, 1)).flatten().nonzero()[:, 0]
