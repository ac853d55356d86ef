"""An exponential moving average of the weights (EMA; Polyak and Juditsky 1992), a further state of AdamW beside its moments.

    a_t = w_t                                       for t <= max(1, update_after_step)
    a_t = decay * a_(t-1) + (1 - decay) * w_t       afterwards

t counts updates. w is what AdamW updates: the float32 masters, under ZeRO this rank's own part of them. So the average follows without a
collective, and only where an update took place; a refused step has none. As a state of the optimizer it is saved, digested, resumed and
dealt out to other layouts as the moments are. Training reads it nowhere.

The first value and the recurrence are those of `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from data_prep.samples import DataError
from pipeline.config import EmaSettings

AVERAGE = "ema"
"""Its key in a parameter's optimizer state: float32, the parameter's shape."""
BLOCK = 2**24
"""Elements exchanged at a time."""


def check_ema(ema: EmaSettings, zero: Mapping) -> None:
    """Refuse an average where the "zero_optimization" part of a DeepSpeed config keeps optimizer states on a disk.

    Raises:
        DataError: it does; DeepSpeed swaps the states it knows, and an average would stay behind.
    """
    device = (zero.get("offload_optimizer") or {}).get("device")
    if ema.decay is not None and device == "nvme":
        raise DataError(
            f"found ema.decay = {ema.decay} with zero_optimization.offload_optimizer.device = nvme; expected an average in memory, beside "
            "AdamW's moments, or it cannot follow. Offload to the cpu, or leave ema.decay out"
        )


def follow(optimizer: Optimizer, ema: EmaSettings) -> None:
    """From now on, every update by this AdamW moves the average of what it updated; nothing where no decay is set."""
    if ema.decay is not None:
        optimizer.register_step_post_hook(lambda *_: update(optimizer, ema.decay, ema.update_after_step))


@torch.no_grad()
def update(optimizer: Optimizer, decay: float, update_after_step: int) -> None:
    """Move the averages of what the optimizer holds now (ZeRO hands it one part after another)."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state.get(weight)
            if not state:  # without a gradient so far: never updated
                continue
            if AVERAGE not in state:
                state[AVERAGE] = weight.detach().clone()
            # the share is computed where the step counter lies: a GPU is not waited for
            share = torch.where(state["step"] <= update_after_step, 1.0, 1.0 - decay)
            state[AVERAGE].lerp_(weight, share)


@torch.no_grad()
def exchange(optimizer: Optimizer) -> None:
    """Weights take the place of their averages and the other way round, bit for bit; a second call undoes the first."""
    for weight, state in optimizer.state.items():
        if AVERAGE in state:
            for ours, theirs in zip(_blocks(weight.detach()), _blocks(state[AVERAGE]), strict=True):
                kept = ours.clone()
                ours.copy_(theirs)
                theirs.copy_(kept)


def _blocks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Views of all its elements."""
    return tensor.view(-1).split(BLOCK)
