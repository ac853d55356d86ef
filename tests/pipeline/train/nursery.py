"""Ranks that are up in a second or two, so that starting and killing many is affordable: forked from a process with all imports done.

They are ranks like any other: processes of their own, gloo, the trainer's `main` or a test's script, real signals.
"""

import atexit
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
ALONE_S = 20.0
"""How long a rank may wait for one that was killed before they met."""


@dataclass
class Training:
    """A small run, started and continued by the same words."""

    checkpoint: Path
    shards: Path
    out: Path
    steps: int = 12
    save_every: int = 2
    words: tuple[str, ...] = ()
    logs: list[Path] = field(default_factory=list)

    def argv(self, *more: str) -> list[str]:
        options = {
            "--model.checkpoint": self.checkpoint,
            "--data.shards": self.shards,
            "--out": self.out,
            "--steps": self.steps,
            "--save-every": self.save_every,
            "--timeout-minutes": 2,
            "--batch.pairs": 8,
            "--batch.sub-batch": 4,
            "--batch.conversations": 4,
        }
        flat = [str(word) for pair in options.items() for word in pair]
        return ["tiny", *flat, "--track.no-enabled", *self.words, *more]

    def lines(self) -> list[dict]:
        """The journal; a line that is being written is left out."""
        path = self.out / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def losses(self) -> list[tuple]:
        """(step, total, retrieval, generation) of every step, as recorded."""
        names = ("total", "retrieval", "generation")
        return [(line["step"], *(line["metrics"][f"loss/{name}"] for name in names)) for line in self.lines()]


class Job:
    """The ranks of one attempt."""

    def __init__(self, nursery: "Nursery", pids: list[int], log: Path):
        self._nursery, self.pids, self.log = nursery, pids, log

    def signal(self, rank: int, number: int) -> None:
        """Send one rank a signal; it is there, for nobody has waited for it yet."""
        os.kill(self.pids[rank], number)

    def wait(self, seconds: float = 180) -> list[int]:
        """Exit statuses by rank; fails with what was printed if one runs on."""
        found = [self._nursery.ask({"wait": pid, "seconds": seconds})["status"] for pid in self.pids]
        if None in found:
            self._end([pid for pid, status in zip(self.pids, found, strict=True) if status is None])
            raise AssertionError(f"ranks ran on for {seconds} s: {found}\n{self.text()[-3000:]}")
        return found

    def succeed(self, seconds: float) -> None:
        """Wait until all have ended with 0; the first that did not takes the others down, and fails with what was printed."""
        limit, left = time.monotonic() + seconds, list(self.pids)
        while left:
            status = self._nursery.ask({"wait": left[0], "seconds": 0.1})["status"]
            if status == 0:
                left.pop(0)
            elif status is not None or time.monotonic() > limit:
                self._end(left if status is None else left[1:])
                what = f"ran on for {seconds} s" if status is None else f"ended with {status}"
                raise AssertionError(f"a rank {what}:\n{self.text()[-4000:]}")
            else:
                left.append(left.pop(0))

    def _end(self, pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            self._nursery.ask({"wait": pid, "seconds": 30})

    def ended(self, rank: int) -> bool:
        """Whether a rank has ended by itself; it is not waited for."""
        return _state(self.pids[rank]) == "Z"

    def ends_within(self, rank: int, seconds: float) -> bool:
        """Whether a rank ends by itself in that time."""
        limit = time.monotonic() + seconds
        while not self.ended(rank) and time.monotonic() < limit:
            time.sleep(0.05)
        return self.ended(rank)

    def text(self) -> str:
        """What all ranks printed."""
        return self.log.read_text() if self.log.exists() else ""


class Nursery:
    """Starts jobs."""

    def __init__(self, checkpoint: Path, folder: Path):
        self._folder, self._count = folder, 0
        worker = str(Path(__file__).with_name("nursery_worker.py"))
        variables = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 1, "TOKENIZERS_PARALLELISM": "false"}
        env = os.environ | {name: str(value) for name, value in variables.items()}
        self._server = subprocess.Popen(
            [sys.executable, worker, str(checkpoint)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "nursery.log").open("w"),
            text=True,
        )
        self._answer()

    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._server.poll() is None

    def close(self) -> None:
        """End it, and with it every rank that is left."""
        self._server.stdin.close()
        self._server.wait(30)

    def ask(self, request: dict) -> dict:
        """One request, its answer."""
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def start(
        self,
        argv: list[str],
        world: int = 2,
        limits: dict[int, int] | None = None,
        faults: dict[int, dict] | None = None,
        script: Path | None = None,
    ) -> Job:
        """Start the ranks of the trainer, or of a script.

        Args:
            limits: bytes that a file may have, by rank (RLIMIT_FSIZE): where a disk is full, as far as that rank can tell.
            faults: arguments of `faults.install`, by rank.
            script: what is run instead of the trainer, as `python SCRIPT ARGV`.
        """
        self._count += 1
        log, port = self._folder / f"job-{self._count}.log", free_port()
        pids = []
        for rank in range(world):
            env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_SIZE": world}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            request = {"argv": argv, "env": {name: str(value) for name, value in env.items()}, "log": str(log)}
            request |= {"limit": (limits or {}).get(rank), "fault": (faults or {}).get(rank)}
            request |= {"script": str(script) if script else None}
            pids.append(self.ask(request)["pid"])
        return Job(self, pids, log)

    def run(self, argv: list[str], **more) -> Job:
        """Start a job and wait for it; its ranks must end with 0."""
        job = self.start(argv, **more)
        if any(statuses := job.wait()):
            raise AssertionError(f"ended with {statuses}:\n{job.text()[-4000:]}")
        return job

    def _answer(self) -> dict:
        line = self._server.stdout.readline()
        if not line:
            raise AssertionError("the nursery ended:\n" + (self._folder / "nursery.log").read_text()[-3000:])
        return json.loads(line)


_SHARED: list[Nursery] = []


def shared(checkpoint: Path, folder: Path) -> Nursery:
    """The nursery of this process, which has its imports behind it: begun by whoever asks first, ended with the process.

    Args:
        checkpoint: any small one, read once, so that what transformers imports late is imported.
        folder: for logs.
    """
    if not _SHARED or not _SHARED[0].alive():
        _SHARED[:] = [Nursery(checkpoint, folder)]
        atexit.register(_SHARED[0].close)
    return _SHARED[0]


def kill_at_random(nursery: Nursery, training: Training, rng: random.Random) -> tuple[str, list[int]]:
    """Start or continue the run and SIGKILL one rank at a random moment: while it is set up, or in or after one of its next steps.

    Returns:
        What was done, in words, and how the ranks ended; the words are empty where the run was over first, and nobody was killed.
    """
    before = len(training.lines())
    job = nursery.start(training.argv("--resume", "auto"))
    rank, after, delay = rng.randrange(2), rng.choice([None, 1, 1, 2, 3]), rng.random()
    if after is None:
        time.sleep(2 * delay)
    else:
        wait_until(lambda: job.ended(0) or len(training.lines()) >= before + after)
        lines = training.lines()
        time.sleep(delay * lines[-1]["metrics"]["speed/step_seconds"] if lines else 0)
    if job.ended(rank):
        return "", job.wait()
    job.signal(rank, signal.SIGKILL)
    where = "while it was set up" if len(training.lines()) == before else f"after step {len(training.lines())}"
    if after is None and not job.ends_within(1 - rank, ALONE_S):
        job.signal(1 - rank, signal.SIGKILL)  # it waits to meet the other; a launcher, which there is none here, would end it
    return f"rank {rank} {where}", job.wait()


def wait_until(condition, seconds: float = 180) -> None:
    """Poll until it holds; fails at the limit."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited {seconds} s in vain")
        time.sleep(0.01)


def _state(pid: int) -> str:
    """Linux's letter for a process's state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
