"""Start a real supervisor over real processes, and look at what it started."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import heartbeat, processes

ROOT = Path(__file__).resolve().parents[3]
SMALL = ROOT / "tests/pipeline/supervise/small"
SCRIPT = str(SMALL / "train.sh")
TWO_RANKS = (sys.executable, str(SMALL / "launch.py"), SCRIPT)
"""A launcher of two small ranks, without DeepSpeed's import time."""
HIDDEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CREM_CPU_RANKS", "CREM_RELAUNCHED")


def environment(**variables: str) -> dict[str, str]:
    """This process's environment as a user's shell has it, with the project's Python first."""
    env = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    path = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    return env | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables


class Supervised:
    """A supervisor under test, with its words; kills what is left on exit."""

    def __init__(self, out: Path, plan: dict | None, options: tuple[str, ...], launch: tuple[str, ...], words: tuple[str, ...] = ()):
        out.mkdir(parents=True, exist_ok=True)
        if plan is not None:
            (out / "plan.json").write_text(json.dumps(plan))
        self.out = out
        command = [sys.executable, "-m", "pipeline.supervise", *options, *launch, "tiny", "--out", str(out), *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._seen: dict[int, processes.Process] = {}

    def __enter__(self) -> "Supervised":
        return self

    def __exit__(self, *_) -> None:
        self.family()
        self.process.kill()
        for process in self._seen.values():
            processes.send(process, 9)

    def family(self) -> list[processes.Process]:
        """All processes below the supervisor now; remembered for `left`."""
        found = processes.descendants(self.process.pid)
        self._seen |= {process.pid: process for process in found}
        return found

    def ranks(self) -> list[heartbeat.Record]:
        """What the ranks of the newest job report."""
        jobs = sorted((self.out / "jobs").glob("*"), key=lambda path: path.stat().st_mtime)
        return heartbeat.read_ranks(jobs[-1]) if jobs else []

    def until(self, condition: Callable[["Supervised"], object], seconds: float = 120.0) -> None:
        """Wait for `condition(self)`; fails with the output where it does not come, or the supervisor ends before."""
        end = time.monotonic() + seconds
        while not condition(self):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise AssertionError(f"never came; status {self.process.poll()}:\n{self.process.communicate()[0][-4000:]}")
            time.sleep(0.02)

    def both_at(self, step: int) -> None:
        """Wait until both ranks report this step or a later one."""
        self.until(lambda s: len(s.ranks()) == 2 and all((record.step or 0) >= step for record in s.ranks()))

    def end(self, seconds: float = 120.0) -> tuple[int, str]:
        """The supervisor's exit status and all output."""
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output

    def left(self, seconds: float, of: set[int] | None = None) -> list[processes.Process]:
        """Processes seen in the family (or of these numbers) that still run after `seconds`; returns as soon as there are none."""
        end = time.monotonic() + seconds
        watched = [process for process in self._seen.values() if of is None or process.pid in of]
        while (found := [process for process in watched if processes.state(process)]) and time.monotonic() < end:
            time.sleep(0.05)
        return found


def run(out: Path, plan: dict, *options: str) -> tuple[int, str]:
    """A supervised job of two small ranks, to its end."""
    with Supervised(out, plan, options, TWO_RANKS) as job:
        return job.end()
