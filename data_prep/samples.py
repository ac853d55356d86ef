"""What a source yields, before any tokenizer has seen it.

Every corpus, whatever its layout on disk, becomes a stream of `RawSample`s: a *context side* (images, then text), optionally a
positive and negative sides (a contrastive pair) and optionally question-answer turns about the context (generation). One
sample may have both; it then serves both losses in one forward pass (CREM, homogeneous data).
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class ImageRef:
    """One image: a file `name` below `root`, encoded file bytes in `data`, or an opened `picture` (then `name` only labels it)."""

    name: str
    root: Path | None = None
    data: bytes | None = None
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Side:
    """One side of a pair, or the context of a conversation: its images come first, then its text.

    `text` holds no image placeholder and no outer whitespace: sources strip both.
    """

    text: str = ""
    images: tuple[ImageRef, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to embed: neither text nor image."""
        return not self.text and not self.images


@dataclass(frozen=True)
class Turn:
    """One question and its answer (generation instruction Q, answer A)."""

    question: str
    answer: str


@dataclass(frozen=True)
class RawSample:
    """One training row as its source states it; `id` is unique over all sources and stable over runs."""

    id: str
    source: str
    query: Side
    turns: tuple[Turn, ...] = ()
    positive: Side | None = None
    negatives: tuple[Side, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A row that was set aside, and why. `reason` begins with a short stable code, then a colon and the detail."""

    id: str
    source: str
    reason: str


class DataError(ValueError):
    """Input that cannot be used. The message says what was found, what was expected and what to do."""
