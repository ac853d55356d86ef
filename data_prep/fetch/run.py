"""One corpus from the catalogue to a folder that is whole.

    OUT/.<folder>.partial/     while it is made: files, unpacked images, and `state.json`, which says what is done
    OUT/<folder>/              when it is whole, with `fetched.json`: sources, commits, every file with its digest

The last step is one rename, so a folder without the leading dot is whole. `state.json` also holds the commit that `main` named when
the download began: a run that goes on takes that commit, not today's.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.fetch.catalogue import Archive, Corpus, Repository, corpus
from data_prep.fetch.download import RemoteFile, commit_of, digest_of, files_of, from_hub, from_web, matching
from data_prep.fetch.unpack import unpack
from data_prep.lock import hold
from data_prep.samples import DataError
from data_prep.shards import make_folder, write_json

RECORD = "fetched.json"
_STATE, _UNPACKING = ".state.json", ".unpacking"


class FetchSettings(BaseModel):
    """Which corpus, and where to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """A name of the catalogue."""
    out: Path
    """The folder in which the corpus gets a folder of its own."""
    revision: str | None = None
    """Branch, tag or commit of the corpus's first repository; None: the catalogue's, or main where it states none."""
    only: tuple[str, ...] = ()
    """Parts to fetch; all where empty. A later run may add others."""
    keep_archives: bool = False
    """Keep archives after they are unpacked."""


class Stored(BaseModel):
    """One file that has arrived and was verified. `sha256` is of the file as it lies here, or of the archive that is unpacked."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str
    source: str
    into: str | None = None
    files: int | None = None
    unpacked_bytes: int | None = None


class Record(BaseModel):
    """What a corpus folder holds: revision asked for and commit by repository, the parts, and files by path."""

    model_config = ConfigDict(extra="forbid")

    corpus: str
    asked: dict[str, str]
    commits: dict[str, str]
    parts: list[str] = []
    files: dict[str, Stored] = {}


def fetch(settings: FetchSettings, say: Callable[[str], None] = print) -> Path:
    """Fetch a corpus; returns its folder. What is there already and whole is not fetched again.

    Raises:
        DataError: unknown name or part, no network, a file that is not what was promised, an unsafe archive, a folder that another
            command made, another revision than the one that is there, another fetch at work. Run again, it goes on where it stopped.
    """
    entry = corpus(settings.name)
    parts = entry.chosen(settings.only)
    if settings.revision and not entry.repositories:
        raise DataError(f"--revision {settings.revision}: {entry.name} comes from a web server, which has none; leave it out")
    folder, partial = settings.out / entry.folder, settings.out / f".{entry.folder}.partial"
    make_folder(settings.out)
    with hold(folder, settings.out / f".{entry.folder}.lock", "fetch"):
        if folder.exists():
            record = _read(folder / RECORD)
            _check_same(folder, record, entry, settings)
            if set(parts) <= set(record.parts) and _whole(folder, record):
                say(f"{folder}: there already, whole, {_commits(record)}")
                return folder
            folder.rename(partial)
        partial.mkdir(exist_ok=True)
        record = _begin(partial, entry, settings)
        for source in entry.repositories:
            _repository(source, record, parts, partial, settings, say)
        for file in entry.web:
            if file.part in parts and not _done(partial, record, file.name):
                say(f"{file.name}: {file.url}")
                path = from_web(file, partial)
                _store(partial, record, path, _stored(path, file.url, digest_of(path, "sha256")))
        record.parts = sorted({*record.parts, *parts})
        _finish(partial, folder, record, settings.keep_archives)
    say(f"{folder}: whole, {len(record.files)} files and archives, {_commits(record)}, recorded in {RECORD}")
    return folder


def _begin(partial: Path, entry: Corpus, settings: FetchSettings) -> Record:
    """The record of an interrupted run, or a new one with every revision resolved."""
    shutil.rmtree(partial / _UNPACKING, ignore_errors=True)
    if (partial / RECORD).exists():  # it was whole: parts are to be added, or only the last rename was missing
        os.replace(partial / RECORD, partial / _STATE)
    if (partial / _STATE).exists():
        record = _read(partial / _STATE)
        _check_same(partial, record, entry, settings)
        return record
    asked = {source.repo: source.revision or "main" for source in entry.repositories}
    if settings.revision:
        asked[entry.repositories[0].repo] = settings.revision
    record = Record(corpus=entry.name, asked=asked, commits={repo: commit_of(repo, revision) for repo, revision in asked.items()})
    _write(partial / _STATE, record)
    return record


def _repository(
    source: Repository, record: Record, parts: tuple[str, ...], partial: Path, settings: FetchSettings, say: Callable[[str], None]
) -> None:
    commit = record.commits[source.repo]
    where = f"{source.repo} at {commit[:12]}"
    remote = files_of(source.repo, commit)
    wanted: list[tuple[RemoteFile, Archive | None]] = []
    for pattern, archive in [(p, None) for p in source.files] + [(a.pattern, a) for a in source.archives]:
        for expanded in dict.fromkeys(pattern.replace("{part}", part) for part in parts or ("",)):
            wanted += [(file, archive) for file in matching(remote, expanded, where)]
    waiting = [(file, archive) for file, archive in wanted if not _done(partial, record, file.path)]
    size = sum(file.bytes for file, _ in waiting)
    say(f"{where}: {len(wanted)} files, {len(waiting)} to fetch, {size / 2**20:.1f} MiB")
    free = shutil.disk_usage(partial).free
    if size > free:
        raise DataError(f"{partial}: found {free} bytes free; expected more than {size}, which are to be downloaded. Make room")
    for file, archive in waiting:
        path = from_hub(source.repo, commit, file, partial)
        sha256 = file.digest.value if file.digest.kind == "sha256" else digest_of(path, "sha256")
        stored = _stored(path, f"{source.repo}@{commit}", sha256)
        if archive is None:
            _store(partial, record, path, stored)
        else:
            _unpack(partial, record, path, stored, archive, settings.keep_archives)


def _unpack(partial: Path, record: Record, path: Path, stored: Stored, archive: Archive, keep: bool) -> None:
    """Unpack into a folder of its own, then move what came out to its place: a kill in between leaves nothing half unpacked there."""
    staging = partial / _UNPACKING
    done = unpack(path, staging)
    stored = stored.model_copy(update={"into": archive.into, "files": done.files, "unpacked_bytes": done.bytes})
    try:
        _move(staging, partial / archive.into)
    except OSError as error:
        raise DataError(
            f"{path}: what it holds could not be moved to {partial / archive.into} ({error.strerror}: {error.filename}); expected no file "
            "where another archive has a folder. Remove the archive and fetch again"
        ) from error
    _store(partial, record, path, stored)
    if not keep:
        path.unlink()


def _move(source: Path, target: Path) -> None:
    """Move a folder's content into another, folder by folder where both have one; a file that is there is replaced."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for path in source.iterdir():
        if path.is_dir():
            _move(path, target / path.name)
        else:
            path.replace(target / path.name)
    source.rmdir()


def _stored(path: Path, source: str, sha256: str) -> Stored:
    return Stored(bytes=path.stat().st_size, sha256=sha256, source=source)


def _store(partial: Path, record: Record, path: Path, stored: Stored) -> None:
    record.files[str(path.relative_to(partial))] = stored
    _write(partial / _STATE, record)


def _done(folder: Path, record: Record, name: str) -> bool:
    """Whether a file is recorded and still there with its size; an archive, whether its folder is."""
    stored = record.files.get(name)
    if stored is None:
        return False
    path = folder / name
    return (folder / stored.into).is_dir() if stored.into else path.is_file() and path.stat().st_size == stored.bytes


def _whole(folder: Path, record: Record) -> bool:
    return all(_done(folder, record, name) for name in record.files)


def _finish(partial: Path, folder: Path, record: Record, keep: bool) -> None:
    """No archives that were unpacked, the record, then the one rename that makes the folder appear."""
    for name, stored in record.files.items():
        if stored.into and not keep:
            (partial / name).unlink(missing_ok=True)
    _remove_empty(partial)
    _write(partial / _STATE, record)
    os.replace(partial / _STATE, partial / RECORD)
    partial.rename(folder)


def _remove_empty(folder: Path) -> None:
    for path in sorted((p for p in folder.iterdir() if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def _check_same(folder: Path, record: Record, entry: Corpus, settings: FetchSettings) -> None:
    first = entry.repositories[0].repo if entry.repositories else None
    same = settings.revision in (None, record.asked.get(first), record.commits.get(first))
    if record.corpus != entry.name or not same:
        raise DataError(
            f"{folder}: found {record.corpus} of revision {record.asked.get(first)} ({_commits(record)}); expected {entry.name} of "
            f"revision {settings.revision}. Name another --out, or remove that folder"
        )


def _commits(record: Record) -> str:
    return ", ".join(f"{repo} at {commit[:12]}" for repo, commit in record.commits.items()) or "md5 sums as in the catalogue"


def _read(path: Path) -> Record:
    try:
        return Record.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(
            f"{path.parent}: found a folder without a readable {path.name}, so fetch did not make it or did not finish it; expected one "
            "that it made, or none. Name another --out, or move that folder away"
        ) from error


def _write(path: Path, record: Record) -> None:
    write_json(path, record.model_dump(exclude_none=True))
