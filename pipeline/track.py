"""The run's record: metrics on local disk first, then in MLflow. The only file that imports mlflow.

Used on rank 0 only. Invariants: a metric is in `<run_dir>/metrics.jsonl` before anything else happens to it; MLflow is
reached from one background thread alone, so that a slow or dead server costs the caller a bounded wait at the start and
at the end, never a step and never an exception; a (metric, step) pair enters a run once, also across a resume, and what
the server missed is sent later from the journal (`pipeline.journal`); secrets are redacted before they leave this file
(`pipeline.redact`).
"""

import logging
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, field_validator

from pipeline.journal import Journal, Value
from pipeline.redact import brief, cell, clean_key, clean_tags, cut, flatten, redact, scrub

log = logging.getLogger(__name__)

_FLUSH_S, _RETRY_S = 2.0, 15.0
_START_LOCAL_S, _START_SERVER_S, _FINISH_S = 60.0, 12.0, 10.0
_MAX_METRICS, _MAX_PARAMS = 1000, 100
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "PERMISSION_DENIED"}


class TrackSettings(BaseModel):
    """Where a run is recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    uri: str = "sqlite:///work/mlflow.db"
    """MLflow tracking URI. The folder of an SQLite file is created."""
    experiment: str = "crem"
    """Name of the MLflow experiment; created if it is new."""
    artifacts: str = "work/mlartifacts"
    """Where a new experiment keeps its artifacts: a URI, or a folder (which a tracking server ignores)."""
    system_metrics: bool = True
    """Record CPU, memory, disk, network (and GPU, where nvidia-ml-py is installed) every 10 s."""
    enabled: bool = True
    """False keeps only metrics.jsonl."""

    @field_validator("uri")
    @classmethod
    def _no_credentials_in_the_clear(cls, uri: str) -> str:
        if re.match(r"http://[^/]*@", uri, re.IGNORECASE):
            raise ValueError("uri sends credentials over plain http: use https, or MLFLOW_TRACKING_USERNAME/_PASSWORD")
        return uri


class Tracker:
    """One run's record. As a context manager it ends the run as FINISHED, FAILED (an exception) or KILLED (Ctrl-C)."""

    def __init__(self, run_dir: Path, journal: Journal, door: "_Door | None") -> None:
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
            params: the run's settings, nested as they are. Pass the typed configuration, never the environment or argv.
            resume_run_id: continue this MLflow run instead of creating one.
            resume_step: the first step that will be logged. Journal lines from there on move to metrics.dropped.jsonl;
                earlier lines that MLflow lacks are sent now. Steps that MLflow already has are not logged again.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        journal = Journal(run_dir, resume_step)
        door = None
        if settings.enabled:
            door = _Door(settings, scrub(run_name), clean_tags(tags), resume_run_id, journal.kept)
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
            self._put(lambda client, run_id: _log_params(client, run_id, clean))

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

    def _put(self, job: "_Job") -> None:
        if self._door:
            self._door.put(job)


def scored_run_tags(run_id: str) -> dict[str, str]:
    """Tags that make an evaluation a child of the training run it scores."""
    return {"mlflow.parentRunId": run_id, "crem.scored_run_id": run_id}


def log_to_run(uri: str, run_id: str, metrics: Mapping[str, float], step: int = 0) -> bool:
    """Add headline scores to another run, finished or not; False (and a warning) where MLflow would not take them."""
    now = int(time.time() * 1000)
    values = [Value(clean_key(key), float(value), step, now) for key, value in metrics.items()]
    try:
        _log_values(_client(uri), run_id, values)
    except Exception as error:  # whatever it was, the scores are in scores.json
        log.warning("MLflow did not take the scores of run %s: %s", run_id, brief(error))
        return False
    return True


_Job = Callable[[Any, str], Any]


class _Door(threading.Thread):
    """The background thread that talks to MLflow. `tried` is set once the first attempt to reach it is over."""

    def __init__(
        self,
        settings: TrackSettings,
        run_name: str,
        tags: dict[str, str],
        resume_run_id: str | None,
        backlog: Sequence[Value],
    ) -> None:
        super().__init__(name="mlflow-door", daemon=True)
        self.run_id: str | None = None
        self.tried = threading.Event()
        self._settings, self._run_name, self._tags, self._resume_run_id = settings, run_name, tags, resume_run_id
        self._lock = threading.Condition()
        self._values: deque[Value] = deque(value for value in backlog if math.isfinite(value.value))
        self._jobs: deque[_Job] = deque()
        self._refused = 0
        self._status: str | None = None
        self._known: set[tuple[str, int]] = set()
        self._client = self._monitor = None
        self._down = False

    @property
    def unsent(self) -> int:
        with self._lock:
            return len(self._values) + len(self._jobs) + self._refused

    def put_metrics(self, values: Iterator[Value]) -> None:
        with self._lock:
            self._values.extend(value for value in values if math.isfinite(value.value))

    def put(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)

    def close(self, status: str) -> None:
        with self._lock:
            self._status = status
            self._lock.notify()
        self.join(_FINISH_S)

    def run(self) -> None:
        """Send every few seconds; after a failure wait longer; once closed, one last attempt."""
        while True:
            closing = self._status is not None
            try:
                if self.run_id is None:
                    self._connect()
                self._send()
                if closing:
                    self._end()
                self._down = False
            except Exception as error:  # the server's trouble must not become the training's
                if not self._down:
                    log.warning("MLflow is out of reach, going on without it: %s", brief(error))
                self._down = True
            self.tried.set()
            if closing:
                return
            with self._lock:
                self._lock.wait_for(lambda: self._status is not None, _RETRY_S if self._down else _FLUSH_S)

    def _connect(self) -> None:
        self._client = _client(self._settings.uri)
        run_id = self._reopen() if self._resume_run_id else None
        resumed = run_id is not None
        if not resumed:
            experiment = _experiment(self._client, self._settings)
            run_id = self._client.create_run(experiment, tags=self._tags, run_name=self._run_name).info.run_id
        self.run_id = run_id
        if self._settings.system_metrics:
            self._monitor = _start_monitor(run_id, self._settings.uri, resumed)

    def _reopen(self) -> str | None:
        """Set the run to be resumed to RUNNING and learn which steps it has; None where MLflow has no such run."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(self._resume_run_id)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            log.warning("MLflow has no run %s to resume: starting a new one from the journal", self._resume_run_id)
            return None
        own = [key for key in run.data.metrics if not key.startswith("system/")]
        history = (self._client.get_metric_history(self._resume_run_id, key) for key in own)
        self._known = {(metric.key, metric.step) for metrics in history for metric in metrics}
        self._client.update_run(self._resume_run_id, status="RUNNING")
        for key, value in self._tags.items():
            self._client.set_tag(self._resume_run_id, key, value)
        return self._resume_run_id

    def _send(self) -> None:
        while batch := self._peek(self._values, _MAX_METRICS):
            new = [value for value in batch if (value.key, value.step) not in self._known]
            self._attempt(lambda client, run_id, new=new: _log_values(client, run_id, new), len(new))
            self._pop(self._values, len(batch))
        while jobs := self._peek(self._jobs, 1):
            self._attempt(jobs[0], 1)
            self._pop(self._jobs, 1)

    def _attempt(self, job: _Job, worth: int) -> None:
        """Do a job; one that can never succeed is given up and counted, any other failure is raised: it may pass."""
        from mlflow.exceptions import MlflowException

        try:
            job(self._client, self.run_id)
        except (MlflowException, FileNotFoundError, IsADirectoryError, TypeError, ValueError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _REFUSALS:
                raise
            log.warning("MLflow refused part of the record: %s", brief(error))
            with self._lock:
                self._refused += worth

    def _peek(self, queue: deque, count: int) -> list:
        with self._lock:
            return list(islice(queue, count))

    def _pop(self, queue: deque, count: int) -> None:
        with self._lock:
            for _ in range(count):
                queue.popleft()

    def _end(self) -> None:
        if self._monitor:
            self._monitor.finish()
        self._client.set_terminated(self.run_id, status=self._status)


def _client(uri: str) -> Any:
    """An MLflow client that gives up quickly, says little, reports to nobody, and whose SQLite folder exists."""
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ):
        os.environ.setdefault(name, value)
    if file := re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri):
        Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
    import mlflow

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return mlflow.MlflowClient(tracking_uri=uri)


def _experiment(client: Any, settings: TrackSettings) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(settings.experiment):
        return found.experiment_id
    location = settings.artifacts
    if "://" not in location:
        location = None if settings.uri.lower().startswith("http") else Path(location).resolve().as_uri()
    try:
        return client.create_experiment(settings.experiment, artifact_location=location)
    except MlflowException:  # another process may have created it since
        if found := client.get_experiment_by_name(settings.experiment):
            return found.experiment_id
        raise


def _start_monitor(run_id: str, uri: str, resumed: bool) -> Any:
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, resume_logging=resumed, tracking_uri=uri)
        monitor.start()
        return monitor
    except Exception as error:  # psutil or a driver missing costs the system metrics, nothing else
        log.warning("no system metrics: %s", brief(error))
        return None


def _log_values(client: Any, run_id: str, values: Sequence[Value]) -> None:
    """Send finite values. Sending them again is harmless: MLflow keys them by name, step, time and value."""
    from mlflow.entities import Metric

    metrics = [Metric(v.key, v.value, v.time_ms, v.step) for v in values if math.isfinite(v.value)]
    for start in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])


def _log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    """Send params that the run lacks: MLflow refuses a second value for a name."""
    from mlflow.entities import Param

    present = client.get_run(run_id).data.params
    if changed := sorted(key for key in params if present.get(key, params[key]) != params[key]):
        log.warning("resumed with other settings than MLflow's run records: %s", ", ".join(changed[:20]))
    new = [Param(key, value) for key, value in params.items() if key not in present]
    for start in range(0, len(new), _MAX_PARAMS):
        client.log_batch(run_id, params=new[start : start + _MAX_PARAMS])
