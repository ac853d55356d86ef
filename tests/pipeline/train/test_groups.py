"""Which weights are in which group; that DeepSpeed and plain PyTorch then take the same steps is test_zero's and test_balance's matter."""

import pytest
import torch

from pipeline.config import ModelSettings, RunConfig
from pipeline.model.crem import Crem, load_backbone
from pipeline.model.trainable import make_trainable
from pipeline.train.groups import parameter_groups, rate_shares, set_rates


@pytest.fixture
def backbone(checkpoint):
    return load_backbone(checkpoint, torch.float32)


def names(model: Crem, group: dict) -> set[str]:
    inside = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def test_matrices_decay_and_vectors_do_not(backbone) -> None:
    model = Crem(backbone, learn_temperature=True)
    matrices, vectors = parameter_groups(model, 0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in matrices["params"]) and all(parameter.ndim == 1 for parameter in vectors["params"])
    assert "temperature.log_scale" in names(model, vectors)
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_each_part_takes_its_own_rate(backbone) -> None:
    model = Crem(backbone, learn_temperature=True)
    groups = parameter_groups(model, 0.1, {"embedding": 5.0, "vision": 0.5, "temperature": 25.0})
    shares = {(group["rate_share"], group["weight_decay"]): names(model, group) for group in groups}
    assert shares.keys() == {(5.0, 0.1), (0.5, 0.1), (0.5, 0.0), (25.0, 0.0), (1.0, 0.1), (1.0, 0.0)}
    assert shares[5.0, 0.1] == {"backbone.model.language_model.embed_tokens.weight"}
    assert shares[25.0, 0.0] == {"temperature.log_scale"}
    assert all(name.startswith("backbone.model.visual.") for key in ((0.5, 0.1), (0.5, 0.0)) for name in shares[key])
    assert all(name.startswith("backbone.model.language_model.") for key in ((1.0, 0.1), (1.0, 0.0)) for name in shares[key])
    assert sum(map(len, shares.values())) == len(list(model.parameters()))


def test_the_chorus_of_adapters_has_a_rate(backbone) -> None:
    model = make_trainable(backbone, ModelSettings(train="lora"), seed=0)
    groups = parameter_groups(model, 0.1, {"chorus": 10.0, "vision": 2.0})
    assert {group["rate_share"]: names(model, group) for group in groups}[10.0] == {"chorus.rows"}
    assert {group["rate_share"] for group in groups} == {10.0, 1.0}  # no group for the frozen tower


def test_every_rate_follows_the_schedule() -> None:
    config = RunConfig.model_validate({"optim": {"learning_rate": 1e-3, "rates": {"embedding": 4e-3, "vision": 5e-4}}})
    assert rate_shares(config) == {"embedding": 4.0, "vision": 0.5}
    assert rate_shares(RunConfig()) == {}
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weights[0]], "rate_share": 4.0}, {"params": [weights[1]], "rate_share": 1.0}])
    set_rates(optimizer, 2.5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 2.5e-4]
