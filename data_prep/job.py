"""The Ray job: every part of every source is cut into slices of fixed size, each slice becomes one shard.

A shard's name and content depend on its slice, the checkpoint's rules and the settings alone, never on which worker made it or
when; so the result is the same bytes for any number of workers, a killed worker's slice is simply made again, and a second run skips
every shard that is already whole. Only the driver writes the manifest, last.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ray
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from data_prep import sources
from data_prep.encode import Encoder, EncodeSettings, fingerprint_digest, to_row
from data_prep.samples import DataError, Rejected
from data_prep.shards import MANIFEST, Manifest, ShardRecord, finished_shard, load_manifest, write_json, write_manifest, write_shard

SETTINGS = "settings.json"


class PrepareSettings(BaseModel):
    """What to prepare, for which checkpoint, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: tuple[Path, ...] = Field(min_length=1)
    """Folders that hold data in any known format."""
    checkpoint: str
    """Checkpoint folder or hub id whose tokenizer, image rules and chorus apply."""
    out: Path
    """Folder of the shards."""
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


def prepare(settings: PrepareSettings, say: Callable[[str], None] = print) -> Manifest:
    """Run the job to its manifest.

    Raises:
        DataError: unusable input, another job on the same folder, shards of other settings, too many rejected rows.
    """
    parts = [part for root in settings.roots for part in sources.discover(root, settings.image_root, settings.split)]
    fingerprint = _fingerprint(settings, parts)
    slices = plan(parts, settings.rows_per_shard)
    settings.out.mkdir(parents=True, exist_ok=True)
    with _lock(settings.out):
        _claim(settings.out, fingerprint)
        done = {s.name: record for s in slices if (record := finished_shard(settings.out, s.name))}
        if done:
            say(f"{len(done)} of {len(slices)} shards are there already and intact: skipped")
        if len(done) == len(slices) and (settings.out / MANIFEST).is_file():
            return load_manifest(settings.out)
        budget = settings.max_reject_share * sum(part.rows for part in parts)
        records = done | _run([s for s in slices if s.name not in done], settings, done, budget)
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


def make_shard(piece: Slice, checkpoint: str, encode: EncodeSettings, out: Path) -> ShardRecord:
    """Read, encode and write one slice; rows that cannot be used are listed in the record with their reason."""
    encoder = _encoder(checkpoint, encode)
    rejected: list[Rejected] = []

    def rows() -> Iterator[dict]:
        for raw in sources.read(piece.part, piece.start, piece.stop):
            if isinstance(raw, Rejected):
                rejected.append(raw)
                continue
            try:
                yield to_row(encoder.sample(raw))
            except DataError as error:
                rejected.append(Rejected(raw.id, raw.source, str(error)))

    return write_shard(out, piece.name, piece.part.source, rows(), rejected)


@lru_cache(maxsize=1)
def _encoder(checkpoint: str, encode: EncodeSettings) -> Encoder:
    return Encoder(checkpoint, encode)  # once per worker process


def _run(slices: list[Slice], settings: PrepareSettings, done: dict[str, ShardRecord], budget: float) -> dict[str, ShardRecord]:
    """Make `slices` on Ray with a bounded number in flight; stop when the rejected rows exceed `budget`."""
    _connect(settings.workers)
    workers = settings.workers or int(ray.cluster_resources().get("CPU", 1))
    task = ray.remote(num_cpus=1, max_retries=5)(make_shard)
    waiting = list(reversed(slices))
    running: dict[ray.ObjectRef, Slice] = {}
    records: dict[str, ShardRecord] = {}
    rejected = [row for record in done.values() for row in record.rejected]
    start = time.perf_counter()
    with tqdm(total=sum(s.stop - s.start for s in slices), unit="row", desc="prepare", disable=not sys.stderr.isatty()) as bar:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                piece = waiting.pop()
                running[task.remote(piece, settings.checkpoint, settings.encode, settings.out.absolute())] = piece
            finished, _ = ray.wait(list(running), num_returns=1)
            piece = running.pop(finished[0])
            record = records[piece.name] = ray.get(finished[0])
            rejected += record.rejected
            bar.update(piece.stop - piece.start)
            if len(rejected) > budget:
                _refuse(rejected, settings)
    seconds = time.perf_counter() - start
    rows = sum(s.stop - s.start for s in slices)
    print(f"prepare: {rows} rows in {seconds:.1f} s, {rows / seconds:.0f} rows/s on {workers} workers", file=sys.stderr)
    return records


def _refuse(rejected: list[Rejected], settings: PrepareSettings) -> None:
    ray.shutdown()
    path = settings.out / "rejected.json"
    write_json(path, {row.id: row.reason for row in rejected})
    shown = "\n".join(f"    {row.id}: {row.reason}" for row in rejected[:5])
    raise DataError(
        f"found {len(rejected)} rows that cannot be used, more than max_reject_share = {settings.max_reject_share:.2%} allows:\n"
        f"{shown}\nAll are listed in {path}. Mend the data, or raise --max-reject-share; finished shards are kept."
    )


def _connect(workers: int | None) -> None:
    """Join the cluster named by RAY_ADDRESS (as `ray job submit` sets it), else start Ray on this machine, loopback only."""
    if ray.is_initialized():
        return
    root = str(Path(__file__).parents[1])
    quiet = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    if "RAY_ADDRESS" in os.environ:
        ray.init(runtime_env={"env_vars": quiet}, log_to_driver=False)
        return
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": quiet | {"PYTHONPATH": path}},
    )


def _fingerprint(settings: PrepareSettings, parts: list[sources.Part]) -> dict:
    """The encoder's fingerprint and what was read; `settings.json` and the manifest hold it, the trainer compares it."""
    encoder = Encoder(settings.checkpoint, settings.encode).fingerprint()
    data = {part.source: {"rows": part.rows, "split": settings.split} for part in parts}
    return {"encoder": encoder, "encoder_digest": fingerprint_digest(encoder), "data": data, "rows_per_shard": settings.rows_per_shard}


def _claim(out: Path, fingerprint: dict) -> None:
    """Bind the folder to these settings, so that shards of two kinds never meet in one folder."""
    path = out / SETTINGS
    if path.is_file():
        if json.loads(path.read_text()) != fingerprint:
            raise DataError(
                f"{out}: found shards made from other data, another tokenizer or other settings (see {path}); "
                "expected the same. Name another --out, or remove this folder."
            )
        return
    stray = next(iter(out.glob("*.arrow")), None)
    if stray:
        raise DataError(f"{out}: found {stray.name} but no {SETTINGS}; expected an empty folder or one of this job. Name another --out.")
    write_json(path, fingerprint)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{out}: another prepare job is writing here; wait for it, or name another --out") from error
        yield
