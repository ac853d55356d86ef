"""Unpacking archives that come from strangers.

Invariant: nothing is written outside the given folder, no link and no device is made, no byte beyond the limits is written, and bad
input raises `DataError` and nothing else. The folder is new and holds nothing else, so no name in it leads anywhere. What an archive
holds is checked member by member while it is read; sizes are counted as they come out, whatever the header claims.
"""

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_prep.samples import DataError

_CHUNK = 2**20
_LARGEST_READ = 2**26
"""Bytes that a header may make tarfile ask for at once: one of gigabytes is an attack on memory."""
_JUNK = ("__MACOSX", ".DS_Store")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError, OSError)


@dataclass(frozen=True)
class UnpackLimits:
    """At most this many members and unpacked bytes, and this many unpacked bytes per byte of the archive (images hardly shrink)."""

    members: int = 5_000_000
    bytes: int = 500 * 2**30
    ratio: int = 100


@dataclass(frozen=True)
class Unpacked:
    """How many files an archive held, macOS leftovers not counted, and their bytes."""

    files: int
    bytes: int


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str
    """ "file", "folder", or what else it is."""
    content: IO[bytes] | None


def unpack(archive: Path, folder: Path, limits: UnpackLimits = UnpackLimits()) -> Unpacked:
    """Unpack a .zip, .tar, .tar.gz or .tgz file into `folder`, which must not exist yet.

    Raises:
        DataError: another or a damaged format, a name outside the folder or unfit for a file, a link, a device, an encrypted or a
            repeated member, more members or bytes than `limits` allow, no space. `folder` may then hold some of the members.
    """
    allowed = min(limits.bytes, limits.ratio * archive.stat().st_size + _CHUNK)
    files = total = 0
    folder.mkdir(parents=True)
    try:
        for number, member in enumerate(_members(archive)):
            if number >= limits.members:
                raise DataError(f"{archive}: found more than {limits.members} members; {_REFUSED}")
            parts = _parts(archive, member)
            if parts[-1].startswith("._") or any(part in _JUNK for part in parts):
                continue
            path = folder.joinpath(*parts)
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            total = _write(archive, member, path, total, allowed)
            files += 1
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(_problem(archive, error)) from error
    return Unpacked(files, total)


_REFUSED = "expected a data set's archive; it is not unpacked. Ask whoever published it, or unpack it yourself if you trust it"


def _problem(archive: Path, error: Exception) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return f"{archive}: found two members of one name ({error.filename}); {_REFUSED}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{archive}: could not be unpacked: {error.strerror} ({error.filename}); make room or mend the path, then fetch again"
    return f"{archive}: found a damaged archive ({type(error).__name__}: {error}); remove it and fetch again"


def _parts(archive: Path, member: _Member) -> tuple[str, ...]:
    """The components of a member's name."""
    name = member.name.rstrip("/")
    parts = tuple(part for part in name.split("/") if part != ".")
    if member.kind not in ("file", "folder"):
        raise DataError(f"{archive}: found {member.kind} called {name[:200]!r}; {_REFUSED}")
    unfit = (not parts and member.kind == "file") or name.startswith("/") or "\\" in name or (len(name) > 1 and name[1] == ":")
    if unfit or any(_unfit(part) for part in parts):
        raise DataError(f"{archive}: found the name {name[:200]!r}, which may lead outside or is no file name; {_REFUSED}")
    return parts or (".",)


def _unfit(part: str) -> bool:
    if part in ("", "..") or any(ord(letter) < 32 or ord(letter) == 127 for letter in part):
        return True
    return len(part.encode("utf-8", "surrogateescape")) > 255


def _write(archive: Path, member: _Member, path: Path, total: int, allowed: int) -> int:
    """Write one file; returns `total` plus its bytes."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(handle, "wb") as file:
        while chunk := member.content.read(_CHUNK):
            total += len(chunk)
            if total > allowed:
                raise DataError(f"{archive}: found more than {allowed} bytes unpacked; {_REFUSED}")
            file.write(chunk)
    return total


def _members(archive: Path) -> Iterator[_Member]:
    """Every member in order; its content is to be read before the next one is asked for."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(archive)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar_members(archive, compressed=not name.endswith(".tar"))
    raise DataError(f"{archive}: found an archive of unknown kind; expected .zip, .tar, .tar.gz or .tgz")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = _kind(info.external_attr >> 16)
            if info.is_dir() and kind == "file":
                kind = "folder"
            if info.flag_bits & 1:
                kind = "an encrypted file"
            name = info.orig_filename  # `filename` is cut at a NUL
            if kind != "file":
                yield _Member(name, kind, None)
                continue
            with file.open(info) as content:
                yield _Member(name, kind, content)


def _kind(mode: int) -> str:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "a symbolic link"}
    return kinds.get(stat.S_IFMT(mode), "a device, pipe or socket")


class _Bounded:
    """A file object that refuses to read very much at once."""

    def __init__(self, file: IO[bytes]):
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _tar_members(archive: Path, compressed: bool) -> Iterator[_Member]:
    with (gzip.open if compressed else open)(archive, "rb") as plain, tarfile.open(fileobj=_Bounded(plain), mode="r:") as file:
        for info in file:
            file.members = []  # tarfile would remember every member it has passed
            if info.isdir() or info.isreg():
                yield _Member(info.name, "folder" if info.isdir() else "file", None if info.isdir() else file.extractfile(info))
                continue
            link = info.issym() or info.islnk()
            yield _Member(info.name, "a link" if link else "a device, pipe or socket", None)
