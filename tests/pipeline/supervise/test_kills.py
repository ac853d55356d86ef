"""Kills of what starts ranks, under DeepSpeed's real launcher: nobody is left behind, and the job is no success."""

import base64
import json
import os
import signal
import sys
from contextlib import ExitStack

import pytest
from supervised import SCRIPT, Supervised

from pipeline import processes

DEEPSPEED = ("deepspeed", "--num_gpus", "2", "--master_port", "29733", SCRIPT)
WORLD = base64.urlsafe_b64encode(json.dumps({"localhost": [0, 1]}).encode()).decode()
LAUNCH = (sys.executable, "-u", "-m", "deepspeed.launcher.launch", f"--world_info={WORLD}", SCRIPT)
ENDLESS = {"steps": 100_000, "seconds": 0.05}
LIMIT_S = 10.0
"""Within which every process must have ended."""


def member(job: Supervised, module: str) -> int:
    """The process of this job's launcher that runs `module`."""
    if module == "pipeline.supervise":
        return job.process.pid
    return next(p.pid for p in job.family() if any(module in word for word in processes.words(p.pid)[:5]))


def kill_in(job: Supervised, module: str, family: int) -> None:
    """Kill (SIGKILL) one process of a running job, and see that nothing is left and nothing claims success."""
    job.both_at(1)
    assert len(job.family()) == family
    victim = member(job, module)
    os.kill(victim, signal.SIGKILL)
    assert job.left(LIMIT_S) == [], module
    code, output = job.end(30)
    if module == "pipeline.supervise":
        assert code == -signal.SIGKILL
    else:
        assert code == 5 and "lost: rank 0" in output and "rank 1" in output, output
    assert not (job.out / "result.json").exists()


def test_a_killed_launcher_leaves_no_rank(tmp_path):
    """launch.py without `deepspeed` above it, which takes as long again to begin; both jobs begin at once."""
    modules = ("deepspeed.launcher.launch", "pipeline.supervise")
    with ExitStack() as stack:
        jobs = [stack.enter_context(Supervised(tmp_path / module, ENDLESS, (), LAUNCH)) for module in modules]
        for job, module in zip(jobs, modules, strict=True):
            kill_in(job, module, family=3)


@pytest.mark.slow
def test_ten_of_ten_killed_launchers_leave_no_rank(tmp_path):
    """Four times the supervisor, three times each of DeepSpeed's two processes."""
    modules = ["pipeline.supervise", "deepspeed.launcher.launch", "bin/deepspeed"] * 3 + ["pipeline.supervise"]
    for number, module in enumerate(modules):
        with Supervised(tmp_path / str(number), ENDLESS, (), DEEPSPEED) as job:
            kill_in(job, module, family=4)
    print(f"{len(modules)} of {len(modules)} kills left no process after {LIMIT_S:g} s")
