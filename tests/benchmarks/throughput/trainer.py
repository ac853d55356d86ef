"""The trainer itself: StepLoader, Engine and train_step under DeepSpeed, as `pipeline.train` drives them."""

import time
from collections.abc import Iterator

import torch

from pipeline import comm
from pipeline.train.engine import Engine, init_distributed, load_deepspeed_config
from pipeline.train.schedule import learning_rate
from pipeline.train.step import train_step
from tests.benchmarks.throughput.clock import Clock
from tests.benchmarks.throughput.task import Task


def build(task: Task, stage: int, bf16: bool = False) -> Engine:
    """The engine at a ZeRO stage, with the settings of ds_configs/zero3.json otherwise."""
    config = task.config()
    ds_config = load_deepspeed_config(config.deepspeed, config.optim.clip)
    ds_config["zero_optimization"] |= {"stage": stage}
    ds_config["bf16"] = {"enabled": bf16}
    return Engine(config, ds_config)


def run(task: Task, stage: int, bf16: bool = False) -> dict[str, float]:
    """Train; what rank 0 saw."""
    device = init_distributed(timeout_minutes=5)
    torch.set_num_threads(max(1, task.threads // comm.world_size()))
    engine = build(task, stage, bf16)
    clock = Clock(task)
    for tokens, places, waited in steps(task, engine, device):
        clock.step(tokens, places, waited)
    return clock.result()


def steps(task: Task, engine: Engine, device: torch.device) -> Iterator[tuple[int, int, float]]:
    """Run every step; yields tokens and places of all ranks, and seconds waited for data."""
    config = task.config()
    loader = task.loader(engine.model.backbone.model.get_rope_index, comm.rank(), comm.world_size())
    blank = loader.blank()
    waiting = time.perf_counter()
    for number, work in enumerate(loader.steps(0, config.steps)):
        waited = time.perf_counter() - waiting
        rate = learning_rate(config.optim, number, config.steps)
        result = train_step(engine, work, blank, config.loss, rate, device, (config.seed, number))
        if not result.applied:
            raise RuntimeError(f"step {number} was refused: {result}")
        tokens, places = comm.sum_numbers([work.tokens, work.places])
        yield int(tokens), int(places), waited
        waiting = time.perf_counter()
