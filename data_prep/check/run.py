"""Every row of every source, in parallel processes: what a job over these folders would set aside.

Sources come from the readers of the job, images through its decoder. Folders with evaluation data are looked at as well; a row that
cannot be used there would stop an evaluation.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from data_prep import sources
from data_prep.check.evaluation import evaluation_findings
from data_prep.check.scan import Findings, Look, forget, scan
from data_prep.samples import DataError
from data_prep.sources import Part, Unusable

ROWS = 256
"""Rows that one process takes at a time."""


class CheckSettings(BaseModel):
    """What to look at, and how closely."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: tuple[Path, ...] = Field(min_length=1)
    """Folders, as for prepare."""
    split: str = "original"
    """MMEB-train's split."""
    image_root: Path | None = None
    """As for prepare."""
    sample: int | None = Field(default=None, gt=0)
    """Open the images of about so many rows per source; None opens all. Whether images are there is always looked at."""
    checkpoint: str | None = None
    """Also encode every opened row as the job would for this checkpoint, so that lengths are exact."""
    min_pixels: int | None = Field(default=None, gt=0)
    """As for prepare."""
    max_pixels: int | None = Field(default=None, gt=0)
    """As for prepare."""
    max_tokens: int = Field(default=4096, gt=0)
    """As for prepare."""
    workers: int | None = Field(default=None, gt=0)
    """Processes; None takes every CPU this process may use."""


@dataclass
class Survey:
    """What was found: by source, files that cannot be used, and rows of evaluation sets."""

    found: dict[str, Findings] = field(default_factory=dict)
    unusable: list[Unusable] = field(default_factory=list)
    evaluation: dict[str, Findings] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all training sources."""
        return sum(findings.rows for findings in self.found.values())

    @property
    def aside(self) -> int:
        """Rows that a job would set aside, as far as they were looked at."""
        return sum(findings.aside for findings in self.found.values())


def check(settings: CheckSettings) -> Survey:
    """Look at everything.

    Raises:
        DataError: no such folder, nothing recognised, two sets of one name, or a process that died.
    """
    forget()
    if settings.checkpoint is not None:
        from data_prep.encode import Encoder, EncodeSettings  # imports transformers: seconds

        Encoder(settings.checkpoint, EncodeSettings(**_limits(settings)))  # refuses a wrong checkpoint before it could blame the rows
    survey = Survey()
    parts: list[Part] = []
    for root in settings.roots:
        try:
            found, nothing = sources.survey(root, settings.image_root, settings.split), None
        except sources.NothingRecognisedError as error:
            found, nothing = [], error
        evaluation = list(evaluation_findings(root, settings.image_root, {part.path for part in found}))
        if nothing and not evaluation:
            raise nothing
        parts += [part for part in found if isinstance(part, Part)]
        survey.unusable += [part for part in (*found, *(own for _, own in evaluation)) if isinstance(part, Unusable)]
        survey.evaluation |= {name: own for name, own in evaluation if isinstance(own, Findings)}
    sources.check_distinct(parts)
    for part, result in _scan_all(sorted(parts, key=lambda part: (part.source, part.split, part.first)), settings):
        if isinstance(result, Unusable):
            survey.unusable.append(result)
        else:
            survey.found.setdefault(part.source, Findings()).join(result)
    return survey


def _scan_all(parts: list[Part], settings: CheckSettings) -> Iterator[tuple[Part, Findings | Unusable]]:
    """Every slice in order, whichever process was done first, so that the report is the same for any number of them."""
    if not parts:
        return
    looks = _looks(parts, settings)
    pieces = [(part, start, min(start + ROWS, part.rows)) for part in parts for start in range(0, part.rows, ROWS)]
    workers = settings.workers or len(os.sched_getaffinity(0))
    context = get_context("spawn")  # a fork would copy the threads of pyarrow half
    with (
        ProcessPoolExecutor(min(workers, len(pieces)), mp_context=context) as pool,
        tqdm(total=sum(part.rows for part in parts), unit="row", desc="check", disable=not sys.stderr.isatty()) as bar,
    ):
        waiting = [(piece, pool.submit(scan, *piece, looks[piece[0].source])) for piece in pieces]
        for (part, start, stop), result in waiting:
            yield part, _result(part, start, stop, result)
            bar.update(stop - start)


def _result(part: Part, start: int, stop: int, result: Future) -> Findings | Unusable:
    try:
        return result.result()
    except DataError as error:
        return Unusable(part.source, part.path, str(error))
    except BrokenProcessPool as error:
        raise DataError(
            f"{part.path}: a process died while rows up to {start} to {stop} were looked at (memory, or a decoder that crashed); expected "
            "it to end. Run again with --workers 1 to find the row, and watch memory"
        ) from error


def _limits(settings: CheckSettings) -> dict[str, int | None]:
    return {name: getattr(settings, name) for name in ("min_pixels", "max_pixels", "max_tokens")}


def _looks(parts: list[Part], settings: CheckSettings) -> dict[str, Look]:
    rows: dict[str, int] = {}
    for part in parts:
        rows[part.source] = rows.get(part.source, 0) + part.rows
    encode = tuple(_limits(settings).items())
    return {
        source: Look(
            every=1 if settings.sample is None else -(-count // settings.sample),
            checkpoint=settings.checkpoint,
            encode=encode,
            max_tokens=settings.max_tokens,
        )
        for source, count in rows.items()
    }
