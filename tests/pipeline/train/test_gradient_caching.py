"""Gradient caching under DeepSpeed is exact: every full gradient equals that of one process with one graph, parameter by parameter.

Real ranks, ZeRO stages 0 to 3, adapters with dropout and full training; configurations are drawn in `gradient_worker`. What would go
wrong if a part were missing is shown by negative controls, on the same configurations.
"""

import pytest
from ranks import run_ranks

TOLERANCE, NOTICED = 1e-5, 1e-3
"""Of max |difference| / max |gradient|: what is still equal in float32, and what a missing part must exceed."""
CONTROLS = {"no replay of randomness", "no world-size factor", "no sum over ranks"}
LORA = {"train": "lora", "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}


def scenario(stage: int, model: dict, keys: list[str], controls: bool, lively, shards) -> dict:
    return {"stage": stage, "model": model | {"checkpoint": str(lively)}, "shards": str(shards), "keys": keys, "controls": controls}


def verify(records: list[dict]) -> str:
    """Every error is small, every control's is not; a line that says how many there were and the worst."""
    assert records
    controls = [(name, error) for record in records for name, error in record.get("controls", {}).items()]
    worst = max(records, key=lambda record: record["error"])
    lowest = {name: min(error for other, error in controls if other == name) for name in dict(controls)}
    kinds = {kind: sum(record[kind] for record in records) for kind in ("uneven", "chunk without images", "rank without images")}
    assert worst["error"] <= TOLERANCE, worst
    assert all(error > NOTICED for error in lowest.values()), lowest
    return f"{len(records)} configurations, worst {worst['error']:.1e} ({worst['key']}); {kinds}; least error of controls: {lowest}"


def test_gradients_of_two_ranks(lively, shards, tmp_path):
    """A few of each kind; all stages and rank counts are in the slow test."""
    scenarios = [
        scenario(3, LORA, ["fast 0", "fast 1"], True, lively, shards),
        scenario(0, LORA, ["fast 2", "fast 3"], False, lively, shards),
        scenario(2, {"freeze_vision": True}, ["fast 4"], False, lively, shards),
    ]
    runs = run_ranks(scenarios, 2, tmp_path, worker="gradient_worker.py")
    records = [record for run in runs for record in run["results"]]
    print(verify(records))
    assert len(records) == 5
    assert {name for record in records for name in record.get("controls", {})} == CONTROLS
    assert any(record["chunk without images"] for record in records)


@pytest.mark.slow
def test_gradients_of_any_layout(lively, shards, tmp_path, capsys):
    """1 to 4 ranks, each ZeRO stage, 1 to 8 chunks a rank: at least 100 configurations."""
    records = []
    for world in (1, 2, 3, 4):
        scenarios = []
        for stage in (0, 1, 2, 3):
            keys = [f"{world} ranks, stage {stage}, {i}" for i in range(8)]
            scenarios.append(scenario(stage, LORA, keys[:6], True, lively, shards))
            scenarios.append(scenario(stage, {}, keys[6:7], False, lively, shards))
            scenarios.append(scenario(stage, {"freeze_vision": True}, keys[7:], False, lively, shards))
        runs = run_ranks(scenarios, world, tmp_path, timeout=1800, worker="gradient_worker.py")
        own = [record for run in runs for record in run["results"]]
        with capsys.disabled():
            print(f"\n{world} ranks: {verify(own)}")
        records += own
    with capsys.disabled():
        print(f"\nall: {verify(records)}")
    assert len(records) >= 100
    assert {record["chunks"] for record in records} == {1, 2, 3, 4, 5, 6, 7, 8}
    assert {name for record in records for name in record.get("controls", {})} == CONTROLS
    assert sum(record["chunk without images"] for record in records) >= 10
    assert sum(record["rank without images"] for record in records) >= 3
