"""On real ranks: a gradient that is not finite on one of them changes no weight on any, and a slow rank is seen."""

import math
from collections.abc import Callable

import pytest
from ranks import run_ranks

BAD = {"loss": {"poison": 0}, "nan": {"poison gradient": [0, "nan"]}, "inf": {"poison gradient": [0, "inf"]}}
CASES = [("nan", 2), ("nan", 3), ("nan", 0), ("inf", 2), ("inf", 3), ("loss", 0), ("loss", 2), ("loss", 3)]
QUICK = CASES[:2]


@pytest.fixture(scope="module")
def start(shards, checkpoint, tmp_path_factory) -> Callable[[list[dict]], list[dict]]:
    config = {
        "steps": 2,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 4, "conversations": 2, "sub_batch": 2, "row_tokens": 256, "chunk_tokens": 256},
        "optim": {"learning_rate": 1e-3, "warmup_share": 0.0},
    }

    def start(scenarios: list[dict]) -> list[dict]:
        return run_ranks([{"config": config} | scenario for scenario in scenarios], 2, tmp_path_factory.mktemp("health"), timeout=480)

    return start


def check(run: dict, what: str) -> None:
    for results in (run["results"], *run["others"]):
        assert [result["applied"] for result in results] == [False, True]
        assert results[0]["unchanged"]
    assert math.isfinite(run["results"][0]["loss"]) == (what != "loss"), "only that kind shows in the loss"
    assert math.isfinite(run["results"][1]["loss"])
    assert all(weight.isfinite().all() for weight in run["weights"].values())


def test_one_ranks_bad_gradient_is_refused_by_all_and_a_slow_rank_is_seen(start) -> None:
    """ZeRO-2 and 3. The slow one sleeps 100 ms in a layer that takes less than one for these tokens; its loss is the others'."""
    *runs, slow = start([{"stage": stage} | BAD[what] for what, stage in QUICK] + [{"stage": 3, "slow": 1}])
    for (what, _), run in zip(QUICK, runs, strict=True):
        check(run, what)
    own, other = ([result["pace"] for result in results] for results in (slow["results"], *slow["others"]))
    assert all(slow > 2 * quick > 0 for quick, slow in zip(own, other, strict=True))


@pytest.mark.slow
def test_other_bad_numbers_and_stages(start) -> None:
    rest = CASES[2:]
    for (what, _), run in zip(rest, start([{"stage": stage} | BAD[what] for what, stage in rest]), strict=True):
        check(run, what)
