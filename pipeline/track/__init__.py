"""The run's record: metrics on local disk first, then in MLflow.

Used on rank 0 only. Invariants: a metric is in `<run_dir>/metrics.jsonl` before anything else happens to it; MLflow is
reached from one background thread alone, so that a slow or dead server costs the caller a bounded wait at the start and
at the end, never a step and never an exception; a (metric, step) pair enters a run once, also across a resume, and what
the server missed is sent later from the journal (`pipeline.journal`); secrets are redacted before they leave this package
(`pipeline.redact`).

    settings.py   where a run is recorded
    tracker.py    what the rest of the pipeline calls
    door.py       the background thread: queues, retries, when to give up
    client.py     the only file that imports mlflow: one function per thing asked of it
"""

from pipeline.track.settings import TrackSettings
from pipeline.track.tracker import Tracker, download, log_to_run, scored_run_tags

__all__ = ["TrackSettings", "Tracker", "download", "log_to_run", "scored_run_tags"]
