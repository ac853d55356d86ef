"""Send MLflow what it missed of a run: replay `metrics.jsonl` and `record.jsonl`. Doing it twice changes nothing."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.samples import DataError
from pipeline.journal import read_values
from pipeline.redact import brief
from pipeline.track.client import apply, connect, drop_doubles, log_values, open_run, refused
from pipeline.track.record import FILE, Record
from pipeline.track.settings import TrackSettings


@dataclass(frozen=True)
class Synced:
    """What a `sync` did."""

    run_id: str
    created: bool
    """Whether MLflow had no such run."""
    values: int
    """Metric values that it lacked."""
    entries: int
    """Params, tags, artifacts and tables that were sent (again)."""
    refusals: tuple[str, ...]
    """What MLflow would not take, in words."""


def sync(run_dir: Path, uri: str | None = None) -> Synced:
    """Bring MLflow's record of the run in `run_dir` up to date.

    Args:
        uri: another tracking URI than the run's own.

    Raises:
        DataError: there is no record in `run_dir`, or MLflow cannot be reached; what was sent stays sent.
    """
    record = Record.open(run_dir)
    if record.start is None:
        raise DataError(f"{run_dir}: found no {FILE}; expected the folder of a run that was recorded with MLflow enabled")
    settings = TrackSettings(**record.start.values["settings"])
    settings = settings.model_copy(update={"uri": uri} if uri else {})
    try:
        return _replay(run_dir, record, settings)
    except Exception as error:
        raise DataError(f"{run_dir}: MLflow is out of reach ({brief(error)}); nothing is lost: run this again when it answers") from error


def _replay(run_dir: Path, record: Record, settings: TrackSettings) -> Synced:
    client = connect(settings.uri)
    run = open_run(client, settings, record, record.run_id)
    missing = [value for value in read_values(run_dir) if (value.key, value.step) not in run.known]
    sent = log_values(client, run.run_id, missing)
    refusals = []
    for entry in record.to_send():
        try:
            apply(client, run.run_id, entry, run_dir)
        except Exception as error:
            if not refused(error):
                raise
            refusals.append(f"{entry.kind}: {brief(error)}")
    if record.status:
        client.set_terminated(run.run_id, status=record.status)
    drop_doubles(client, run.run_id, record)
    return Synced(run.run_id, run.created, sent, len(record.to_send()) - len(refusals), tuple(refusals))
