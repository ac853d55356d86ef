"""What is asked of MLflow, a function each. The only file that imports mlflow, and only once one of them is called."""

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.journal import Value
from pipeline.redact import brief
from pipeline.track.settings import TrackSettings

log = logging.getLogger(__name__)

MAX_METRICS, MAX_PARAMS = 1000, 100
"""What MLflow takes in one call."""
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


def new_run(client: Any, settings: TrackSettings, run_name: str, tags: Mapping[str, str]) -> str:
    """Create a run, and the experiment if it is new; returns the run's id."""
    experiment = _experiment(client, settings)
    return client.create_run(experiment, tags=dict(tags), run_name=run_name).info.run_id


def reopen(client: Any, run_id: str, tags: Mapping[str, str]) -> set[tuple[str, int]] | None:
    """Set a run to RUNNING; returns the (metric, step) pairs that it has, None where MLflow has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not refused(error):
            raise
        log.warning("MLflow has no run %s to resume: starting a new one from the journal", run_id)
        return None
    own = [key for key in run.data.metrics if not key.startswith("system/")]
    history = (client.get_metric_history(run_id, key) for key in own)
    known = {(metric.key, metric.step) for metrics in history for metric in metrics}
    client.update_run(run_id, status="RUNNING")
    for key, value in tags.items():
        client.set_tag(run_id, key, value)
    return known


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


def log_values(client: Any, run_id: str, values: Sequence[Value]) -> None:
    """Send finite values. Sending them again is harmless: MLflow keys them by name, step, time and value."""
    from mlflow.entities import Metric

    metrics = [Metric(v.key, v.value, v.time_ms, v.step) for v in values if math.isfinite(v.value)]
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS])


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
