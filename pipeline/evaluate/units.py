"""What an evaluation computes, cut into units: the smallest work that is done, kept and done again, always whole.

Floating-point sums depend on what shares a batch, so scores that shall be the same for any number of workers, and after any interruption,
need batches that are the same. They never reach beyond a unit, and which items are in it follows from one set's items and the settings
alone; neither the other sets of a command, nor the workers, nor what is done already have a say in it. Questions of a unit are one batch.
What is embedded is cut once more, by the unit's own items alone: `embed` leaves out what all of them begin with and packs the rest into
batches of a budget of its own. Within a set, items are distinct, the longest first, so that little is padded and what does not fit into
memory fails at once.

A unit's key is a digest of everything that its bytes depend on: the checkpoint's files, this project's source, the machine's arithmetic
(`identity`), the prompts' rules, text, question and image bytes of every item. Equal keys, equal bytes. An item that changes, but not its
length, changes the key of its own unit; one that changes its length changes also those between its old place and its new one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from data_prep.encode import Encoder, EncodeSettings
from data_prep.images import header_size, image_bytes
from data_prep.samples import DataError, ImageRef, Side

FORMAT = 1
"""Version of keys and of what is kept under them; another number, and nothing that was kept before is read."""
EMBED_TOKENS = 16384
"""Tokens of a unit that is embedded, as if padded to its longest item. Not a setting: another number would be another rounding."""
ANSWER_TOKENS, ANSWERS = 49152, 32
"""The same for questions that are answered, and how many of them there are at most."""

Mode = Literal["embed", "native", "compressed"]


@dataclass(frozen=True)
class Item:
    """Something to embed, or, with a question, to answer."""

    side: Side
    question: str | None = None


@dataclass(frozen=True)
class Unit:
    """Items that are computed together. `limit`: tokens of an answer at most (0: embeddings); `tokens`: of all items, unpadded."""

    key: str
    task: str
    mode: Mode
    settings: EncodeSettings
    limit: int
    items: tuple[Item, ...]
    digests: tuple[str, ...]
    tokens: int


@dataclass(frozen=True)
class Task:
    """All units of one set, or of one benchmark in one mode; `places`: for every item asked for, its unit and its place in there."""

    units: tuple[Unit, ...]
    places: tuple[tuple[int, int], ...]


def cut(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Every index once, the longest first and equal ones in order, in runs of at most `budget` places, padding included, and `most`
    indices; one that is longer than `budget` is alone."""
    runs: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if runs and (len(runs[-1]) + 1) * lengths[runs[-1][0]] <= budget and len(runs[-1]) != most:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def plan(name: str, mode: Mode, items: Sequence[Item], encoder: Encoder, limit: int, identity: dict) -> Task:
    """Read every item's texts and image files, and cut them into units.

    Args:
        name: of the set or benchmark, for messages.
        items: in any order, as often as needed; equal ones are computed once.
        limit: tokens of an answer at most; 0 for embeddings.
        identity: what the numbers depend on beside items and settings, JSON-ready (`identity.of_run`).

    Raises:
        DataError: an item cannot be encoded: an image that is missing or has no usable header, or too many tokens.
    """
    known: dict[ImageRef, tuple[str, tuple[int, int]]] = {}
    measured: dict[Item, tuple[str, int]] = {}
    for item in items:
        if item not in measured:
            with _naming(item):
                for ref in item.side.images:
                    if ref not in known:
                        data = image_bytes(ref)
                        known[ref] = hashlib.sha256(data).hexdigest(), header_size(data, ref.name)
                length = encoder.length(item.side, [known[ref][1] for ref in item.side.images], item.question)
            measured[item] = item_digest(item, [known[ref][0] for ref in item.side.images]), length
    distinct = {digest: (item, length) for item, (digest, length) in reversed(measured.items())}  # of equal ones the first
    order = list(dict.fromkeys(digest for digest, _ in measured.values()))
    rules = [FORMAT, identity, encoder.fingerprint(), mode, limit]
    budget = (EMBED_TOKENS,) if mode == "embed" else (ANSWER_TOKENS, ANSWERS)
    units = []
    for run in cut([distinct[digest][1] for digest in order], *budget):
        digests = tuple(order[i] for i in run)
        some = [distinct[digest] for digest in digests]
        tokens = sum(length for _, length in some)
        own = tuple(item for item, _ in some)
        units.append(Unit(_digest([*rules, digests]), name, mode, encoder.settings, limit, own, digests, tokens))
    place = {digest: (u, p) for u, unit in enumerate(units) for p, digest in enumerate(unit.digests)}
    return Task(tuple(units), tuple(place[measured[item][0]] for item in items))


def item_digest(item: Item, images: Iterable[str]) -> str:
    """SHA-256 of what an item says and shows: text, question, and the digests of its image files. Files' names do not count."""
    return _digest([item.side.text, item.question, list(images)])


def _digest(known: list) -> str:
    text = json.dumps(known, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _naming(item: Item) -> Iterator[None]:
    """Whatever is wrong inside is an error that names the item."""
    try:
        yield
    except DataError as error:
        raise unusable(item, error) from error


def unusable(item: Item, error: DataError) -> DataError:
    """The error that says which item cannot be used."""
    shown = ", ".join(image.name for image in item.side.images) or repr(item.side.text[:60])
    return DataError(f"evaluation side {shown}: {error}. Scores need every row: mend the data")
