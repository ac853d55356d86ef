"""Which rows are done, and what was written about them: one JSON line a row, on disk before it counts.

The first line is the fingerprint of the run. Only the driver writes; a line that a crash has cut off is taken away when the file is
opened again, and its row is done again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from data_prep.samples import DataError


class Journal:
    """An open journal. `places` holds the byte offset of every row that is done.

    Args:
        path: made where it is missing; the caller holds a lock on it.
        fingerprint: what the rows depend on, JSON-ready.

    Raises:
        DataError: the file is of another run.
    """

    def __init__(self, path: Path, fingerprint: dict):
        self.path = path
        self.places: dict[int, int] = {}
        fresh = not path.is_file() or path.stat().st_size == 0
        self._file = path.open("a+b")
        self._file.truncate(self._read(fingerprint))
        self._file.seek(0, os.SEEK_END)
        if fresh or self._file.tell() == 0:
            self._append([fingerprint])

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entries: Iterable[dict]) -> None:
        """Put down finished rows; when this returns they are on disk. A row that is there already is left as it is."""
        new = [entry for entry in entries if entry["row"] not in self.places]
        place = self._file.seek(0, os.SEEK_END)
        sizes = self._append(new)
        for entry, size in zip(new, sizes, strict=True):
            self.places[entry["row"]] = place
            place += size

    def entry(self, row: int) -> dict:
        """What was put down for a row."""
        self._file.seek(self.places[row])
        return json.loads(self._file.readline())

    def _append(self, values: list[dict]) -> list[int]:
        lines = [json.dumps(value).encode() + b"\n" for value in values]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        return [len(line) for line in lines]

    def _read(self, fingerprint: dict) -> int:
        """Fill `places`; returns where the last whole line ends."""
        end = 0
        self._file.seek(0)
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            value = json.loads(line)
            if number == 0:
                self._check(value, fingerprint)
            else:
                self.places[value["row"]] = end
            end += len(line)
        return end

    def _check(self, found: dict, expected: dict) -> None:
        differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
        if differing:
            self._file.close()
            raise DataError(
                f"{self.path}: found an unfinished run with another {', '.join(differing)}; expected the same as now, or rows of two kinds "
                "would be mixed. Finish it with its own settings, remove this file, or name another --out"
            )
