"""The moving average of weights: its recurrence in literal numbers, and torch's own average beside it."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data_prep.samples import DataError
from pipeline.config import EmaSettings
from pipeline.train import averaging


@pytest.mark.parametrize(
    ("update_after_step", "expected"),
    [(0, [1.0, 1.25, 1.9375, 1.453125]), (1, [1.0, 1.25, 1.9375, 1.453125]), (2, [1.0, 2.0, 2.5, 1.875]), (9, [1.0, 2.0, 4.0, 0.0])],
)
def test_the_recurrence(update_after_step: int, expected: list[float]) -> None:
    """Weights 1, 2, 4, 0 at decay 3/4."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight])
    found = []
    for step, value in enumerate((1.0, 2.0, 4.0, 0.0), 1):
        weight.data.fill_(value)
        optimizer.state[weight]["step"] = torch.tensor(float(step))
        averaging.update(optimizer, 0.75, update_after_step)
        found.append(optimizer.state[weight]["ema"].tolist())
    assert found == [[value] * 3 for value in expected]


def trained(ema: EmaSettings, steps: int = 20) -> tuple[torch.nn.Module, torch.optim.Optimizer, AveragedModel]:
    """A small model, trained; torch's own average of it beside ours."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    averaging.follow(optimizer, ema)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema.decay or 0.5))
    for _ in range(steps):
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.update_parameters(model)
    return model, optimizer, theirs


def test_it_is_torchs_average() -> None:
    model, optimizer, theirs = trained(EmaSettings(decay=0.9))
    for weight, average in zip(model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[weight]["ema"], average.detach(), rtol=1e-6, atol=1e-8)
        assert (average - weight).abs().max() > 1e-3  # otherwise this shows nothing


def test_it_changes_no_bit_of_training_and_leaves_no_trace_when_off() -> None:
    (with_, optimizer, _), (without, plain, _) = trained(EmaSettings(decay=0.9)), trained(EmaSettings())
    assert all(a.equal(b) for a, b in zip(with_.parameters(), without.parameters(), strict=True))
    assert all(state.keys() - {"ema"} == {"step", "exp_avg", "exp_avg_sq"} for state in optimizer.state.values())
    assert all("ema" not in state for state in plain.state.values())


def test_an_exchange_is_undone_by_another(monkeypatch) -> None:
    monkeypatch.setattr(averaging, "BLOCK", 3)  # several blocks, the last one short
    model, optimizer, _ = trained(EmaSettings(decay=0.9))
    weights = [weight.detach().clone() for weight in model.parameters()]
    averages = [optimizer.state[weight]["ema"].clone() for weight in model.parameters()]
    averaging.exchange(optimizer)
    for weight, before, average in zip(model.parameters(), weights, averages, strict=True):
        assert weight.equal(average) and optimizer.state[weight]["ema"].equal(before)
    averaging.exchange(optimizer)
    for weight, before, average in zip(model.parameters(), weights, averages, strict=True):
        assert weight.equal(before) and optimizer.state[weight]["ema"].equal(average)


def test_it_is_saved_with_the_moments() -> None:
    model, optimizer, _ = trained(EmaSettings(decay=0.9))
    again = torch.optim.AdamW(model.parameters(), fused=True)
    again.load_state_dict(optimizer.state_dict())
    assert all(again.state[weight]["ema"].equal(optimizer.state[weight]["ema"]) for weight in model.parameters())


def test_a_swapped_optimizer_is_refused() -> None:
    averaging.check_ema(EmaSettings(), {"offload_optimizer": {"device": "nvme"}})
    averaging.check_ema(EmaSettings(decay=0.9), {"offload_optimizer": {"device": "cpu"}})
    averaging.check_ema(EmaSettings(decay=0.9), {"offload_optimizer": None})
    with pytest.raises(DataError, match=r"found ema.decay = 0.9 with .*device = nvme; expected .* Offload to the cpu, or leave ema.decay"):
        averaging.check_ema(EmaSettings(decay=0.9), {"offload_optimizer": {"device": "nvme"}})
