"""Processes of this machine, by the kernel's own tables (Linux).

A process is named by its number and the moment it began, for numbers are used again.
"""

import ctypes
import hashlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

DIE_WITH_PARENT, ADOPT_ORPHANS = 1, 36
"""PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of prctl(2)."""


class Process(NamedTuple):
    """A process of this machine."""

    pid: int
    born: int
    """When it began, in clock ticks since the machine did."""


def me() -> Process:
    """This process."""
    return Process(os.getpid(), _stat(os.getpid())[2])


def parent(pid: int) -> int:
    """Number of a process's parent; 0 where there is none, or the process has ended."""
    found = _stat(pid)
    return found[1] if found else 0


def state(process: Process) -> str | None:
    """The kernel's letter for what it does: R runs, S waits, D waits for a device, T is stopped; None once it has ended."""
    found = _stat(process.pid)
    return found[0] if found and found[0] not in "ZX" and found[2] == process.born else None


def words(pid: int) -> list[str]:
    """A process's command line; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def descendants(root: int) -> list[Process]:
    """All processes below `root` that still run, nearest first."""
    known = {int(path.name): found for path in Path("/proc").glob("[0-9]*") if (found := _stat(int(path.name)))}
    below = [root]
    for pid in below:
        below += [child for child, (_, above, _) in known.items() if above == pid]
    return [Process(pid, known[pid][2]) for pid in below[1:] if known[pid][0] not in "ZX"]


def send(process: Process, number: int) -> bool:
    """Send a signal, unless the process has ended; returns whether it was sent."""
    if state(process) is None:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def end_me() -> None:
    """End this process at once, as SIGKILL would. (From itself, the first process of a container takes no signal.)"""
    os._exit(128 + signal.SIGKILL)


def machine() -> str:
    """An id of this machine: two processes with the same id see each other's process numbers (containers of one host may not)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:12]


def ask_kernel(option: int, value: int) -> None:
    """prctl(option, value) for this process.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and moment of birth; None once it has ended. (The name before them may hold brackets and blanks.)"""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])
