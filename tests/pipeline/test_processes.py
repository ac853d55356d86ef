"""Processes by the kernel's tables, against processes made here."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline import processes
from pipeline.processes import Process


@pytest.fixture
def child():
    made = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield made
    made.kill()
    made.wait()


def born(pid: int) -> Process:
    return next(process for process in processes.descendants(os.getpid()) if process.pid == pid)


def until(condition) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_child_and_its_states(child):
    process = born(child.pid)
    assert processes.parent(child.pid) == os.getpid() and processes.words(child.pid)[1] == "-c"
    assert processes.state(process) in ("R", "S", "D")
    assert processes.send(process, signal.SIGSTOP) and until(lambda: processes.state(process) == "T")
    assert processes.send(process, signal.SIGKILL) and until(lambda: processes.state(process) is None)
    # it has ended, though its parent has not yet asked how
    assert process not in processes.descendants(os.getpid()) and not processes.send(process, signal.SIGTERM)


def test_a_number_used_again_is_another_process(child):
    other = Process(child.pid, born(child.pid).born - 1)
    assert processes.state(other) is None and not processes.send(other, signal.SIGKILL)
    assert child.poll() is None


def test_what_is_not_there():
    assert processes.parent(2**22 + 1) == 0 and processes.words(2**22 + 1) == []
    assert processes.me().pid == os.getpid() and processes.state(processes.me()) == "R"
    assert len(processes.machine()) == 12 and processes.machine() == processes.machine()


def test_the_kernel_may_refuse():
    with pytest.raises(OSError, match="prctl"):
        processes.ask_kernel(9999, 0)
