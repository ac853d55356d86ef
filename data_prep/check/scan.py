"""Look at some rows of one source: read them as the job does, and open their images as the job does.

With a checkpoint the job's own encoder looks at every row that is opened. Without one, lengths are bounded from above: a byte is at most
a token, and an image has at most one token for every 28 x 28 pixels (the smallest image token of the supported families).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from pathlib import Path

from data_prep import sources
from data_prep.images import ImageError, open_image, resolve
from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side

EXAMPLES = 3
"""Examples kept of every reason."""
MISSING = ("missing", "outside_root", "not_a_file")
"""Codes of images that are not there, or not where they may be read; all others are there but unreadable."""

_FRAME = 64 + 256
"""Tokens of a chorus and of the chat format, at most; and 16 for every further turn."""
_SMALLEST_SIDE, _SMALLEST_IMAGE = 28, 256
"""Pixels a side of an image token at least; tokens that a tiny image is blown up to at most (65536 pixels, rounded up)."""


@dataclass(frozen=True)
class Look:
    """How to look.

    every: open the images of every so many rows; of the others only whether they are there
    checkpoint: whose encoder decides; None bounds lengths instead
    encode: the encoder's settings (`encode.EncodeSettings`), as plain values
    max_tokens: longest sequence
    """

    every: int = 1
    checkpoint: str | None = None
    encode: tuple[tuple[str, int | None], ...] = ()
    max_tokens: int = 4096


@dataclass
class Findings:
    """What was found in rows of one source. `aside` counts rows; `reasons` count what is wrong, by code, with some examples."""

    rows: int = 0
    images: int = 0
    opened: int = 0
    missing: int = 0
    unreadable: int = 0
    aside: int = 0
    maybe_long: int = 0
    unopened_rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, row_id: str) -> None:
        """Count one reason, which begins with a code and a colon."""
        code = reason.split(":")[0]
        self._count(code, 1, [f"{row_id}: {reason}"])

    def join(self, other: "Findings") -> None:
        """Take up what was found in further rows."""
        for name in ("rows", "images", "opened", "missing", "unreadable", "aside", "maybe_long", "unopened_rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for code, count in other.reasons.items():
            self._count(code, count, other.examples[code])

    def _count(self, code: str, count: int, lines: list[str]) -> None:
        self.reasons[code] = self.reasons.get(code, 0) + count
        kept = self.examples.setdefault(code, [])
        kept += lines[: EXAMPLES - len(kept)]


def scan(part: sources.Part, start: int, stop: int, look: Look) -> Findings:
    """Look at rows [start, stop) of a part.

    Raises:
        DataError: the file is damaged, or has changed.
    """
    found = Findings()
    for number, row in enumerate(sources.read(part, start, stop), part.first + start):
        found.rows += 1
        if isinstance(row, Rejected):
            found.aside += 1
            found.add(row.reason, row.id)
            continue
        opening = number % look.every == 0
        bad = _images(row, opening, found)
        if opening and not bad:
            bad = _whole_row(row, look, found)
        found.aside += bad
        found.unopened_rows += not opening
    return found


def _images(row: RawSample, opening: bool, found: Findings) -> bool:
    """Look at every image of a row; whether one of them cannot be used."""
    bad = False
    for side in sides(row):
        for ref in side.images:
            found.images += 1
            found.opened += opening
            wrong = verdict(ref, opening)[0]
            if wrong:
                bad = True
                found.add(wrong, row.id)
                missing = wrong.split(":")[0] in MISSING
                found.missing += missing
                found.unreadable += not missing
    return bad


def _whole_row(row: RawSample, look: Look, found: Findings) -> bool:
    """Whether the encoder would set the row aside; without one, count rows that may be too long."""
    if look.checkpoint is None:
        if any(_no_unicode(text) for text in _texts(row)):
            found.add("text: a character that is no Unicode (a lone surrogate, as broken JSON escapes make them)", row.id)
            return True
        found.maybe_long += any(tokens_at_most(side, row if side is row.query else None) > look.max_tokens for side in sides(row))
        return False
    try:
        _encoder(look).sample(row)
    except DataError as error:
        found.add(str(error), row.id)
        return True
    return False


def _texts(row: RawSample) -> Iterator[str]:
    yield from (side.text for side in sides(row))
    yield from (text for turn in row.turns for text in (turn.question, turn.answer))


def _no_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def sides(row: RawSample) -> Iterator[Side]:
    """Query, positive and negatives, as far as the row has them."""
    yield row.query
    yield from filter(None, (row.positive, *row.negatives))


def tokens_at_most(side: Side, row: RawSample | None = None) -> int:
    """An upper bound of a sequence's tokens; `row` is the sample whose turns follow the side, if any do. Its images must be readable."""
    total = _FRAME + len(side.text.encode())
    for turn in row.turns if row else ():
        total += 16 + len(turn.question.encode()) + len(turn.answer.encode())
    for ref in side.images:
        width, height = verdict(ref, True)[1]
        total += 2 + max(_SMALLEST_IMAGE, ceil(width / _SMALLEST_SIDE) * ceil(height / _SMALLEST_SIDE))
    return total


def verdict(ref: ImageRef, opening: bool) -> tuple[str | None, tuple[int, int]]:
    """What is wrong with an image (None: nothing), and its size; images that many rows show are opened once per process."""
    if ref.root is not None and ref.data is None:
        return _verdict_of_file(ref.name, ref.root, opening)
    return _verdict(ref, opening)


def forget() -> None:
    """Forget what was seen of image files, which may have changed since."""
    _verdict_of_file.cache_clear()


@lru_cache(maxsize=2**16)
def _verdict_of_file(name: str, root: Path, opening: bool) -> tuple[str | None, tuple[int, int]]:
    return _verdict(ImageRef(name, root), opening)


def _verdict(ref: ImageRef, opening: bool) -> tuple[str | None, tuple[int, int]]:
    try:
        if opening:
            return None, open_image(ref).size
        if ref.data is None:
            resolve(ref)
        return None, (0, 0)
    except ImageError as error:
        return str(error), (0, 0)


@lru_cache(maxsize=1)
def _encoder(look: Look) -> object:
    from data_prep.encode import Encoder, EncodeSettings  # imports transformers: seconds

    return Encoder(look.checkpoint, EncodeSettings(**dict(look.encode)))
