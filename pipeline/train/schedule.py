"""The learning rate as a pure function of the step: resume needs no scheduler state."""

import math

from pipeline.config import OptimSettings


def learning_rate(optim: OptimSettings, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`: linear warm-up, then cosine, linear or constant down to final_share of the peak."""
    warmup = max(1, round(optim.warmup_share * steps))
    if step < warmup:
        return optim.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    remaining = {
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "linear": 1 - progress,
        "constant": 1.0,
    }[optim.schedule]
    share = optim.final_share + (1 - optim.final_share) * remaining
    return optim.learning_rate * (1.0 if optim.schedule == "constant" else share)
