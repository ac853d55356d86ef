"""One real SQLite store for all tests of the record (creating its tables takes seconds), and ways to use and to break it."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from pipeline.track import Tracker, TrackSettings


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackSettings:
    """Its folder does not exist before the first run."""
    root = tmp_path_factory.mktemp("store")
    return TrackSettings(uri=f"sqlite:///{root}/made/on/demand/mlflow.db", artifacts=str(root / "artifacts"), system_metrics=False)


@pytest.fixture
def client(store: TrackSettings) -> mlflow.MlflowClient:
    """MLflow's own view of the store."""
    return mlflow.MlflowClient(store.uri)


@pytest.fixture
def start(store: TrackSettings) -> Callable[..., Tracker]:
    """Starts a run in a folder, in `store` or elsewhere."""

    def start(run_dir: Path, settings: TrackSettings = store, **more: object) -> Tracker:
        return Tracker.start(settings, "test", run_dir, **({"params": {}, "tags": {}} | more))

    return start


@pytest.fixture
def journal() -> Callable[[Path], list[dict]]:
    """Reads a run's metrics.jsonl."""
    return lambda run_dir: [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for something to become true."""

    def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(0.05)
        assert done()

    return until


@pytest.fixture
def dead_uri() -> Iterator[str]:
    """A loopback port that nobody listens on, held so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
