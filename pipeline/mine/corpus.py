"""A subset's rows as numbered sides: every distinct target, then every distinct query that is not a target as well.

A side counts as the same as another when words and pixels agree, wherever the picture's file lies.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from data_prep import sources
from data_prep.samples import RawSample, Rejected, Side
from data_prep.sources import Part
from data_prep.sources.common import words

INSTRUCTION = 20
"""A text that more targets with pictures than this share, or more than half of them, is an instruction ("Represent the given image.") and
no meaning that they have in common."""


@dataclass(frozen=True)
class Corpus:
    """One subset. `rows`: all of its rows in reading order; `sides[:targets]` are the candidates."""

    rows: tuple[RawSample | Rejected, ...]
    sides: tuple[Side, ...]
    targets: int

    @cached_property
    def number(self) -> dict[Side, int]:
        """Place of every side in `sides`."""
        return {side: number for number, side in enumerate(self.sides)}


def read_corpus(parts: Sequence[Part]) -> Corpus:
    """Read the parts of one subset; rows that a source rejects stay in their places."""
    rows = tuple(row for part in parts for row in sources.read(part, 0, part.rows))
    pairs = [row for row in rows if isinstance(row, RawSample)]
    targets = dict.fromkeys(row.positive for row in pairs)
    sides = targets | dict.fromkeys(row.query for row in pairs)
    return Corpus(rows, tuple(sides), len(targets))


class Sameness:
    """Which targets must never be a row's negative, since they say or show what a positive of its query does.

    Args:
        digests: for every side of the corpus its pictures' digests.
    """

    def __init__(self, corpus: Corpus, digests: Sequence[tuple[str, ...]]):
        self.corpus, self.digests = corpus, digests
        targets = range(corpus.targets)
        shared = Counter(self._text(n) for n in targets if digests[n])
        self._instructions = {text for text, count in shared.items() if count > min(INSTRUCTION, shared.total() / 2)}
        self._by_trait: dict[str, set[int]] = defaultdict(set)
        for n in targets:
            for trait in self._traits(n):
                self._by_trait[trait].add(n)
        self._by_query: dict[tuple, set[int]] = defaultdict(set)
        for row in corpus.rows:
            if isinstance(row, RawSample):
                self._by_query[self._query(row)].add(corpus.number[row.positive])

    def never(self, row: RawSample) -> set[int]:
        """Targets that share a text or a picture with the query or one of its positives (in any row), and the row's own negatives."""
        alike = self._by_query[self._query(row)] | {self.corpus.number[row.query]}
        own = {self.corpus.number[side] for side in row.negatives if side in self.corpus.number}
        return {n for number in alike for trait in self._traits(number) for n in self._by_trait.get(trait, ())} | own

    def _query(self, row: RawSample) -> tuple:
        number = self.corpus.number[row.query]
        return self._text(number), self.digests[number]

    def _traits(self, number: int) -> list[str]:
        """What a side is recognised by: its pictures, and its text unless that is an instruction beside a picture."""
        text, pictures = self._text(number), self.digests[number]
        return [*pictures, *([] if pictures and (not text or text in self._instructions) else [f"text {text}"])]

    def _text(self, number: int) -> str:
        text = self.corpus.sides[number].text
        return words(text) or text
