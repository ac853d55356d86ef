"""L = a_r L_r + a_g L_g."""

import pytest
import torch

from pipeline.losses.joint import Weights, generation_scale, joint_loss, retrieval_scale


def test_by_hand() -> None:
    weights = Weights(retrieval=1.0, generation=0.5, pairs=4, answer_tokens=10)
    assert retrieval_scale(weights) == 0.25
    assert generation_scale(weights) == 0.05
    assert joint_loss(8.0, 30.0, weights) == pytest.approx(2.0 + 1.5)


def test_a_part_without_rows_contributes_nothing() -> None:
    assert joint_loss(8.0, 0.0, Weights(1.0, 0.5, pairs=4, answer_tokens=0)) == 2.0
    assert joint_loss(0.0, 30.0, Weights(1.0, 0.5, pairs=0, answer_tokens=10)) == 1.5


def test_parts_add_up() -> None:
    """Divided by the global count, a step's loss does not depend on how its rows were dealt out."""
    weights = Weights(2.0, 0.5, pairs=3, answer_tokens=7)
    retrieval, generation = torch.tensor([1.0, 5.0, 9.0]), torch.arange(7.0)
    parts = joint_loss(retrieval[:1].sum(), generation[:6].sum(), weights) + joint_loss(retrieval[1:].sum(), generation[6:].sum(), weights)
    assert float(parts) == pytest.approx(2.0 * 5.0 + 0.5 * 3.0)
