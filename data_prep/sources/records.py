"""A JSON array of objects, or JSON lines, as rows that can be sliced without holding the file in memory.

ShareGPT4V's captioner file is one 1.5 GB array. One pass over the mapped bytes finds where each record begins and
ends; a slice then reads only its own bytes. Invariant: row numbers depend on the file alone, and a record that is not
valid JSON spoils itself but no other row.
"""

import json
import mmap
import re
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from data_prep.samples import DataError
from data_prep.sources.common import visible

MAX_RECORD_BYTES = 16 * 2**20

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]|[^\s,:"\[\]{}]++', re.DOTALL)
"""A string (if cut off, up to the end of the file), a bracket, or a run of anything else that is no separator."""
_LINE = re.compile(rb"\S[^\n]*")
_OPENING = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*")


def files(root: Path) -> list[Path]:
    """JSON and JSON-lines files directly in a folder, sorted."""
    return [path for path in visible(root) if path.suffix in (".json", ".jsonl") and path.is_file()]


def first_keys(path: Path) -> set[str]:
    """Keys of the first whole record; none for a `.json` file that is no list of records (settings, metadata).

    Raises:
        DataError: a file without rows, a `.jsonl` file that begins with no object, an array that is cut off.
    """
    found = [row for _, row in rows(path, 0, 8)]
    if not found:
        raise DataError(f"{path}: found 0 rows, expected at least one record; download the file again or remove it")
    for row in found:
        if isinstance(row, dict):
            return set(row)
    if path.suffix == ".jsonl":
        raise DataError(f"{path}: {found[0]}; expected one JSON object a line; write the file again or remove it")
    return set()


def spans(path: Path) -> tuple[array, array]:
    """Byte offsets (starts, ends) of every record; remembered per process while size and time stamp stay the same.

    Raises:
        DataError: unreadable, or an array that ends before its closing bracket.
    """
    try:
        info = path.stat()
        return _spans(path, info.st_size, info.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=8)
def _spans(path: Path, size: int, _changed: int) -> tuple[array, array]:
    starts, ends = array("Q"), array("Q")
    if size == 0:
        return starts, ends
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = _OPENING.match(data).end()
        found = _items(path, data, begin) if data[begin : begin + 1] == b"[" else _lines(data, begin)
        for start, end in found:
            starts.append(start)
            ends.append(end)
    return starts, ends


def _items(path: Path, data: mmap.mmap, begin: int) -> Iterator[tuple[int, int]]:
    depth, start = 0, begin
    for token in _TOKEN.finditer(data, begin):
        mark = token.group()[:1]
        if mark in b"[{":
            start = token.start() if depth == 1 else start
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if depth == 1:
                yield start, token.end()
            if depth == 0:
                return
        elif depth == 1:  # a bare string or number: no record, but a row to be counted
            yield token.span()
    raise DataError(f"{path}: found a JSON array without its closing bracket, expected a whole file; download it again")


def _lines(data: mmap.mmap, begin: int) -> Iterator[tuple[int, int]]:
    return (line.span() for line in _LINE.finditer(data, begin))


def rows(path: Path, start: int, stop: int) -> Iterator[tuple[int, dict | str]]:
    """(row number, record) for rows [start, stop); instead of an unusable record, a string that says what is wrong."""
    return at(path, range(start, min(stop, len(spans(path)[0]))))


def at(path: Path, numbers: Iterable[int]) -> Iterator[tuple[int, dict | str]]:
    """As `rows`, for the rows of these numbers."""
    starts, ends = spans(path)
    with open(path, "rb") as file:
        for row in numbers:
            size = ends[row] - starts[row]
            if size > MAX_RECORD_BYTES:
                yield row, f"too_large: record of {size} bytes, expected at most {MAX_RECORD_BYTES}"
                continue
            file.seek(starts[row])
            yield row, _record(file.read(size))


def _record(text: bytes) -> dict | str:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"json: {error}"
    return record if isinstance(record, dict) else f"json: found {type(record).__name__}, expected an object"
