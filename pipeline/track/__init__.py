"""The run's record: metrics on local disk first, then in MLflow.

Used on rank 0 only. Invariants: a metric is in `<run_dir>/metrics.jsonl` before anything else happens to it, and all else that is recorded
in `<run_dir>/record.jsonl`; MLflow is reached from one background thread alone, so that a slow or dead server costs the caller a bounded
wait at the start and at the end, never a step and never an exception; a (metric, step) pair enters a run once, also across a resume; what
the server missed is sent by a resume, or by `python -m pipeline.track sync RUN_DIR`; secrets are redacted before they reach disk or server
(`pipeline.redact`).

    settings.py   where a run is recorded
    tracker.py    what the rest of the pipeline calls
    record.py     params, tags, artifacts and tables on disk, to be sent, and sent again
    sync.py       replay it all into MLflow
    door.py       the background thread: queues, retries, when to give up
    client.py     the only file that imports mlflow: one function per thing asked of it
"""

from pipeline.track.settings import TrackSettings
from pipeline.track.tracker import Tracker, download, log_to_run, scored_run_tags

__all__ = ["TrackSettings", "Tracker", "download", "log_to_run", "scored_run_tags"]
