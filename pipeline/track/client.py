"""What is asked of MLflow, a function each. The only file that imports mlflow, and only once one of them is called."""

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.journal import Value
from pipeline.redact import brief
from pipeline.track.record import MARK, Entry, Record
from pipeline.track.settings import TrackSettings

log = logging.getLogger(__name__)

MAX_METRICS, MAX_PARAMS = 1000, 100
"""What MLflow takes in one call."""
_TABLES = "mlflow.loggedArtifacts"
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "PERMISSION_DENIED"}


def connect(uri: str) -> Any:
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


@dataclass(frozen=True)
class OpenRun:
    """A run to send to."""

    run_id: str
    known: set[tuple[str, int]]
    """The (metric, step) pairs that it has."""
    created: bool
    """Whether it is new."""


def open_run(client: Any, settings: TrackSettings, record: Record, run_id: str | None) -> OpenRun:
    """The run `run_id`; where it is None or gone, the run of this record; where there is none, a new one (its experiment, too).

    A slow server may have created the run after its answer was given up: the record's mark among the tags finds it.
    """
    if run_id and (known := known_steps(client, run_id)) is not None:
        return OpenRun(run_id, known, created=False)
    start = record.start.values
    experiment = _experiment(client, settings)
    found = client.search_runs([experiment], filter_string=_marked(record), max_results=1)
    run = found[0] if found else client.create_run(experiment, tags=start["tags"], run_name=start["name"])
    run_id = run.info.run_id
    record.append(Entry("run_id", {"run_id": run_id}))
    return OpenRun(run_id, known_steps(client, run_id) if found else set(), created=not found)


def drop_doubles(client: Any, run_id: str, record: Record) -> None:
    """Delete other runs of this record in the experiment of `run_id`, where they hold no metric.

    A server so slow that it creates a run after two answers were given up leaves such a double; MLflow can restore what is deleted here.
    """
    experiment = client.get_run(run_id).info.experiment_id
    for run in client.search_runs([experiment], filter_string=_marked(record)):
        if run.info.run_id != run_id and not run.data.metrics:
            client.delete_run(run.info.run_id)
            log.warning("MLflow had a second, empty run of this record (%s): deleted", run.info.run_id)


def _marked(record: Record) -> str:
    return f"tags.`{MARK}` = '{record.start.values['tags'][MARK]}'"


def known_steps(client: Any, run_id: str) -> set[tuple[str, int]] | None:
    """The (metric, step) pairs that a run has, None where MLflow has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not refused(error):
            raise
        log.warning("MLflow has no run %s to go on with: going by the journal", run_id)
        return None
    own = [key for key in run.data.metrics if not key.startswith("system/")]
    history = (client.get_metric_history(run_id, key) for key in own)
    return {(metric.key, metric.step) for metrics in history for metric in metrics}


def refused(error: Exception) -> bool:
    """Whether the same request would fail again; any other failure may pass."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    return isinstance(error, (FileNotFoundError, IsADirectoryError, TypeError, ValueError))


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


def start_monitor(run_id: str, uri: str, resumed: bool) -> Any:
    """Start recording system metrics into the run; None where they cannot be had."""
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, resume_logging=resumed, tracking_uri=uri)
        monitor.start()
        return monitor
    except Exception as error:  # psutil or a driver missing costs the system metrics, nothing else
        log.warning("no system metrics: %s", brief(error))
        return None


def log_values(client: Any, run_id: str, values: Sequence[Value]) -> int:
    """Send finite values; returns how many. Sending them again is harmless: MLflow keys them by name, step, time and value."""
    from mlflow.entities import Metric

    metrics = [Metric(v.key, v.value, v.time_ms, v.step) for v in values if math.isfinite(v.value)]
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS])
    return len(metrics)


def apply(client: Any, run_id: str, entry: Entry, run_dir: Path) -> None:
    """Send one entry of a record. Sending it again is harmless."""
    values = entry.values
    if entry.kind == "params":
        log_params(client, run_id, values["params"])
    elif entry.kind == "tags":
        set_tags(client, run_id, values["tags"])
    else:
        path = run_dir / values["path"]
        if path.is_dir():
            client.log_artifacts(run_id, str(path), values["folder"])
        else:
            client.log_artifact(run_id, str(path), values["folder"])
    if entry.kind == "table":
        _announce_table(client, run_id, f"{values['folder']}/{path.name}")


def set_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags, one after the other."""
    for key, value in tags.items():
        client.set_tag(run_id, key, value)


def _announce_table(client: Any, run_id: str, file: str) -> None:
    """List an artifact among the run's tables, as MLflow's own log_table does (which appends to what is there, so it is not used)."""
    listed = json.loads(client.get_run(run_id).data.tags.get(_TABLES, "[]"))
    table = {"path": file, "type": "table"}
    if table not in listed:
        client.set_tag(run_id, _TABLES, json.dumps([*listed, table]))


def log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    """Send params that the run lacks: MLflow refuses a second value for a name."""
    from mlflow.entities import Param

    present = client.get_run(run_id).data.params
    if changed := sorted(key for key in params if present.get(key, params[key]) != params[key]):
        log.warning("resumed with other settings than MLflow's run records: %s", ", ".join(changed[:20]))
    new = [Param(key, value) for key, value in params.items() if key not in present]
    for start in range(0, len(new), MAX_PARAMS):
        client.log_batch(run_id, params=new[start : start + MAX_PARAMS])


def fetch(client: Any, run_id: str, names: Sequence[str], folder: Path) -> None:
    """Bring artifacts (files or folders) of a run below `folder`, which must exist."""
    for name in names:
        client.download_artifacts(run_id, name, str(folder))
