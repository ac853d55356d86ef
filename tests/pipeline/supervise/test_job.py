"""The supervisor over two real processes: every exit status, signals, hangs, new starts. The ranks are small; DeepSpeed: test_kills.py."""

import os
import re
import signal

import pytest
from supervised import TWO_RANKS, Supervised, run

SLOW = pytest.mark.slow  # seconds each; their rules are in the quick suite: test_outcome.py
ENDLESS = {"steps": 100_000, "seconds": 0.05}


@pytest.mark.parametrize(
    ("plan", "status", "said"),
    [
        ({}, 0, "status 0: done"),
        pytest.param({"end": [1, 0], "result": False}, 1, r"failed: rank 0 \(.*; step, step 3\)", marks=SLOW),
        pytest.param({"end": [2, 2], "result": False}, 2, "bad input", marks=SLOW),
        pytest.param({"end": [3, 3]}, 3, "too many steps in a row were refused", marks=SLOW),
        pytest.param({"end": [4, 4]}, 4, "--resume goes on", marks=SLOW),
        ({"mute": [1], "seconds": 0.6, "result": False}, 5, r"lost: rank 1 \("),
        ({"foreign": True}, 5, "none wrote result.json for this job"),
    ],
    ids=["done", "failed", "bad_input", "refused", "preempted", "lost", "result_of_another_job"],
)
def test_exit_statuses(tmp_path, plan, status, said):
    """The launcher here ends with 0 each time."""
    code, output = run(tmp_path / "run", plan)
    assert code == status, output
    assert re.search(said, output), output


@SLOW
def test_an_older_result_is_no_success(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text('{"status": 0, "job": null}')
    assert run(tmp_path / "run", {"result": False})[0] == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW)])
def test_a_signal_reaches_all_ranks_and_nobody_is_left(tmp_path, number):
    with Supervised(tmp_path / "run", ENDLESS, (), TWO_RANKS) as job:
        job.both_at(1)
        assert len(job.family()) == 3
        os.kill(job.process.pid, signal.SIGUSR1)
        job.until(lambda s: all((s.out / f"saved-{rank}").exists() for rank in range(2)))
        os.kill(job.process.pid, number)
        code, output = job.end()
        assert code == 4, output  # ranks hear of Ctrl-C as of SIGTERM
        assert job.left(0) == []


@SLOW
def test_ranks_that_do_not_hear_are_killed_after_the_grace_time(tmp_path):
    with Supervised(tmp_path / "run", ENDLESS | {"stubborn": True}, ("--grace-seconds", "1"), TWO_RANKS) as job:
        job.both_at(1)
        job.family()
        os.kill(job.process.pid, signal.SIGTERM)
        code, output = job.end()
        assert code == 128 + signal.SIGTERM and "had not ended 1 s after SIGTERM" in output
        assert job.left(0) == []


def test_a_killed_rank_is_named_and_the_other_ended(tmp_path):
    with Supervised(tmp_path / "run", ENDLESS, (), TWO_RANKS) as job:
        job.both_at(1)
        job.family()
        victim = job.ranks()[1]
        os.kill(victim.pid, signal.SIGKILL)
        code, output = job.end(30)
        assert code == 5 and re.search(rf"lost: rank 1 \(.*, process {victim.pid}; step, step \d+\)", output), output
        assert job.left(0) == []


def test_a_stopped_rank_is_named_with_its_step(tmp_path):
    """Both ranks end their steps and wait; the one that is stopped hangs, the other waits for it."""
    with Supervised(tmp_path / "run", {"steps": 3, "seconds": 600}, ("--hang-minutes", "0.05"), TWO_RANKS) as job:
        job.both_at(1)
        job.family()
        os.kill(job.ranks()[1].pid, signal.SIGSTOP)
        code, output = job.end(60)
        assert code == 5 and "no rank has advanced for 0.05 minutes: rank 1 hangs" in output, output
        assert re.search(r"rank 0 \(.*; step, step 1\): waits\n  rank 1 \(.*; step, step 1\): stopped", output), output
        assert job.left(0) == []


def test_lost_ranks_start_again_from_the_checkpoint(tmp_path):
    options = ("--restarts", "3", "--backoff-seconds", "0.1")
    code, output = run(tmp_path / "run", {"fail_first": True, "seconds": 0.5}, *options)
    assert code == 0 and "starts again in 0.1 s; 2 more starts" in output, output
    assert "--resume" in (tmp_path / "run" / "words-0").read_text()
    assert len(list((tmp_path / "run" / "jobs").iterdir())) == 2


@SLOW
def test_the_budget_of_new_starts_ends(tmp_path):
    code, output = run(tmp_path / "run", {"end": [1, 1], "result": False}, "--restarts", "1", "--backoff-seconds", "0")
    assert code == 1 and output.count("status 1: failed") == 2 and output.count("starts again") == 1, output


@SLOW
def test_a_job_name_serves_once(tmp_path):
    assert run(tmp_path / "run", {}, "--job-id", "seven")[0] == 0
    code, output = run(tmp_path / "run", {}, "--job-id", "seven")
    assert code == 2 and "found a job of this name" in output
