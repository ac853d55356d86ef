"""Which rows a step trains on: a pure function of (sources, weights, caps, epochs, seed, step).

No state, no replay: step n is computed in constant time and memory, on any number of ranks, after any restart. Every source is read in
a fresh pseudo-random order each epoch (a keyed permutation of 0 .. n-1, not a shuffled list), and sources take turns in a fixed cycle
that holds each in proportion to its weight, spread evenly. A cap keeps a source to the first rows of one more such permutation.

A source that may be read only so often is left out when it has had its turns, and the others share them (`phases`).
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.samples import DataError
from pipeline.batches.phases import Phase, phases

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
    """A random-access stream of row numbers over weighted sources, without end unless every source has a limit.

    Args:
        sources: where each source's rows lie.
        weights: relative weight by source name; a source without one is left out.
        group: rows taken from one source at a turn (one-source sub-batches).
        seed: selects the orders, and the rows of a capped source.
        caps: the most distinct rows used, by source name.
        epochs: passes over a source's used rows, by source name, after which it is left out (whole groups, rounded down).

    Raises:
        DataError: no source has a positive weight, or one may not even give a single group.
    """

    def __init__(
        self,
        sources: Sequence[SourceRows],
        weights: Mapping[str, float],
        group: int,
        seed: int,
        caps: Mapping[str, int] | None = None,
        epochs: Mapping[str, float] | None = None,
    ):
        self.sources = [s for s in sources if weights.get(s.name, 0.0) > 0 and s.count > 0]
        if not self.sources:
            raise DataError("found 0 sources with rows and a positive weight; expected at least 1")
        self.group = group
        self.seed = seed
        self.weights = [weights[s.name] for s in self.sources]
        self.used = [used_rows(s, caps or {}) for s in self.sources]
        quotas = [self._quota(i, (epochs or {}).get(s.name)) for i, s in enumerate(self.sources)]
        self.phases = list(phases(self.weights, quotas))
        self._starts = [phase.start for phase in self.phases]

    @property
    def turns(self) -> int | None:
        """Turns there are; None where they never end."""
        return self.phases[-1].stop

    def rows(self, turn: int, turns: int) -> list[int]:
        """Row numbers of `turns` consecutive turns from `turn` on: turns x group of them.

        Raises:
            IndexError: every source has had its last turn before.
        """
        return [row for t in range(turn, turn + turns) for row in self._turn(t)]

    def taken(self, turn: int) -> list[int]:
        """Rows that each source has given before `turn`, repeated ones included."""
        phase = self._phase(turn - 1) if turn else self.phases[0]
        return [phase.turns(i, turn) * self.group for i in range(len(self.sources))]

    def ended(self, turn: int, turns: int) -> list[str]:
        """Names of the sources whose last turn is one of `turns` consecutive ones from `turn` on."""
        return [self.sources[p.ends].name for p in self.phases if p.stop is not None and turn < p.stop <= turn + turns]

    def _quota(self, number: int, epochs: float | None) -> int | None:
        if epochs is None:
            return None
        name, used = self.sources[number].name, self.used[number]
        # a product such as 0.29 x 100 may fall short of the whole number that is meant
        turns = int(round(epochs * used, 6)) // self.group
        if not turns:
            raise DataError(
                f"data.epochs: {epochs:g} passes over {name}'s {used} rows are less than one sub-batch of {self.group}; raise them, "
                "or leave the source out with a weight of 0"
            )
        return turns

    def _phase(self, turn: int) -> Phase:
        phase = self.phases[bisect_right(self._starts, turn) - 1]
        if phase.stop is not None and turn >= phase.stop:
            raise IndexError(f"turn {turn}: every source has had its last turn before; there are {self.turns}")
        return phase

    def _turn(self, turn: int) -> list[int]:
        phase = self._phase(turn)
        number = phase.cycle[(turn - phase.start) % len(phase.cycle)]
        taken = phase.turns(number, turn) * self.group
        return [self._row(number, taken + i) for i in range(self.group)]

    def _row(self, number: int, position: int) -> int:
        source, used = self.sources[number], self.used[number]
        epoch, index = divmod(position, used)
        place = permute(index, used, hash64(self.seed, source.name, epoch))
        if used < source.count:
            place = permute(place, source.count, hash64(self.seed, source.name, "cap"))
        return source.first + place


def used_rows(source: SourceRows, caps: Mapping[str, int]) -> int:
    """Distinct rows of a source that a run may see."""
    return min(source.count, caps.get(source.name, source.count))
