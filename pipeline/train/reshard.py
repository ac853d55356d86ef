"""A checkpoint read into another layout: other ranks, another ZeRO stage (1 to 3), another DeepSpeed config.

DeepSpeed cuts weights (fp32) and AdamW's two moments into flat tensors, a file for each rank: ZeRO-3 cuts every parameter over the ranks,
ZeRO-1 and 2 string a group's parameters together and cut the string. Both say which elements of which parameter lie where, so one layout is
copied into another piece by piece. Every rank maps the saved files and takes what will be its own, bit for bit: no temporary
folder, no collective, and no more memory than an ordinary load. The new layout is the one that the new engine has made for itself, and its
own loader takes in what was filled.

DeepSpeed's way is to convert on disk (`ds_to_universal`) and to load that. It needs a tool run by hand between two jobs, disk for a
second copy, and whole optimizer states in the memory of one machine; and it knows nothing of checkpoints that leave out frozen weights.

The learning rate, data order, z, k and chunks depend on (config, step), not on the layout. So the run that goes on is the same run, but
for the order in which floating point adds up.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_prep.samples import DataError
from pipeline.train.averaging import AVERAGE

MOMENTS = ("exp_avg", "exp_avg_sq")
STATES = (*MOMENTS, AVERAGE)
"""What AdamW keeps of every element; the average where there is one."""
KEYS = {True: ("fp32_flat_groups", "optimizer_state_dict"), False: ("single_partition_of_fp32_groups", "base_optimizer_state")}
"""Under which names a rank's state holds weights and AdamW's state: in ZeRO-3 (True), in ZeRO-1 and 2 (False)."""

Slices = Sequence[Mapping[str, tuple[int, int]]]
"""What one rank holds: for every flat tensor, parameter name -> (place in it, number of elements)."""


class Span(NamedTuple):
    """Elements start .. start + numel - 1 of a parameter lie in flat tensor `flat` from `place` on."""

    flat: int
    place: int
    start: int
    numel: int


def refusal(then: tuple[int, int], now: tuple[int, int], dropout: float) -> str | None:
    """Why a checkpoint of one (ranks, ZeRO stage) cannot go on under another; None where it can."""
    if then == now:
        return None
    said = f"found a checkpoint of {then[0]} ranks, ZeRO stage {then[1]}; this run has {now[0]} ranks, stage {now[1]}. "
    if 0 in (then[1], now[1]):
        return said + "ZeRO-0 has no shards that could be dealt out anew: resume with the same ranks and stage, or use stages 1 to 3"
    if dropout and then[0] != now[0]:
        return said + "Dropout masks belong to ranks (model.lora.dropout), so it would be another run: resume with the same number of ranks"
    return None


def check_zero(*zero: Mapping) -> None:
    """Refuse the "zero_optimization" parts of DeepSpeed configs whose shards are not all in a rank's files, or not one a rank.

    Raises:
        DataError: says which key.
    """
    for settings in zero:
        found = [key for key in ("offload_optimizer", "offload_param") if (settings.get(key) or {}).get("device") == "nvme"]
        # of shards in round-robin order DeepSpeed 0.19.8 writes down the places that they would have without (`_create_param_mapping`)
        found += [key for key in ("mics_shard_size", "round_robin_gradients") if settings.get(key, 0) > 0]
        if found:
            raise DataError(
                f"found zero_optimization.{found[0]}, with nvme, MiCS or round-robin shards; expected shards of one rank each, in its "
                "files and in order, or they cannot be dealt out anew. Resume with the ranks and the DeepSpeed config of the run that saved"
            )


def header(folder: Path) -> dict:
    """What DeepSpeed and its caller saved beside the optimizer's shards, memory-mapped: "param_shapes" and the client's entries.

    Raises:
        DataError: no such file.
    """
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"):
        if (folder / name).is_file():
            return torch.load(folder / name, map_location="cpu", mmap=True, weights_only=False)
    raise DataError(f"{folder}: found no model states; expected what DeepSpeed saves. Resume from another checkpoint")


def read(folder: Path, shapes: Sequence, fresh: dict, own: Sequence[Slices], numels: dict[str, int], rank: int) -> dict:
    """One rank's optimizer state, in the layout of its `fresh` one and with the values in the files of another.

    Args:
        shapes: "param_shapes" of the files' header.
        own: by rank, what the new layout's shards hold.
        numels: elements of every parameter that trains.

    Raises:
        DataError: as `shards` and `refilled`.
    """
    saved = shards(folder)
    held = zero3_slices(shapes, len(saved)) if is_zero3(saved[0]) else [zero12_slices(state) for state in saved]
    return refilled(fresh, spans(own)[rank], saved, spans(held), numels)


def shards(folder: Path) -> list[dict]:
    """The optimizer state of every rank that saved, in rank order, memory-mapped.

    Raises:
        DataError: the files are not those of one whole ZeRO-1 to 3 checkpoint that keeps its state in them.
    """
    paths = {_rank(path): path for path in folder.glob("*zero_pp_rank_*_optim_states.pt")}
    states = [torch.load(paths[rank], map_location="cpu", mmap=True, weights_only=False) for rank in sorted(paths)]
    states = [state["optimizer_state_dict"] for state in states]
    counts = {count for state in states for count in _numbers(state["partition_count"])}
    if counts != {len(states)} or (folder / "offloaded_tensors").exists():
        raise DataError(
            f"found optimizer shards for {sorted(counts)} ranks in {len(states)} files; expected one a rank, with its whole state, or they "
            "cannot be dealt out anew. Resume with the ranks and the DeepSpeed config of the run that saved"
        )
    return states


def zero3_slices(shapes: Sequence[Mapping[str, Sequence[int]]], ranks: int) -> list[Slices]:
    """What every rank holds under ZeRO-3. Each parameter is cut evenly, the last parts being padded.

    Args:
        shapes: for every flat tensor its parameters' whole shapes, in order (DeepSpeed's "param_shapes").
    """
    out: list[list[dict]] = [[] for _ in range(ranks)]
    for group in shapes:
        flats: list[dict] = [{} for _ in range(ranks)]
        place = 0
        for name, shape in group.items():
            whole = prod(shape)
            part = -(-whole // ranks)
            for rank, flat in enumerate(flats):
                flat[name] = (place, max(0, min(part, whole - rank * part)))
            place += part
        for rank, flat in enumerate(flats):
            out[rank].append(flat)
    return out


def zero12_slices(state: dict) -> Slices:
    """What the rank with this state holds under ZeRO-1 or 2."""
    return [{name: (at.start, at.numel) for name, at in group.items()} for group in state["param_slice_mappings"]]


def is_zero3(state: dict) -> bool:
    """Whether a rank's optimizer state is ZeRO-3's."""
    return KEYS[True][0] in state


def spans(slices: Sequence[Slices]) -> list[dict[str, Span]]:
    """By rank, which elements of which parameter lie where: each parameter's slices follow each other in rank order."""
    done: dict[str, int] = {}
    out = []
    for own in slices:
        out.append({})
        for flat, group in enumerate(own):
            for name, (place, numel) in group.items():
                out[-1][name] = Span(flat, place, done.get(name, 0), numel)
                done[name] = done.get(name, 0) + numel
    return out


def refilled(fresh: dict, own: dict[str, Span], saved: Sequence[dict], held: Sequence[dict[str, Span]], numels: dict[str, int]) -> dict:
    """A new engine's optimizer state for one rank with the values that were saved.

    Args:
        fresh: this rank's own state, as the new engine gives it; not changed.
        own: its spans.
        saved: the states of all ranks that saved; `held`: their spans.
        numels: elements of every parameter that trains.

    Raises:
        DataError: the checkpoint does not hold these very parameters.
    """
    found = {name: 0 for part in held for name in part}
    for part in held:
        for name, span in part.items():
            found[name] += span.numel
    if found != numels:
        differ = sorted(name for name in found.keys() | numels.keys() if found.get(name) != numels.get(name))
        raise DataError(f"found a checkpoint of other parameters than those that train now ({', '.join(differ[:3])}, {len(differ)} in all)")
    old_flats = [_flats(state) for state in saved]
    new = _empty(fresh, {key for old in old_flats for flat in old for key in flat} & set(STATES))
    steps: list = []
    for old, part in zip(old_flats, held, strict=True):
        steps += [flat["step"] for flat in old if "step" in flat]
        for name, mine in own.items():
            if name in part:
                _copy(old[part[name].flat], part[name], new[mine.flat], mine)
    return _packed(fresh, new, steps)


def _copy(old: dict[str, Tensor], there: Span, new: dict[str, Tensor], here: Span) -> None:
    """The elements that both spans hold."""
    start = max(there.start, here.start)
    numel = min(there.start + there.numel, here.start + here.numel) - start
    if numel > 0:
        for key in ("weight", *STATES):
            if key in old:
                source = old[key].narrow(0, there.place + start - there.start, numel)
                new[key].narrow(0, here.place + start - here.start, numel).copy_(source)


def _flats(state: dict) -> list[dict]:
    """A rank's flat tensors: "weight", and once it has made a step both moments, the average if there is one, and "step"."""
    weights, optimizer = KEYS[is_zero3(state)]
    moved = state[optimizer]["state"]
    return [
        {"weight": weight} | {key: moved[i][key] for key in ("step", *STATES) if key in moved.get(i, ())}
        for i, weight in enumerate(state[weights])
    ]


def _empty(fresh: dict, states: set[str]) -> list[dict[str, Tensor]]:
    """Zeros for weights and these states of every flat tensor.

    ZeRO-1 and 2 give theirs without the padding at its end; ZeRO-1 in bf16, another class of DeepSpeed's that names no stage, with it.
    """
    padding = _numbers(fresh.get("group_paddings", 0)) if "zero_stage" in fresh else [0]
    weights = fresh[KEYS[is_zero3(fresh)][0]]
    padding = padding if len(padding) == len(weights) else [0] * len(weights)
    sizes = [weight.numel() + more for weight, more in zip(weights, padding, strict=True)]
    return [{key: torch.zeros(size) for key in ("weight", *states)} for size in sizes]


def _packed(fresh: dict, new: list[dict[str, Tensor]], steps: list) -> dict:
    """As the engine's own state; without moments where the run that saved had not made a step."""
    weights, optimizer = KEYS[is_zero3(fresh)]
    state = (
        {i: {"step": _copied(steps[0])} | {key: flat[key] for key in STATES if key in flat} for i, flat in enumerate(new)} if steps else {}
    )
    return fresh | {weights: [flat["weight"] for flat in new], optimizer: fresh[optimizer] | {"state": state}}


def _copied(step: Tensor | float) -> Tensor | float:
    return step.clone() if isinstance(step, Tensor) else step


def _numbers(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _rank(path: Path) -> int:
    return int(path.name.split("zero_pp_rank_")[1].split("_")[0])
