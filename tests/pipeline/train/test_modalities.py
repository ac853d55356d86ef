"""Whichever rank, side and chunk has images: nothing hangs, and the gradient is that of one process.

A rank that skipped the vision tower would leave the others waiting in a collective (ZeRO-3) or reduce other gradients with them (ZeRO-2).
Patterns are drawn in `gradient_worker.Patterned`: on each rank images nowhere, everywhere, in queries, in positives, or anywhere, in one
to eight chunks; many of them run in one pair of processes. A hang ends the pair when a collective has waited for two minutes.
"""

import pytest
from ranks import run_ranks

TOLERANCE = 1e-5
"""Of max |difference| / max |gradient|, as in `test_gradient_caching`."""


def run(shards, lively, folder, count: int, timeout: float) -> list[dict]:
    """`count` patterns under ZeRO-2, as many others under ZeRO-3."""
    scenarios = [
        {"stage": stage, "model": {"checkpoint": str(lively)}, "shards": str(shards), "patterns": True}
        | {"keys": [f"ZeRO-{stage}, pattern {i}" for i in range(count)]}
        for stage in (2, 3)
    ]
    return [record for run in run_ranks(scenarios, 2, folder, timeout, worker="gradient_worker.py") for record in run["results"]]


def verify(records: list[dict]) -> str:
    worst = max(records, key=lambda record: record["error"])
    assert worst["error"] <= TOLERANCE, worst
    kinds = {
        kind: sum(bool(r[kind]) for r in records) for kind in ("rank without images", "no image at all", "chunk without images", "uneven")
    }
    assert all(kinds.values()), kinds
    return f"{len(records)} patterns, worst {worst['error']:.1e} ({worst['key']}); {kinds}"


def test_ten_patterns(shards, lively, tmp_path) -> None:
    records = run(shards, lively, tmp_path, 5, timeout=900)
    print(verify(records))
    assert len(records) == 10
    lone = [record for record in records if record["rank without images"]]
    assert {record["image tokens"].index(0) for record in lone} == {0, 1}, "each rank is once the one without"


@pytest.mark.slow
def test_two_hundred_patterns(shards, lively, tmp_path, capsys) -> None:
    records = run(shards, lively, tmp_path, 100, timeout=3600)
    with capsys.disabled():
        print(f"\n{verify(records)}")
    assert len(records) == 200 and len({tuple(record["image tokens"]) for record in records}) > 50
