"""Start real ranks (processes, gloo) for a test and wait for them; a rank that fails takes the others down."""

import json
from pathlib import Path

import torch
from nursery import shared


def run_ranks(scenarios: list[dict], world: int, folder: Path, timeout: float = 240, worker: str = "worker.py") -> list[dict]:
    """Run scenarios one after another on `world` ranks; returns rank 0's results, those of other ranks under "others"."""
    for i, scenario in enumerate(scenarios):
        scenario["out"] = str(folder / f"{world}-{i}.pt")
    plan = folder / f"{world}.json"
    plan.write_text(json.dumps(scenarios, default=str))
    checkpoint = scenarios[0].get("config", scenarios[0])["model"]["checkpoint"]
    shared(checkpoint, folder).start([str(plan)], world, script=Path(__file__).with_name(worker)).succeed(timeout)
    out = []
    for scenario in scenarios:
        result = torch.load(scenario["out"])
        result["others"] = [torch.load(f"{scenario['out']}.rank{rank}")["results"] for rank in range(1, world)]
        out.append(result)
    return out
