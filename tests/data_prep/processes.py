"""The processes a Ray of ours consists of, by the kernel's own tables, and ways to disturb them."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


def descendants(root: int) -> list[int]:
    """`root` and all processes below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended
            continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def command(process: int) -> bytes:
    """A process's command line, empty once it has ended; Ray's workers put their task's name there."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(root: int, task: bytes = b"ray::") -> list[int]:
    """Ray's workers below `root` that run `task` (default: any worker, idle ones too)."""
    return [process for process in descendants(root) if task in command(process)]


@dataclass(frozen=True)
class Kill:
    """One worker killed, and whether it had its shard open."""

    process: int
    writing: bool


@contextmanager
def killer(out: Path, kills: int, seed: int) -> Iterator[list[Kill]]:
    """Within, SIGKILL a random worker that makes a shard, at random moments, `kills` times; yields those done so far.

    Every second one is met with its shard open, half-written.
    """
    done: list[Kill] = []
    over = threading.Event()
    rng = random.Random(seed)

    def strike(on_open_file: bool) -> None:
        found = [process for process in workers(os.getpid(), b"ray::make_shard") if process not in {kill.process for kill in done}]
        writing = [process for process in found if any(out.glob(f".*.tmp-*-{process}"))]
        victims = writing if on_open_file else found
        if victims:
            victim = rng.choice(victims)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                done.append(Kill(victim, victim in writing))

    def run() -> None:
        while len(done) < kills and not over.wait(rng.uniform(0.01, 0.3)):
            before = len(done)
            while len(done) == before and not over.wait(0.002):
                strike(on_open_file=before % 2 == 0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def wait_until(condition, seconds: float = 300.0) -> bool:
    """Whether `condition()` becomes true in time; looks every two milliseconds."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.002)
    return bool(met)


@contextmanager
def killer_of_node(nodes, node, task: bytes = b"ray::make_shard") -> Iterator[list[int]]:
    """Within, SIGKILL a node's raylet once one of its workers is at its task; yields the raylets killed so far.

    Args:
        nodes: `ray.cluster_utils.Cluster`.
        node: one of its nodes, not the head.
        task: as Ray titles the worker.
    """
    raylet = node.all_processes["raylet"][0].process.pid
    killed: list[int] = []
    over = threading.Event()

    def run() -> None:
        while not killed and not over.wait(0.002):
            if workers(raylet, task):
                nodes.remove_node(node, allow_graceful=False)
                killed.append(raylet)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
