"""What happens in a rank's process before training: how many ranks there are, and what the environment must say.

DeepSpeed's launcher counts accelerators; on a CPU machine it counts NUMA nodes, usually one. So where it started a single rank on a
machine without a GPU, this process makes way for a launcher with as many as CREM_CPU_RANKS says (two by default).
"""

import os
import sys

from pipeline.allocator import keep_freed_memory
from pipeline.ports import free_port

RANKS_VARIABLE = "CREM_CPU_RANKS"
"""Environment variable that states the number of ranks on a CPU machine; 2 where it is not set."""
RELAUNCHED = "CREM_RELAUNCHED"
"""Set in processes that were started with the wanted number of ranks already."""


def main(argv: list[str]) -> int:
    """Entry of `launchers/train.sh` read as Python: relaunch if needed, then train."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    said = os.environ.get(RANKS_VARIABLE, "2")
    if not said.isdecimal() or int(said) == 0:
        print(f"error: {RANKS_VARIABLE}: found {said!r}; expected a number of ranks, such as 2. Set it, or unset it", file=sys.stderr)
        return 2
    wanted = int(said)
    if wanted > 1 and _one_cpu_rank_by_default():
        _relaunch(argv, wanted)
    keep_freed_memory()
    from pipeline.train.__main__ import main as train

    return train(argv)


def _one_cpu_rank_by_default() -> bool:
    if os.environ.get("WORLD_SIZE", "1") != "1" or RELAUNCHED in os.environ:
        return False
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
