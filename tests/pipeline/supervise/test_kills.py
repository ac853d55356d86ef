"""Kills of what starts ranks, under DeepSpeed's real launcher: nobody is left behind, and the job is no success."""

import os
import signal

import pytest
from supervised import SCRIPT, Supervised

from pipeline import processes

DEEPSPEED = ("deepspeed", "--num_gpus", "2", "--master_port", "29733", SCRIPT)
ENDLESS = {"steps": 100_000, "seconds": 0.05}
LIMIT_S = 10.0
"""Within which every process must have ended."""


def member(job: Supervised, module: str) -> int:
    """The process of this job's launcher that runs `module`."""
    if module == "pipeline.supervise":
        return job.process.pid
    return next(p.pid for p in job.family() if any(module in word for word in processes.words(p.pid)[:5]))


def kill_one(out, module: str) -> None:
    """Start, kill (SIGKILL), and see that nothing is left and nothing claims success."""
    with Supervised(out, ENDLESS, (), DEEPSPEED) as job:
        job.both_at(1)
        assert len(job.family()) == 4  # deepspeed, launch.py, two ranks
        victim = member(job, module)
        os.kill(victim, signal.SIGKILL)
        assert job.left(LIMIT_S) == [], module
        code, output = job.end(30)
        if module == "pipeline.supervise":
            assert code == -signal.SIGKILL
        else:
            assert code == 5 and "lost: rank 0" in output and "rank 1" in output, output
        assert not (out / "result.json").exists()


@pytest.mark.parametrize("module", ["deepspeed.launcher.launch", "pipeline.supervise"])
def test_a_killed_launcher_leaves_no_rank(tmp_path, module):
    kill_one(tmp_path / "run", module)


@pytest.mark.slow
def test_ten_of_ten_killed_launchers_leave_no_rank(tmp_path):
    """Four times the supervisor, three times each of DeepSpeed's two processes."""
    modules = ["pipeline.supervise", "deepspeed.launcher.launch", "bin/deepspeed"] * 3 + ["pipeline.supervise"]
    for number, module in enumerate(modules):
        kill_one(tmp_path / str(number), module)
    print(f"{len(modules)} of {len(modules)} kills left no process after {LIMIT_S:g} s")
