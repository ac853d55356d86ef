"""Results on disk, a file per unit, so that an evaluation that was killed goes on where it was.

    <folder>/<first two digits of the key>/<key>     "crem-unit <SHA-256 of key and result>", a line's end, the result

The key says what the result is of (`units`), the digest that it is still that: a file that is cut short, altered, or another's under this
name is told from a whole one, said on standard error, and made again. Files appear whole, under their name, when they are on disk.

A finished evaluation keeps what it used and nothing else. So a folder holds 4 x hidden size bytes per distinct side and the texts of the
answers, each a file per unit.
"""

import hashlib
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data_prep.disk import disk_errors
from data_prep.samples import DataError
from data_prep.shards import atomic_file, make_folder

NAME = b"crem-unit "
OWN = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.tmp-.+")
"""Names of files written here: a key, and while it is being written what `atomic_file` makes of it."""


class Kept:
    """One folder of results.

    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: Path):
        make_folder(folder)
        self.folder = folder

    def holds(self, key: str) -> bool:
        """Whether there is a whole result; a damaged one is said, and taken away."""
        path = self._path(key)
        if not path.is_file():
            return False
        if self._read(key) is not None:
            return True
        print(f"{path}: found a damaged result, expected one of its digest; it is made again", file=sys.stderr)
        path.unlink(missing_ok=True)
        return False

    def get(self, key: str) -> bytes:
        """A result that `put` has kept.

        Raises:
            DataError: there is none, or no whole one.
        """
        found = self._read(key)
        if found is None:
            raise DataError(f"{self._path(key)}: found no whole result, expected the one just made; does another process write there?")
        return found

    def put(self, key: str, result: bytes) -> None:
        """Keep a result; it is on disk when this returns.

        Raises:
            DataError: the disk is full, or takes nothing.
        """
        path = self._path(key)
        with disk_errors(self.folder):
            path.parent.mkdir(exist_ok=True)
            with atomic_file(path) as temporary:
                temporary.write_bytes(_head(key, result) + result)

    def keep_only(self, keys: Collection[str]) -> int:
        """Take away all other results, what killed writers left behind included; returns the bytes that stay. Files that were not
        written here are left alone: the folder may be a person's own."""
        size = 0
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            if not OWN.fullmatch(path.name) or path.is_dir():
                continue
            if path.name in keys:
                size += path.stat().st_size
            else:
                path.unlink(missing_ok=True)
        return size

    def _read(self, key: str) -> bytes | None:
        try:
            head, _, result = self._path(key).read_bytes().partition(b"\n")
        except OSError:
            return None
        return result if head + b"\n" == _head(key, result) else None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _head(key: str, result: bytes) -> bytes:
    return NAME + hashlib.sha256(key.encode() + result).hexdigest().encode() + b"\n"


@contextmanager
def kept_in(folder: Path, stays: bool = True) -> Iterator[Kept]:
    """The results in `folder`; or, where nothing is to stay or to be used again, in a folder for the time being."""
    if stays:
        yield Kept(folder)
        return
    with TemporaryDirectory(prefix="crem-evaluate-") as temporary:
        yield Kept(Path(temporary))
