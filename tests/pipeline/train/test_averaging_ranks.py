"""The moving average of weights on real ranks: against a plain average of gathered weights, through restarts, kills and other layouts."""

import json
import shutil
import signal
from collections.abc import Callable

import pytest
import torch
from nursery import Training, shared, wait_until
from ranks import run_ranks
from safetensors.torch import load_file
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.model.crem import load_backbone

STEPS = 4
DECAY = 0.6


@pytest.fixture(scope="module")
def start(shards, checkpoint, tmp_path_factory) -> Callable[..., list[dict]]:
    """Runs scenarios on ranks; settings may be changed under "more", DeepSpeed's file is ZeRO in float32 unless named."""
    config = {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 2, "sub_batch": 4, "row_tokens": 256, "chunk_tokens": 512},
        "loss": {"temperature": 0.1},
        "optim": {"learning_rate": 1e-2, "warmup_share": 0.0},
        "ema": {"decay": DECAY},
    }

    def start(scenarios: list[dict], world: int = 2) -> list[dict]:
        filled = [scenario | {"config": config | scenario.pop("more", {})} for scenario in scenarios]
        return run_ranks(filled, world, tmp_path_factory.mktemp("averaging"), timeout=900)

    return start


def plain_average(run: dict, steps: range = range(STEPS)) -> dict[str, torch.Tensor]:
    """From the weights gathered after every step, one process, torch's own recurrence."""
    path = [run["results"][step]["weights"] for step in steps]
    average = [weight.clone() for weight in path[0].values()]
    for weights in path[1:]:
        get_ema_multi_avg_fn(DECAY)(average, list(weights.values()), 0)
    return dict(zip(path[0], average, strict=True))


def check_average(run: dict, steps: range = range(STEPS)) -> None:
    expected = plain_average(run, steps)
    assert run["averaged"].keys() == expected.keys()
    for name, average in expected.items():
        torch.testing.assert_close(run["averaged"][name], average, rtol=1e-6, atol=1e-8)
    assert max(float((run["weights"][name] - average).abs().max()) for name, average in expected.items()) > 1e-3


def check_same(run: dict, other: dict, *what: str) -> None:
    assert [r["loss"] for r in run["results"]] == [r["loss"] for r in other["results"]]
    for kind in what:
        assert all(weight.equal(other[kind][name]) for name, weight in run[kind].items()), kind


@pytest.fixture(scope="module")
def runs(start, tmp_path_factory) -> dict:
    export = tmp_path_factory.mktemp("averaged") / "export"
    scenarios = {
        "zero1": {"stage": 1, "follow": True},
        "zero3": {"stage": 3, "follow": True, "export": str(export)},
        "resumed": {"stage": 3, "restart": 2},
        "refused": {"stage": 3, "follow": True, "poison gradient": [2, "nan"]},
    }
    return dict(zip(scenarios, start(list(scenarios.values())), strict=True)) | {"export": export}


@pytest.mark.parametrize("name", ["zero1", "zero3"])
def test_two_ranks_average_what_one_process_averages(runs, name) -> None:
    check_average(runs[name])


def test_a_resume_is_bitwise_the_straight_run(runs) -> None:
    check_same(runs["resumed"], runs["zero3"], "weights", "averaged")


def test_a_refused_step_does_not_move_it(runs) -> None:
    """Nor does the third step, at which it was looked at, change anything of the fourth."""
    run = runs["refused"]
    assert [result["applied"] for result in run["results"]] == [True, True, False, True]
    assert run["results"][2]["unchanged"] and run["results"][2]["average_unchanged"]
    torch.testing.assert_close(run["results"][1]["weights"], runs["zero3"]["results"][1]["weights"], rtol=0, atol=0)
    check_average(run | {"results": [run["results"][i] for i in (0, 1, 3)]}, range(3))


def test_both_are_exported(runs) -> None:
    for name, expected in (("export", runs["zero3"]["weights"]), ("export-ema", plain_average(runs["zero3"]))):
        found = dict(load_backbone(runs["export"].with_name(name), torch.float32).named_parameters())
        assert found.keys() == expected.keys()
        for key, weight in expected.items():
            torch.testing.assert_close(found[key].detach(), weight, rtol=1e-6, atol=1e-8)


OTHERS = {
    "zero0": {"stage": 0},
    "zero2": {"stage": 2},
    "small groups": {"stage": 3, "zero": {"sub_group_size": 5000, "stage3_param_persistence_threshold": 1000}},
    "rates": {"stage": 1, "more": {"optim": {"learning_rate": 1e-2, "rates": {"embedding": 3e-2}}}},
    "adapters": {"stage": 2, "more": {"optim": {"learning_rate": 3e-2}}},
    "bf16, zero1": {"stage": 1, "more": {"deepspeed": "ds_configs/zero1_bf16.json"}},
    "bf16, zero2": {"stage": 2, "more": {"deepspeed": "ds_configs/zero2_bf16.json"}},
    "bf16, zero3": {"stage": 3, "more": {"deepspeed": "ds_configs/zero3_bf16.json"}},
    "bf16, offloaded": {"stage": 3, "more": {"deepspeed": "ds_configs/zero3_bf16_cpu_offload.json"}},
}


@pytest.mark.slow
def test_every_stage_and_precision(start, checkpoint) -> None:
    """Averages, and a resume half-way; in bf16 the average is that of the float32 masters, the gathered weights are rounded."""
    lora = {"checkpoint": str(checkpoint), "train": "lora", "lora": {"rank": 4, "alpha": 8}}
    wanted = []
    for name, scenario in OTHERS.items():
        more = scenario.get("more", {}) | ({"model": lora} if name == "adapters" else {})
        wanted += [scenario | {"more": dict(more), "follow": True}, scenario | {"more": dict(more), "restart": 2}]
    found = start(wanted)
    for name, straight, resumed in zip(OTHERS, found[::2], found[1::2], strict=True):
        check_same(resumed, straight, "weights", "averaged")
        if "bf16" in name:
            for key, average in plain_average(straight).items():
                torch.testing.assert_close(straight["averaged"][key], average, rtol=2**-6, atol=1e-3)
        elif name != "adapters":  # the average of a product is not the product of averages
            check_average(straight)
        assert any(not straight["averaged"][key].equal(weight) for key, weight in straight["weights"].items())


@pytest.mark.slow
def test_training_is_bitwise_the_same_without(start) -> None:
    """ZeRO-3 and 1. (In the default suite: one process.)"""
    for stage in (3, 1):
        with_, without = start([{"stage": stage}, {"stage": stage, "more": {"ema": {}}}])
        check_same(without, with_, "weights")
        assert "averaged" in with_ and "averaged" not in without


@pytest.mark.slow
def test_it_is_dealt_out_to_other_layouts(start, tmp_path) -> None:
    """Bit for bit, before the next step: from ZeRO-2 on two ranks and ZeRO-3 on one."""
    folders = [str(tmp_path / name) for name in ("first", "second")]
    two = {"more": {"steps": 2}, "save": (2, folders[0])}
    (first,), (second,) = start([{"stage": 2} | two]), start([{"stage": 3} | two | {"save": (2, folders[1])}], 1)
    for world, stages in ((1, (3, 2)), (2, (3, 1))):
        saved = [(folder, run, stage) for folder, run in zip(folders, (first, second), strict=True) for stage in stages]
        loaded = start([{"stage": stage, "more": {"steps": 2}, "load": (2, folder)} for folder, _, stage in saved], world)
        for (_, run, _), again in zip(saved, loaded, strict=True):
            check_same(again, run | {"results": []}, "weights", "averaged")


@pytest.mark.slow
def test_a_killed_run_exports_the_same_average(shards, checkpoint, tmp_path) -> None:
    """Both exports, with a learnt temperature; crem.json says which folder holds what, and the last checkpoint is enough for both."""
    words = ("--ema.decay", str(DECAY), "--loss.learn-temperature", "--optim.rates.temperature", "1e-2")
    straight, killed = (Training(checkpoint, shards, tmp_path / name / "run", words=words) for name in ("straight", "killed"))
    nursery = shared(checkpoint, tmp_path)
    assert "average of the weights: decay 0.6, from update 1 on" in nursery.run(straight.argv()).text()
    for rank, seen in ((1, 4), (0, 8)):
        job = nursery.start(killed.argv("--resume", "auto"))
        wait_until(lambda seen=seen: len(killed.lines()) >= seen)
        job.signal(rank, signal.SIGKILL)
        assert -signal.SIGKILL in job.wait()
    assert "resume at step" in nursery.run(killed.argv("--resume", "auto")).text()
    assert killed.losses() == straight.losses()
    expected = exported(straight)
    assert equal(exported(killed), expected)
    raw, averaged = (json.loads((straight.out / name / "crem.json").read_text()) for name in EXPORTS)
    assert averaged["averaged"] is True and "averaged" not in raw and averaged["temperature"] != raw["temperature"]
    for name in EXPORTS:
        shutil.rmtree(straight.out / name)
    nursery.run(straight.argv("--resume"))
    assert equal(exported(straight), expected)
    other = nursery.start([*straight.argv("--resume"), "--ema.decay", "0.7"])
    assert other.wait() == [2, 2] and "ema.decay: 0.6 then, 0.7 now" in other.text()


EXPORTS = ("export", "export-ema")


def exported(run: Training) -> dict[str, torch.Tensor]:
    """Weights of both folders."""
    found = {name: load_file(run.out / name / "model.safetensors") for name in EXPORTS}
    assert not equal(*found.values())
    return {f"{name}: {key}": weight for name, weights in found.items() for key, weight in weights.items()}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return ours.keys() == theirs.keys() and all(weight.equal(theirs[name]) for name, weight in ours.items())
