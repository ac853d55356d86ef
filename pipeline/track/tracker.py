"""What the rest of the pipeline calls to record a run: every call returns at once, whatever MLflow is doing."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from data_prep.samples import DataError
from pipeline.journal import Journal, Value
from pipeline.redact import brief, cell, clean_key, clean_tags, cut, flatten, redact, scrub
from pipeline.track.client import connect, fetch, log_values
from pipeline.track.door import Door
from pipeline.track.record import Entry, Record
from pipeline.track.settings import TrackSettings

log = logging.getLogger(__name__)

_START_LOCAL_S, _START_SERVER_S = 60.0, 5.0
"""How long a start waits for MLflow; creating a local store's tables takes seconds, and a server's run id may come later."""
_FINISH_LOCAL_S, _FINISH_SERVER_S = 10.0, 4.5
"""How long an ending waits for MLflow."""

PARENT = "mlflow.parentRunId"
"""The tag by which MLflow nests runs."""


class Tracker:
    """One run's record. As a context manager it ends the run as FINISHED, FAILED (an exception) or KILLED (Ctrl-C)."""

    def __init__(self, run_dir: Path, journal: Journal, record: Record | None, door: Door | None, patience: float) -> None:
        self._run_dir, self._journal, self._record, self._door, self._patience = run_dir, journal, record, door, patience

    @classmethod
    def start(
        cls,
        settings: TrackSettings,
        run_name: str,
        run_dir: Path,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        resume_run_id: str | None = None,
        resume_step: int = 0,
    ) -> Self:
        """Open the journal and the MLflow run; waits for MLflow at most 60 s (a server: 5 s), and goes on without it.

        Args:
            tags: the run's tags; a parent among them goes before `settings.parent`.
            params: the run's settings, nested as they are. Pass the typed configuration, never the environment or argv.
            resume_run_id: continue this MLflow run instead of creating one; None: the one that the record of what is resumed names.
            resume_step: the first step that will be logged. Journal lines from there on move to metrics.dropped.jsonl;
                earlier lines that MLflow lacks are sent now. Steps that MLflow already has are not logged again.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        journal = Journal(run_dir, resume_step)
        record = door = None
        server = settings.uri.lower().startswith("http")
        if settings.enabled:
            record = Record.open(run_dir, fresh=not (resume_run_id or journal.kept))
            record.begin(settings, scrub(run_name), clean_tags(({PARENT: settings.parent} if settings.parent else {}) | dict(tags)))
            door = Door(settings, record, resume_run_id or record.run_id, journal.kept)
            door.start()
            door.tried.wait(_START_SERVER_S if server else _START_LOCAL_S)
        tracker = cls(run_dir, journal, record, door, _FINISH_SERVER_S if server else _FINISH_LOCAL_S)
        tracker.params(params)
        return tracker

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, to be kept in checkpoints; None until MLflow has been reached."""
        return self._door.run_id if self._door else None

    @property
    def unsent(self) -> int:
        """Values and files not in MLflow (yet); metrics among them are in metrics.jsonl all the same."""
        return self._door.unsent if self._door else 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record one step's numbers (what `float` takes); NaN and infinity are null in the journal, not in MLflow."""
        row = {clean_key(key): float(value) for key, value in values.items()}
        time_ms = int(time.time() * 1000)
        self._journal.append(step, time_ms, row)
        if self._door:
            self._door.put_metrics(Value(key, value, step, time_ms) for key, value in row.items())

    def params(self, params: Mapping[str, Any]) -> None:
        """Record settings under dotted names, redacted, cut to 6000 characters; a name already recorded stays as is."""
        clean = {clean_key(key): cut(redact(key, value)) for key, value in flatten(params)}
        if clean:
            self._put("params", params=clean)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; secrets in them are redacted."""
        self._put("tags", tags=clean_tags(tags))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file or folder as it is (unredacted), in the background: leave it in place, for a later `sync` too.

        Where the path itself seems to hold a secret, nothing is recorded but a warning.
        """
        path = Path(os.path.abspath(path))  # a link keeps its name
        if scrub(str(path)) != str(path):
            log.warning("not recorded, for its path seems to hold a secret: %s", scrub(str(path)))
            return
        own = Path(os.path.abspath(self._run_dir))
        self._put("artifact", path=str(path.relative_to(own) if path.is_relative_to(own) else path), folder=folder)

    def figure(self, name: str, figure: Any) -> Path:
        """Save a matplotlib figure as <run_dir>/figures/<name>.png and upload it; returns the path."""
        path = self._run_dir / "figures" / f"{clean_key(name).replace('/', '_')}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=150)
        self.artifact(path, "figures")
        return path

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows as <run_dir>/tables/<name>.json and upload them as an MLflow table; all rows have the first one's columns."""
        if not rows:
            return
        path = self._run_dir / "tables" / f"{clean_key(name).replace('/', '_')}.json"
        path.parent.mkdir(exist_ok=True)
        columns = list(rows[0])
        data = [[_null(cell(str(key), row.get(key))) for key in columns] for row in rows]
        path.write_text(json.dumps({"columns": [scrub(str(key)) for key in columns], "data": data}), encoding="utf-8")
        self._put("table", path=f"tables/{path.name}", folder="tables")

    def finish(self, status: str = "FINISHED") -> None:
        """Send what is left, end the run; waits at most 10 s (a server: 4.5 s), then says how to send the rest. May be called twice."""
        self._journal.close()
        if self._door and self._record.status is None:
            self._record.append(Entry("status", {"status": status}))
            self._door.close(status, self._patience)
            if missing := self.unsent:
                log.warning(
                    "MLflow lacks %d values or files; nothing is lost: `python -m pipeline.track sync %s` sends them",
                    missing,
                    self._run_dir,
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        good = kind is None or (isinstance(error, SystemExit) and not error.code)
        self.finish("FINISHED" if good else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    def _put(self, kind: str, **values: Any) -> None:
        if self._door:
            self._door.put(self._record.append(Entry(kind, values)))


def _null(value: Any) -> Any:
    """NaN and infinity are no JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scored_run_tags(run_id: str) -> dict[str, str]:
    """Tags that make an evaluation a child of the training run it scores."""
    return {PARENT: run_id, "crem.scored_run_id": run_id}


def log_to_run(uri: str, run_id: str, metrics: Mapping[str, float], step: int = 0) -> bool:
    """Add headline scores to another run, finished or not; False (and a warning) where MLflow would not take them."""
    now = int(time.time() * 1000)
    values = [Value(clean_key(key), float(value), step, now) for key, value in metrics.items()]
    try:
        log_values(connect(uri), run_id, values)
    except Exception as error:  # whatever it was, the scores are in scores.json
        log.warning("MLflow did not take the scores of run %s: %s", run_id, brief(error))
        return False
    return True


def download(uri: str, run_id: str, names: Sequence[str], folder: Path) -> None:
    """Bring artifacts of a run (files or folders, by name) into `folder`, which is made.

    Raises:
        DataError: MLflow is out of reach, or has no such run or artifact.
    """
    folder.mkdir(parents=True)
    try:
        fetch(connect(uri), run_id, names, folder)
    except Exception as error:  # a store of any kind, a file or a server: each has its own errors
        raise DataError(
            f"MLflow run {run_id} at {scrub(uri)}: found no {' and '.join(names)}: {brief(error)}. Expected the run of an "
            "evaluation (a child of the training run); check the id and --track-uri"
        ) from error
