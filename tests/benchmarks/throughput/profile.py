"""Where a trainer's step spends its time: torch.profiler's operators, folded onto the parts of the model and of the step.

A forward operator belongs to the innermost part around it. A backward operator belongs to the part of the forward operator whose autograd
node it runs: both carry the node's sequence number. What no operator accounts for is Python, and waiting for a core.
"""

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from pipeline.ports import free_port
from pipeline.train import step as step_module
from pipeline.train.engine import Engine, init_distributed
from tests.benchmarks.throughput.task import Task
from tests.benchmarks.throughput.trainer import build, steps

MARK = "part: "
OTHER = "step, other"
PARTS = {
    r"visual\.patch_embed": "vision: patch embedding",
    r"visual\.blocks\.\d+\.attn": "vision: attention",
    r"visual\.blocks\.\d+\.mlp": "vision: mlp",
    r"visual": "vision: other",
    r"language_model\.layers\.\d+\.self_attn": "language: attention",
    r"language_model\.layers\.\d+\.self_attn\.[qkvo]_proj": "language: attention projections",
    r"language_model\.layers\.\d+\.mlp": "language: mlp",
    r"language_model": "language: other (norms, positions)",
    r"language_model\.embed_tokens": "language: embedding",
    r"answer_loss": "answer loss (lm_head)",
}
"""The end of a module's name -> the part it is; the innermost one counts."""


def profile(task: Task, stage: int) -> list[str]:
    """Run the task on one rank in this process, the timed steps under the profiler; the table's lines."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(alone | {"MASTER_PORT": str(free_port())})
    device = init_distributed(timeout_minutes=5)
    torch.set_num_threads(task.threads)
    engine = build(task, stage)
    _mark_modules(engine.model)
    running = steps(task, engine, device)
    for _ in range(task.warmup):
        next(running)
    with _marked_step(engine), torch_profile(activities=[ProfilerActivity.CPU]) as found:
        start, waited = time.perf_counter(), 0.0
        for _, _, seconds in running:
            waited += seconds
        total = time.perf_counter() - start
    seconds = fold(found.events())
    seconds["data: waiting for the next step"] = waited
    seconds["Python, and waiting for a core"] = max(0.0, total - sum(seconds.values()))
    lines = [f"{part:36}{own / task.steps * 1000:9.1f} ms{own / total:8.1%}" for part, own in sorted(seconds.items(), key=lambda i: -i[1])]
    packing = _packing(task, engine)
    return [f"a step of the trainer, ZeRO-{stage}, one rank: {total / task.steps * 1000:.1f} ms under the profiler", *lines, packing]


def fold(events) -> dict[str, float]:
    """Seconds of every part, forward and backward, from profiler events (self times, so that they add up)."""
    owner: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and not _in_backward(event) and (part := _enclosing(event)):
            owner[event.sequence_nr] = part
    out: dict[str, float] = defaultdict(float)
    for event in events:
        if not event.name.startswith(MARK):
            out[_enclosing(event) or _of_node(event, owner) or OTHER] += event.self_cpu_time_total / 1e6
    return dict(out)


def _ancestors(event) -> Iterator:
    while event is not None:
        yield event
        event = event.cpu_parent


def _in_backward(event) -> bool:
    return any(each.name.startswith("autograd::engine::evaluate_function") for each in _ancestors(event))


def _enclosing(event) -> str | None:
    """The innermost part whose range the event lies in."""
    return next((each.name.removeprefix(MARK) for each in _ancestors(event) if each.name.startswith(MARK)), None)


def _of_node(event, owner: dict[int, str]) -> str | None:
    """The part whose forward operator made the autograd node that the event runs for."""
    if not _in_backward(event):
        return None
    return next((owner[each.sequence_nr] for each in _ancestors(event) if each.sequence_nr in owner), "gradients: reduction, accumulation")


def _mark_modules(model: nn.Module) -> None:
    """Open a range around every part's forward."""
    for name, module in model.named_modules():
        part = next((part for pattern, part in PARTS.items() if re.search(rf"(^|\.){pattern}$", name)), None)
        if part:
            ranges: list[record_function] = []
            # DeepSpeed's own hooks, which gather weights, were there first and lie outside of the range
            module.register_forward_pre_hook(lambda *_, part=part, ranges=ranges: ranges.append(_opened(part)))
            module.register_forward_hook(lambda *_, ranges=ranges: ranges.pop().__exit__(None, None, None))


def _opened(part: str) -> record_function:
    out = record_function(MARK + part)
    out.__enter__()
    return out


@contextmanager
def _marked_step(engine: Engine) -> Iterator[None]:
    """Ranges around what a step does outside the model."""

    def inside(part: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            with record_function(MARK + part):
                return function(*args, **kwargs)

        return call

    contrast = step_module.contrast
    step_module.contrast = inside("contrastive loss", contrast)
    engine.step = inside("optimizer", engine.step)
    try:
        yield
    finally:
        step_module.contrast = contrast
        del engine.step


def _packing(task: Task, engine: Engine) -> str:
    """Seconds of reading, decoding and packing a step, which the trainer does in a thread beside the step before."""
    loader = task.loader(engine.model.backbone.model.get_rope_index)
    start = time.perf_counter()
    for number in range(task.steps):
        list(loader.step(number).chunks)
    return f"reading, decoding and packing a step, beside the one before: {(time.perf_counter() - start) / task.steps * 1000:.1f} ms"
