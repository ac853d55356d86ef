"""Ray as the job runs it: its own however many jobs there are, on loopback, at the job's own priority; dead workers are replaced."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from data_prep import cluster as module
from data_prep.cluster import as_finished, cluster, ray  # not Ray itself: what it reads at import is set there
from data_prep.samples import DataError
from tests.data_prep.processes import descendants, workers

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[None]:
    """One Ray of two workers, started as the job itself starts it."""
    with cluster(2) as workers:
        assert workers == 2
        yield


def test_ray_listens_on_loopback_only(ray_of_two: None) -> None:
    """Every Ray process of ours, by the kernel's own tables."""
    ours = descendants(os.getpid())
    listening = [address for process in ours for address in _listening(process)]
    assert len(listening) > 3
    assert set(listening) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same within IPv6
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_workers_have_the_jobs_own_priority(ray_of_two: None) -> None:
    """Ray's default, 15 below it, starves them beside any busy process."""
    found = workers(os.getpid())
    assert found
    assert {os.getpriority(os.PRIO_PROCESS, process) for process in found} == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_waiting_for_a_worker_is_said_and_ends(ray_of_two: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Both CPUs are taken, by tasks that end when told to."""
    monkeypatch.setattr(module, "MINUTE_S", 0.2)
    monkeypatch.setattr(module, "WORKER_MINUTES", 3)
    with TemporaryDirectory() as folder:
        end = Path(folder) / "end"

        def occupy() -> None:
            while not end.exists():
                time.sleep(0.1)

        blocks = [ray.remote(num_cpus=1)(occupy).remote() for _ in range(2)]
        message = r"found Ray running but waited 3 minutes for a first Ray worker.*\d CPUs free in Ray.*session_latest/logs"
        with pytest.raises(DataError, match=message), cluster(2):
            pass
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(";")[0] for line in lines] == [f"{n} min without a first Ray worker" for n in (1, 2, 3)]
        monkeypatch.setenv("RAY_ADDRESS", "somewhere")  # a cluster's CPUs may be taken for hours
        threading.Timer(1.5, end.touch).start()
        with cluster(2) as workers:
            assert workers == 2
        ray.get(blocks)


def test_a_missing_permission_is_told_without_the_workers_stack(ray_of_two: None) -> None:
    def refuse(item: int) -> None:
        raise PermissionError(13, "Permission denied", f"/data/{item}")

    with pytest.raises(PermissionError) as caught:
        list(as_finished(refuse, [7], (), 1))
    assert type(caught.value) is PermissionError
    assert (caught.value.filename, caught.value.strerror) == ("/data/7", "Permission denied")


class Refuser:
    def work(self, item: int) -> None:
        raise PermissionError(13, "Permission denied", f"/data/{item}")


def test_a_permission_that_an_actor_lacks_is_told_without_its_stack(ray_of_two: None) -> None:
    with pytest.raises(PermissionError) as caught:
        list(module.actors_as_finished(Refuser, [7], (), 1))
    assert type(caught.value) is PermissionError
    assert (caught.value.filename, caught.value.strerror) == ("/data/7", "Permission denied")


class Doubler:
    """Notes every actor that is made."""

    def __init__(self, folder: Path):
        (folder / str(os.getpid())).touch()

    def work(self, item: int) -> int:
        if item < 0:
            raise DataError(f"found {item}")
        if item == 13:
            os._exit(1)
        return 2 * item


def test_actors_do_every_item_once(ray_of_two: None, tmp_path: Path) -> None:
    """By two actors: `most` limits those on GPUs only, and there is none here."""
    done = list(module.actors_as_finished(Doubler, list(range(7)), (tmp_path,), 2, most=1))
    assert sorted(done) == [(i, 2 * i) for i in range(7)] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_what_an_actor_refuses_is_said_and_one_that_always_dies_is_given_up(ray_of_two: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^found -1$"):
        list(module.actors_as_finished(Doubler, [1, -1], (tmp_path,), 1))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"found a worker that died again and again \(ActorDiedError.*Mostly memory ran out"):
        list(module.actors_as_finished(Doubler, [13], (tmp_path,), 1))
    assert len(list(tmp_path.iterdir())) == 1 + module.RETRIES


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user who has never run Ray, on a machine where another user's `ray start` has left its address behind."""
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with TemporaryDirectory() as short:  # Ray's sockets lie there, and a socket's path may have 107 characters
        (Path(short) / "ray").mkdir()
        (Path(short) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        yield environment | {"HOME": str(tmp_path / "home"), "RAY_TMPDIR": short}


def together(commands: list[list[str]], environment: dict[str, str]) -> list[tuple[int, str]]:
    """Start `data_prep prepare` with each list of words at the same moment; (exit status, what was said) of each."""
    command = [sys.executable, "-m", "data_prep", "prepare"]
    options = dict(cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    jobs = [subprocess.Popen([*command, *words], **options) for words in commands]
    try:
        return [(job.wait(), job.stdout.read()) for job in jobs]
    finally:
        for job in jobs:
            job.kill()


def same_bytes(*folders: Path) -> bool:
    """Whether all hold the same shards, records and manifest."""
    contents = [{path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"} for folder in folders]
    return len(contents[0]) > 1 and all(own == contents[0] for own in contents)


@pytest.mark.slow
def test_jobs_of_the_same_moment(home: dict[str, str], corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Two into folders of their own succeed with the same bytes; of two into one folder, one does and one is refused."""
    words = [str(corpus), "--checkpoint", str(checkpoint), "--rows-per-shard", "8", "--workers", "1", "--out"]
    own, shared = tmp_path / "own", tmp_path / "shared"
    done = together([[*words, str(own)], [*words, str(shared)], [*words, str(shared)]], home)
    assert done[0][0] == 0, done[0][1]
    assert sorted(status for status, _ in done[1:]) == [0, 2], done
    refused = next(said for status, said in done if status == 2)
    holder = r"process \d+ on \S+ since \S+ \S+|it has just begun"
    assert re.search(rf"^error: {shared}: another prepare job is writing here \(({holder})\); wait for it", refused, re.MULTILINE), refused
    assert "Traceback" not in refused
    assert same_bytes(own, shared)
    assert not (Path(home["HOME"]) / ".ray").exists(), "no token shared through the home folder"


@pytest.mark.slow
def test_jobs_of_the_same_moment_many_times(home: dict[str, str], corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Ten times two jobs, each time as a new user."""
    words = [str(corpus), "--checkpoint", str(checkpoint), "--rows-per-shard", "8", "--out"]
    for number in range(10):
        (tmp_path / f"home{number}").mkdir()
        folders = [tmp_path / f"{number}-{job}" for job in "ab"]
        done = together([[*words, str(folder)] for folder in folders], home | {"HOME": str(tmp_path / f"home{number}")})
        assert [status for status, _ in done] == [0, 0], done
        assert same_bytes(tmp_path / "0-a", *folders)


def _listening(process: int) -> list[str]:
    """Local addresses, in the kernel's hexadecimal, of the TCP sockets that a process listens on."""
    listening, sockets = {}, set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening[f"socket:[{fields[9]}]"] = fields[1].split(":")[0]
    for handle in Path(f"/proc/{process}/fd").glob("*"):
        try:
            sockets.add(os.readlink(handle))
        except OSError:  # closed since
            continue
    return [address for name, address in listening.items() if name in sockets]
