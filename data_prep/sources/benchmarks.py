"""VLM benchmarks in VLMEvalKit's TSV format: one row per question, images inside the file.

Columns: `index` (unique), `question`, `answer`, and `image` or `image_path`; optionally `hint`, `category`, options
in columns A, B, C, ... (empty = absent) and anything else (kept in `extra`). A cell of `image` is base64 of an image
file or, up to 64 characters, the index of the row that has it; or a list of either, written as Python source.
`image_path` is used where `image` is empty, relative to the TSV's folder. Format: VLMEvalKit, docs/en/Development.md
and dataset/image_base.py.

Invariant: every row is loaded or the file is refused, except rows without any image: VLMEvalKit leaves them out
(HallusionBench's text-only questions), so do we, and `without_image` counts them.
"""

import ast
import base64
import binascii
import csv
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.samples import DataError, ImageRef

MAX_CELL = 256 * 2**20
"""Longest cell in characters: base64 of a dozen large images."""
MAX_REFERENCE = 64
"""An image cell up to this many characters names another row."""

_NAMED = ("index", "question", "hint", "answer", "category", "image", "image_path")


@dataclass(frozen=True)
class BenchmarkRow:
    """One question about `images`; `options` are {letter: text} in letter order, empty unless it is multiple choice."""

    index: str
    images: tuple[ImageRef, ...]
    question: str
    hint: str
    options: dict[str, str]
    answer: str
    category: str
    extra: dict[str, str]


@dataclass(frozen=True)
class Benchmark:
    """`kind`: "multiple_choice" (any row has options), "yes_no" (all answers are), or "open"."""

    name: str
    kind: str
    rows: list[BenchmarkRow]
    without_image: int = 0


def load_benchmark(path: Path) -> Benchmark:
    """A TSV file, named after its stem. Rows that share an image share its bytes.

    Raises:
        DataError: unreadable, columns missing, a row of another width, no rows, an index twice, an image cell that is
            neither base64 nor the index of a row with an image.
    """
    path = Path(path)
    table = _table(path)
    cells = {row["index"]: row.get("image", "") for row in table}
    if len(cells) < len(table):
        seen: set[str] = set()
        twice = next(row["index"] for row in table if row["index"] in seen or seen.add(row["index"]))
        raise DataError(f"{path}: found index {twice!r} twice; expected every index once")
    images = _Images(path, cells)
    rows = [_row(row, images.of(row)) for row in table]
    shown = [row for row in rows if row.images]
    if not shown:
        raise DataError(f"{path}: found no row with an image; expected base64 in image, or files in image_path")
    return Benchmark(path.stem, _kind(shown), shown, len(rows) - len(shown))


def _table(path: Path) -> list[dict[str, str]]:
    limit = csv.field_size_limit(MAX_CELL)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            _check_header(path, reader.fieldnames or ())
            table = list(reader)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected a TSV file; check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not tab-separated UTF-8 text: {error}; download the file again") from error
    finally:
        csv.field_size_limit(limit)
    for number, row in enumerate(table):
        if None in row or None in row.values():
            width = len(reader.fieldnames)
            raise DataError(f"{path}, row {number}: found more or fewer cells than the {width} columns of the header")
    if not table:
        raise DataError(f"{path}: found 0 rows, expected at least one question; download the file again")
    return table


def _check_header(path: Path, columns: tuple | list) -> None:
    missing = [name for name in ("index", "question", "answer") if name not in columns]
    if "image" not in columns and "image_path" not in columns:
        missing.append("image or image_path")
    if missing or len(set(columns)) < len(columns):
        problem = f"missing {', '.join(missing)}" if missing else "a column twice"
        expected = "index, question, answer, and image or image_path"
        private = "answer" in missing and "question" in columns
        hint = ". Answers of a test file are private, and only its makers' server can score it: take the DEV file" if private else ""
        raise DataError(
            f"{path}: found columns {', '.join(columns)[:300]}: {problem}; expected {expected}, tab-separated{hint}"
        )


class _Images:
    """Image references of a row; equal base64 is decoded once."""

    def __init__(self, path: Path, cells: dict[str, str]):
        self._path, self._cells = path, cells
        self._decoded: dict[str, ImageRef] = {}

    def of(self, row: dict[str, str]) -> tuple[ImageRef, ...]:
        index = row["index"]
        if row.get("image", ""):
            return tuple(image for item in _items(row["image"]) for image in self._item(index, item))
        paths = _items(row.get("image_path", ""))
        return tuple(ImageRef(name, self._path.parent) for name in paths)

    def _item(self, index: str, item: str) -> tuple[ImageRef, ...]:
        if len(item) > MAX_REFERENCE:
            return (self._decode(index, item),)
        there = list(_items(self._cells.get(item, "")))
        if not there or min(map(len, there)) <= MAX_REFERENCE:
            found = "that row has no image of its own" if item in self._cells else "there is no such row"
            raise DataError(
                f"{self._path}: row {index}: image refers to row {item!r}, but {found}; expected base64 there"
            )
        return tuple(self._decode(item, value) for value in there)

    def _decode(self, index: str, item: str) -> ImageRef:
        if item not in self._decoded:
            self._decoded[item] = ImageRef(f"{self._path.name}#{index}", data=self._bytes(index, item))
        return self._decoded[item]

    def _bytes(self, index: str, item: str) -> bytes:
        try:
            return base64.b64decode("".join(item.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(
                f"{self._path}: row {index}: image is not base64: {error}; found {item[:20]!r}..."
            ) from error


def _items(cell: str) -> Iterator[str]:
    """The cell itself, or the items of the list that it spells; nothing for an empty one."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
        if isinstance(value, list):
            return iter([str(item) for item in value])
    return iter([cell] if cell else [])


def _row(row: dict[str, str], images: tuple[ImageRef, ...]) -> BenchmarkRow:
    options = {letter: row[letter] for letter in string.ascii_uppercase if row.get(letter, "").strip()}
    extra = {name: value for name, value in row.items() if name not in _NAMED and name not in string.ascii_uppercase}
    texts = {name: row.get(name, "") for name in ("index", "question", "hint", "answer", "category")}
    return BenchmarkRow(images=images, options=options, extra=extra, **texts)


def _kind(rows: list[BenchmarkRow]) -> str:
    if any(row.options for row in rows):
        return "multiple_choice"
    if all(row.answer.strip().lower() in ("yes", "no") for row in rows):
        return "yes_no"
    return "open"
