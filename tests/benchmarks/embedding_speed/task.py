"""What all ways of embedding work on: the queries and candidates of some rows of every set, with their pictures as plain RGB files."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from data_prep.embedded import corpus
from data_prep.images import open_image
from data_prep.samples import ImageRef, Side
from data_prep.sources.mmeb_eval import EvalSet
from pipeline.model.base import write_base
from pipeline.model.chorus import add_chorus
from tests.benchmarks.throughput.task import SIZES


@dataclass(frozen=True)
class Task:
    """Sides in the order in which the rows name them: a query, its candidates, the next query."""

    sides: list[Side]
    """Every occurrence."""
    ends: list[int]
    """Where each row ends."""

    @cached_property
    def distinct(self) -> list[Side]:
        """Each side once, in order of appearance."""
        return list(dict.fromkeys(self.sides))

    @cached_property
    def place(self) -> list[int]:
        """For every occurrence its place in `distinct`."""
        number = {side: i for i, side in enumerate(self.distinct)}
        return [number[side] for side in self.sides]

    @property
    def rows(self) -> list[slice]:
        """Where each row's sides are."""
        return [slice(start, end) for start, end in pairwise([0, *self.ends])]


def make_task(sets: list[EvalSet], rows: int, candidates: int, folder: Path) -> Task:
    """The first `rows` rows of every set, each with its first `candidates`; pictures are written anew to `folder`.

    The library drops what says how a palette's transparency is meant, so the two would see different pictures in the original files.
    """
    copies: dict[ImageRef, ImageRef] = {}
    sides: list[Side] = []
    ends: list[int] = []
    for eval_set in sets:
        for row in eval_set.rows[:rows]:
            sides += [_plain(side, copies, folder) for side in (row.query, *row.candidates[:candidates])]
            ends.append(len(sides))
    return Task(sides, ends)


def _plain(side: Side, copies: dict[ImageRef, ImageRef], folder: Path) -> Side:
    for ref in side.images:
        if ref not in copies:
            copies[ref] = ImageRef(f"{len(copies):06}.png", folder)
            open_image(ref).save(folder / copies[ref].name)
    return Side(side.text, tuple(copies[ref] for ref in side.images))


def duplication(sets: list[EvalSet]) -> tuple[int, int]:
    """Sides that all rows name, and how many of them differ within their set (evaluation keeps sets apart)."""
    named = [[side for row in eval_set.rows for side in (row.query, *row.candidates)] for eval_set in sets]
    return sum(map(len, named)), sum(len(set(sides)) for sides in named)


def write_checkpoint(size: str, sides: list[Side], folder: Path) -> Path:
    """Random weights with chorus tokens, and a tokenizer that knows the words of the sides."""
    write_base(folder / "base", [*corpus(0), *{side.text for side in sides if side.text}], SIZES[size])
    add_chorus(folder / "base", folder / "crem")
    return folder / "crem"
