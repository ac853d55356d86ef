"""What the contrastive loss gained must not depend on ranks, chunks or ZeRO stage: the learnt temperature, the margin, and the
balance of the two losses' gradients.

Real processes over gloo, DeepSpeed engines, prepared shards. The reference is one process of plain PyTorch, un-chunked (whose own gradient
`test_step.py` holds to autograd). Under ZeRO-3 nothing is exempt from partitioning here (threshold 0), so that the shared output matrix and
the temperature are gathered only where a module owns them.
"""

import math

import pytest
from ranks import run_ranks

STEPS = 3
ALL_CUT = {"stage3_param_persistence_threshold": 0}
LAYOUTS = {
    "2 ranks, ZeRO-3, chunks": (2, 3, "chunked", {}),
    "2 ranks, ZeRO-3, chunks, restarted": (2, 3, "chunked", {"restart": 2}),
    "2 ranks, ZeRO-1, chunks": (2, 1, "chunked", {}),
    "own rate, 2 ranks, ZeRO-3, chunks": (2, 3, "chunked", {}),
    "own rate, 2 ranks, ZeRO-3, chunks, restarted": (2, 3, "chunked", {"restart": 2}),
}
OWN_RATE = 0.05
"""Of the temperature, where a layout's name says so: 25 times the others'."""
MORE = {
    "1 rank, ZeRO-3, chunks": (1, 3, "chunked", {}),
    "1 rank, ZeRO-0, chunks": (1, 0, "chunked", {}),
    "2 ranks, ZeRO-3": (2, 3, "whole", {}),
    "2 ranks, ZeRO-2, chunks": (2, 2, "chunked", {}),
    "2 ranks, ZeRO-2, chunks, restarted": (2, 2, "chunked", {"restart": 1}),
    "2 ranks, ZeRO-1, chunks": (2, 1, "chunked", {}),
    "2 ranks, ZeRO-1, chunks, restarted": (2, 1, "chunked", {"restart": 2}),
    "2 ranks, ZeRO-0, chunks": (2, 0, "chunked", {}),
    "4 ranks, ZeRO-3, chunks": (4, 3, "chunked", {}),
}
"""The rest of the grid, under `slow`."""
CHUNK_TOKENS = {"whole": 16384, "chunked": 512}
PARTS = [{"generation_weight": 0.0}, {"retrieval_weight": 0.0}]
"""The retrieval loss alone, and the generation loss alone."""


def config(shards, checkpoint, chunk_tokens: int, steps: int = 1, **loss) -> dict:
    """A run with symmetric loss."""
    return {
        "steps": steps,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 16, "conversations": 8, "sub_batch": 8, "row_tokens": 256, "chunk_tokens": chunk_tokens},
        "loss": {"symmetric": True, "temperature": 0.05, **loss},
        "optim": {"learning_rate": 2e-3, "warmup_share": 0.0},
    }


def scenario(stage: int | None, settings: dict, **more) -> dict:
    """What `worker.py` runs."""
    return {"stage": stage, "config": settings, "zero": ALL_CUT, **more}


def learning(shards, checkpoint, layouts: dict) -> dict[str, dict]:
    """Scenarios that learn the temperature, with a margin, by name."""
    out = {}
    for name, (_, stage, layout, more) in layouts.items():
        settings = config(shards, checkpoint, CHUNK_TOKENS[layout], STEPS, learn_temperature=True, margin=0.1)
        if name.startswith("own rate"):
            settings["optim"]["rates"] = {"temperature": OWN_RATE}
        out[name] = scenario(stage, settings, **more)
    return out


def run_all(scenarios: dict[str, dict], world: int, folder) -> dict[str, dict]:
    """Results by name; one group of processes runs them one after another. Ranks may be more than cores, and the machine busy."""
    timeout = 120 + 20 * world * len(scenarios)
    return dict(zip(scenarios, run_ranks(list(scenarios.values()), world, folder, timeout), strict=True))


@pytest.fixture(scope="module")
def runs(shards, checkpoint, tmp_path_factory):
    """Everything of the default suite in one process and one pair of processes; the reference is one process of plain PyTorch."""
    folder = tmp_path_factory.mktemp("balance")
    alone = learning(shards, checkpoint, {"reference": (1, None, "whole", {}), "own rate, reference": (1, None, "whole", {})})
    alone |= {f"reference {i}": scenario(None, config(shards, checkpoint, 16384, **part)) for i, part in enumerate(PARTS)}
    low = config(shards, checkpoint, 512, 2, learn_temperature=True) | {"deepspeed": "ds_configs/zero3_bf16.json"}
    together = learning(shards, checkpoint, LAYOUTS) | {"bfloat16": scenario(3, low)}
    together |= {f"balance {i}": scenario(3, config(shards, checkpoint, 512, **part)) for i, part in enumerate(PARTS)}
    return run_all(alone, 1, folder) | run_all(together, 2, folder)


def check(ours: dict, reference: dict, norm: bool = True) -> None:
    """Step by step the same run; `norm`: the gradient's norm is reported (DeepSpeed's stage 0 does not, in float32)."""
    for step, (own, expected) in enumerate(zip(ours["results"], reference["results"], strict=True)):
        for key in ("loss", "retrieval_loss", "generation_loss", "left_out"):
            assert own[key] == pytest.approx(expected[key], rel=1e-5), f"{key} of step {step}"
        assert own["temperature"] == pytest.approx(expected["temperature"], rel=1e-6), f"step {step}"
        assert not norm or own["grad_norm"] == pytest.approx(expected["grad_norm"], rel=5e-5)
        assert own["applied"]
    assert ours["log_scale"] == pytest.approx(reference["log_scale"], rel=1e-4)


@pytest.mark.parametrize("name", LAYOUTS)
def test_learnt_temperature_and_margin_are_plain_pytorchs(runs, name):
    check(runs[name], runs["own rate, reference" if name.startswith("own rate") else "reference"])


def test_the_temperature_moves_at_its_own_rate(runs):
    """Adam's first step is the rate, here without warm-up: 25 times the others'; their losses of that step are the same."""
    (first, second, _), (common, slow, _) = runs["own rate, reference"]["results"], runs["reference"]["results"]
    assert first["loss"] == common["loss"]
    assert abs(math.log(second["temperature"] / 0.05)) == pytest.approx(OWN_RATE, rel=1e-3)
    assert abs(math.log(slow["temperature"] / 0.05)) == pytest.approx(2e-3, rel=1e-3)
    assert second["generation_loss"] == pytest.approx(slow["generation_loss"], rel=1e-6)


@pytest.mark.slow
def test_learnt_temperature_and_margin_are_plain_pytorchs_everywhere(runs, shards, checkpoint, tmp_path):
    for world in (1, 2, 4):
        layouts = {name: layout for name, layout in MORE.items() if layout[0] == world}
        for name, found in run_all(learning(shards, checkpoint, layouts), world, tmp_path).items():
            check(found, runs["reference"], norm="ZeRO-0" not in name)
            straight = name.removesuffix(", restarted")
            print(name, [result["temperature"] for result in found["results"]])
            if straight != name and straight in runs:
                assert found["results"] == runs[straight]["results"]


def test_the_temperature_moves_and_the_margin_bites(runs):
    """The control: otherwise the equalities above would be empty."""
    reference = runs["reference"]
    temperatures = [result["temperature"] for result in reference["results"]]
    assert temperatures[0] == 0.05 and len(set(temperatures)) == STEPS
    assert abs(reference["log_scale"]) > 1e-3
    assert sum(result["left_out"] for result in reference["results"]) > 0
    assert all(result["chunks"] >= 2 for result in runs["2 ranks, ZeRO-3, chunks"]["results"])


@pytest.mark.parametrize("rate", ["", "own rate, "])
def test_restart_is_bitwise(runs, rate):
    """Saved, built anew, loaded: the same losses, temperatures and weights as straight through."""
    straight, restarted = (runs[f"{rate}2 ranks, ZeRO-3, chunks{more}"] for more in ("", ", restarted"))
    assert restarted["results"] == straight["results"]
    assert restarted["log_scale"] == straight["log_scale"]
    assert all(restarted["weights"][name].equal(weight) for name, weight in straight["weights"].items())


def test_bfloat16(runs):
    """Smoke: bfloat16 weights under ZeRO-3. Losses are float32's to a few digits; a step of the temperature, a hundredth of what bfloat16
    resolves at log(20), is taken all the same."""
    first, second = runs["bfloat16"]["results"]
    for key in ("generation_loss", "retrieval_loss"):
        assert first[key] == pytest.approx(runs["reference 0"]["results"][0][key], rel=0.1)
    assert first["applied"] and second["applied"] and first["temperature"] == 0.05
    assert abs(math.log(second["temperature"] / 0.05)) == pytest.approx(2e-3, rel=0.05)  # Adam's first step is its rate


def norms(found: dict, name: str) -> tuple[float, float]:
    """Gradient norms of the first step: of the retrieval loss alone, and of the generation loss alone."""
    return tuple(found[f"{name} {i}"]["results"][0]["grad_norm"] for i in range(2))


def test_balance_of_the_losses_is_the_same_on_two_ranks(runs):
    ours, reference = norms(runs, "balance"), norms(runs, "reference")
    assert ours[0] / ours[1] == pytest.approx(reference[0] / reference[1], rel=1e-4)
    assert ours == pytest.approx(reference, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
def test_balance_of_the_losses_is_the_same_for_any_ranks_and_chunks(runs, shards, checkpoint, tmp_path, world):
    scenarios = {
        f"{stage} {chunk_tokens} {i}": scenario(stage, config(shards, checkpoint, chunk_tokens, **part))
        for stage in (1, 2, 3)
        for chunk_tokens in ((256, 16384) if world == 4 else (256, 512, 1024, 16384))
        for i, part in enumerate(PARTS)
    }
    found, reference = run_all(scenarios, world, tmp_path), norms(runs, "reference")
    ratios = [ours[0] / ours[1] for ours in (norms(found, name.rsplit(" ", 1)[0]) for name in scenarios)]
    worst = max(abs(ratio / (reference[0] / reference[1]) - 1) for ratio in ratios)
    print(f"{world} ranks: ratio {reference[0] / reference[1]:.4f}; worst relative difference of {len(ratios) // 2} layouts {worst:.1e}")
    assert worst < 1e-4
