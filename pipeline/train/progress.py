"""What a person and MLflow see of a run: a line every few steps, metrics of every step. Rank 0 speaks; all ranks call.

Throughput counts the whole job: samples and real tokens of all ranks over the time from the end of the step before, waiting included.
"""

import math
import os
import time
from pathlib import Path

import psutil
import torch

from data_prep.shards import Manifest, write_json
from pipeline import comm
from pipeline.batches.loader import RankStep
from pipeline.config import EmaSettings, OptimSettings, RunConfig
from pipeline.model.crem import Crem
from pipeline.model.trainable import parameter_counts
from pipeline.track import Tracker
from pipeline.train.cli import Command
from pipeline.train.health import Watch, slowest
from pipeline.train.held_out import HeldOutResult
from pipeline.train.pace import PaceMeter
from pipeline.train.step import StepResult

SMOOTH = 0.9
"""Weight of the past in the smoothed step time behind "left"."""


class Progress:
    """Counts, prints and tracks; a context manager that closes the tracked run as finished or failed."""

    def __init__(self, config: RunConfig, tracker: Tracker | None, pace: PaceMeter | None = None):
        self.config, self.tracker, self.pace = config, tracker, pace
        self.failed = False
        """Set where the run ended before its last step without an exception."""
        self.killed = False
        """Set where a signal ended it."""
        self._figures: list[float] = []
        self._watch = Watch()
        self._last = time.perf_counter()
        self._seconds: float | None = None

    @classmethod
    def start(cls, command: Command, ds_config: dict, data: Manifest, model: Crem, first: int, run_id: str | None):
        """Print what is about to run, write the resolved config, open the tracked run on rank 0 (collective)."""
        config = command.config
        counts = parameter_counts(model)
        tracker = None
        if comm.rank() == 0:
            resolved = config.model_dump(mode="json")
            config.out.mkdir(parents=True, exist_ok=True)
            write_json(config.out / "config.json", resolved)
            write_json(config.out / "deepspeed.json", ds_config)
            tags = {"crem.recipe": command.recipe, "crem.kind": "training", "crem.shards_digest": data.digest()}
            params = resolved | {"world_size": comm.world_size(), "shards_digest": data.digest(), "shards_rows": data.rows}
            params |= {"parameters": counts}
            tracker = Tracker.start(
                config.track, f"train-{command.recipe}", config.out, params, tags, resume_run_id=run_id, resume_step=first + 1
            )
            for name in ("config.json", "deepspeed.json"):
                tracker.artifact(config.out / name)
            tracker.artifact(config.data.shards / "manifest.json", "data")
        progress = cls(config, tracker, PaceMeter(model))
        progress.say(_headline(command, ds_config, data, counts, first))
        return progress

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, on rank 0; None until MLflow has been reached."""
        return self.tracker.run_id if self.tracker else None

    def __enter__(self):
        self._last = time.perf_counter()
        return self

    def __exit__(self, kind, error, trace):
        if self.tracker:
            self.tracker.finish("FAILED" if kind or self.failed else "KILLED" if self.killed else "FINISHED")

    def say(self, line: str) -> None:
        """Print on rank 0."""
        if comm.rank() == 0:
            print(line, flush=True)

    def due(self, number: int) -> bool:
        """Whether step `number` (from 0) gets a line, and with it a look at how the embeddings lie."""
        return (number + 1) % self.config.log_every == 0 or number + 1 == self.config.last_step

    def figures(self) -> dict[str, float]:
        """On rank 0, the mean of the metric `keep_best` since this was last called, by its name; empty where none was recorded."""
        values, self._figures = self._figures, []
        return {self.config.keep_best: sum(values) / len(values)} if values else {}

    def record(self, step: int, values: dict[str, float]) -> None:
        """Hand metrics of `step` (from 1) to the tracker; rank 0 alone."""
        self.tracker.metrics(step, values)
        best = values.get(self.config.keep_best)
        if best is not None and math.isfinite(best):
            self._figures.append(best)

    def step(
        self, number: int, work: RankStep, result: StepResult, rate: float, waited: float, flags: tuple[bool, ...] = ()
    ) -> list[float]:
        """Record one step; returns on how many ranks each of `flags` is set (collective)."""
        # at a look every rank's pace and wait travel in the same sum, each in a place of its own
        own = [self.pace.read() if self.pace else 0.0, waited] if self.due(number) else []
        rows, tokens, places, *rest = comm.sum_numbers([work.rows, work.tokens, work.places, *flags, *_at_rank(own)])
        set_on, by_rank = rest[: len(flags)], rest[len(flags) :]
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._seconds = seconds if self._seconds is None else SMOOTH * self._seconds + (1 - SMOOTH) * seconds
        if not result.applied:
            self.say(f"step {number + 1}: refused, its loss or gradient is not finite ({result.loss}); weights are unchanged")
        if comm.rank() != 0:
            return set_on
        for source in work.exhausted:
            self.say(f"step {number + 1}: source {source} is exhausted (data.epochs); the others share its turns from here on")
        values = {
            "loss/total": result.loss,
            "loss/retrieval": result.retrieval_loss,
            "loss/generation": result.generation_loss,
            "accuracy/in_batch": result.accuracy,
            "temperature": result.temperature,
            "optim/learning_rate": rate,
            "optim/grad_norm": result.grad_norm,
            "optim/refused": float(not result.applied),
            "speed/samples_per_s": rows / seconds,
            "speed/tokens_per_s": tokens / seconds,
            "speed/step_seconds": seconds,
            "speed/data_wait_share": waited / seconds,
            "batch/padding_share": 1 - tokens / places,
            "batch/chunks": float(result.chunks),
            "chorus_k": float(work.chorus),
            "memory/rank0_gib": _memory_gib(),
        }
        found = [self._watch.loss(number + 1, result.loss)]
        values["health/loss_spike"] = float(self._watch.spiking)
        if by_rank:
            paces, waits = by_rank[0::2], by_rank[1::2]
            found.append(self._watch.ranks(number + 1, paces))
            slow = slowest(paces)
            values |= {"speed/slowest_rank": float(slow.rank), "speed/slowest_share": slow.share}
            values["speed/data_wait_share_worst"] = max(waits) / seconds
        if self.config.loss.margin is not None:
            values["loss/left_out"] = result.left_out
        if result.geometry:
            for name in ("alignment", "uniformity", "effective_rank"):
                values[f"geometry/{name}"] = getattr(result.geometry, name)
            values["health/collapsed"] = float(result.geometry.collapsed)
        found.append(self._watch.geometry(number + 1, result.geometry))
        self.record(number + 1, values)
        done = number + 1
        if self.due(number):
            left = time.strftime("%H:%M:%S", time.gmtime((self.config.last_step - done) * self._seconds))
            self.say(
                f"step {done}/{self.config.steps}  loss {result.loss:.3f}  retrieval {result.retrieval_loss:.3f}  "
                f"generation {result.generation_loss:.3f}  in-batch P@1 {result.accuracy:.2f}  lr {rate:.1e}  "
                f"{rows / seconds:.0f} samples/s  {tokens / seconds:.0f} tokens/s  left {left}"
            )
        for warning in filter(None, found):
            self.say(warning)
        return set_on

    def evaluated(self, done: int, found: HeldOutResult) -> None:
        """Record a look at the held-out rows after `done` steps; its time is not the next step's."""
        self._last = time.perf_counter()
        if comm.rank() == 0:
            self.record(done, found.metrics())
        self.say(f"step {done}/{self.config.steps}  {found.in_words()}")

    def exported(self, folder: Path) -> None:
        """Say where the trained model lies and what to do next."""
        if self.tracker:
            self.tracker.tags({"crem.export": str(folder)})
        self.say(f"exported: {folder}\nNext: bash launchers/evaluate.sh {folder}")


def _at_rank(own: list[float]) -> list[float]:
    """`own` where this rank's numbers stand among those of all ranks, zeros elsewhere."""
    out = [0.0] * (len(own) * comm.world_size())
    out[comm.rank() * len(own) : (comm.rank() + 1) * len(own)] = own
    return out


def _headline(command: Command, ds_config: dict, data: Manifest, counts: dict[str, dict[str, int]], first: int) -> str:
    config = command.config
    what = f"resume at step {first} of {config.steps}" if first else f"{config.steps} steps"
    return (
        f"recipe {command.recipe}: {what}, {comm.world_size()} ranks, ZeRO stage {ds_config['zero_optimization']['stage']}\n"
        f"  model {config.model.checkpoint}: parameters by part\n{_table(counts)}\n"
        f"  data {config.data.shards}: {data.rows} rows, manifest {data.digest()[:16]}\n"
        f"  step: {config.batch.pairs} pairs (sub-batches of {config.batch.sub_batch} from one source), "
        f"{config.batch.conversations} conversations\n"
        f"  rates: {_rates(config.optim)}\n"
        f"  AdamW betas {config.optim.beta1:g} {config.optim.beta2:g}, seed {config.seed}, kernels {config.model.kernels}"
        f"{_average(config.ema)}"
    )


def _average(ema: EmaSettings) -> str:
    """A line on the average of the weights, where there is one."""
    if ema.decay is None:
        return ""
    start = max(1, ema.update_after_step)
    return f"\n  average of the weights: decay {ema.decay:g}, from update {start} on; exported beside them; held-out rows see the weights"


def _rates(optim: OptimSettings) -> str:
    """Peak learning rates in words."""
    own = [f"{part} {rate:g}" for part, rate in optim.rates.model_dump().items() if rate is not None]
    rise = f"{optim.warmup_share:.0%} warm-up, then {optim.schedule} to {optim.final_share:.0%}"
    return ", ".join([f"{optim.learning_rate:g}", *own]) + f"; {rise}; weight decay {optim.weight_decay:g}, clipped at {optim.clip:g}"


def _table(counts: dict[str, dict[str, int]]) -> str:
    """Trained and total parameters, a line per part."""
    lines = [f"    {'':10}{'trained':>16}{'total':>16}"]
    return "\n".join(lines + [f"    {part:10}{count['trained']:>16,}{count['total']:>16,}" for part, count in counts.items()])


def _memory_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return psutil.Process(os.getpid()).memory_info().rss / 2**30
