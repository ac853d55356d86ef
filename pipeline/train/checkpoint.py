"""Checkpoints that are whole or absent, and are verified before anything is read from them.

Saving has two halves. DeepSpeed writes every rank's files into a temporary folder, while training waits. Then a thread of each rank
flushes and digests its share of them while the next steps run (`save_in_background`); at the first step's end at which all ranks are done
with that, they agree on the outcome and rank 0 commits (`commit`). The threads do file work alone: every collective is called by the main
thread. What was handed to the disk no longer changes with the weights, so the files are those of a save that training waited for.

Loading first checks, on rank 0, every file's digest and that data, precision and config are those of the run; only then does any rank
unpickle DeepSpeed's files. Ranks and ZeRO stage may be others (`reshard`).

Training state beyond weights and optimizer is the step alone: data order, z, dropout masks and learning rate are pure functions of
(config, step, and for the masks rank and chunk).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from data_prep.samples import DataError
from pipeline import comm
from pipeline.config import RunConfig
from pipeline.train import commit, reshard

TAG = "state"
CHUNKING = {"batch.row_tokens", "batch.chunk_tokens"}
"""Settings that say which sequences share a forward pass."""
LAYOUT_ONLY = {"deepspeed", "model.attention", "model.gradient_checkpointing", "data.shards", "data.verify"} | CHUNKING
"""Settings that change how a step is computed but not its result; they may differ at resume. (Of the data, the digest is compared.)"""


class UnwrittenError(Exception):
    """An engine could not write its files, but is through with its collectives: the ranks can still agree on what to do."""


class Saveable(Protocol):
    """What a checkpoint asks of an engine. `save` raises UnwrittenError where the disk refused, after its last collective."""

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
    figures: dict[str, float] = {}
    """What `keep_best` compares, by name: the mean over the steps since the checkpoint before."""
    files: dict[str, str]
    """SHA-256 by file name relative to the checkpoint."""


def newest_whole(root: Path, say: Callable[[str], None]) -> tuple[Path, dict] | None:
    """The newest checkpoint that is as it was committed, with its manifest, None where there is none; newer ones are set aside (on one rank
    alone).
    """
    for folder in reversed(commit.committed(root)):
        try:
            return folder, commit.read(folder)
        except DataError as error:
            say(f"{error}\n  --resume auto: set aside as {commit.set_aside(folder).name}")
    return None


def load(engine: Saveable, folder: Path) -> None:
    """Load weights and optimizer state (collective); call `check` first."""
    engine.load(folder, TAG)


def check(folder: Path, config: RunConfig, belongs: Belongs, manifest: dict | None = None) -> CheckpointManifest:
    """Verify a checkpoint and that it belongs to this run (collective: rank 0 reads, all ranks get its verdict).

    Args:
        manifest: what `commit.read` has just said of it on rank 0, where every file's digest was compared already.

    Raises:
        DataError: a file is missing or altered, or the checkpoint belongs to another run; says which.
    """
    verdict: CheckpointManifest | str = ""
    if comm.rank() == 0:
        try:
            verdict = _check(folder, config, belongs, commit.read(folder) if manifest is None else manifest)
        except DataError as error:
            verdict = str(error)
    verdict = comm.broadcast_object(verdict)
    if isinstance(verdict, str):
        raise DataError(verdict)
    return verdict


def _check(folder: Path, config: RunConfig, belongs: Belongs, found: dict) -> CheckpointManifest:
    try:
        manifest = CheckpointManifest.model_validate(found)
    except ValueError as error:
        raise DataError(f"{folder}: found a manifest of another version of this program ({error}); resume with that version") from error
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
