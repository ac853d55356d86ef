"""The Ray job: every part of every source is cut into slices of fixed size, each slice becomes one shard.

A shard's name and content depend on its slice, the checkpoint's rules and the settings alone, never on which worker made it or
when; so the result is the same bytes for any number of workers, a killed worker's slice is simply made again, and a second run skips
every shard that is already whole. Only the driver writes the manifest, last.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from data_prep import sources
from data_prep.claim import claim, data_facts
from data_prep.cluster import as_finished, cluster
from data_prep.decontaminate import EvaluationIndex, with_pictures
from data_prep.disk import disk_errors
from data_prep.encode import Encoder, EncodeSettings, fingerprint_digest, to_row
from data_prep.evaluation import evaluation_index, find_evaluation
from data_prep.lock import hold
from data_prep.place import absolute_out
from data_prep.samples import DataError, Rejected
from data_prep.shards import (
    Manifest,
    ShardRecord,
    finished_shard,
    make_folder,
    without_leftovers,
    write_json,
    write_manifest,
    write_shard,
)

REJECTED = "rejected.json"
DROPPED = "decontaminated.json"


class PrepareSettings(BaseModel):
    """What to prepare, for which checkpoint, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: tuple[Path, ...] = Field(min_length=1)
    """Folders that hold data in any known format."""
    checkpoint: str
    """Checkpoint folder or hub id whose tokenizer, image rules and chorus apply."""
    out: Path
    """Folder of the shards."""
    against: tuple[Path, ...] = ()
    """Evaluation data (MMEB-eval folders, benchmark TSVs, or folders of these): training rows that occur there are dropped."""
    split: str = "original"
    """MMEB-train's split: original or diverse_instruction."""
    image_root: Path | None = None
    """Folder the image paths start from, where it is not the data's own."""
    encode: EncodeSettings = EncodeSettings()
    """Pixel and length limits."""
    rows_per_shard: int = Field(default=512, gt=0)
    """Source rows per shard: the unit of work, and of what a crash can cost."""
    workers: int | None = Field(default=None, gt=0)
    """Ray workers; None takes every CPU of the machine or cluster."""
    max_reject_share: float = Field(default=0.02, ge=0, le=1)
    """The job stops when more than this share of all rows has been set aside."""


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of one part, and the shard they become."""

    part: sources.Part
    start: int
    stop: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (rows {self.start} to {self.stop - 1} of {self.part.path})"


def prepare(settings: PrepareSettings, say: Callable[[str], None] = print) -> Manifest:
    """Run the job to its manifest.

    Raises:
        DataError: unusable input, another job on the same folder, shards of other settings, too many rejected rows, a full disk, rows
            whose worker dies every time.
    """
    settings = _absolute(settings)
    parts = [part for root in settings.roots for part in sources.discover(root, settings.image_root, settings.split)]
    sources.check_distinct(parts)
    _check_inputs(settings)
    if not settings.against:
        return _prepare(settings, parts, None, say)
    with cluster(settings.workers) as workers:
        return _prepare(settings, parts, evaluation_index(settings.against, workers, say), say)


def _check_inputs(settings: PrepareSettings) -> None:
    """Refuse what would be found out only after a cluster has started and evaluation data are read."""
    Encoder(settings.checkpoint, settings.encode)
    if settings.out in settings.roots:
        raise DataError(f"{settings.out}: found it among the data as well as --out; expected a folder of its own for shards. Name another")
    for root in settings.against:
        find_evaluation(root)


def _prepare(settings: PrepareSettings, parts: list[sources.Part], index: EvaluationIndex | None, say: Callable[[str], None]) -> Manifest:
    fingerprint = _fingerprint(settings, parts, index)
    slices = plan(parts, settings.rows_per_shard)
    make_folder(settings.out)
    with disk_errors(settings.out), hold(settings.out, settings.out / ".lock", "prepare"), without_leftovers(settings.out):
        claim(settings.out, fingerprint)
        (settings.out / REJECTED).unlink(missing_ok=True)
        records = {s.name: record for s in slices if (record := finished_shard(settings.out, s.name))}
        if records:
            say(f"{len(records)} of {len(slices)} shards are there already and intact: skipped")
        _run(slices, settings, records, index)
        if index is not None:
            write_json(settings.out / DROPPED, {row.id: row.reason for s in slices for row in records[s.name].dropped})
        return write_manifest(settings.out, fingerprint, [records[s.name] for s in slices])


def plan(parts: list[sources.Part], rows_per_shard: int) -> list[Slice]:
    """Cut parts into slices; a shard's name says source, part and slice, and sorts in reading order."""
    out = []
    for number, part in enumerate(parts):
        label = part.source.replace("/", ".")
        for start in range(0, part.rows, rows_per_shard):
            stop = min(start + rows_per_shard, part.rows)
            out.append(Slice(part, start, stop, f"{number:04d}-{label}-{start // rows_per_shard:06d}.arrow"))
    return out


def make_shard(piece: Slice, checkpoint: str, encode: EncodeSettings, out: Path, index: EvaluationIndex | None = None) -> ShardRecord:
    """Read, encode and write one slice; rows that cannot be used, or occur in evaluation data, are listed in the record with the reason."""
    encoder = _encoder(checkpoint, encode)
    rejected: list[Rejected] = []
    dropped: list[Rejected] = []
    shortened: Counter[str] = Counter()

    def rows() -> Iterator[dict]:
        for raw in sources.read(piece.part, piece.start, piece.stop):
            if isinstance(raw, Rejected):
                rejected.append(raw)
                continue
            try:
                if index is not None:
                    raw = with_pictures(raw)
                    if reason := index.reason(raw):
                        dropped.append(Rejected(raw.id, raw.source, reason))
                        continue
                sample = encoder.sample(raw)
            except DataError as error:
                rejected.append(Rejected(raw.id, raw.source, str(error)))
                continue
            shortened.update(sample.shortened)
            yield to_row(sample)

    with disk_errors(out):
        return write_shard(out, piece.name, piece.part.source, rows(), rejected, dropped, shortened)


@lru_cache(maxsize=1)
def _encoder(checkpoint: str, encode: EncodeSettings) -> Encoder:
    return Encoder(checkpoint, encode)  # once per worker process


def _run(
    slices: list[Slice], settings: PrepareSettings, records: dict[str, ShardRecord], index: EvaluationIndex | None
) -> None:
    """Make the slices that `records` lacks, a bounded number at a time, and enter them there; stop when too many rows are rejected."""
    budget = settings.max_reject_share * sum(s.stop - s.start for s in slices)
    rejected = [row for record in records.values() for row in record.rejected]
    _check_rejects(rejected, budget, settings)
    waiting = [s for s in slices if s.name not in records]
    if not waiting:
        return
    rows = sum(s.stop - s.start for s in waiting)
    start = time.perf_counter()
    with cluster(settings.workers) as workers, tqdm(total=rows, unit="row", desc="prepare", disable=not sys.stderr.isatty()) as bar:
        arguments = (settings.checkpoint, settings.encode, settings.out, index)
        with closing(as_finished(make_shard, waiting, arguments, workers)) as finished:
            for piece, record in finished:
                records[piece.name] = record
                rejected += record.rejected
                _check_rejects(rejected, budget, settings)
                bar.update(piece.stop - piece.start)
    seconds = time.perf_counter() - start
    print(f"prepare: {rows} rows in {seconds:.1f} s, {rows / seconds:.0f} rows/s on {workers} workers", file=sys.stderr)


def _check_rejects(rejected: list[Rejected], budget: float, settings: PrepareSettings) -> None:
    if len(rejected) <= budget:
        return
    path = settings.out / REJECTED
    write_json(path, {row.id: row.reason for row in rejected})
    shown = "\n".join(f"    {row.id}: {row.reason}" for row in rejected[:5])
    raise DataError(
        f"found {len(rejected)} rows that cannot be used, more than max_reject_share = {settings.max_reject_share:.2%} allows:\n"
        f"{shown}\nAll are listed in {path}. Mend the data, or raise --max-reject-share; finished shards are kept."
    )


def _absolute(settings: PrepareSettings) -> PrepareSettings:
    """The settings with paths that mean the same in every worker; a checkpoint that is no folder is a hub id.

    Raises:
        DataError: a relative `out` in a submitted job, whose working folder is a copy that Ray deletes.
    """
    return settings.model_copy(
        update={
            "roots": tuple(root.absolute() for root in settings.roots),
            "against": tuple(path.absolute() for path in settings.against),
            "image_root": settings.image_root and settings.image_root.absolute(),
            "out": absolute_out(settings.out),
            "checkpoint": str(Path(settings.checkpoint).absolute()) if Path(settings.checkpoint).is_dir() else settings.checkpoint,
        }
    )


def _fingerprint(settings: PrepareSettings, parts: list[sources.Part], index: EvaluationIndex | None) -> dict:
    """The encoder's fingerprint and what was read; `settings.json` and the manifest hold it, the trainer compares it."""
    encoder = Encoder(settings.checkpoint, settings.encode).fingerprint()
    own = {"encoder": encoder, "encoder_digest": fingerprint_digest(encoder)}
    read = {"data": data_facts(parts), "rows_per_shard": settings.rows_per_shard}
    return own | read | ({} if index is None else {"against": index.digest()})
