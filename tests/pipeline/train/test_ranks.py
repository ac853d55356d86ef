"""What two ranks must survive together: text on one and images on the other, and a loss that is not finite on one of them."""

import pytest
from ranks import run_ranks


@pytest.fixture(scope="module")
def runs(shards, checkpoint, tmp_path_factory):
    """One pair per rank and step: in many steps one rank has an image and the other has none."""
    config = {
        "steps": 12,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards), "weights": {"plain": 1.0, "asked": 0.0}},
        "batch": {"pairs": 2, "conversations": 0, "sub_batch": 1, "row_tokens": 256, "chunk_tokens": 4096},
        "optim": {"learning_rate": 1e-3, "warmup_share": 0.0},
    }
    poisoned = config | {"steps": 3, "data": {"shards": str(shards), "weights": {"plain": 0.0, "asked": 1.0}}}
    scenarios = [{"stage": 2, "config": config}, {"stage": 3, "config": config}, {"stage": 3, "config": poisoned, "poison": 1}]
    names = ["ZeRO-2", "ZeRO-3", "poisoned"]
    return dict(zip(names, run_ranks(scenarios, 2, tmp_path_factory.mktemp("ranks")), strict=True))


@pytest.mark.parametrize("stage", ["ZeRO-2", "ZeRO-3"])
def test_a_rank_without_images_does_not_hang_the_other(runs, stage):
    ours, other = runs[stage]["results"], runs[stage]["others"][0]
    patterns = {(a["own_image_tokens"] > 0, b["own_image_tokens"] > 0) for a, b in zip(ours, other, strict=True)}
    assert patterns >= {(True, False), (False, True)}  # otherwise this test would show nothing
    assert len(ours) == 12 and all(result["applied"] for result in ours)


def test_the_ranks_agree_on_every_result(runs):
    own = {"own_image_tokens", "keys"}
    for run in runs.values():
        for ours, other in zip(run["results"], run["others"][0], strict=True):
            assert {k: v for k, v in ours.items() if k not in own} == pytest.approx(
                {k: v for k, v in other.items() if k not in own}, nan_ok=True
            )


def test_a_step_with_a_non_finite_loss_is_refused_on_all_ranks(runs):
    before, refused, after = runs["poisoned"]["results"]
    assert before["applied"] and after["applied"]
    assert not refused["applied"] and refused["unchanged"]
    assert not runs["poisoned"]["others"][0][1]["applied"]
    assert refused["loss"] != refused["loss"]  # NaN, and said so


def test_no_rank_has_waited_for_a_compiler(runs):
    """DeepSpeed's check for Muon would import it: four seconds of each rank's start."""
    assert [run["compiler"] for run in runs.values()] == [False, False, False]
