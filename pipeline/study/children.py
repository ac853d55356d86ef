"""One of the project's own commands as a child process: everything it says goes to a log, its progress lines are passed on."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.samples import DataError

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 30.0
"""How long a child may take to end after it was asked to."""
LAST_LINES = 12
PROGRESS = re.compile(r"step \d+/\d+ ")
"""A trainer's progress line."""


class StudyError(DataError):
    """A command of a study failed; the message names its log."""


def run_command(command: Sequence[str], log: Path, say: Callable[[str], None] = print) -> None:
    """Run a command to its end, appending what it says to `log`.

    Args:
        say: gets the trainer's progress lines.

    Raises:
        StudyError: the command did not succeed. Whatever else ends this function ends the child too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
            start_new_session=True,  # so that its ranks end with it
        )
        try:
            for line in child.stdout:
                file.write(line)
                file.flush()
                if PROGRESS.match(line):
                    say(f"    {line.rstrip()}")
            status = child.wait()
        finally:
            if child.poll() is None:
                _end(child)
    if status:
        raise StudyError(_failure(command, log, status))


def _failure(command: Sequence[str], log: Path, status: int) -> str:
    last = "\n".join(f"    {line}" for line in log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:])
    return (
        f"found exit status {status} of: {' '.join(command)}\n{last}\nexpected 0; the study stops here. The whole log is {log}. "
        "Mend the cause; the same study command then goes on from there"
    )


def _environment() -> dict[str, str]:
    """This process's environment, with its own Python and this project first."""
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    return env


def _end(child: subprocess.Popen) -> None:
    """Ask the child's process group to end, then make it: launchers may end before the ranks that they started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        with contextlib.suppress(ProcessLookupError):  # raised once no process of the group is left
            os.killpg(child.pid, sign)
            while time.monotonic() < deadline:
                child.poll()  # a child that has ended counts until it is asked
                os.killpg(child.pid, 0)
                time.sleep(0.1)
            continue
        return
