"""One start of a launcher, watched until nothing of it is left."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.samples import DataError
from pipeline import heartbeat, processes
from pipeline.supervise.outcome import Status, Verdict, hanging, judge

TICK_S = 0.2
LOOK_S = 1.0
"""Seconds between looks at what the ranks report."""
FOLLOW_S = 10.0
"""How long other ranks may take to end after one has failed."""
UNKILLABLE_S = 30.0
"""After which a process that SIGKILL does not end (it waits for a device) is left to the kernel."""
SETTLE_S = 60.0
SETTLED = (Status.DONE, Status.BAD_INPUT, Status.REFUSED, Status.PREEMPTED)
"""Statuses that ranks end with together."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass(frozen=True)
class Limits:
    """How long the supervisor waits."""

    grace_s: float = 120.0
    """For the ranks to end by themselves after they were asked to stop."""
    hang_minutes: float = 20.0
    """For any rank to advance, before the job is ended as hanging."""


class Job:
    """A launcher and its ranks.

    Args:
        folder: OUT/jobs/<id>, not used before by a supervisor on this machine that has ended.
        result: OUT/result.json; it counts where it names this job.

    Raises:
        DataError: a supervisor on this machine has used the folder already.
    """

    def __init__(self, folder: Path, result: Path, limits: Limits) -> None:
        self.folder, self.result, self.limits = folder, result, limits
        self.machine = processes.machine()
        self._lease = folder / f"supervisor-{self.machine}-{os.getpid()}"
        others = [json.loads(path.read_text())["process"] for path in heartbeat.leases(folder, self.machine)]
        if any(processes.state(processes.Process(*other)) is None for other in others):
            raise DataError(
                f"{folder}: found a job of this name, expected a new one; nothing was started. Give each start its own --job-id"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._beat = 0
        self._sign_of_life()
        self._arrived: list[int] = []
        self.asked: int | None = None
        """The first signal that asked this job to stop."""
        self._limit = float("inf")
        self._failed_at: float | None = None
        self._watch = _Watch()

    def run(self, command: Sequence[str], env: Mapping[str, str]) -> Verdict:
        """Start, watch, end; nothing that was started is left when this returns."""
        processes.ask_kernel(processes.ADOPT_ORPHANS, 1)  # a rank whose launcher was killed becomes our child: it can be found
        verdict, child = None, None
        with self._signals():
            try:
                child = subprocess.Popen(
                    list(command), env=dict(env), start_new_session=True, preexec_fn=_with_parent, stdin=subprocess.DEVNULL
                )
                verdict = self._follow(child)
                if verdict is None:
                    self._settle(child.returncode)
            finally:
                self._end_all(child)
        judged = judge(heartbeat.read_ranks(self.folder), self._result(), self.asked, child.returncode)
        told = judged.status in (Status.BAD_INPUT, Status.REFUSED, Status.PREEMPTED, Status.UNSAVED)  # by a rank itself
        return judged if verdict is None or self._result() or told else verdict

    def _follow(self, child: subprocess.Popen) -> Verdict | None:
        """Until the launcher has ended (None) or the job must be ended (why)."""
        looked = lived = time.monotonic()
        while child.poll() is None:
            time.sleep(TICK_S)
            now = time.monotonic()
            self._forward(now)
            if now > self._limit:
                return Verdict(128 + self.asked, f"ranks had not ended {self.limits.grace_s:g} s after {signal.Signals(self.asked).name}")
            if now - lived >= heartbeat.LIFE_S:
                self._sign_of_life()
                lived = now
            if now - looked >= LOOK_S:
                looked = now
                if verdict := self._look(now):
                    return verdict
        return None

    def _settle(self, launcher: int) -> None:
        """Wait for the last words of ranks that other supervisors started: rank 0 writes the result when ours may have ended already."""
        patience = time.monotonic() + SETTLE_S
        while launcher in SETTLED and self._result() is None and time.monotonic() < patience:
            ranks = [record for record in heartbeat.read_ranks(self.folder) if record.ended is None]
            if not any(record.machine != self.machine or processes.state(record.process) for record in ranks):
                return
            time.sleep(TICK_S)

    def _look(self, now: float) -> Verdict | None:
        records = heartbeat.read_ranks(self.folder)
        # in this order: a rank's last word is written before it ends
        gone = [r for r in records if r.ended is None and r.machine == self.machine and processes.state(r.process) is None]
        gone = [r for r in heartbeat.read_ranks(self.folder) if r.rank in {g.rank for g in gone} and r.ended is None]
        if gone and self._failed_at is None:
            names = ", ".join(map(str, gone))
            if self.asked is not None:
                return Verdict(128 + self.asked, f"ended without saving: {names}")
            return Verdict(Status.LOST, f"lost: {names}")
        if any(record.ended not in (None, Status.DONE, Status.PREEMPTED) for record in records):
            self._failed_at = self._failed_at or now
            if now - self._failed_at > FOLLOW_S and any(record.ended is None for record in records):
                return judge(records, None, self.asked, None)
        still = self._watch.look(records, now)
        if still > self.limits.hang_minutes * 60:
            own = [r for r in records if r.machine == self.machine and r.ended is None]
            stopped = {r.rank for r in own if processes.state(r.process) in ("T", "t")}
            return Verdict(Status.LOST, hanging(records, self._watch.silent(now), stopped, self.limits.hang_minutes))
        return None

    def _forward(self, now: float) -> None:
        """Pass signals that have arrived on to all ranks at once; the launcher, which would end them one by one, gets none."""
        while self._arrived:
            number = self._arrived.pop(0)
            ranks = heartbeat.read_ranks(self.folder)
            told = signal.SIGTERM if number == signal.SIGINT else number  # who presses Ctrl-C wants to go on later, too
            heartbeat.order(self.folder, told)
            for record in ranks:
                if record.machine == self.machine and record.ended is None:
                    processes.send(record.process, told)
            if number == signal.SIGUSR1:
                continue
            hurry = self.asked is not None and number == signal.SIGINT
            if self.asked is None:
                self.asked, self._limit = number, now + self.limits.grace_s
            if hurry or not ranks:  # nobody has begun: there is nothing to save
                self._limit = now

    def _end_all(self, child: subprocess.Popen | None) -> None:
        """SIGKILL for whatever is left, on every machine. (DeepSpeed's launcher, if asked, would end ranks one by one, 30 s each, and
        on several machines every DeepSpeed job of this user.)"""
        if any(record.ended is None for record in heartbeat.read_ranks(self.folder)):
            heartbeat.order(self.folder, signal.SIGKILL)
        patience = time.monotonic() + UNKILLABLE_S
        while (left := processes.descendants(os.getpid())) and time.monotonic() < patience:
            for process in left:
                processes.send(process, signal.SIGKILL)
            time.sleep(0.02)
        if child:
            child.poll()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _result(self) -> dict | None:
        """result.json, if this job wrote it."""
        try:
            found = json.loads(self.result.read_text())
        except (OSError, ValueError):
            return None
        return found if found.get("job") == self.folder.name else None

    def _sign_of_life(self) -> None:
        self._beat += 1
        heartbeat.replace(self._lease, {"process": processes.me(), "beat": self._beat})

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, lambda number, frame: self._arrived.append(number)) for number in FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Watch:
    """When ranks last advanced and last gave a sign of life, by this machine's clock."""

    def __init__(self) -> None:
        self._beats: dict[int, tuple[int, float]] = {}
        self._lives: dict[int, tuple[int, float]] = {}
        self._start = time.monotonic()

    def look(self, records: Sequence[heartbeat.Record], now: float) -> float:
        """Seconds since the last rank that advanced did so."""
        for record in records:
            for seen, value in ((self._beats, (record.beats, record.ended)), (self._lives, record.life)):
                if seen.get(record.rank, (None,))[0] != value:
                    seen[record.rank] = (value, now)
        return now - max((at for _, at in self._beats.values()), default=self._start)

    def silent(self, now: float) -> set[int]:
        """Ranks without a sign of life for three times as long as they should need."""
        return {rank for rank, (_, at) in self._lives.items() if now - at > 3 * heartbeat.LIFE_S}


def _with_parent() -> None:
    """In the launcher, before it begins: end with the supervisor."""
    processes.ask_kernel(processes.DIE_WITH_PARENT, signal.SIGKILL)
