"""Faults inside a save, put into a rank's process before it starts: at a named point of the save of one step, the rank kills itself.

The product has no hooks for this: its functions are wrapped.

Every injection is written down before it happens, so that a test can count them: one that injected nothing has shown nothing.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from pipeline.train import commit, engine

POINTS = {
    "before the folder is made": 0,
    "after the first file": 0,
    "inside a file": 1,
    "between the ranks' files": 1,
    "before the digests": 1,
    "before the rename": 0,
    "after the rename": 0,
    "inside the pruning": 0,
}
"""Points at which a rank can be killed, and which rank it is."""


def install(point: str, step: int, record: str) -> None:
    """Kill this process at `point` of the save after `step` steps, and note it in the file `record` first.

    The point "no memory" does not kill: writing the first file raises MemoryError.
    """

    def strike() -> None:
        file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{point}, step {step}\n".encode())
        os.close(file)
        if point == "no memory":
            raise MemoryError(f"{point}, step {step}")
        os.kill(os.getpid(), signal.SIGKILL)

    name = commit.folder_name(step)
    ours = {"folder": f".tmp-{name}", "file": 0}

    def at_file(save: Callable) -> Callable:
        def wrapped(self, state_dict: dict, path: str) -> None:
            if ours["folder"] not in path:
                return save(self, state_dict, path)
            ours["file"] += 1
            if point == "between the ranks' files" and ours["file"] == 2:
                strike()
            if point == "no memory":
                strike()
            save(self, state_dict, path)
            if point == "inside a file":
                os.truncate(path, os.path.getsize(path) // 2)
                strike()
            if point == "after the first file":
                strike()

        return wrapped

    def at(call: Callable, mine: Callable[..., bool], after: bool = False) -> Callable:
        def wrapped(*args):
            if mine(*args) and not after:
                strike()
            out = call(*args)
            if mine(*args) and after:
                strike()
            return out

        return wrapped

    engine.Files.save = at_file(engine.Files.save)
    if point == "before the folder is made":
        commit.new_temporary = at(commit.new_temporary, lambda root, number: number == step)
    if point == "before the digests":
        commit.flush = at(commit.flush, lambda folder, names: folder.name == ours["folder"])
    if point in ("before the rename", "after the rename"):
        os.replace = at(os.replace, lambda source, target: Path(target).name == name, after=point == "after the rename")
    if point == "inside the pruning":
        shutil.rmtree = at(shutil.rmtree, lambda path, *_: prunes(Path(path), name))


def prunes(path: Path, newest: str) -> bool:
    """Whether this removes an older checkpoint after the commit of `newest`; one of its files is gone then."""
    if not path.name.startswith(".tmp-old-") or commit.newest(path.parent).name != newest:
        return False
    next(path.rglob("*.pt")).unlink()
    return True
