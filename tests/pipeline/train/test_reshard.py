"""A checkpoint goes on under other ranks, another ZeRO stage or another DeepSpeed config, and the run stays the same run.

First the pieces, in literal tensors; then real ranks: every run that goes on is compared with one that was never interrupted.
"""

import random
from types import SimpleNamespace

import pytest
import torch
from ranks import run_ranks

from data_prep.samples import DataError
from pipeline.train import reshard
from pipeline.train.reshard import Span

STEPS = 8


def test_zero3_cuts_every_parameter() -> None:
    """Five elements over two ranks: three each, the last of them padding."""
    first, second = reshard.spans(reshard.zero3_slices([{"a": (5,), "b": (2, 2)}, {"c": (1,)}], 2))
    assert first == {"a": Span(0, 0, 0, 3), "b": Span(0, 3, 0, 2), "c": Span(1, 0, 0, 1)}
    assert second == {"a": Span(0, 0, 3, 2), "b": Span(0, 3, 2, 2), "c": Span(1, 0, 1, 0)}


def test_zero2_cuts_the_string() -> None:
    """Nine elements in parts of five: the second parameter lies on both ranks, and each knows its own slices alone."""
    states = [{"param_slice_mappings": [{"a": at(0, 3), "b": at(3, 2)}]}, {"param_slice_mappings": [{"b": at(0, 4)}]}]
    first, second = reshard.spans([reshard.zero12_slices(state) for state in states])
    assert first == {"a": Span(0, 0, 0, 3), "b": Span(0, 3, 0, 2)}
    assert second == {"b": Span(0, 0, 2, 4)}


def at(start: int, numel: int) -> SimpleNamespace:
    """DeepSpeed's fragment_address."""
    return SimpleNamespace(start=start, numel=numel)


def laid_out(stage: int, ranks: int, shapes: list[dict[str, tuple]], values: dict | None) -> tuple[list[dict], list]:
    """States of all ranks in DeepSpeed's form, and their slices. `values`: by parameter, weight and moments; None: a new engine's."""
    weights, optimizer = reshard.KEYS[stage == 3]
    theirs = {"param_groups": ["theirs"]}
    states = [{weights: [], optimizer: {"state": {}} | theirs, "group_paddings": [], "zero_stage": stage} for _ in range(ranks)]
    if stage == 3:
        slices = reshard.zero3_slices(shapes, ranks)
        sizes = [sum(-(-torch.Size(shape).numel() // ranks) for shape in group.values()) for group in shapes]
    else:
        slices, sizes = [[] for _ in range(ranks)], []
        for group in shapes:
            sizes.append(-(-sum(torch.Size(shape).numel() for shape in group.values()) // (2 * ranks)) * 2)
            for rank in range(ranks):
                own, start = {}, 0
                for name, shape in group.items():
                    numel = torch.Size(shape).numel()
                    first, last = max(start, rank * sizes[-1]), min(start + numel, (rank + 1) * sizes[-1])
                    if first < last:
                        own[name] = (first - rank * sizes[-1], last - first)
                    start += numel
                slices[rank].append(own)
    places = reshard.spans(slices)
    for rank, state in enumerate(states):
        for flat, size in enumerate(sizes):
            tensors = {key: torch.full((size,), float("nan")) for key in ("weight", *reshard.STATES)}
            for name, span in places[rank].items():
                if values and span.flat == flat:
                    for key, tensor in tensors.items():
                        tensor[span.place : span.place + span.numel] = values[name][key][span.start : span.start + span.numel]
            padding = 0 if stage == 3 else min(size, max(0, (rank + 1) * size - sum(torch.Size(s).numel() for s in shapes[flat].values())))
            state[weights].append(tensors.pop("weight")[: size - padding])
            state["group_paddings"].append(padding)
            if values:
                state[optimizer]["state"][flat] = {"step": torch.tensor(7.0)} | tensors
    if stage == 3:
        for state in states:
            del state["group_paddings"]
    return states, slices


@pytest.mark.parametrize("seed", range(40))
def test_every_element_finds_its_place(seed: int) -> None:
    """From any layout into any other: uneven sizes, several flat tensors, more ranks than elements; averages as moments. And back again."""
    draw = random.Random(seed)
    shapes = [{f"{g}.{i}": (draw.randint(1, 9), draw.randint(1, 3)) for i in range(draw.randint(1, 4))} for g in range(draw.randint(1, 3))]
    numels = {name: torch.Size(shape).numel() for group in shapes for name, shape in group.items()}
    values = {name: {key: torch.rand(numel) for key in ("weight", *reshard.STATES)} for name, numel in numels.items()}
    layouts = [(draw.choice([1, 2, 3]), draw.randint(1, 5)) for _ in range(2)]
    (then, before), (now, slices) = laid_out(*layouts[0], shapes, values), laid_out(*layouts[1], shapes, None)
    held, own = reshard.spans(before), reshard.spans(slices)
    new = [reshard.refilled(fresh, spans, then, held, numels) for fresh, spans in zip(now, own, strict=True)]
    weights, optimizer = reshard.KEYS[layouts[1][0] == 3]
    seen = {name: 0 for name in numels}
    for state, spans in zip(new, own, strict=True):
        assert state[optimizer]["param_groups"] == ["theirs"]
        for name, (flat, place, start, numel) in spans.items():
            seen[name] += numel
            moments = state[optimizer]["state"][flat]
            assert moments["step"] == 7
            for key, tensor in {"weight": state[weights][flat], **{key: moments[key] for key in reshard.STATES}}.items():
                assert tensor[place : place + numel].equal(values[name][key][start : start + numel])
    assert seen == numels


def test_a_run_that_made_no_step_has_no_moments() -> None:
    shapes = [{"a": (3,)}]
    then, before = laid_out(3, 1, shapes, {"a": {key: torch.ones(3) for key in ("weight", *reshard.STATES)}})
    then[0]["optimizer_state_dict"]["state"] = {}
    now, slices = laid_out(2, 1, shapes, None)
    new = reshard.refilled(now[0], reshard.spans(slices)[0], then, reshard.spans(before), {"a": 3})
    assert new["base_optimizer_state"]["state"] == {} and new["single_partition_of_fp32_groups"][0][:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("numels", "named"), [({"a": 3, "b": 1}, r"\(b, 1 in all\)"), ({"a": 4}, r"\(a, 1 in all\)"), ({}, r"\(a, 1 in all\)")]
)
def test_other_parameters_are_refused(numels: dict, named: str) -> None:
    then, before = laid_out(3, 2, [{"a": (3,)}], {"a": {key: torch.ones(3) for key in ("weight", *reshard.STATES)}})
    now, slices = laid_out(3, 1, [{"a": (3,)}], None)
    with pytest.raises(DataError, match=f"checkpoint of other parameters than those that train now {named}"):
        reshard.refilled(now[0], reshard.spans(slices)[0], then, reshard.spans(before), numels)


@pytest.mark.parametrize(
    ("then", "now", "dropout", "said"),
    [
        ((2, 3), (2, 3), 0.1, None),
        ((2, 0), (2, 0), 0.0, None),
        ((2, 3), (4, 1), 0.0, None),
        ((2, 3), (2, 1), 0.1, None),
        ((2, 3), (2, 0), 0.0, "ZeRO-0 has no shards"),
        ((2, 0), (1, 0), 0.0, "ZeRO-0 has no shards"),
        ((2, 3), (4, 3), 0.1, "2 ranks, ZeRO stage 3; this run has 4 ranks, stage 3. Dropout masks belong to ranks"),
    ],
)
def test_what_cannot_go_on(then: tuple, now: tuple, dropout: float, said: str | None) -> None:
    found = reshard.refusal(then, now, dropout)
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    "zero",
    [
        {"offload_optimizer": {"device": "nvme"}},
        {"offload_param": {"device": "nvme"}},
        {"mics_shard_size": 2},
        {"round_robin_gradients": True},
    ],
)
def test_shards_that_are_elsewhere_are_refused(zero: dict) -> None:
    reshard.check_zero({"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": None, "round_robin_gradients": False})
    with pytest.raises(DataError, match=f"found zero_optimization.{next(iter(zero))}, "):
        reshard.check_zero({"stage": 3}, zero)


def test_missing_shards_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"found optimizer shards for \[\] ranks in 0 files"):
        reshard.shards(tmp_path)
    torch.save({"optimizer_state_dict": {"partition_count": [2, 2]}}, tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(DataError, match=r"found optimizer shards for \[2\] ranks in 1 files"):
        reshard.shards(tmp_path)
    with pytest.raises(DataError, match="found no model states"):
        reshard.header(tmp_path)


def config(shards, checkpoint, chunk_tokens: int = 512, **model) -> dict:
    """Two rates and a learnt temperature: several parameter groups, one of a single element."""
    return {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint), **model},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 4, "sub_batch": 4, "row_tokens": 128, "chunk_tokens": chunk_tokens},
        "loss": {"temperature": 0.1, "learn_temperature": True},
        "optim": {"learning_rate": 3e-4, "rates": {"embedding": 1e-3, "temperature": 1e-2}, "warmup_share": 0.0, "weight_decay": 0.1},
    }


LORA = {"train": "lora", "lora": {"rank": 4, "alpha": 8}}


def scenario(stage: int, config: dict, load: tuple | None = None, save: tuple | None = None, **zero) -> dict:
    """As `worker.run` reads it; `load` and `save`: (steps done, folder)."""
    return {"stage": stage, "config": config, "zero": zero} | ({"load": load} if load else {}) | ({"save": save} if save else {})


def launch(scenarios: list[dict], world: int, folder) -> list[dict]:
    folder.mkdir()
    return run_ranks(scenarios, world, folder, timeout=900)


def test_a_run_goes_on_under_another_layout(shards, checkpoint, tmp_path) -> None:
    """1 rank, ZeRO-2 -> 2 ranks, ZeRO-3, in small subgroups -> 2 ranks, ZeRO-2, and -> 1 rank, ZeRO-3. Chunks differ all along."""
    verify_chain(config(shards, checkpoint, 4096), config(shards, checkpoint, 512), tmp_path)


@pytest.mark.slow
def test_adapters_go_on_under_another_layout(shards, checkpoint, tmp_path) -> None:
    """The same, where checkpoints leave out frozen weights."""
    verify_chain(config(shards, checkpoint, 4096, **LORA), config(shards, checkpoint, 512, **LORA), tmp_path)


def verify_chain(whole: dict, cut: dict, folder) -> None:
    first, second = folder / "first", folder / "second"
    small = {"sub_group_size": 5000, "stage3_param_persistence_threshold": 1000}
    [straight] = launch([scenario(2, whole, save=(1, first))], 1, folder / "a")
    wider = [scenario(3, cut, (1, first), (2, second), **small), scenario(2, whole, (2, second))]
    others = [*launch(wider, 2, folder / "b"), *launch([scenario(3, cut, (2, second))], 1, folder / "c")]
    assert [len(run["results"]) for run in others] == [STEPS - 1, STEPS - 2, STEPS - 2]
    for name, run in zip(("1 -> 2 ranks, ZeRO-2 -> 3", "ZeRO-3 -> 2", "2 -> 1 ranks"), others, strict=True):
        same_run(straight, run, name)


@pytest.mark.slow
def test_any_layout_follows_any_other(shards, checkpoint, tmp_path) -> None:
    """2 -> 4 ranks, ZeRO-1, and every setting of the DeepSpeed config that moves elements; adapters and all weights."""
    for name, model in (("full", {}), ("lora", LORA)):
        folder, at, own = tmp_path / name, 2, config(shards, checkpoint, 512, **model)
        folder.mkdir()
        [straight, *_] = launch([scenario(stage, own, save=(at, folder / f"from {stage}")) for stage in (3, 2, 1)], 2, folder / "two")
        kinds = [
            scenario(3, own),
            scenario(2, own, allgather_partitions=False),
            scenario(1, own),
            scenario(3, own, sub_group_size=3000),
            scenario(3, own, offload_optimizer={"device": "cpu"}),
        ]
        for world in (2, 4):
            wanted = [kind | {"load": (at, folder / f"from {stage}")} for kind, stage in zip(kinds, (2, 3, 3, 1, 2), strict=True)]
            for run, asked in zip(launch(wanted, world, folder / f"to {world}"), wanted, strict=True):
                same_run(straight, run, f"{name}: {asked['load'][1].name} to {world} ranks, {asked['stage']}, {asked['zero']}")


@pytest.mark.slow
def test_bfloat16_goes_on_under_another_layout(shards, checkpoint, tmp_path) -> None:
    """2 ranks, ZeRO-1 -> 1 rank, ZeRO-2 and 3, and 2 ranks, ZeRO-3 -> 1. Masters move bit for bit; what differs is rounding on the way."""
    own = config(shards, checkpoint) | {"deepspeed": "ds_configs/zero1_bf16.json"}
    saved = {stage: tmp_path / f"from {stage}" for stage in (1, 3)}
    runs = launch([scenario(stage, own, save=(2, folder)) for stage, folder in saved.items()], 2, tmp_path / "two")
    straight = dict(zip(saved, runs, strict=True))
    asked = [(2, 1), (3, 1), (1, 3), (3, 3)]
    wanted = [scenario(stage, own, load=(2, saved[source])) for stage, source in asked]
    for (stage, source), run in zip(asked, launch(wanted, 1, tmp_path / "one"), strict=True):
        assert "refused" not in run
        whole = straight[source]
        for step, found in enumerate(run["results"]):
            expected = whole["results"][2 + step]
            assert found["loss"] == pytest.approx(expected["loss"], rel=0.01), f"ZeRO-{source} to {stage}, step {step} after resume"
            assert keys(run, step) == keys(whole, 2 + step)
        before, after = (whole["results"][step]["loss"] for step in (1, 2))
        assert abs(run["results"][0]["loss"] - after) < 0.1 * abs(after - before)  # far nearer than what an update moves


def keys(run: dict, step: int) -> list[int]:
    """The content of a global step, whichever ranks worked on it."""
    return sorted(key for rank in [run["results"], *run["others"]] for key in rank[step]["keys"])


def same_run(straight: dict, run: dict, name: str) -> None:
    """Losses to 1e-5, the very same content in every global step, and it is not for want of learning."""
    assert "refused" not in run
    done = len(straight["results"]) - len(run["results"])
    for step, (expected, found) in enumerate(zip(straight["results"][done:], run["results"], strict=True)):
        for key in ("loss", "retrieval_loss", "generation_loss", "temperature"):
            assert found[key] == pytest.approx(expected[key], rel=1e-5), f"{name}: {key}, step {step} after resume"
        assert keys(run, step) == keys(straight, step + done)
    losses = [result["loss"] for result in straight["results"]]
    assert len(set(losses)) == len(losses) and abs(losses[-1] - losses[0]) > 0.01
