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
"""Within which every rank must have ended; DeepSpeed's own processes take seconds more to leave where no rank was left to end them."""


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
    ranks = {record.pid for record in job.ranks()}
    assert len(ranks) == 2 and job.left(LIMIT_S, ranks) == [], module
    assert job.left(60) == [], module
    code, output = job.end(30)
    if module == "pipeline.supervise":
        assert code == -signal.SIGKILL
    elif (module, code) == ("bin/deepspeed", 4):  # ranks hear of it first, and one that saves quickly may still do so
        assert "asked to stop, and saved" in output and [record.ended for record in job.ranks()].count(4), output
    else:
        assert code == 5 and "lost: rank 0" in output and "rank 1" in output, output
    assert not (job.out / "result.json").exists()


def test_a_killed_launcher_leaves_no_rank(tmp_path):
    """launch.py without `deepspeed` above it, which takes as long again to begin; both jobs begin at once."""
    plans = {"deepspeed.launcher.launch": ENDLESS, "pipeline.supervise": ENDLESS | {"stubborn": True}}
    with ExitStack() as stack:
        jobs = {module: stack.enter_context(Supervised(tmp_path / module, plan, (), LAUNCH)) for module, plan in plans.items()}
        for module, job in jobs.items():
            kill_in(job, module, family=3)


@pytest.mark.slow
def test_ten_of_ten_killed_launchers_leave_no_rank(tmp_path):
    """The supervisor four times, DeepSpeed's two processes three times each."""
    kills = [("pipeline.supervise", ENDLESS | {"stubborn": True}), ("deepspeed.launcher.launch", ENDLESS), ("bin/deepspeed", ENDLESS)] * 3
    for number, (module, plan) in enumerate([*kills, ("pipeline.supervise", ENDLESS)]):
        with Supervised(tmp_path / str(number), plan, (), DEEPSPEED) as job:
            kill_in(job, module, family=4)
        print(f"kill {number + 1} of 10, {module}: no rank left after {LIMIT_S:g} s", flush=True)
