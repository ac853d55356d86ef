"""Start real ranks (processes, gloo) for a test and wait for them; a rank that fails takes the others down."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from pipeline.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


def run_ranks(scenarios: list[dict], world: int, folder: Path, timeout: float = 240, worker: str = "worker.py") -> list[dict]:
    """Run scenarios one after another on `world` ranks; returns rank 0's results, those of other ranks under "others"."""
    for i, scenario in enumerate(scenarios):
        scenario["out"] = str(folder / f"{world}-{i}.pt")
    plan = folder / f"{world}.json"
    plan.write_text(json.dumps(scenarios, default=str))
    command, port = [str(Path(__file__).with_name(worker)), str(plan)], free_port()
    wait_for([start_rank(command, rank, world, port) for rank in range(world)], timeout)
    out = []
    for scenario in scenarios:
        result = torch.load(scenario["out"])
        result["others"] = [torch.load(f"{scenario['out']}.rank{rank}")["results"] for rank in range(1, world)]
        out.append(result)
    return out


def start_rank(command: list[str], rank: int, world: int, port: int) -> subprocess.Popen:
    """One rank's process, its output in a pipe."""
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PYTHONPATH": ROOT,
        "OMP_NUM_THREADS": 1,
        "HF_HUB_OFFLINE": 1,
        "TOKENIZERS_PARALLELISM": "false",
    }
    env = os.environ | {name: str(value) for name, value in variables.items()}
    return subprocess.Popen([sys.executable, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(ranks: list[subprocess.Popen], timeout: float) -> None:
    """Wait until all are done; raises with the output of the one that failed, or of all at the timeout."""
    limit = time.monotonic() + timeout
    try:
        for rank in ranks:
            output, _ = rank.communicate(timeout=max(1.0, limit - time.monotonic()))
            if rank.returncode:
                raise AssertionError(f"a rank ended with {rank.returncode}:\n{output[-4000:]}")
    finally:
        for rank in ranks:
            rank.kill()
