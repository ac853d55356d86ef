"""Timing of one case: every step from the end of the one before it, data included."""

import statistics
import time

from tests.benchmarks.throughput.task import Task


class Clock:
    """Collects steps; those of the warm-up are dropped."""

    def __init__(self, task: Task):
        self.task = task
        self.steps: list[dict] = []
        self._mark = time.perf_counter(), time.process_time()

    def step(self, tokens: int, places: int, waited: float = 0.0) -> None:
        """A step ends: real tokens that went through the language model, places with padding, seconds spent waiting for data."""
        now = time.perf_counter(), time.process_time()
        seconds, cpu = now[0] - self._mark[0], now[1] - self._mark[1]
        self.steps.append({"seconds": seconds, "cpu": cpu, "tokens": tokens, "places": places, "waited": waited})
        self._mark = time.perf_counter(), time.process_time()

    def result(self) -> dict[str, float]:
        """Medians over the timed steps."""
        timed = self.steps[self.task.warmup :]
        seconds = sum(step["seconds"] for step in timed)
        return {
            "pairs_per_cpu": self.task.batch / statistics.median(step["cpu"] for step in timed),
            "tokens_per_cpu": statistics.median(step["tokens"] / step["cpu"] for step in timed),
            "pairs": self.task.batch / statistics.median(step["seconds"] for step in timed),
            "tokens": statistics.median(step["tokens"] / step["seconds"] for step in timed),
            "tokens_per_pair": sum(step["tokens"] for step in timed) / len(timed) / self.task.batch,
            "padding": 1 - sum(step["tokens"] for step in timed) / sum(step["places"] for step in timed),
            "waited": sum(step["waited"] for step in timed) / seconds,
            "cpu": sum(step["cpu"] for step in timed) / seconds,
        }
