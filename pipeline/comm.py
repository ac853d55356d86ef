"""The only file that calls torch.distributed. Without a process group, every function is the one-rank case.

All functions are collective: every rank calls them in the same order.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


def join() -> int:
    """Join the ranks that torchrun has started, over gloo; alone without it. For jobs that only meet at barriers, however far apart.

    Returns:
        This process's number on its machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(days=7))
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_(tensor: Tensor) -> Tensor:
    """Add up `tensor` over ranks, in place; returns it. It must lie on the device the ranks talk through."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def sum_numbers(values: list[float]) -> list[float]:
    """Add up each number over ranks."""
    return sum_(torch.tensor(values, dtype=torch.double, device=_device())).tolist()


def max_int(value: int) -> int:
    """The largest value over ranks."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, device=_device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


def agree(problem: str | None) -> str | None:
    """The first problem that any rank reports, on every rank; None where there is none."""
    return next((found for found in gather_objects(problem) if found), None)


def _device() -> torch.device:
    """NCCL moves tensors on GPUs only, gloo those on the CPU."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def gather_rows(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Rows of all ranks, in rank order; ranks may hold different numbers of rows.

    Returns:
        [sum of n_r, ...] without gradient, and n_r for every rank.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows, [len(rows)]
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), sizes


def gather_objects(value: object) -> list:
    """`value` of every rank, in rank order (small control data only)."""
    if world_size() == 1:
        return [value]
    out: list = [None] * world_size()
    dist.all_gather_object(out, value)
    return out


def broadcast_object(value: object) -> object:
    """Rank 0's `value` (small control data only)."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait for every rank."""
    if world_size() > 1:
        dist.barrier()


def shutdown() -> None:
    """Leave the process group; a rank that exits without this aborts after its work is done (gloo)."""
    if dist.is_initialized():
        dist.destroy_process_group()
