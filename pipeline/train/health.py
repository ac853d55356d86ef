"""Signs that a run is unwell, found in numbers that it has anyway: loss spikes, a collapse, a slow rank. No torch, no ranks, no output.

The functions are pure; `Watch` remembers what they need from step to step, and what has been said already.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_low

from pipeline.losses.geometry import COLLAPSED_RANK, Geometry

WINDOW, ENOUGH = 100, 20
"""Finite losses looked back on, and how many there must be before a spike can be told from the usual scatter."""
SPIKE = 8.0
"""Robust standard deviations above the median that make a spike."""
SLOW_SHARE = 1 / 3
"""A rank is called slow that needs half as long again as the usual rank: a third of its time is what others would not need."""


def spike(past: Sequence[float], value: float) -> float | None:
    """How many robust standard deviations `value` lies above the median of `past`, where that makes it a spike; None where not.

    The deviation is 1.4826 x the median distance from the median (consistent for a normal distribution; Rousseeuw & Croux 1993), but at
    least 2 % of the median: a loss that hardly scatters would make a spike of every ripple. A falling loss never spikes.
    """
    if len(past) < ENOUGH or not math.isfinite(value):
        return None
    middle = median(past)
    deviation = max(1.4826 * median(abs(loss - middle) for loss in past), 0.02 * abs(middle), 1e-12)
    height = (value - middle) / deviation
    return height if height > SPIKE else None


@dataclass(frozen=True)
class Slowest:
    """The rank that takes longest, and the share of its time that the usual rank (lower median) does not need: 0 where all are alike."""

    rank: int
    share: float


def slowest(seconds: Sequence[float]) -> Slowest:
    """Of every rank's time for the same work, in rank order."""
    rank = max(range(len(seconds)), key=lambda r: seconds[r])
    usual = median_low(seconds)
    return Slowest(rank, 1 - usual / seconds[rank] if seconds[rank] > 0 else 0.0)


class Watch:
    """What a run's numbers say about its health. Each method returns a warning in plain words, or None."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self.spiking = False
        """Whether the latest loss was a spike."""
        self._collapse_said = False
        self._slow_before: int | None = None
        self._slow_said: set[int] = set()

    def loss(self, step: int, value: float) -> str | None:
        """A step's loss; of spikes in a row the first is told. They stay in the window, so that a new level soon is the usual one."""
        height, before = spike(self._losses, value), self.spiking
        self.spiking = height is not None
        usual = median(self._losses) if self._losses else math.nan
        if math.isfinite(value):
            self._losses.append(value)
        if height is None or before:
            return None
        return (
            f"warning: step {step}: loss spike: {value:.3f}, usual {usual:.3f} ({height:.0f} robust deviations above the last "
            f"{WINDOW} steps' median).\n"
            "  One alone does no harm. After several try a lower --optim.learning-rate or --optim.clip, or look at those steps' rows."
        )

    def ranks(self, step: int, seconds: Sequence[float]) -> str | None:
        """Every rank's time for the same work; a rank is named once, when it was the slow one at two looks in a row."""
        found = slowest(seconds)
        slow = found.rank if found.share > SLOW_SHARE else None
        named = slow is not None and slow == self._slow_before and slow not in self._slow_said
        self._slow_before = slow
        if not named:
            return None
        self._slow_said.add(slow)
        return (
            f"warning: step {step}: rank {slow} is slow: {found.share:.0%} of its computing time is more than the usual rank needs for the "
            "same tokens, and all others wait for it.\n  Look for another job on its machine, a throttled device, swapping. "
            "This is said once; speed/slowest_rank and speed/slowest_share are recorded on."
        )

    def geometry(self, step: int, geometry: Geometry | None) -> str | None:
        """How the step's embeddings lie; a collapse is said once."""
        if geometry is None or not geometry.collapsed or self._collapse_said:
            return None
        self._collapse_said = True
        return collapse_warning(step, geometry)


def collapse_warning(step: int, geometry: Geometry) -> str:
    """What it means, in plain words, that embeddings vary along hardly any direction, and what to try."""
    return (
        f"warning: step {step}: embeddings have collapsed: effective rank {geometry.effective_rank:.1f} of {geometry.full_rank} "
        f"(expected: {COLLAPSED_RANK:.1f} or more).\n"
        "  They differ along hardly any direction, so retrieval cannot tell most candidates apart, however low the loss.\n"
        "  Try: a lower --optim.learning-rate, a longer --optim.warmup-share, a higher --loss.temperature, more --batch.pairs, or several "
        "sources in a step (a smaller --batch.sub-batch). This is said once; geometry/effective_rank is recorded on."
    )
