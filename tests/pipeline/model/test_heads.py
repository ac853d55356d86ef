"""The answer loss shares the output matrix and equals the plain head; the learnt temperature is one undecayed number."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data_prep.samples import DataError, Side, Turn
from pipeline.batches.collate import Job
from pipeline.model.crem import Crem
from pipeline.model.heads import AnswerLoss, LearntTemperature


@pytest.fixture(scope="module")
def batch(collator, encoder, picture):
    """Two answered sequences, one with an image."""
    turns = (Turn("what colour is it?", "red."), Turn("how many?", "there are three yellow stars."))
    return collator([[Job(encoder.sequence(Side("look:", (picture(1),)), turns)), Job(encoder.sequence(Side("a ring"), turns[:1]))]])


def gradients(model, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the mean answer loss, by parameter."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(losses.mean(), named.values(), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


def test_equals_head_and_cross_entropy(model, batch) -> None:
    """The tied matrix gets both its gradients, as output and as input embedding; chorus tokens are left out of the softmax."""
    assert model.backbone.lm_head.weight is model.backbone.get_input_embeddings().weight
    ours = model(batch)[1]
    hidden = model.hidden(batch).flatten(0, 1)[batch.answer_index]
    logits = model.backbone.lm_head(hidden).index_fill(1, torch.tensor(model.backbone.config.chorus_token_ids), float("-inf"))
    plain = F.cross_entropy(logits, batch.answer_labels, reduction="none")
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=2e-6)
    found, expected = gradients(model, ours), gradients(model, plain)
    assert found.keys() == expected.keys() and len(found) > 20
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) <= 1e-5 * scale


def test_the_backbones_parameters_stay_what_they_were(model) -> None:
    names = [name for name, _ in model.backbone.named_parameters()]
    assert [name for name, _ in Crem(model.backbone).named_parameters()] == [f"backbone.{name}" for name in names]
    assert [name for name, _ in Crem(model.backbone, learn_temperature=True).named_parameters()][-1] == "temperature.log_scale"


def test_an_untied_matrix(model, batch) -> None:
    untied = Crem(model.backbone)
    untied.answer_loss = AnswerLoss(nn.Linear(64, model.backbone.lm_head.weight.shape[0], bias=False))
    assert not torch.equal(untied(batch)[1], model(batch)[1])


def test_a_bias_is_refused() -> None:
    with pytest.raises(DataError, match="output head has a bias; expected none"):
        AnswerLoss(nn.Linear(4, 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_log_scale_starts_at_zero_and_is_read_in_float32(dtype) -> None:
    temperature = LearntTemperature(dtype)
    assert temperature.log_scale.dtype == dtype
    assert temperature().dtype == torch.float32 and temperature().shape == () and float(temperature().detach()) == 0.0
    assert torch.autograd.grad(temperature(), temperature.log_scale)[0].tolist() == [1.0]
