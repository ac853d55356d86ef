"""A command's words go to its log; what fails is named with it; nothing is left running."""

import os
import signal
import sys
import time

import pytest

from pipeline.study.children import StudyError, run_command


def test_progress_is_passed_on_and_everything_logged(tmp_path):
    said = []
    run_command(
        [sys.executable, "-c", "print('hello'); print('step 2: checkpoint'); print('step 1/2  loss 3')"],
        tmp_path / "a" / "log",
        said.append,
    )
    assert said == ["    step 1/2  loss 3"]
    assert (tmp_path / "a" / "log").read_text().splitlines()[1:] == ["hello", "step 2: checkpoint", "step 1/2  loss 3"]


def test_a_failure_names_status_and_log(tmp_path):
    with pytest.raises(StudyError, match=rf"(?s)exit status 3 .*no such thing.*{tmp_path}/log"):
        run_command([sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], tmp_path / "log")


def test_an_interrupted_study_leaves_nothing_running(tmp_path):
    """The child starts one of its own, as launchers do; both end."""
    code = (
        "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(f'step {c.pid}/0 ', flush=True); time.sleep(60)"
    )
    pids = []

    def interrupt(line: str) -> None:
        pids.append(int(line.split()[1].partition("/")[0]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_command([sys.executable, "-c", code], tmp_path / "log", interrupt)
    deadline = time.monotonic() + 10
    while _alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pids[0])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
