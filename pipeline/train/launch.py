"""What happens in a rank's process before training: how many ranks there are, and what the environment must say.

DeepSpeed's launcher counts accelerators; on a CPU machine it counts NUMA nodes, usually one. So where it started a single rank on a
machine without a GPU, this process makes way for a launcher with as many as CREM_CPU_RANKS says (two by default).
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

from data_prep.samples import DataError
from pipeline import heartbeat, lifeline
from pipeline.allocator import keep_freed_memory
from pipeline.ports import free_port

RANKS_VARIABLE = "CREM_CPU_RANKS"
"""Environment variable that states the number of ranks on a CPU machine; 2 where it is not set."""
RELAUNCHED = "CREM_RELAUNCHED"
"""Set in processes that were started with the wanted number of ranks already."""
JOB = "--job="
"""The supervisor's word: the folder through which it hears its ranks."""


def main(argv: list[str]) -> int:
    """Entry of `launchers/train.sh` read as Python: relaunch if needed, then train; ends with the launchers above it."""
    lifeline.hold()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it asks a trainer to save: nothing to do, and nothing to die of, before there is one
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    said = os.environ.get(RANKS_VARIABLE, "2")
    if not said.isdecimal() or int(said) == 0:
        print(f"error: {RANKS_VARIABLE}: found {said!r}; expected a number of ranks, such as 2. Set it, or unset it", file=sys.stderr)
        return 2
    wanted = int(said)
    if wanted > 1 and _one_cpu_rank_by_default():
        _relaunch(argv, wanted)
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun's name for it
        os.environ.setdefault("LOCAL_SIZE", os.environ["LOCAL_WORLD_SIZE"])
    keep_freed_memory()
    folder = next((word.removeprefix(JOB) for word in argv if word.startswith(JOB)), None)
    words = [word for word in argv if not word.startswith(JOB)]
    if folder is None:
        return _train(words)
    try:
        heart = heartbeat.begin(Path(folder), int(os.environ.get("RANK", "0")))
    except DataError as error:
        print(f"error (rank {os.environ.get('RANK', 0)}): {error}", file=sys.stderr, flush=True)
        return 2
    return _reported(heart, words)


def _train(argv: list[str]) -> int:
    from pipeline.train.__main__ import main as train

    return train(argv)


def _reported(heart: heartbeat.Heart, argv: list[str]) -> int:
    """Train, and let the supervisor know how it ended: the launcher in between may not tell."""
    status = 1
    try:
        status = _train(argv)
        return status
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        raise
    finally:
        with contextlib.suppress(OSError):
            heart.end(status)


def _one_cpu_rank_by_default() -> bool:
    if os.environ.get("WORLD_SIZE", "1") != "1" or RELAUNCHED in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return False  # torchrun was told how many
    import torch

    return not torch.cuda.is_available()


def _relaunch(argv: list[str], ranks: int) -> None:
    """Replace this process by `deepspeed --num_gpus RANKS` on the same script."""
    words = [word for word in argv if not word.startswith(("--local_rank", "--local-rank"))]
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    os.environ[RELAUNCHED] = "1"
    script = os.path.abspath(sys.argv[0])
    port = str(free_port())
    sys.stdout.flush()
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port", port, "--num_gpus", str(ranks), script]
    os.execv(sys.executable, command + words)
