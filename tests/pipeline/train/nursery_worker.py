"""The process that `nursery.Nursery` forks ranks from; it has imported what a rank needs. Reads and writes JSON, one line a message.

    {"argv", "env", "log", "limit", "fault", "script"}  ->  {"pid"}        fork a rank, its output to a file
    {"wait", "seconds"}                                 ->  {"status"}     its exit status (negative: a signal), null if it still runs
"""

import os

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries print where they like

import ctypes
import gc
import json
import resource
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

import faults
import torch

from data_prep.encode import Encoder
from pipeline.model.crem import load_backbone
from pipeline.train.__main__ import main

PR_SET_PDEATHSIG = 1


def serve(checkpoint: Path) -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    load_backbone(checkpoint, torch.float32)  # and with it the imports that transformers puts off
    Encoder(checkpoint)
    gc.collect()
    gc.freeze()  # DeepSpeed collects garbage for every engine: ranks need not look through what they were born with
    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        answer({"status": wait(request["wait"], request["seconds"])} if "wait" in request else {"pid": start(request)})


def answer(value: dict) -> None:
    """One line to the asker."""
    ANSWERS.write(json.dumps(value) + "\n")
    ANSWERS.flush()


def start(request: dict) -> int:
    """Fork a rank; returns its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = rank(request)
        except SystemExit as ended:  # a script's own end
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return pid


def rank(request: dict) -> int:
    """A rank's life."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ |= request["env"]
    if request["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
    if request["fault"]:
        faults.install(**request["fault"])
    if not request["script"]:
        return main(request["argv"])
    sys.argv = [request["script"], *request["argv"]]
    runpy.run_path(request["script"], run_name="__main__")
    return 0


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a rank, None if it runs on for so long."""
    limit = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            return None
        time.sleep(0.02)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
