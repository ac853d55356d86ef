"""A rank ends with what started it: no kill of a launcher leaves ranks behind that hold memory and ports.

DeepSpeed's launcher is two processes (`deepspeed`, and launch.py on every machine) and the supervisor may be a third above them. Whichever
is killed, even by SIGKILL, the rank ends: the kernel ends it with its parent, and a thread that waits for the ones above (pidfd_open(2): no
polling) ends it with those, after `GRACE_S` in which it may save. What else started the launcher, a shell or a terminal, may go.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

from pipeline import processes

GRACE_S = 5.0
"""Seconds that a rank has, after SIGTERM, when a launcher further above than its parent has ended."""
SUPERVISOR = "pipeline.supervise"
LAUNCHERS = ("deepspeed.launcher.runner", "deepspeed.launcher.launch", "torch.distributed.run", SUPERVISOR)
"""Modules that start ranks, as they stand after `python -m`."""
PROGRAMS = ("deepspeed", "deepspeed.pt", "torchrun")
"""The same as programs; an interpreter may stand before them."""


def is_launcher(words: list[str]) -> bool:
    """Whether a command line is a launcher's own: its program, not its arguments, says so."""
    names = [Path(word).name for word in words[:2]]
    modules = [after for word, after in pairwise(words[:7]) if word == "-m"]
    return any(name in PROGRAMS for name in names) or any(module in LAUNCHERS for module in modules)


def launchers_above(pid: int) -> list[int]:
    """The unbroken line of launchers above a process, nearest first."""
    found = []
    while is_launcher(processes.words(pid := processes.parent(pid))):
        found.append(pid)
    return found


def hold() -> list[int]:
    """From now on, end with the launchers above this process; returns them. Nothing happens where there is none.

    To be called from the main thread, before anything slow. A launcher that ended before this call is no longer found above; a rank that
    was started under a supervisor notices by that (`heartbeat.begin`).
    """
    above = launchers_above(os.getpid())
    if not above:
        return []
    processes.ask_kernel(processes.DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != above[0]:  # it ended in between, and the kernel was asked too late
        _end(above[0])
    try:
        handles = {os.pidfd_open(pid): pid for pid in above}
    except ProcessLookupError:
        _end(above[-1])
    if len(above) > 1:
        threading.Thread(target=_wait, args=(handles,), name="lifeline", daemon=True).start()
    return above


def _wait(handles: dict[int, int]) -> None:
    """End with the first launcher above that ends, and end the others: they would take seconds to do it themselves.

    Not the supervisor, which is to say what has happened.
    """
    waiting = select.poll()
    for handle in handles:
        waiting.register(handle, select.POLLIN)
    ended = [handle for handle, _ in waiting.poll()]
    os.kill(os.getpid(), signal.SIGTERM)  # Ctrl-C and SIGTERM end `deepspeed` itself at once: a trainer that can save may still do so
    time.sleep(GRACE_S)
    for handle in handles.keys() - set(ended):
        words = processes.words(handles[handle])
        if is_launcher(words) and SUPERVISOR not in words:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
    _end(*(handles[handle] for handle in ended))


def _end(*above: int) -> None:
    """End this process at once: its peers are ending too, and nobody is left to hear."""
    try:
        names = ", ".join(map(str, above))
        print(f"rank {os.environ.get('RANK', 0)}: a launcher above (process {names}) has ended, so it ends", file=sys.stderr, flush=True)
    finally:
        processes.end_me()
