"""Saving checkpoints while training goes on: at most one is on its way to the disk. See `checkpoint` for the protocol.

A rank that cannot write (disk full, I/O error) must not leave the others waiting in a collective. Its error is kept until DeepSpeed's own
collectives are through (`engine.Files`) and agreed on here, so all ranks end together, with the checkpoints before untouched. What
else a rank may raise inside DeepSpeed's save (no memory, say) ends that rank at once; the others see its connections close.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from data_prep.samples import DataError
from pipeline import comm
from pipeline.train import commit
from pipeline.train.checkpoint import TAG, CheckpointManifest, Saveable, UnwrittenError


class SaveError(Exception):
    """A checkpoint could not be written; every rank raises it, and earlier checkpoints are untouched."""


class Keep(NamedTuple):
    """Which checkpoints stay: the newest `last`, and the one whose `figure` is best where a figure is named."""

    last: int
    figure: str | None = None
    better: Literal["lower", "higher"] = "lower"


class _Pending(NamedTuple):
    manifest: CheckpointManifest
    temporary: Path
    digests: "Future[dict[str, str]]"


class Saver:
    """Saves one job's checkpoints under `root`. `begin` and `finish` are collective; `ready` is this rank's own."""

    def __init__(self, engine: Saveable, root: Path, keep: Keep, say: Callable[[str], None]):
        self._engine, self._root, self._keep, self._say = engine, root, keep, say
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: _Pending | None = None

    def begin(self, manifest: CheckpointManifest) -> None:
        """Write this rank's files; flushing them goes on in a thread. Whatever was pending is finished before.

        Raises:
            SaveError: a rank could not write.
        """
        self.finish()
        temporary = commit.temporary_folder(self._root, manifest.step)
        made = _problem(lambda: comm.rank() == 0 and commit.new_temporary(self._root, manifest.step))
        self._stop_if(comm.agree(made), manifest.step)
        written = None
        try:
            self._engine.save(temporary, TAG)
        except UnwrittenError as error:
            written = f"rank {comm.rank()}: {error}"
        # a rank may see another's new files late on a network file system; its own it sees
        reports = comm.gather_objects((written, set() if written else commit.file_names(temporary)))
        self._stop_if(next((problem for problem, _ in reports if problem), None), manifest.step)
        names = sorted(set().union(*(found for _, found in reports)))
        share = names[comm.rank() :: comm.world_size()]
        self._pending = _Pending(manifest, temporary, self._thread.submit(commit.flush, temporary, share))

    @property
    def ready(self) -> bool:
        """Whether a checkpoint is pending and this rank's share of it is flushed, or failed to be."""
        return self._pending is not None and self._pending.digests.done()

    def finish(self) -> None:
        """Wait for the pending checkpoint, commit it and say so; nothing where none is pending.

        Raises:
            SaveError: a rank could not flush its files, or rank 0 could not commit.
        """
        if self._pending is None:
            return
        (manifest, temporary, digests), self._pending = self._pending, None
        target = self._root / commit.folder_name(manifest.step)
        problem, found = None, {}
        try:
            found = digests.result()
        except OSError as error:
            problem = f"rank {comm.rank()}: {error}"
        reports = comm.gather_objects((problem, found))
        self._stop_if(next((problem for problem, _ in reports if problem), None), manifest.step)
        files = {name: digest for _, part in reports for name, digest in part.items()}
        content = manifest.model_copy(update={"files": files}).model_dump(mode="json")
        done = _problem(lambda: comm.rank() == 0 and commit.commit(temporary, target, content))
        self._stop_if(comm.agree(done), manifest.step)
        if comm.rank() == 0:
            commit.prune(self._root, self._keep.last, best(self._root, self._keep))
        self._say(f"step {manifest.step}: checkpoint {target}")

    def _stop_if(self, problem: str | None, step: int) -> None:
        if problem:
            if comm.rank() == 0:  # half a checkpoint would fill the disk further
                shutil.rmtree(commit.temporary_folder(self._root, step), ignore_errors=True)
            raise SaveError(
                f"{self._root}: the checkpoint of step {step} was not saved: {problem}. Earlier ones are untouched: mend the disk "
                "(is it full?), then start the same command with --resume auto"
            )


def best(root: Path, keep: Keep) -> Path | None:
    """The committed checkpoint with the best figure, the older of equals; None where none has it."""
    figures = {}
    for path in commit.committed(root) if keep.figure else ():
        try:
            figures[path] = commit.read_manifest(path)["figures"][keep.figure]
        except (DataError, KeyError):
            continue  # altered, or without the figure: not what is to be kept as the best
    choose = min if keep.better == "lower" else max
    return choose(figures, key=figures.__getitem__, default=None)


def _problem(work: Callable[[], object]) -> str | None:
    """Do it; what the disk said, where it refused."""
    try:
        work()
    except OSError as error:
        return f"rank {comm.rank()}: {error}"
    return None
