"""What every source shares: the `Part`, and how one bad row is set aside without losing its neighbours.

Invariant: a problem of one row becomes a `Rejected` in that row's place; a problem of a file raises `DataError`. So
rows in = samples + rejects, always.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.images import ImageError, resolve
from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side

PLACEHOLDER = re.compile(r"<\|image_\d+\|>")
"""MMEB's image marker (Phi-3's); it stands on texts with and, in WebQA and EDIS, without an image."""

ROWS_PROBED = 1024
"""Rows looked at for image paths, to find out which folder image paths are relative to."""


@dataclass(frozen=True)
class Part:
    """One readable file of a corpus, or its rows of one kind: rows [0, rows) of those.

    source: corpus and set, e.g. "mmeb_train/ChartQA"; batches of one source are built from it
    reader: name of the module in `data_prep.sources` that reads it
    root: folder that image paths are relative to
    split: the part of a sample id between source and row number; "" when the corpus has no splits
    first: number of row 0 within source and split, when several files make up one set
    kind: which of the file's rows these are, where a file is read as several parts; "" is all of them
    """

    source: str
    reader: str
    path: Path
    rows: int
    root: Path
    split: str = ""
    first: int = 0
    kind: str = ""

    def row_id(self, row: int) -> str:
        """The id of row `row` of this file: unique, and stable as long as the file is."""
        return "/".join(filter(None, (self.source, self.split, str(self.first + row))))


@dataclass(frozen=True)
class Unusable:
    """A file of a corpus that cannot be read at all: in the place of its part, so that the others can be looked at."""

    source: str
    path: Path
    reason: str


def usable(source: str, path: Path, make: Callable[[], Iterable[Part]]) -> Iterator[Part | Unusable]:
    """The parts that `make` gives for one file; its `DataError` becomes an `Unusable`."""
    try:
        yield from make()
    except DataError as error:
        yield Unusable(source, path, str(error))


class RowError(ValueError):
    """One row that cannot be used; the message is the `Rejected.reason`: a short stable code, a colon, the detail."""


def convert(part: Part, rows: Iterable[tuple[int, object]], make: Callable[[Part, int, object], RawSample]) -> Iterator:
    """`make(part, row number, row)` for every row; a `RowError` becomes a `Rejected` in its place."""
    for number, row in rows:
        try:
            yield make(part, number, row)
        except RowError as error:
            yield Rejected(part.row_id(number), part.source, str(error))


def check_range(part: Part, start: int, stop: int, rows: int) -> None:
    """Refuses a slice outside the part, and a file that is not the one `discover` saw (`rows`: its length now)."""
    if rows != part.rows:
        raise DataError(
            f"{part.path}: found {rows} rows, expected {part.rows} as when it was discovered; run discovery again"
        )
    if not 0 <= start <= stop <= rows:
        raise ValueError(f"{part.path}: slice [{start}, {stop}) of {rows} rows")


def plain(text: str | None) -> str:
    """MMEB text as a model should see it: no image marker, no outer whitespace."""
    return PLACEHOLDER.sub("", text or "").strip()


def words(text: str) -> str:
    """The words of a text, lower case, one space between, without punctuation: texts that agree in this say the same."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def side(text: str | None, paths: str | list[str] | None, root: Path) -> Side:
    """A side of MMEB's two columns; an empty or null path means no image, a list several."""
    names = [paths] if isinstance(paths, str) else paths or []
    return Side(plain(text), tuple(ImageRef(name, root) for name in names if name))


def required_side(name: str, text: str | None, paths: str | list[str] | None, root: Path) -> Side:
    """As `side`, but neither text nor image is a `RowError`."""
    made = side(text, paths, root)
    if made.empty:
        raise RowError(f"empty_side: {name} has neither text nor image")
    return made


def image_base(where: Path, names: Iterable[str], candidates: Iterable[Path | None]) -> Path:
    """The first of `candidates` (None: skipped) below which one of the images `names` exists; the first at all without names.

    Some images of a corpus may be missing, so one that is there decides; `names` is read only as far as needed.

    Raises:
        DataError: none of them is below any candidate; the message names `where` and where the first was looked for.
    """
    roots = [root for root in candidates if root is not None]
    tried: list[str] = []
    first, looked_at = None, 0
    for looked_at, name in enumerate(dict.fromkeys(names), 1):  # noqa: B007
        first = first or name
        for root in roots:
            try:
                resolve(ImageRef(name, root))
                return root
            except ImageError as error:
                if name == first:
                    tried.append(f"{root / name} ({error.code})")
    if first is None:
        return roots[0]
    others = f", and {looked_at - 1} others neither" if looked_at > 1 else ""
    raise DataError(
        f"{where}: its first image {first!r} was not found; tried {', '.join(tried)}{others}. "
        "Unpack the images there, or name the folder that image paths are relative to as image root"
    )


def visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by name, without hidden ones and macOS leftovers (`._*`)."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
