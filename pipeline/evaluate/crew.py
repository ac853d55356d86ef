"""Have units computed, by this process or by workers on Ray, and their results kept.

On Ray actors, not on torch ranks: units need no collectives (evaluation runs on exported weights, without ZeRO), so a worker that dies
costs its units under way and not the evaluation; workers may be on any node of a cluster; and whoever is free takes the next unit, so that
long answers hold up nobody. One worker, where no cluster is named, is this process: the same `Worker` without Ray around it.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from tqdm import tqdm

from pipeline.evaluate import identity
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.open import Opened
from pipeline.evaluate.units import Task, Unit
from pipeline.evaluate.worker import Job, Worker


@dataclass(frozen=True)
class Crew:
    """Who computes.

    workers: at most; None: one per GPU, on CPUs one.
    batch: units that a worker takes at a time. More of them are less traffic and more work done again after a kill. They are computed one
        by one all the same, so that no result depends on it; batches that a model sees never reach beyond a unit, and are no setting.
    """

    workers: int | None = None
    batch: int = 1

    @property
    def here(self) -> bool:
        """Whether this process does it all."""
        return not os.environ.get("RAY_ADDRESS") and (self.workers or max(1, torch.cuda.device_count())) == 1

    def numerics(self) -> dict:
        """How the workers compute: as this process does, unless they may be on other machines; then one is asked."""
        if not os.environ.get("RAY_ADDRESS"):
            return identity.numerics()
        from data_prep.cluster import actors_as_finished, cluster  # here, for Ray takes long to import and one worker needs none

        with cluster(1):
            (_, found), *_ = actors_as_finished(_Probe, [None], (), 1)
        return found

    def compute(self, tasks: Sequence[Task], job: Job, kept: Kept, opened: Callable[[], Opened] | None = None) -> int:
        """Have every unit computed that is not kept; returns how many there were to compute.

        Args:
            opened: gives the checkpoint to this process, where it is the worker.

        Raises:
            DataError: a unit cannot be computed (named), or the workers died again and again.
        """
        units = {unit.key: unit for task in tasks for unit in task.units}
        missing = [unit for unit in units.values() if not kept.holds(unit.key)]
        if len(missing) < len(units):
            print(f"{len(units) - len(missing)} of {len(units)} units of work are in {kept.folder} already", file=sys.stderr)
        batches = [missing[start : start + self.batch] for start in range(0, len(missing), self.batch)]
        tokens = sum(unit.tokens for unit in missing)
        with tqdm(total=tokens, unit="token", unit_scale=True, desc="evaluate", disable=None) as bar:
            work = self._here(batches, job, opened) if self.here else self._on_ray(batches, job)
            with closing(work):
                for some, results in work:
                    for unit, result in zip(some, results, strict=True):
                        kept.put(unit.key, result)
                        bar.update(unit.tokens)
        return len(missing)

    def _here(self, batches: list[list[Unit]], job: Job, opened: Callable[[], Opened] | None) -> Iterator[tuple[list[Unit], list[bytes]]]:
        worker = Worker(job, opened)
        for batch in batches:
            yield batch, worker.work(batch)

    def _on_ray(self, batches: list[list[Unit]], job: Job) -> Iterator[tuple[list[Unit], list[bytes]]]:
        from data_prep.cluster import actors_as_finished, cluster

        if batches:
            wanted = self.workers or max(1, torch.cuda.device_count())
            with cluster(wanted) as workers:
                yield from actors_as_finished(Worker, batches, (job,), workers, self.workers)


class _Probe:
    """Placed as a worker is, to say how it would compute."""

    def work(self, _: None) -> dict:
        return identity.numerics()
