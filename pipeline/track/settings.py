"""Where a run is recorded; imports nothing heavy, for the run's configuration holds it."""

import re

from pydantic import BaseModel, ConfigDict, field_validator


class TrackSettings(BaseModel):
    """Where a run is recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    uri: str = "sqlite:///work/mlflow.db"
    """MLflow tracking URI. The folder of an SQLite file is created."""
    experiment: str = "crem"
    """Name of the MLflow experiment; created if it is new."""
    artifacts: str = "work/mlartifacts"
    """Where a new experiment keeps its artifacts: a URI, or a folder (which a tracking server ignores)."""
    system_metrics: bool = True
    """Record CPU, memory, disk, network (and GPU, where nvidia-ml-py is installed) every 10 s."""
    parent: str | None = None
    """Id of an MLflow run that this one is nested under (a study's arms)."""
    enabled: bool = True
    """False keeps only metrics.jsonl."""

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        if re.match(r"https?://[^/]*@|[^:]+://[^/@]*:[^/]*@", uri, re.IGNORECASE):
            raise ValueError(
                "uri holds credentials, which would lie in config.json and show in the list of processes: leave them out, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD or a password file for a database"
            )
        return uri
