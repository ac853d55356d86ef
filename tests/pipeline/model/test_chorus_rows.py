"""Chorus rows beside their matrix: literal values, and equality with a matrix that holds them."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.model.chorus_rows import ChorusRows, embed_chorus

ROWS_KD = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TOKEN_IDS = torch.tensor([7, 5])


def test_chorus_positions_show_the_rows_in_order_of_their_ids() -> None:
    embeds = torch.arange(8.0).view(1, 4, 2) / 10
    out = embed_chorus(ROWS_KD, TOKEN_IDS, torch.tensor([[5, 0, 7, 6]]), embeds)
    assert torch.equal(out, torch.tensor([[[3.0, 4.0], [0.2, 0.3], [1.0, 2.0], [0.6, 0.7]]]))


@pytest.mark.parametrize("ids", [[[5, 1, 7, 7], [0, 5, 5, 2]], [[1, 2, 3, 4]]], ids=["chorus", "none"])
def test_equal_to_one_tied_matrix(ids: list) -> None:
    """Values and gradients; without a chorus token the rows get a gradient of zeros, and None never."""
    torch.manual_seed(0)
    matrix_VD = torch.randn(8, 2, requires_grad=True)
    chorus = ChorusRows(TOKEN_IDS.tolist(), matrix_VD.detach()[TOKEN_IDS].clone())
    frozen_VD, ids_RT = matrix_VD.detach().clone(), torch.tensor(ids)
    frozen_VD[TOKEN_IDS] = 99.0  # its own chorus rows must not be looked at
    expected = F.embedding(ids_RT, matrix_VD)
    found = embed_chorus(chorus(), chorus.token_ids, ids_RT, F.embedding(ids_RT, frozen_VD))
    assert torch.equal(found, expected)
    expected.sin().sum().backward()
    found.sin().sum().backward()
    torch.testing.assert_close(chorus.rows.grad, matrix_VD.grad[TOKEN_IDS])
