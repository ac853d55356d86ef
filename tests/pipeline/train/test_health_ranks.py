"""On real ranks: a gradient that is not finite on one of them changes no weight on any, and a slow rank is seen."""

import math

import pytest
from ranks import run_ranks

STAGES = (0, 2, 3)
BAD = {"loss": {"poison": 1}, "nan": {"poison gradient": [1, "nan"]}, "inf": {"poison gradient": [1, "inf"]}}


@pytest.fixture(scope="module")
def runs(shards, checkpoint, tmp_path_factory) -> dict:
    config = {
        "steps": 3,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 4, "conversations": 2, "sub_batch": 2, "row_tokens": 256, "chunk_tokens": 256},
        "optim": {"learning_rate": 1e-3, "warmup_share": 0.0},
    }
    scenarios = {f"{what} {stage}": {"stage": stage, "config": config} | bad for stage in STAGES for what, bad in BAD.items()}
    scenarios["slow"] = {"stage": 3, "config": config, "slow": 1}
    return dict(zip(scenarios, run_ranks(list(scenarios.values()), 2, tmp_path_factory.mktemp("health")), strict=True))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("what", BAD)
def test_one_ranks_bad_number_is_refused_by_all(runs: dict, what: str, stage: int) -> None:
    run = runs[f"{what} {stage}"]
    for results in (run["results"], *run["others"]):
        assert [result["applied"] for result in results] == [True, False, True]
        assert results[1]["unchanged"]
    assert math.isfinite(run["results"][1]["loss"]) == (what != "loss"), "only the first kind shows in the loss"
    assert math.isfinite(run["results"][2]["loss"])
    assert all(weight.isfinite().all() for weight in run["weights"].values())


def test_a_slow_rank_shows_although_all_wait_for_it(runs: dict) -> None:
    """20 ms in a layer that takes less than one for a few hundred tokens."""
    (own, other) = ([result["pace"] for result in results] for results in (runs["slow"]["results"], *runs["slow"]["others"]))
    assert all(slow > 2 * quick > 0 for quick, slow in zip(own, other, strict=True))
