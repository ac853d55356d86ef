"""Faults, injected for real and counted: killed workers, killed drivers, full disks. What comes out is what an undisturbed job makes.

The full numbers are in the slow suite:  bash launchers/test.sh -m slow tests/data_prep/test_faults.py -s
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from data_prep import cluster as cluster_module
from data_prep.cluster import as_finished, cluster
from data_prep.encode import EncodeSettings
from data_prep.job import PrepareSettings, make_shard, plan, prepare
from data_prep.samples import DataError
from data_prep.shards import finished_shard, load_manifest, verify_shards
from data_prep.sources import discover
from tests.data_prep.processes import Kill, alive, descendants, killer, wait_until, workers

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[None]:
    """One Ray of two workers, started as the job itself starts it."""
    with cluster(2):
        yield


@pytest.fixture(scope="module")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight conversations about pictures of 1600 x 1600: a shard of one row takes long enough to be met."""
    root = tmp_path_factory.mktemp("large") / "data"
    root.mkdir()
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "noise"}]
    (root / "slow.json").write_text(json.dumps([{"image": f"{i}.png", "conversations": turns} for i in range(8)]))
    for number in range(8):
        noise = np.random.default_rng(number).integers(0, 256, (1600, 1600, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png", compress_level=1)
    return root


@pytest.fixture(scope="module")
def slow_job(large_pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> PrepareSettings:
    """One row a shard, two workers."""
    out = tmp_path_factory.mktemp("slow") / "shards"
    return PrepareSettings(roots=(large_pictures,), checkpoint=str(checkpoint), out=out, rows_per_shard=1, workers=2)


@pytest.fixture(scope="module")
def slow_result(ray_of_two: None, slow_job: PrepareSettings) -> dict[str, bytes]:
    """Every file of the undisturbed job."""
    prepare(slow_job)
    return contents(slow_job.out)


@pytest.fixture(scope="module")
def job(corpus: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> PrepareSettings:
    """Eight shards of the small corpus."""
    out = tmp_path_factory.mktemp("undisturbed") / "shards"
    return PrepareSettings(roots=(corpus,), checkpoint=str(checkpoint), out=out, rows_per_shard=4, workers=2)


@pytest.fixture(scope="module")
def result(ray_of_two: None, job: PrepareSettings) -> dict[str, bytes]:
    """Every file of the undisturbed job."""
    prepare(job)
    return contents(job.out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def ids(folder: Path) -> list[str]:
    tables = [pa.ipc.open_file(pa.memory_map(str(folder / shard.name))).read_all() for shard in load_manifest(folder).shards]
    return [value for table in tables for value in table["id"].to_pylist()]


def run_with_kills(settings: PrepareSettings, kills: int, seed: int, expected: dict[str, bytes]) -> list[Kill]:
    """Prepare while workers are killed; whatever was injected, the folder holds every row once and the same bytes."""
    with killer(settings.out, kills, seed) as done:
        manifest = prepare(settings)
    verify_shards(settings.out, manifest)
    assert len(done) == kills, f"{len(done)} kills of {kills} were met: the job was over too soon to say anything"
    assert any(kill.writing for kill in done)
    assert ids(settings.out) == [f"sharegpt4v/slow/{i}" for i in range(8)]
    assert contents(settings.out) == expected
    return done


def test_killed_workers_cost_nothing(slow_job: PrepareSettings, slow_result: dict[str, bytes], tmp_path: Path) -> None:
    """Two kills, the first with a shard half-written."""
    run_with_kills(slow_job.model_copy(update={"out": tmp_path / "shards"}), 2, 0, slow_result)


@pytest.mark.slow
def test_killed_workers_twenty_runs(slow_job: PrepareSettings, slow_result: dict[str, bytes], tmp_path: Path) -> None:
    """20 runs, five kills each."""
    done: list[Kill] = []
    for seed in range(20):
        out = tmp_path / f"{seed}"
        done += run_with_kills(slow_job.model_copy(update={"out": out}), 5, seed, slow_result)
        shutil.rmtree(out)
    print(f"\n20 runs, {len(done)} workers killed, {sum(kill.writing for kill in done)} of them with a shard half-written")
    assert len(done) == 100


def test_rows_that_kill_every_worker_are_named(ray_of_two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "RETRIES", 1)

    def fatal(item: str) -> str:
        if item == "bad":
            os.kill(os.getpid(), 9)
        return item

    with pytest.raises(DataError, match=r"^bad: found its worker dead 2 times \(WorkerCrashedError\), expected it to finish"):
        list(as_finished(fatal, ["good", "bad"], (), 2))


def killed_driver(job: PrepareSettings, rng: random.Random, shards: int) -> list[int]:
    """Start the job by its command, and SIGKILL it a moment after `shards` shards are there; the processes it had."""
    words = ["prepare", *map(str, job.roots), "--checkpoint", job.checkpoint, "--out", str(job.out)]
    command = [sys.executable, "-m", "data_prep", *words, "--rows-per-shard", str(job.rows_per_shard), "--workers", "2"]
    driver = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: len(list(job.out.glob("*.arrow"))) >= shards or driver.poll() is not None)
    time.sleep(rng.uniform(0, 0.1) if shards else rng.uniform(0, 6))
    own = descendants(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return own if driver.returncode == -signal.SIGKILL else []


@pytest.mark.slow
def test_killed_driver_at_ten_points(job: PrepareSettings, result: dict[str, bytes], tmp_path: Path) -> None:
    """Ten random moments, from before Ray's start to the last shard; the same command then makes the same bytes, and no process stays."""
    rng = random.Random(0)
    reused, tries = [], 0
    while len(reused) < 10 and tries < 20:
        own = job.model_copy(update={"out": tmp_path / f"{tries}"})
        left = killed_driver(own, rng, shards=max(0, len(reused) - 2))
        tries += 1
        if not left:
            continue  # it was done before it was met
        said: list[str] = []
        prepare(own, said.append)
        reused.append(int(said[0].split()[0]) if said else 0)
        assert contents(own.out) == result
        assert wait_until(lambda left=left: not any(map(alive, left))), "processes of the killed job are still there"
    print(f"\ndriver killed {len(reused)} times in {tries} runs; finished shards of 8 found again: {reused}")
    assert len(reused) == 10 and max(reused) > 3


def test_no_space_left(job: PrepareSettings, tmp_path: Path) -> None:
    """The kernel's own ENOSPC, in the middle of a shard."""
    piece = plan(discover(job.roots[0], None, job.split), 4)[0]
    (tmp_path / f".{piece.name}.tmp-{os.uname().nodename}-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(DataError, match=rf"^{tmp_path}: found a disk that takes no more \(No space left on device\)") as caught:
        make_shard(piece, job.checkpoint, EncodeSettings(), tmp_path)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_meets_the_limit_anywhere(job: PrepareSettings, tmp_path: Path) -> None:
    """Twenty limits from the first byte to the last one of the shard: refused each time, nothing stays, and the next try is whole."""
    piece = plan(discover(job.roots[0], None, job.split), 4)[0]
    whole = make_shard(piece, job.checkpoint, EncodeSettings(), tmp_path)
    before = contents(tmp_path)
    (tmp_path / piece.name).unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in np.linspace(0, whole.bytes - 1, 20).astype(int).tolist():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            make_shard(piece, job.checkpoint, EncodeSettings(), tmp_path)
        except DataError as error:
            refused += "found a disk that takes no more (File too large)" in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert finished_shard(tmp_path, piece.name) is None
        assert [path.name for path in tmp_path.iterdir()] == [piece.name.replace(".arrow", ".json")]
    assert refused == 20
    assert make_shard(piece, job.checkpoint, EncodeSettings(), tmp_path) == whole
    assert contents(tmp_path) == before


def test_workers_whose_disk_is_full_stop_the_job(job: PrepareSettings, result: dict[str, bytes], tmp_path: Path) -> None:
    """Both workers may write 30 kB a file, less than most shards; the job says so, and goes on once they may write more."""
    own = job.model_copy(update={"out": tmp_path / "shards"})
    limited = workers(os.getpid())
    assert len(limited) >= 2
    for process in limited:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(DataError, match=r"shards: found a disk that takes no more \(File too large\).*start the same command again"):
            prepare(own)
    finally:
        for process in filter(alive, limited):
            resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not (own.out / "manifest.json").exists()
    assert not list(own.out.glob(".*.tmp-*"))
    prepare(own)
    assert contents(own.out) == result


@pytest.mark.slow
def test_a_small_disk_of_its_own(job: PrepareSettings, result: dict[str, bytes], tmp_path: Path) -> None:
    """A real file system that is full at one point or another, the driver's own files included; made larger, the job goes on."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no user mount a file system of its own")
    disk, kept, full = tmp_path / "disk", tmp_path / "kept", 0
    disk.mkdir()
    words = [*map(str, job.roots), "--checkpoint", job.checkpoint, "--rows-per-shard", "4", "--workers", "2", "--out", str(disk / "shards")]
    program = f"""mount -t tmpfs -o size=$1k none {disk}; shift
        {sys.executable} -m data_prep prepare "$@"; echo "status $?"; find {disk}/shards -name '.*tmp*' -o -name manifest.json
        mount -o remount,size=10m {disk} && {sys.executable} -m data_prep prepare "$@" && cp -r {disk}/shards {kept}"""
    for size in (4, 40, 90, 150, 210, 260):  # the whole takes about 300
        shutil.rmtree(kept, ignore_errors=True)
        command = ["unshare", "-rm", "bash", "-c", program, "bash", str(size), *words]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert "status 2\n" in done.stdout and "manifest.json" not in done.stdout.split("status 2\n")[1].split("shards are")[0], said
        assert "found a disk that takes no more (No space left on device)" in done.stderr and "Traceback" not in done.stderr, said
        full += 1
        assert contents(kept) == result, said
    print(f"\n{full} jobs met a full disk")
    assert full == 6
