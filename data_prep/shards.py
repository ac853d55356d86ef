"""Arrow shards on disk: written whole or not at all, and trusted only through their manifest.

A shard is written under a temporary name, flushed to disk, digested, and renamed; its record (rows, bytes, digest, rejected rows)
follows the same way. The manifest comes last and names every shard: a folder without a manifest is not a data set, and a file
the manifest does not name, or whose bytes differ, is refused.
"""

import hashlib
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from data_prep.samples import DataError, Rejected
from data_prep.schema import ROW, SCHEMA_VERSION

MANIFEST = "manifest.json"
ROWS_PER_RECORD_BATCH = 64


class ShardRecord(BaseModel):
    """What is known of one finished shard. `sha256` is of the file's bytes.

    `rejected` lists the rows set aside because they cannot be used, `dropped` those that occur in evaluation data. `shortened` counts
    the rows that lost "turns" or "text" to the length limit; they are in the shard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str
    rows: int
    bytes: int
    sha256: str
    rejected: tuple[Rejected, ...] = ()
    dropped: tuple[Rejected, ...] = ()
    shortened: dict[str, int] = {}


class Manifest(BaseModel):
    """The commit record of a prepared data set; its own digest identifies the data in checkpoints and tracked runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    fingerprint: dict
    shards: tuple[ShardRecord, ...]

    @property
    def rows(self) -> int:
        """Rows over all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rejected(self) -> list[Rejected]:
        """Rows set aside, over all shards."""
        return [row for shard in self.shards for row in shard.rejected]

    @property
    def dropped(self) -> list[Rejected]:
        """Rows left out because they occur in evaluation data, over all shards."""
        return [row for shard in self.shards for row in shard.dropped]

    @property
    def shortened(self) -> Counter[str]:
        """How many rows lost "turns" or "text" to the length limit."""
        return sum((Counter(shard.shortened) for shard in self.shards), Counter())

    def digest(self) -> str:
        """SHA-256 of the manifest's canonical JSON."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def write_shard(
    folder: Path,
    name: str,
    source: str,
    rows: Iterable[dict],
    rejected: Sequence[Rejected],
    dropped: Sequence[Rejected] = (),
    shortened: Mapping[str, int] = MappingProxyType({}),
) -> ShardRecord:
    """Write `rows` (dicts of `schema.ROW`) as `folder/name`, then its record (see `ShardRecord`) beside it.

    `rejected`, `dropped` and `shortened` are read after `rows` has been consumed, so the iterator may fill them.
    """
    path = folder / name
    with atomic_file(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, ROW) as writer:
        count = 0
        for batch in _batches(rows):
            writer.write_batch(batch)
            count += batch.num_rows
    record = ShardRecord(
        name=name,
        source=source,
        rows=count,
        bytes=path.stat().st_size,
        sha256=file_digest(path),
        rejected=tuple(rejected),
        dropped=tuple(dropped),
        shortened=dict(shortened),
    )
    write_json(record_path(path), record.model_dump(mode="json"))
    return record


def finished_shard(folder: Path, name: str) -> ShardRecord | None:
    """The record of a shard that is on disk and intact, else None (it is then made again)."""
    path = folder / name
    if not (path.is_file() and record_path(path).is_file()):
        return None
    try:
        record = ShardRecord.model_validate_json(record_path(path).read_bytes())
    except ValueError:
        return None
    return record if path.stat().st_size == record.bytes and file_digest(path) == record.sha256 else None


def write_manifest(folder: Path, fingerprint: dict, shards: list[ShardRecord]) -> Manifest:
    """Commit the data set: shards in the order given, empty ones (all rows rejected) included."""
    manifest = Manifest(schema_version=SCHEMA_VERSION, fingerprint=fingerprint, shards=tuple(shards))
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a finished data set.

    Raises:
        DataError: no manifest, unreadable, or of another schema version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder}: found no {MANIFEST}; expected a folder of finished shards. "
            "Make it (or finish an interrupted job) with:\n"
            f"    bash launchers/prepare.sh DATA_FOLDER --checkpoint CHECKPOINT --out {folder if _may_hold_shards(folder) else 'SHARDS'}"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: found an unreadable manifest ({error}); remove the folder and prepare it again") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: found schema version {manifest.schema_version}, expected {SCHEMA_VERSION}; prepare the data again"
        )
    return manifest


def _may_hold_shards(folder: Path) -> bool:
    """Whether shards may go there: a place for them is new, empty, or has some; anything else may be the raw data."""
    return not folder.exists() or not any(folder.iterdir()) or any(folder.glob("*.arrow"))


def verify_shards(folder: Path, manifest: Manifest, part: int = 0, parts: int = 1) -> None:
    """Check shards' sizes and digests against the manifest: every `parts`-th one from `part` on, so that ranks share the work.

    Raises:
        DataError: naming the first shard that is missing, altered, or not in the manifest.
    """
    named = {shard.name for shard in manifest.shards}
    stray = sorted(path.name for path in folder.glob("*.arrow") if path.name not in named)
    if stray:
        raise DataError(f"{folder}: found {stray[0]}, which the manifest does not name; remove it or prepare the data again")
    for shard in manifest.shards[part::parts]:
        path = folder / shard.name
        if not path.is_file():
            raise DataError(f"{path}: missing, but the manifest names it; prepare the data again (finished shards are kept)")
        if path.stat().st_size != shard.bytes or file_digest(path) != shard.sha256:
            raise DataError(f"{path}: found other bytes than the manifest's digest; prepare the data again (only this shard is redone)")


def record_path(shard: Path) -> Path:
    """Where a shard's record lies."""
    return shard.with_suffix(".json")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: dict | list) -> None:
    """Write JSON atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; for the one job that holds the folder."""
    for path in folder.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)


@contextmanager
def without_leftovers(folder: Path) -> Iterator[None]:
    """Remove leftovers at the start, those of an earlier job, and at the end, however it ends: those of this job's dead workers."""
    remove_leftovers(folder)
    try:
        yield
    finally:
        remove_leftovers(folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; on success its bytes are flushed to disk and it takes `path`'s place."""
    # the machine as well: processes of two containers may have the same number
    temporary = path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def open_shard(path: Path) -> pa.RecordBatchFileReader:
    """A shard's batches, memory-mapped.

    Raises:
        DataError: the file is missing, or is no arrow file (cut short, altered).
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing, but the manifest names it; prepare the data again (finished shards are kept)") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: found no whole arrow file ({error}); expected the shard that the manifest names. Copy it again, or remove it and "
            "prepare the data again (finished shards are kept)"
        ) from error


def make_folder(path: Path) -> None:
    """Make the folder and those above it, if they are not there.

    Raises:
        DataError: there is a file in the way, or the place cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: found no folder there, and none can be made ({error.strerror}); expected a place to write to. Name another"
        ) from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`; on success it takes `folder`'s place, which must be free by then."""
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    make_folder(temporary)
    try:
        yield temporary
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _batches(rows: Iterable[dict]) -> Iterator[pa.RecordBatch]:
    pending: list[dict] = []
    for row in rows:
        pending.append(row)
        if len(pending) == ROWS_PER_RECORD_BATCH:
            yield pa.RecordBatch.from_pylist(pending, schema=ROW)
            pending = []
    if pending:
        yield pa.RecordBatch.from_pylist(pending, schema=ROW)
