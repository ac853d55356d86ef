"""Adapters and chorus on two ZeRO-3 ranks: only they train, a checkpoint goes on bit for bit, and the export is the adapted model."""

import pytest
import torch
from ranks import run_ranks

from pipeline.batches.batch import PackedBatch
from pipeline.model.crem import Crem, load_backbone

STEPS = 4


@pytest.fixture(scope="module")
def runs(shards, checkpoint, tmp_path_factory):
    """Four steps with dropout: straight through and exported; through a checkpoint; with gradient checkpointing."""
    folder = tmp_path_factory.mktemp("lora")
    config = {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint), "train": "lora", "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 4, "sub_batch": 4, "row_tokens": 128, "chunk_tokens": 256},
        "loss": {"temperature": 0.1},
        # high enough that adapters merged wrongly would be seen
        "optim": {"learning_rate": 3e-2, "warmup_share": 0.0},
    }
    recomputing = config | {"model": config["model"] | {"gradient_checkpointing": True}}
    scenarios = [
        {"stage": 3, "config": config, "export": str(folder / "export")},
        {"stage": 3, "config": config, "restart": 2},
        {"stage": 3, "config": recomputing},
    ]
    names = ["straight", "resumed", "recomputing"]
    return dict(zip(names, run_ranks(scenarios, 2, folder), strict=True)) | {"export": folder / "export"}


def losses(run: dict) -> list[tuple]:
    return [(r["loss"], r["retrieval_loss"], r["generation_loss"], r["grad_norm"]) for r in run["results"]]


def test_resume_is_bitwise_the_straight_run(runs):
    """With dropout in several chunks: masks come from (seed, step, rank, chunk), not from what was drawn before."""
    assert all(result["chunks"] > 1 and result["applied"] for result in runs["straight"]["results"])
    assert losses(runs["resumed"]) == losses(runs["straight"])
    assert all(runs["resumed"]["weights"][name].equal(weight) for name, weight in runs["straight"]["weights"].items())


def test_gradient_checkpointing_draws_the_same_masks(runs):
    assert losses(runs["recomputing"]) == [pytest.approx(expected, rel=1e-5) for expected in losses(runs["straight"])]


def test_only_adapted_layers_and_chorus_rows_move(runs, checkpoint):
    backbone = load_backbone(checkpoint, torch.float32)
    chorus = backbone.config.chorus_token_ids
    for name, before in backbone.named_parameters():
        after = runs["straight"]["weights"][name]
        if name.endswith("embed_tokens.weight"):
            moved = (after != before).any(dim=1).nonzero()[:, 0].tolist()
            assert moved == chorus
        else:
            assert (not after.equal(before)) == (".layers." in name and "_proj.weight" in name), name


def test_the_optimizer_holds_what_trains(runs):
    """Rank 4 on 2 layers: q 64+64, k and v 64+32, o 64+64, gate and up 64+96, down 96+64 columns and rows; 4 chorus rows of 64."""
    assert runs["straight"]["optimized"] == 2 * 4 * (128 + 96 + 96 + 128 + 160 + 160 + 160) + 4 * 64


@torch.no_grad()
def test_the_exported_folder_is_the_adapted_model(runs, checkpoint):
    run = runs["straight"]
    batch = PackedBatch(**run["batch"])
    embeddings, answer_losses = Crem(load_backbone(runs["export"], torch.float32)).eval()(batch)
    assert len(embeddings) >= 4 and len(answer_losses) > 4
    torch.testing.assert_close(embeddings, run["embeddings"], atol=1e-4, rtol=0)
    torch.testing.assert_close(answer_losses, run["answer_losses"], atol=1e-4, rtol=0)
    # the control: training has changed both
    before = Crem(load_backbone(checkpoint, torch.float32)).eval()(batch)
    assert (before[0] - embeddings).abs().max() > 0.01
    assert (before[1] - answer_losses).abs().max() > 0.01
