"""What the rest of the pipeline calls to record a run: every call returns at once, whatever MLflow is doing."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from data_prep.samples import DataError
from pipeline.journal import Journal, Value
from pipeline.redact import brief, cell, clean_key, clean_tags, cut, flatten, redact, scrub
from pipeline.track.client import connect, fetch, log_params, log_values
from pipeline.track.door import Door, Job
from pipeline.track.settings import TrackSettings

log = logging.getLogger(__name__)

_START_LOCAL_S, _START_SERVER_S = 60.0, 12.0

PARENT = "mlflow.parentRunId"
"""The tag by which MLflow nests runs."""


class Tracker:
    """One run's record. As a context manager it ends the run as FINISHED, FAILED (an exception) or KILLED (Ctrl-C)."""

    def __init__(self, run_dir: Path, journal: Journal, door: Door | None) -> None:
        self._run_dir, self._journal, self._door = run_dir, journal, door

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
        """Open the journal and the MLflow run; waits for MLflow at most 60 s (a server: 12 s), and goes on without it.

        Args:
            tags: the run's tags; a parent among them goes before `settings.parent`.
            params: the run's settings, nested as they are. Pass the typed configuration, never the environment or argv.
            resume_run_id: continue this MLflow run instead of creating one.
            resume_step: the first step that will be logged. Journal lines from there on move to metrics.dropped.jsonl;
                earlier lines that MLflow lacks are sent now. Steps that MLflow already has are not logged again.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        journal = Journal(run_dir, resume_step)
        door = None
        if settings.enabled:
            tags = ({PARENT: settings.parent} if settings.parent else {}) | dict(tags)
            door = Door(settings, scrub(run_name), clean_tags(tags), resume_run_id, journal.kept)
            door.start()
            door.tried.wait(_START_SERVER_S if settings.uri.lower().startswith("http") else _START_LOCAL_S)
        tracker = cls(run_dir, journal, door)
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
            self._put(lambda client, run_id: log_params(client, run_id, clean))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; secrets in them are redacted."""
        clean = clean_tags(tags)
        self._put(lambda client, run_id: [client.set_tag(run_id, key, value) for key, value in clean.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file or folder as it is (unredacted), in the background: leave it in place until `finish`."""
        path = Path(path)
        upload = "log_artifacts" if path.is_dir() else "log_artifact"
        self._put(lambda client, run_id: getattr(client, upload)(run_id, str(path), folder))

    def figure(self, name: str, figure: Any) -> Path:
        """Save a matplotlib figure as <run_dir>/figures/<name>.png and upload it; returns the path."""
        path = self._run_dir / "figures" / f"{clean_key(name).replace('/', '_')}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=150)
        self.artifact(path, "figures")
        return path

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Upload rows as an MLflow table; all rows are taken to have the first one's columns."""
        if rows:
            data = {str(key): [cell(key, row.get(key)) for row in rows] for key in rows[0]}
            file = f"tables/{clean_key(name).replace('/', '_')}.json"
            self._put(lambda client, run_id: client.log_table(run_id, data=data, artifact_file=file))

    def finish(self, status: str = "FINISHED") -> None:
        """Send what is left, end the run; waits at most 10 s, then says how much MLflow lacks. May be called twice."""
        self._journal.close()
        if self._door and self._door.is_alive():
            self._door.close(status)
            if missing := self.unsent:
                log.warning("MLflow lacks %d values or files; all metrics are in %s", missing, self._journal.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        good = kind is None or (isinstance(error, SystemExit) and not error.code)
        self.finish("FINISHED" if good else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    def _put(self, job: Job) -> None:
        if self._door:
            self._door.put(job)


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
