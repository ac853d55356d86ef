"""What ranks write for their supervisor, and what reaches them from it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.samples import DataError
from pipeline import heartbeat, processes
from pipeline.heartbeat import Heart, Record, begin, order, read_ranks, replace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ticking(monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK_S", 0.02)
    monkeypatch.setattr(heartbeat, "_heart", None)


def until(condition) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def test_a_rank_reports_where_it_is(tmp_path, ticking):
    heart = begin(tmp_path, 3)
    heartbeat.beat("checking inputs")
    heartbeat.beat("step", 7)
    assert until(lambda: read_ranks(tmp_path)[0].beats == 2)
    record = read_ranks(tmp_path)[0]
    assert (record.rank, record.phase, record.step, record.ended) == (3, "step", 7, None)
    assert record.process == processes.me() and record.machine == processes.machine()
    assert str(record).endswith(f"process {os.getpid()}; step, step 7)")
    heart.end(0)
    assert read_ranks(tmp_path)[0].ended == 0 and heartbeat.job() == tmp_path.name


def test_signs_of_life_without_beats(tmp_path, ticking, monkeypatch):
    monkeypatch.setattr(heartbeat, "LIFE_S", 0.05)
    heart = begin(tmp_path, 0)
    first = read_ranks(tmp_path)[0].life
    assert until(lambda: read_ranks(tmp_path)[0].life > first + 1) and read_ranks(tmp_path)[0].beats == 0
    heart.end(0)


def test_without_a_supervisor_nothing_happens(monkeypatch):
    monkeypatch.setattr(heartbeat, "_heart", None)
    heartbeat.beat("step", 1)
    assert heartbeat.job() is None


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"found no folder of a job .* Put --out on a disk that all machines share"):
        begin(tmp_path / "nowhere", 0)


def test_a_supervisor_that_has_ended(tmp_path):
    pid, born = processes.me()
    replace(tmp_path / f"supervisor-{processes.machine()}-1", {"process": (pid, born - 1), "beat": 1})
    with pytest.raises(DataError, match="the supervisor has ended already"):
        begin(tmp_path, 0)


def test_orders_are_for_other_machines(tmp_path, ticking, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    heart = Heart(tmp_path, 0)
    try:
        order(tmp_path, signal.SIGUSR1)
        time.sleep(0.2)
        assert heard == []
        monkeypatch.setattr(heart.record, "machine", "another")
        order(tmp_path, signal.SIGUSR1)
        assert until(lambda: heard == [signal.SIGUSR1])
        with open(tmp_path / "orders.jsonl", "a") as file:
            file.write('{"signal": 10, "by"')  # half a line is none
        time.sleep(0.1)
        assert heard == [signal.SIGUSR1]
    finally:
        heart.end(0)
        signal.signal(signal.SIGUSR1, before)


RANK = """
import sys, time
from pathlib import Path
from pipeline import heartbeat
heartbeat.TICK_S, heartbeat.LEASE_S = 0.05, 1.0
heartbeat.begin(Path(sys.argv[1]), 0)
time.sleep(60)
"""
OTHER_MACHINE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""A process namespace of its own: process numbers mean nothing there, as on another machine."""


def may_unshare() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*OTHER_MACHINE, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="this user may not make a process namespace")
def test_a_rank_on_another_machine(tmp_path):
    """It hears orders, and ends where the supervisor gives no more signs of life."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    lease = tmp_path / f"supervisor-{processes.machine()}-{os.getpid()}"
    for number, expected in ((signal.SIGKILL, "ordered"), (None, "lease")):
        for path in tmp_path.iterdir():
            path.unlink()
        replace(lease, {"process": processes.me(), "beat": 0})
        rank = subprocess.Popen([*OTHER_MACHINE, sys.executable, "-c", RANK, str(tmp_path)], env=env)
        try:
            assert until(lambda: read_ranks(tmp_path))
            assert read_ranks(tmp_path)[0].machine != processes.machine()
            for beat in range(1, 16):  # longer than the lease
                replace(lease, {"process": processes.me(), "beat": beat})
                time.sleep(0.1)
            assert rank.poll() is None, expected
            if number:
                order(tmp_path, number)
            assert rank.wait(timeout=30) == 128 + signal.SIGKILL
        finally:
            rank.kill()


def test_records_are_what_the_files_hold(tmp_path):
    record = Record(2, "h", "m", 1, 2, "step", 3, 4, 5, None)
    replace(tmp_path / "rank-00002.json", vars(record))
    assert read_ranks(tmp_path) == [record] and json.loads((tmp_path / "rank-00002.json").read_text())["beats"] == 4
