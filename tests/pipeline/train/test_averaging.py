"""The moving average of weights: its recurrence in literal numbers, then real ranks against a plain average of the gathered weights."""

import json
import shutil
from collections.abc import Callable

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from test_launch import DEEPSPEED, launch, losses
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data_prep.samples import DataError
from pipeline.config import EmaSettings
from pipeline.model.crem import load_backbone
from pipeline.train import averaging

STEPS = 4
DECAY = 0.6


@pytest.mark.parametrize(
    ("update_after_step", "expected"),
    [(0, [1.0, 1.25, 1.9375, 1.453125]), (1, [1.0, 1.25, 1.9375, 1.453125]), (2, [1.0, 2.0, 2.5, 1.875]), (9, [1.0, 2.0, 4.0, 0.0])],
)
def test_the_recurrence(update_after_step: int, expected: list[float]) -> None:
    """Weights 1, 2, 4, 0 at decay 3/4."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight])
    found = []
    for step, value in enumerate((1.0, 2.0, 4.0, 0.0), 1):
        weight.data.fill_(value)
        optimizer.state[weight]["step"] = torch.tensor(float(step))
        averaging.update(optimizer, 0.75, update_after_step)
        found.append(optimizer.state[weight]["ema"].tolist())
    assert found == [[value] * 3 for value in expected]


def trained(ema: EmaSettings, steps: int = 20) -> tuple[torch.nn.Module, torch.optim.Optimizer, AveragedModel]:
    """A small model, trained; torch's own average of it beside ours."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    averaging.follow(optimizer, ema)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema.decay or 0.5))
    for _ in range(steps):
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.update_parameters(model)
    return model, optimizer, theirs


def test_it_is_torchs_average() -> None:
    model, optimizer, theirs = trained(EmaSettings(decay=0.9))
    for weight, average in zip(model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[weight]["ema"], average.detach(), rtol=1e-6, atol=1e-8)
        assert (average - weight).abs().max() > 1e-3  # otherwise this shows nothing


def test_it_changes_no_bit_of_training_and_leaves_no_trace_when_off() -> None:
    (with_, optimizer, _), (without, plain, _) = trained(EmaSettings(decay=0.9)), trained(EmaSettings())
    assert all(a.equal(b) for a, b in zip(with_.parameters(), without.parameters(), strict=True))
    assert all(state.keys() - {"ema"} == {"step", "exp_avg", "exp_avg_sq"} for state in optimizer.state.values())
    assert all("ema" not in state for state in plain.state.values())


def test_an_exchange_is_undone_by_another(monkeypatch) -> None:
    monkeypatch.setattr(averaging, "BLOCK", 3)  # several blocks, the last one short
    model, optimizer, _ = trained(EmaSettings(decay=0.9))
    weights = [weight.detach().clone() for weight in model.parameters()]
    averages = [optimizer.state[weight]["ema"].clone() for weight in model.parameters()]
    averaging.exchange(optimizer)
    for weight, before, average in zip(model.parameters(), weights, averages, strict=True):
        assert weight.equal(average) and optimizer.state[weight]["ema"].equal(before)
    averaging.exchange(optimizer)
    for weight, before, average in zip(model.parameters(), weights, averages, strict=True):
        assert weight.equal(before) and optimizer.state[weight]["ema"].equal(average)


def test_it_is_saved_with_the_moments() -> None:
    model, optimizer, _ = trained(EmaSettings(decay=0.9))
    again = torch.optim.AdamW(model.parameters(), fused=True)
    again.load_state_dict(optimizer.state_dict())
    assert all(again.state[weight]["ema"].equal(optimizer.state[weight]["ema"]) for weight in model.parameters())


def test_a_swapped_optimizer_is_refused() -> None:
    averaging.check_ema(EmaSettings(), {"offload_optimizer": {"device": "nvme"}})
    averaging.check_ema(EmaSettings(decay=0.9), {"offload_optimizer": {"device": "cpu"}})
    averaging.check_ema(EmaSettings(decay=0.9), {"offload_optimizer": None})
    with pytest.raises(DataError, match=r"found ema.decay = 0.9 with .*device = nvme; expected .* Offload to the cpu, or leave ema.decay"):
        averaging.check_ema(EmaSettings(decay=0.9), {"offload_optimizer": {"device": "nvme"}})


@pytest.fixture(scope="module")
def start(shards, checkpoint, tmp_path_factory) -> Callable[[list[dict]], list[dict]]:
    """Runs scenarios on two ranks; settings may be changed under "more", DeepSpeed's file is ZeRO in float32 unless named."""
    config = {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 2, "sub_batch": 4, "row_tokens": 256, "chunk_tokens": 512},
        "loss": {"temperature": 0.1},
        "optim": {"learning_rate": 1e-2, "warmup_share": 0.0},
        "ema": {"decay": DECAY},
    }

    def start(scenarios: list[dict]) -> list[dict]:
        filled = [scenario | {"config": config | scenario.pop("more", {})} for scenario in scenarios]
        return run_ranks(filled, 2, tmp_path_factory.mktemp("averaging"), timeout=900)

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
    "bf16, nodes": {"stage": 3, "more": {"deepspeed": "ds_configs/zero3_bf16_multinode.json"}, "zero": {"zero_hpz_partition_size": 2}},
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
def test_it_goes_on_under_another_layout(start, tmp_path) -> None:
    """ZeRO-2 -> 3 and 3 -> 1; and two ranks' average on one rank."""
    first, second = (str(tmp_path / name) for name in ("first", "second"))
    straight, *_ = start([{"stage": 2, "save": (2, first)}, {"stage": 3, "save": (2, second)}])
    for run in start([{"stage": 3, "load": (2, first)}, {"stage": 1, "load": (2, second)}]):
        for name, average in straight["averaged"].items():
            torch.testing.assert_close(run["averaged"][name], average, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_run_exports_the_same_average(shards, checkpoint, tmp_path) -> None:
    """Through the launcher, with a learnt temperature; crem.json says which folder holds what."""
    words = ("--ema.decay", str(DECAY), "--loss.learn-temperature", "--optim.rates.temperature", "1e-2")
    straight, broken = tmp_path / "straight" / "run", tmp_path / "broken" / "run"
    for out, more in ((straight, ()), (broken, ("--stop-after", "2")), (broken, ("--resume",))):
        done = launch(DEEPSPEED, shards, checkpoint, out, *words, *more)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "average of the weights: decay 0.6" in done.stdout
    assert losses(broken) == losses(straight)
    for name in ("export", "export-ema"):
        ours, expected = (load_file(run / name / "model.safetensors") for run in (broken, straight))
        assert all(ours[key].equal(expected[key]) for key in expected), name
    raw, averaged = (json.loads((straight / name / "crem.json").read_text()) for name in ("export", "export-ema"))
    assert averaged["averaged"] is True and "averaged" not in raw
    assert averaged["temperature"] != raw["temperature"]
    shutil.rmtree(straight / "export-ema")
    done = launch(DEEPSPEED, shards, checkpoint, straight, *words, "--resume")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    again = load_file(straight / "export-ema" / "model.safetensors")
    assert all(again[key].equal(weight) for key, weight in expected.items()), "from the last checkpoint alone"
    refused = launch(DEEPSPEED, shards, checkpoint, straight, "--ema.decay", "0.7", *words[2:], "--resume")
    assert refused.returncode == 2 and "ema.decay: 0.6 then, 0.7 now" in refused.stderr
