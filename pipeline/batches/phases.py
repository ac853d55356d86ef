"""Whose turn it is: sources in a cycle, and what becomes of the cycle when a source has had all its turns.

Sources take turns in a fixed cycle that holds each in proportion to its weight, spread evenly. A source with a limit is left out after
its last turn, and the others go on in a cycle of their own, so turns fall into phases, one more than there are such sources. When the
first of a phase's sources will have had its last turn follows from the cycle by division, hence so does where the phase ends and how many
turns every source has then had: all phases are known at the start, and any turn is found in constant time, however far it lies.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

CYCLE = 240
"""Turns in a cycle of sources, the resolution of the weights; with more sources, the least multiple that gives each a turn."""


@dataclass(frozen=True)
class Phase:
    """Turns start .. stop - 1 (stop None: without end), in which the same sources take turns in one cycle."""

    start: int
    stop: int | None
    ends: int | None
    """The source that has its last turn at the phase's end."""
    cycle: Sequence[int]
    """Source numbers."""
    places: Mapping[int, Sequence[int]]
    """Where in the cycle a source has its turns."""
    before: Sequence[int]
    """Turns that each source had before the phase."""

    def turns(self, source: int, turn: int) -> int:
        """How many turns a source has had before `turn`, which lies in this phase or at its end."""
        cycles, place = divmod(turn - self.start, len(self.cycle))
        own = self.places.get(source, ())
        return self.before[source] + cycles * len(own) + bisect_left(own, place)


def phases(weights: Sequence[float], quotas: Sequence[int | None]) -> Iterator[Phase]:
    """The phases of a plan.

    Args:
        weights: by source, positive.
        quotas: turns that a source has in all, at least 1; None: no limit.
    """
    start, before, left = 0, [0] * len(weights), list(range(len(weights)))
    while left:
        size = CYCLE * -(-len(left) // CYCLE)
        cycle = [left[i] for i in interleave(apportion([weights[i] for i in left], size))]
        places: dict[int, list[int]] = {i: [] for i in left}
        for place, owner in enumerate(cycle):
            places[owner].append(place)
        lasts = []
        for i in left:
            if (quota := quotas[i]) is not None:
                cycles, last = divmod(quota - before[i] - 1, len(places[i]))
                lasts.append((start + cycles * size + places[i][last] + 1, i))
        stop, ends = min(lasts, default=(None, None))
        phase = Phase(start, stop, ends, cycle, places, before)
        yield phase
        if stop is None:
            return
        start, before = stop, [phase.turns(i, stop) for i in range(len(weights))]
        left = [i for i in left if i != ends]


def apportion(weights: Sequence[float], seats: int) -> list[int]:
    """Whole seats in proportion to weights (largest remainder); they add up to `seats`.

    A weight too light for a seat of its own gets one all the same; the others share what is left.
    """
    sharing: list[int] = []
    heavy = list(range(len(weights)))
    while heavy != sharing:
        sharing = heavy
        left = seats - (len(weights) - len(sharing))
        total = sum(weights[i] for i in sharing)
        heavy = [i for i in sharing if weights[i] * left >= total]
    exact = [1.0] * len(weights)
    for i in sharing:
        exact[i] = left * weights[i] / total
    out = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (out[i] - exact[i], i))
    for i in by_remainder[: seats - sum(out)]:
        out[i] += 1
    return out


def interleave(turns: Sequence[int]) -> list[int]:
    """A sequence in which number i occurs turns[i] times, each evenly spread."""
    stamped = [((k + 0.5) / count, i) for i, count in enumerate(turns) for k in range(count)]
    return [i for _, i in sorted(stamped)]
