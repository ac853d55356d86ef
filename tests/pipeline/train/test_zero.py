"""Equivalence classes of runs: whatever the ranks, chunks and ZeRO stage, the same steps give the same losses and weights.

All runs are real: processes over gloo, DeepSpeed engines, prepared shards. The reference is one process of plain PyTorch, un-chunked.
"""

import math

import pytest
import torch
from ranks import run_ranks

STEPS = 3
LAYOUTS = {
    "1 rank, ZeRO-3, chunks": (1, 3, "chunked"),
    "2 ranks, ZeRO-3": (2, 3, "whole"),
    "2 ranks, ZeRO-3, chunks": (2, 3, "chunked"),
    "2 ranks, ZeRO-2, chunks": (2, 2, "chunked"),
    "2 ranks, ZeRO-1": (2, 1, "whole"),
    "2 ranks, ZeRO-3, elastic chorus": (2, 3, "elastic chunked"),
    "2 ranks, ZeRO-3, two causal attentions": (2, 3, "two causal"),
    "1 rank, plain PyTorch, chunks": (1, None, "chunked"),
}


@pytest.fixture(scope="module")
def runs(shards, checkpoint, tmp_path_factory):
    """Results by layout, and the reference; one pair of processes runs all two-rank layouts."""
    folder = tmp_path_factory.mktemp("zero")
    configs = {"whole": _config(shards, checkpoint, 16384), "chunked": _config(shards, checkpoint, 512)}
    # the reference attends under the dense mask; recomputed layers must be handed the same pieces again
    model = configs["whole"]["model"] | {"attention": "two_causal", "gradient_checkpointing": True}
    configs["two causal"] = configs["chunked"] | {"model": model}
    configs |= {f"elastic {name}": config | {"chorus": {"elastic": [1, 2, 4]}} for name, config in configs.items()}
    out = {}
    for world in (1, 2):
        wanted = [name for name, layout in LAYOUTS.items() if layout[0] == world]
        scenarios = [{"stage": LAYOUTS[name][1], "config": configs[LAYOUTS[name][2]]} for name in wanted]
        if world == 1:
            references = {"reference": configs["whole"], "elastic reference": configs["elastic whole"]}
            wanted = [*references, *wanted]
            scenarios = [*({"stage": None, "config": config} for config in references.values()), *scenarios]
        out |= dict(zip(wanted, run_ranks(scenarios, world, folder), strict=True))
    return out


def _config(shards, checkpoint, chunk_tokens: int) -> dict:
    return {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 16, "conversations": 8, "sub_batch": 8, "row_tokens": 256, "chunk_tokens": chunk_tokens},
        "loss": {"symmetric": True, "temperature": 0.05},
        "optim": {"learning_rate": 1e-3, "warmup_share": 0.0},
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_same_losses_as_plain_pytorch(runs, name):
    for step, (ours, reference) in enumerate(zip(runs[name]["results"], _reference(runs, name)["results"], strict=True)):
        for key in ("loss", "retrieval_loss", "generation_loss"):
            assert ours[key] == pytest.approx(reference[key], rel=1e-5), f"{key} of step {step}"
        assert ours["accuracy"] == reference["accuracy"]
        assert ours["applied"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_same_gradient_norm_and_weights_as_plain_pytorch(runs, checkpoint, name):
    for ours, reference in zip(runs[name]["results"], _reference(runs, name)["results"], strict=True):
        assert ours["grad_norm"] == pytest.approx(reference["grad_norm"], rel=5e-5)
    assert _distance(runs[name], _reference(runs, name), checkpoint) < 2e-2


def test_layouts_differ_where_they_should(runs):
    """The equalities above would be empty if every layout ran one chunk, or training changed nothing."""
    assert all(r["chunks"] == 1 for r in runs["reference"]["results"])
    assert all(r["chunks"] >= 2 for r in runs["2 ranks, ZeRO-3, chunks"]["results"])
    losses = [r["loss"] for r in runs["reference"]["results"]]
    assert len(set(losses)) == STEPS


def test_elastic_ranks_draw_the_same_k(runs):
    drawn = [r["chorus"] for r in runs["elastic reference"]["results"]]
    assert set(drawn) <= {1, 2, 4} and len(set(drawn)) > 1  # otherwise this would show nothing
    two = runs["2 ranks, ZeRO-3, elastic chorus"]
    assert [r["chorus"] for r in two["results"]] == [r["chorus"] for r in two["others"][0]] == drawn
    assert {r["chorus"] for r in runs["reference"]["results"]} == {4}


def _reference(runs: dict, name: str) -> dict:
    return runs["elastic reference" if "elastic" in name else "reference"]


def _distance(ours: dict, reference: dict, checkpoint) -> float:
    """Distance of the final weights in units of the distance that training moved them.

    Adam turns the rounding of a vanishing gradient into a full step, so single weights may differ; the whole may not.
    """
    from pipeline.model.crem import load_backbone

    start = dict(load_backbone(checkpoint, torch.float32).named_parameters())
    apart = sum(float((ours["weights"][k] - w).square().sum()) for k, w in reference["weights"].items())
    moved = sum(float((start[k].detach() - w).square().sum()) for k, w in reference["weights"].items())
    return math.sqrt(apart / moved)
