"""What other processes do while one case is timed: a busy machine's figures must be known as such."""

import resource
import time

import psutil

CONTENDED = 0.2
"""Cores kept busy by others from which a figure is marked."""


class Others:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._start, self._others = time.perf_counter(), _busy() - _own()

    def cores(self) -> float:
        """Cores that processes other than this one and its children kept busy; children count once they were waited for."""
        return (_busy() - _own() - self._others) / (time.perf_counter() - self._start)


def _busy() -> float:
    """CPU seconds of this machine that were not idle."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)


def _own() -> float:
    """CPU seconds of this process and of the children it has waited for."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in own)
