"""Which rows a step trains on: a pure function of (sources, weights, seed, step).

No state, no replay: step n is computed in constant time and memory, on any number of ranks, after any restart. Every source is read in
a fresh pseudo-random order each epoch (a keyed permutation of 0 .. n-1, not a shuffled list), and sources take turns in a fixed cycle
that holds each in proportion to its weight, spread evenly.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.samples import DataError

CYCLE = 240
"""Turns in a cycle of sources: the resolution of the weights."""

MASK64 = 2**64 - 1


@dataclass(frozen=True)
class SourceRows:
    """Rows [first, first + count) of the data set belong to `name`."""

    name: str
    first: int
    count: int


def hash64(*parts: int | str) -> int:
    """A 64-bit hash that is the same in every process and on every machine."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def draw(probability: float, *key: int | str) -> bool:
    """One Bernoulli draw that depends on its key alone (z of CREM: keyed by seed, step and sample id)."""
    return hash64("bernoulli", *key) < probability * 2.0**64


def choose(options: Sequence[int], *key: int | str) -> int:
    """One uniform draw from `options` that depends on its key alone (k of the elastic chorus: keyed by seed and step)."""
    return options[hash64("choice", *key) * len(options) >> 64]


def permute(index: int, count: int, key: int) -> int:
    """Where `index` goes in the pseudo-random permutation of range(count) that `key` selects.

    A four-round Feistel network over the smallest even number of bits that holds `count`, walked until the value lies in range.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for round_number in range(4):
            left, right = right, left ^ (_mix(right + (round_number << 40) + key) & low)
        index = left << half | right
        if index < count:
            return index


def _mix(value: int) -> int:
    """splitmix64's finalizer."""
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK64
    return value ^ value >> 31


class Mixture:
    """An endless, random-access stream of row numbers over weighted sources.

    Args:
        sources: where each source's rows lie.
        weights: relative weight by source name; a source without one is left out.
        group: rows taken from one source at a turn (one-source sub-batches).
        seed: selects the orders.

    Raises:
        ValueError: no source has a positive weight, or there are more sources than turns in a cycle.
    """

    def __init__(self, sources: Sequence[SourceRows], weights: Mapping[str, float], group: int, seed: int):
        self.sources = [s for s in sources if weights.get(s.name, 0.0) > 0 and s.count > 0]
        if not self.sources or len(self.sources) > CYCLE:
            raise DataError(f"found {len(self.sources)} sources with rows and a positive weight; expected 1 to {CYCLE}")
        self.group = group
        self.seed = seed
        turns = apportion([weights[s.name] for s in self.sources], CYCLE)
        self._cycle = interleave(turns)
        self._turns = [[t for t, owner in enumerate(self._cycle) if owner == s] for s in range(len(self.sources))]

    def rows(self, turn: int, turns: int) -> list[int]:
        """Row numbers of `turns` consecutive turns from `turn` on: turns x group of them."""
        return [row for t in range(turn, turn + turns) for row in self._turn(t)]

    def _turn(self, turn: int) -> list[int]:
        cycle, place = divmod(turn, CYCLE)
        number = self._cycle[place]
        own = self._turns[number]
        taken = (cycle * len(own) + bisect_left(own, place)) * self.group
        return [self._row(self.sources[number], taken + i) for i in range(self.group)]

    def _row(self, source: SourceRows, position: int) -> int:
        epoch, index = divmod(position, source.count)
        return source.first + permute(index, source.count, hash64(self.seed, source.name, epoch))


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
