"""Evaluation: queries of a part, and for each the candidates among which the right target must be found.

Invariant: candidate 0 is the right one, no other candidate means the same, and no two candidates of a row mean the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from data_prep.embedded.pairs import Half, Pair, Task
from data_prep.embedded.sampling import stream
from data_prep.embedded.scenes import Part


@dataclass(frozen=True)
class Trial:
    """One evaluation row: a query and its candidates, the right one first and the others shuffled."""

    query: Half
    candidates: tuple[Half, ...]


def trials(task: Task, part: Part, queries: int, seed: int) -> Iterator[Trial]:
    """`queries` evaluation rows of a task.

    Closed tasks offer all labels of the part. Open ones draw `task.pool` candidates from a bank that all rows share, so that
    an image is stored once however often it is a candidate.
    """
    if task.choices:
        pairs = _pairs(task, part, queries, 0, seed)[0]
        bank = {label: Half(label, meaning=label) for label in task.choices(part)}
        size = len(bank)
    else:
        pairs, bank = _pairs(task, part, queries, task.pool, seed)
        size = task.pool
    for index, pair in enumerate(pairs[:queries]):
        yield Trial(pair.query, _candidates(pair, bank, size, stream(seed, task.name, part, "pool", index)))


def _pairs(task: Task, part: Part, queries: int, meanings: int, seed: int) -> tuple[list[Pair], dict[str, Half]]:
    """At least so many pairs, and the first target of each meaning, at least so many of these too."""
    pairs: list[Pair] = []
    bank: dict[str, Half] = {}
    for index in count():
        if len(pairs) >= queries and len(bank) >= meanings:
            return pairs, bank
        made = task.make(stream(seed, task.name, part, index), part)
        pairs += made
        for pair in made:
            for half in (pair.target, pair.negative):
                if half:
                    bank.setdefault(half.meaning, half)
    raise AssertionError("unreachable")


def _candidates(pair: Pair, bank: dict[str, Half], size: int, rng: Random) -> tuple[Half, ...]:
    near = [pair.negative] if pair.negative else []
    taken = {pair.target.meaning, *(half.meaning for half in near)}
    others = near + rng.sample([half for meaning, half in bank.items() if meaning not in taken], size - 1 - len(near))
    rng.shuffle(others)
    return (pair.target, *others)
