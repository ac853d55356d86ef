"""Adapters and chorus on two ZeRO-3 ranks: only they train, a checkpoint goes on bit for bit, and the export is the adapted model."""

import shutil
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file, save_file

from pipeline.batches.batch import PackedBatch
from pipeline.model.crem import Crem, load_backbone

STEPS = 4


@pytest.fixture(scope="module")
def config(shards, checkpoint) -> dict:
    """Four steps with dropout, in several chunks."""
    return {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint), "train": "lora", "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 4, "sub_batch": 4, "row_tokens": 128, "chunk_tokens": 256},
        "loss": {"temperature": 0.1},
        # high enough that adapters merged wrongly would be seen
        "optim": {"learning_rate": 3e-2, "warmup_share": 0.0},
    }


@pytest.fixture(scope="module")
def runs(config, checkpoint, tmp_path_factory):
    """Straight through and exported; through a checkpoint; with gradient checkpointing; through a checkpoint onto other frozen weights."""
    folder = tmp_path_factory.mktemp("lora")
    other = folder / "other"
    shutil.copytree(checkpoint, other)
    weights = load_file(other / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] += 1e-6
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    recomputing = config | {"model": config["model"] | {"gradient_checkpointing": True}}
    scenarios = {
        "straight": {"stage": 3, "config": config, "export": str(folder / "export")},
        "resumed": {"stage": 3, "config": config, "restart": 2},
        "recomputing": {"stage": 3, "config": recomputing},
        "elsewhere": {"stage": 3, "config": config, "restart": 1, "from": str(other)},
    }
    found = run_ranks(list(scenarios.values()), 2, folder)
    return dict(zip(scenarios, found, strict=True)) | {"export": folder / "export", "saved": folder / "2-1.saved" / "state"}


def losses(run: dict) -> list[tuple]:
    return [(r["loss"], r["retrieval_loss"], r["generation_loss"], r["grad_norm"]) for r in run["results"]]


def check_resumed(straight: dict, resumed: dict) -> None:
    assert all(result["chunks"] > 1 and result["applied"] for result in straight["results"])
    assert losses(resumed) == losses(straight)
    assert all(resumed["weights"][name].equal(weight) for name, weight in straight["weights"].items())


def check_saved(folder: Path, files: int) -> None:
    """Adapters and chorus, and no frozen weight but tied ones: DeepSpeed leaves a parameter out under its first name only."""
    paths = sorted(folder.glob("*model_states.pt"))
    assert len(paths) == files
    for path in paths:
        state = torch.load(path, weights_only=False)
        assert state["frozen_param_fragments"] is None
        held = state["module"].keys() - {"backbone.lm_head.weight", "answer_loss.weight"}
        assert held and all(".lora_" in name or name == "chorus.rows" for name in held)
        assert len(state["frozen_weights_sha256"]) == 64


def test_resume_is_bitwise_the_straight_run(runs):
    """With dropout in several chunks: masks come from (seed, step, rank, chunk), not from what was drawn before."""
    check_resumed(runs["straight"], runs["resumed"])


def test_a_checkpoint_holds_what_trains_alone(runs):
    check_saved(runs["saved"], files=2)
    # under ZeRO-3 even tied weights are empty placeholders
    state = torch.load(min(runs["saved"].glob("*model_states.pt")), weights_only=False)
    assert not any(weight.numel() for weight in state["module"].values())


@pytest.mark.slow
def test_the_same_under_zero_2(config, tmp_path):
    straight, resumed = run_ranks([{"stage": 2, "config": config}, {"stage": 2, "config": config, "restart": 2}], 2, tmp_path)
    check_resumed(straight, resumed)
    check_saved(tmp_path / "2-1.saved" / "state", files=1)


def test_other_frozen_weights_are_refused(runs):
    """One number of one frozen matrix differs by a millionth, on one rank's share of it; every rank stops."""
    assert len(runs["elsewhere"]["results"]) == 1
    assert "frozen weights were not those that model.checkpoint holds now" in runs["elsewhere"]["refused"]


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
