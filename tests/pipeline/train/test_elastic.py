"""Elastic chorus on real ranks: the same k everywhere, and the same losses as one process of plain PyTorch."""

import pytest
from ranks import run_ranks

STEPS = 4


@pytest.fixture(scope="module")
def runs(shards, checkpoint, tmp_path_factory) -> dict[int, dict]:
    """By number of ranks: two with ZeRO-3 and chunks, and the reference, un-chunked plain PyTorch."""
    config = {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 4, "sub_batch": 4, "row_tokens": 256, "chunk_tokens": 16384},
        "chorus": {"elastic": [1, 2, 4]},
        "loss": {"temperature": 0.05},
        "optim": {"learning_rate": 1e-3, "warmup_share": 0.0},
    }
    chunked = config | {"batch": config["batch"] | {"chunk_tokens": 256}}
    folder = tmp_path_factory.mktemp("elastic")
    [reference] = run_ranks([{"stage": None, "config": config}], 1, folder)
    [two] = run_ranks([{"stage": 3, "config": chunked}], 2, folder)
    return {1: reference, 2: two}


def test_k_is_the_same_on_all_ranks(runs):
    drawn = [result["chorus"] for result in runs[1]["results"]]
    assert set(drawn) <= {1, 2, 4} and len(set(drawn)) > 1  # otherwise this test would show nothing
    assert [result["chorus"] for result in runs[2]["results"]] == drawn
    assert [result["chorus"] for result in runs[2]["others"][0]] == drawn


def test_same_losses_as_plain_pytorch(runs):
    for ours, reference in zip(runs[2]["results"], runs[1]["results"], strict=True):
        for key in ("loss", "retrieval_loss", "generation_loss"):
            assert ours[key] == pytest.approx(reference[key], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(reference["grad_norm"], rel=5e-5)
        assert ours["applied"] and ours["chunks"] > reference["chunks"] == 1
