"""From chorus states to the embedding."""

import pytest
import torch

from pipeline.model.pooling import pool_chorus


def test_mean_then_unit_length() -> None:
    hidden = torch.tensor([[3.0, 0.0], [9.0, 9.0], [3.0, 8.0], [0.0, -2.0]])
    # the mean of (3, 0) and (3, 8) is (3, 4): length 5
    assert pool_chorus(hidden, torch.tensor([[0, 2], [3, 3]])).flatten().tolist() == pytest.approx([0.6, 0.8, 0.0, -1.0])


def test_is_the_mean_of_states_not_of_unit_vectors() -> None:
    hidden = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    assert pool_chorus(hidden, torch.tensor([[0, 1]]))[0, 0] > 0.9999


def test_pools_in_float32() -> None:
    # in bfloat16, 256 + 1 is 256
    hidden = torch.tensor([[256.0, 1.0], [1.0, 1.0]], dtype=torch.bfloat16)
    pooled = pool_chorus(hidden, torch.tensor([[0, 1]]))
    assert pooled.dtype == torch.float32
    assert float(pooled[0, 0] / pooled[0, 1]) == pytest.approx(128.5)


def test_no_sequences() -> None:
    assert pool_chorus(torch.ones(4, 8), torch.zeros((0, 1), dtype=torch.long)).shape == (0, 8)
