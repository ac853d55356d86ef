"""AdamW's parameter groups: what decays, and whose learning rate is its own.

A model has four parts (embedding, vision, chorus, temperature) that may learn at a rate of their own, and the rest. Every rate follows
one schedule, so a group stores its share of the step's rate.
"""

import torch

from pipeline.config import RunConfig
from pipeline.model.crem import Crem

RATE_SHARE = "rate_share"
"""A parameter group's learning rate in units of the step's."""


def rate_shares(config: RunConfig) -> dict[str, float]:
    """Part -> its peak rate in units of optim.learning_rate, for the parts that have a rate of their own."""
    rates = config.optim.rates.model_dump()
    return {part: rate / config.optim.learning_rate for part, rate in rates.items() if rate is not None}


def parameter_groups(model: Crem, weight_decay: float, shares: dict[str, float] | None = None) -> list[dict]:
    """Matrices with weight decay, vectors (biases, norms, the temperature) without, for each rate; no empty group, which DeepSpeed drops.

    Args:
        shares: as `rate_shares` returns them. A part without trained parameters (a frozen tower) takes up no group.
    """
    shares = shares or {}
    part_of = {id(parameter): part for part in shares for parameter in _part(model, part)}
    groups: dict[tuple[float, bool], list] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            # under ZeRO-3 a partitioned parameter's own shape is flat; ds_shape keeps the real one
            decays = len(getattr(parameter, "ds_shape", parameter.shape)) > 1
            groups.setdefault((shares.get(part_of.get(id(parameter)), 1.0), decays), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, RATE_SHARE: share}
        for (share, decays), parameters in groups.items()
    ]


def _part(model: Crem, part: str) -> list[torch.nn.Parameter]:
    if part == "embedding":  # one matrix where output and input embedding are tied
        tables = (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings())
        return [table.weight for table in tables]
    module = {"vision": model.backbone.model.visual, "chorus": model.chorus, "temperature": model.temperature}[part]
    return [] if module is None else list(module.parameters())


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The rate of this step, in every group its own share of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group[RATE_SHARE]
