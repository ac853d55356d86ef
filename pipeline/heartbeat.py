"""What every rank lets its supervisor know, and what the supervisor tells all ranks, through one folder that all of them see.

    OUT/jobs/<id>/rank-00003.json         who the rank is (machine, process), and where (phase, step): `Record`
    OUT/jobs/<id>/orders.jsonl            signals that the ranks on other machines raise in themselves
    OUT/jobs/<id>/supervisor-<machine>-<process>    changes every few seconds as long as that supervisor lives

`beat` only notes the phase; a thread writes at most one small file a second, so a step never waits for the disk. While the main thread
hangs, this thread still gives signs of life: that tells a rank that waits for others from one that is stopped or gone. Without a
supervisor, nothing is written.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.samples import DataError
from pipeline import processes

TICK_S = 1.0
LIFE_S = 5.0
"""Seconds between signs of life."""
LEASE_S = 60.0
"""A rank on another machine ends this long after the supervisor's last sign of life."""


@dataclass
class Record:
    """A rank as its file shows it."""

    rank: int
    host: str
    machine: str
    pid: int
    born: int
    phase: str = "starting"
    step: int | None = None
    """Counted from 1, as in the progress lines; None outside of steps."""
    beats: int = 0
    """How often it has entered a phase: all ranks enter the same ones, so the smallest number is behind."""
    life: int = 0
    """Signs of life so far."""
    ended: int | None = None
    """Its exit status, once it knows; None also where it was killed."""

    @property
    def process(self) -> processes.Process:
        """Its process, on its machine."""
        return processes.Process(self.pid, self.born)

    def __str__(self) -> str:
        step = f", step {self.step}" if self.step is not None else ""
        return f"rank {self.rank} ({self.host}, process {self.pid}; {self.phase}{step})"


def replace(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old or the new, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value))
    os.replace(partial, path)


def read_ranks(folder: Path) -> list[Record]:
    """The ranks that have reported, in order."""
    return [Record(**json.loads(path.read_text())) for path in sorted(folder.glob("rank-*.json"))]


def order(folder: Path, number: int) -> None:
    """Have every rank on other machines raise a signal in itself."""
    with open(folder / "orders.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"signal": int(number), "by": processes.machine()}) + "\n")


def leases(folder: Path, machine: str = "*") -> list[Path]:
    """Signs of life of the supervisors on one machine, or on all."""
    return sorted(folder.glob(f"supervisor-{machine}-*"))


class Heart:
    """One rank's file and the thread that keeps it; `begin` makes it."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.path = folder, folder / f"rank-{rank:05}.json"
        self.record = Record(rank, socket.gethostname(), processes.machine(), *processes.me())
        self._written, self._at = -1, 0.0
        self._read = 0
        self._lease, self._lease_at = "", time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._write()
        self._thread.start()

    def end(self, status: int) -> None:
        """Write the exit status; the last word."""
        self._over.set()
        self._thread.join()
        self.record.ended = status
        self._write()

    def _run(self) -> None:
        while not self._over.wait(TICK_S):
            with contextlib.suppress(OSError):  # a full or absent disk is the trainer's to report
                if self.record.beats != self._written or time.monotonic() - self._at >= LIFE_S:
                    self._write()
                self._obey()
                self._check_lease()

    def _write(self) -> None:
        self.record.life += 1
        self._written, self._at = self.record.beats, time.monotonic()
        replace(self.path, asdict(self.record))

    def _obey(self) -> None:
        path = self.folder / "orders.jsonl"
        if not path.exists() or path.stat().st_size == self._read:
            return
        whole = path.read_bytes()[self._read :].rpartition(b"\n")[0]
        self._read += len(whole) + 1
        for line in whole.splitlines():
            said = json.loads(line)
            if said["by"] == self.record.machine:  # there the supervisor reaches its ranks itself
                continue
            if said["signal"] == signal.SIGKILL:
                processes.end_me()
            os.kill(os.getpid(), said["signal"])

    def _check_lease(self) -> None:
        """End where no supervisor of another machine has been heard for long; on its own machine `lifeline` does it at once."""
        if leases(self.folder, self.record.machine):
            return
        lease = "".join(path.read_text() for path in leases(self.folder))
        if lease != self._lease:
            self._lease, self._lease_at = lease, time.monotonic()
        elif time.monotonic() - self._lease_at > LEASE_S:
            processes.end_me()


_heart: Heart | None = None


def begin(folder: Path, rank: int) -> Heart:
    """Report to the supervisor of the job in `folder` from now on.

    Raises:
        DataError: there is no such job, or its supervisor on this machine has ended already.
    """
    global _heart
    if not folder.is_dir():
        raise DataError(
            f"{folder}: found no folder of a job (--job), expected one that the supervisor made and every machine sees; nothing was "
            "started. Put --out on a disk that all machines share, or start without --job"
        )
    own = [processes.Process(*json.loads(path.read_text())["process"]) for path in leases(folder, processes.machine())]
    if own and not any(map(processes.state, own)):
        raise DataError(f"{folder}: the supervisor has ended already; nothing was started. Start the job again")
    _heart = Heart(folder, rank)
    return _heart


def beat(phase: str, step: int | None = None) -> None:
    """Note that this rank enters a phase. All ranks enter the same phases in the same order."""
    if _heart is not None:
        _heart.record.phase, _heart.record.step = phase, step
        _heart.record.beats += 1


def job() -> str | None:
    """Name of the supervised job that this rank belongs to; None without a supervisor."""
    return _heart.folder.name if _heart is not None else None
