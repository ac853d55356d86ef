"""Checkpoints that are whole or absent, and are verified before anything is read from them.

Every rank writes into a temporary folder; all files are flushed and digested; rank 0 writes the manifest last and renames the
folder to `step-<n>`. That rename is the commit: there is no `latest` pointer that could name a torn checkpoint. Loading first
checks, on rank 0, every file's digest and that data, precision and config are those of the run; only then does any rank unpickle
DeepSpeed's files. Ranks and ZeRO stage may be others (`reshard`).

Training state beyond weights and optimizer is the step alone: data order, z, dropout masks and learning rate are pure functions of
(config, step, and for the masks rank and chunk).
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from data_prep.samples import DataError
from data_prep.shards import file_digest, write_json
from pipeline import comm
from pipeline.config import RunConfig
from pipeline.train import reshard

MANIFEST = "manifest.json"
TAG = "state"
CHUNKING = {"batch.row_tokens", "batch.chunk_tokens"}
"""Settings that say which sequences share a forward pass."""
LAYOUT_ONLY = {"deepspeed", "model.attention", "model.gradient_checkpointing", "data.shards", "data.verify"} | CHUNKING
"""Settings that change how a step is computed but not its result; they may differ at resume. (Of the data, the digest is compared.)"""


class Saveable(Protocol):
    """What a checkpoint asks of an engine."""

    def save(self, folder: Path, tag: str) -> None: ...
    def load(self, folder: Path, tag: str) -> None: ...


class Belongs(NamedTuple):
    """What a checkpoint must agree with beside the config: ZeRO stage, precision ("fp32", "bf16") and shard manifest digest."""

    zero_stage: int
    precision: str
    data_digest: str


class CheckpointManifest(BaseModel):
    """What a checkpoint holds and what it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    """Steps done; training goes on with this one."""
    world_size: int
    zero_stage: int
    precision: str
    """fp32 or bf16."""
    content: dict
    """`RunConfig.content()`: everything the result depends on."""
    data_digest: str
    """Digest of the shard manifest."""
    tracked_run: str | None
    """MLflow run id, continued at resume."""
    files: dict[str, str]
    """SHA-256 by file name relative to the checkpoint."""


def save(engine: Saveable, root: Path, manifest: CheckpointManifest, keep: int) -> Path:
    """Write a checkpoint (collective), then remove the oldest beyond `keep`.

    A rank that fails inside DeepSpeed's own save leaves it while others wait there, so nothing can be agreed on any more: its
    exception ends the job. Earlier checkpoints are untouched, and the next save removes what was left half-written.

    Raises:
        RuntimeError: a file could not be flushed; agreed on by all ranks.
    """
    target, temporary = root / f"step-{manifest.step:08d}", root / f".tmp-step-{manifest.step:08d}"
    if comm.rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    comm.barrier()
    engine.save(temporary, TAG)
    comm.barrier()
    error, digests = None, {}
    try:
        digests = _flush_and_digest(temporary)
    except OSError as problem:
        error = f"rank {comm.rank()}: {problem}"
    reports = comm.gather_objects((error, digests))
    errors = [message for message, _ in reports if message]
    if comm.rank() == 0:
        if errors:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            _commit(temporary, target, manifest, {name: d for _, part in reports for name, d in part.items()})
            _prune(root, keep)
    comm.barrier()
    if errors:
        raise RuntimeError(f"checkpoint of step {manifest.step} was not saved, earlier ones are untouched: {'; '.join(errors)}")
    return target


def newest(root: Path) -> Path | None:
    """The committed checkpoint with the most steps, None where there is none."""
    return max((path for path in root.glob("step-*") if (path / MANIFEST).is_file()), default=None)


def load(engine: Saveable, folder: Path) -> None:
    """Load weights and optimizer state (collective); call `check` first."""
    engine.load(folder, TAG)


def check(folder: Path, config: RunConfig, belongs: Belongs) -> CheckpointManifest:
    """Verify a checkpoint and that it belongs to this run (collective: rank 0 reads, all ranks get its verdict).

    Raises:
        DataError: a file is missing or altered, or the checkpoint belongs to another run; says which.
    """
    verdict: CheckpointManifest | str = ""
    if comm.rank() == 0:
        try:
            verdict = _check(folder, config, belongs)
        except DataError as error:
            verdict = str(error)
    verdict = comm.broadcast_object(verdict)
    if isinstance(verdict, str):
        raise DataError(verdict)
    return verdict


def _check(folder: Path, config: RunConfig, belongs: Belongs) -> CheckpointManifest:
    try:
        manifest = CheckpointManifest.model_validate_json((folder / MANIFEST).read_text())
    except ValueError as error:
        problem = f"{folder}: found an unreadable manifest ({error})"
        raise DataError(f"{problem}; remove this checkpoint to resume from the one before") from error
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            state = "other bytes than its manifest says" if path.is_file() else "that it is missing"
            raise DataError(f"{path}: found {state}; remove {folder} to resume from the checkpoint before it")
    if manifest.precision != belongs.precision:
        raise DataError(
            f"{folder}: found a checkpoint of a run in {manifest.precision}, expected one in {belongs.precision}: in another precision it "
            "would be another run. Resume with a DeepSpeed config of the same precision"
        )
    then, now = (manifest.world_size, manifest.zero_stage), (comm.world_size(), belongs.zero_stage)
    if problem := reshard.refusal(then, now, config.model.lora.dropout):
        raise DataError(f"{folder}: {problem}")
    if manifest.data_digest != belongs.data_digest:
        raise DataError(f"{folder}: found a checkpoint trained on other shards (manifest digest differs); expected those of data.shards")
    changed = _differences(manifest.content, config.content(), _layout_only(config))
    if changed:
        raise DataError(f"{folder}: found a checkpoint of other settings ({'; '.join(changed)}); expected the same. Use a new --out")
    return manifest


def _layout_only(config: RunConfig) -> set[str]:
    """Dropout masks belong to chunks: with dropout, how sequences are cut into chunks is part of the result."""
    return LAYOUT_ONLY - CHUNKING if config.model.lora.dropout else LAYOUT_ONLY


def _differences(then: dict, now: dict, layout_only: set[str], prefix: str = "") -> list[str]:
    out = []
    for key in sorted(then.keys() | now.keys()):
        name = prefix + key
        if isinstance(then.get(key), dict) and isinstance(now.get(key), dict):
            out += _differences(then[key], now[key], layout_only, name + ".")
        elif then.get(key) != now.get(key) and name not in layout_only:
            out.append(f"{name}: {then.get(key)} then, {now.get(key)} now")
    return out


def _flush_and_digest(folder: Path) -> dict[str, str]:
    """Flush this rank's share of the files to disk and digest them: the work is spread over ranks."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    out = {}
    for path in files[comm.rank() :: comm.world_size()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            out[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return out


def _commit(temporary: Path, target: Path, manifest: CheckpointManifest, files: dict[str, str]) -> None:
    write_json(temporary / MANIFEST, json.loads(manifest.model_copy(update={"files": files}).model_dump_json()))
    shutil.rmtree(target, ignore_errors=True)  # the same step saved again
    os.replace(temporary, target)
    directory = os.open(target.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def _prune(root: Path, keep: int) -> None:
    for path in sorted(path for path in root.glob("step-*") if (path / MANIFEST).is_file())[:-keep]:
        shutil.rmtree(path)
