"""What a run survives: killed ranks, signals, a full disk. Two real ranks, ZeRO-3; whatever happened, the result is bit for bit the same.

`-m slow -s` kills more often, and at named points inside a save, and prints every kill with its count.
"""

import json
import random
import shutil
import signal
from collections import Counter

import pytest
from damage import KINDS, damaged
from faults import POINTS
from nursery import Training, kill_at_random, shared, wait_until
from safetensors.torch import load_file

from data_prep.samples import DataError
from pipeline.train import commit

STEPS = 12
KILLS = 5


@pytest.fixture(scope="module")
def nursery(checkpoint, tmp_path_factory):
    return shared(checkpoint, tmp_path_factory.mktemp("nursery"))


@pytest.fixture(scope="module")
def training(checkpoint, shards, tmp_path_factory):
    """A run in a folder of its own."""
    return lambda **more: Training(checkpoint, shards, tmp_path_factory.mktemp("survival") / "run", steps=STEPS, **more)


@pytest.fixture(scope="module")
def straight(nursery, training):
    """Uninterrupted; checkpoints are committed in the background, and the one with the highest loss is kept."""
    run = training(words=("--keep", "1", "--keep-best", "loss/total", "--keep-best-is", "higher"))
    nursery.run(run.argv())
    assert len(run.losses()) == STEPS
    return run


@pytest.fixture(scope="module")
def waited(nursery, training):
    """Stopped after four steps; training waited for its checkpoints, of steps 2 and 4."""
    run = training()
    nursery.run(run.argv("--stop-after", "4", "--no-save-in-background"))
    return run


def names(run: Training) -> list[str]:
    """Everything among the checkpoints."""
    return sorted(path.name for path in (run.out / "checkpoints").iterdir())


def same_result(run: Training, straight: Training) -> None:
    """Losses and exported weights bit for bit."""
    assert run.losses() == straight.losses()
    ours, expected = (load_file(each.out / "export" / "model.safetensors") for each in (run, straight))
    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in ours)


def test_the_newest_and_the_best_are_kept(straight):
    means = [sum(loss for _, loss, *_ in straight.losses()[i : i + 2]) / 2 for i in range(0, STEPS, 2)]
    best = 2 + 2 * means.index(max(means))
    assert best < STEPS  # otherwise this shows nothing
    assert names(straight) == [f"step-{best:08d}", f"step-{STEPS:08d}"]
    figures = commit.read(straight.out / "checkpoints" / f"step-{best:08d}")["figures"]
    assert figures == {"loss/total": pytest.approx(max(means), abs=1e-12)}


def test_random_kills_change_nothing(nursery, training, straight):
    run, rng, done = training(), random.Random(5), []
    while len(done) < KILLS:
        what, statuses = kill_at_random(nursery, run, rng)
        if what:
            assert signal.SIGKILL * -1 in statuses and 0 not in statuses
            done.append(what)
        else:  # over before it could be killed: another one
            same_result(run, straight)
            run = training()
    going_on = commit.committed(run.out / "checkpoints")
    job = nursery.run(run.argv("--resume", "auto"))
    assert ("resume at step" in job.text()) == bool(going_on) and any("after step" in what for what in done), done
    same_result(run, straight)
    assert names(run) == [f"step-{STEPS - 2:08d}", f"step-{STEPS:08d}"]


def test_one_rank_that_gets_sigterm_stops_all_with_a_checkpoint(nursery, training, straight):
    run = training(save_every=1000)
    job = nursery.start(run.argv())
    wait_until(lambda: run.lines())
    job.signal(0, signal.SIGUSR1)
    wait_until(lambda: commit.committed(run.out / "checkpoints"))
    job.signal(1, signal.SIGTERM)
    assert job.wait() == [4, 4], job.text()[-2000:]
    result = json.loads((run.out / "result.json").read_text())
    assert (result["status"], result["outcome"]) == (4, "preempted: saved and stopped at SIGTERM")
    steps = len(run.lines())
    assert result["steps"] == steps < STEPS
    assert len(names(run)) == 2 and names(run)[1] == f"step-{steps:08d}" and not (run.out / "export").exists()
    assert f"stopped by SIGTERM after step {steps}; continue with --resume" in job.text()
    job = nursery.run(run.argv("--resume"))
    assert f"resume at step {steps} of {STEPS}" in job.text()
    assert json.loads((run.out / "result.json").read_text())["status"] == 0
    same_result(run, straight)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_on_one_rank_ends_all_and_keeps_what_is_there(nursery, training, waited, rank):
    run = training()
    shutil.copytree(waited.out, run.out)
    job = nursery.start(run.argv("--resume"), limits={rank: 50_000})
    assert job.wait() == [6, 6], job.text()[-2000:]
    assert f"the checkpoint of step 6 was not saved: rank {rank}: " in job.text() and "Earlier ones are untouched" in job.text()
    assert names(run) == ["step-00000002", "step-00000004"]  # and nothing half-written
    assert commit.read(run.out / "checkpoints" / "step-00000004")["step"] == 4
    assert not (run.out / "result.json").exists()


def test_a_checkpoint_that_training_waits_for_is_the_same(waited, straight):
    """Byte for byte."""
    (name,) = set(names(waited)) & set(names(straight))
    ours, background = (commit.read(run.out / "checkpoints" / name)["files"] for run in (waited, straight))
    assert ours == background and len(ours) == 4


def test_a_thousand_damages_are_all_seen(straight, tmp_path):
    folder, rng, seen = tmp_path / f"step-{STEPS:08d}", random.Random(11), Counter()
    shutil.copytree(straight.out / "checkpoints" / folder.name, folder)
    kinds = [*KINDS] + ["bit flip"] * 5
    for number in range(1000):
        kind = kinds[number % len(kinds)]
        with damaged(folder, kind, rng) as place, pytest.raises(DataError):
            commit.read(place)
        seen[kind] += 1
    assert commit.read(folder)["step"] == STEPS  # every damage was mended again, so each was seen by itself
    assert seen == {"bit flip": 499, "truncated": 84, "deleted": 84, "renamed": 84, "swapped": 83, "added": 83, "link": 83}


@pytest.mark.slow
def test_sixty_random_kills_change_nothing(nursery, training, straight):
    rng, kills = random.Random(6), 0
    while kills < 60:
        run = training()
        for _ in range(KILLS):
            what, _ = kill_at_random(nursery, run, rng)
            kills += bool(what)
            print(f"kill {kills}: {what or 'none, the run was over'}", flush=True)
            if not what:
                break
        nursery.run(run.argv("--resume", "auto"))
        same_result(run, straight)
        print(f"{kills} kills, the result is the same bit for bit", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_inside_a_save_leaves_the_checkpoint_before(nursery, training, straight, tmp_path, point):
    """Five saves of one run, each cut at the same point; then the run goes to its end."""
    run, record, rank = training(words=("--keep", "1")), tmp_path / "injected", POINTS[point]
    for number, step in enumerate((4, 6, 8, 10, 12), 1):
        fault = {"point": point, "step": step, "record": str(record)}
        statuses = nursery.start(run.argv("--resume", "auto"), faults={rank: fault}).wait()
        assert statuses[rank] == -signal.SIGKILL and statuses[1 - rank] != 0
        assert record.read_text().splitlines()[-1] == f"{point}, step {step}" and len(record.read_text().splitlines()) == number
        newest = commit.newest(run.out / "checkpoints")
        assert commit.read(newest)["step"] == (step if point in ("after the rename", "inside the pruning") else step - 2)
        print(f"killed {point} of step {step}: {newest.name} is whole", flush=True)
    nursery.run(run.argv("--resume", "auto"))
    same_result(run, straight)
    assert names(run) == [f"step-{STEPS:08d}"] or point in ("after the rename", "inside the pruning")


@pytest.mark.slow
def test_what_a_rank_cannot_share_ends_the_job_soon(nursery, training, tmp_path):
    """No memory in the middle of DeepSpeed's save: nothing can be agreed on, so the other rank must see that it is alone."""
    run = training()
    fault = {"point": "no memory", "step": 4, "record": str(tmp_path / "injected")}
    job = nursery.start(run.argv(), faults={1: fault})
    assert job.wait(90) == [1, 1], job.text()[-2000:]  # the collectives' own limit is 120 s
    assert "MemoryError: no memory, step 4" in job.text() and (tmp_path / "injected").exists()
    assert commit.read(commit.newest(run.out / "checkpoints"))["step"] == 2
