"""A study's inputs: the small checkpoint and the smallest embedded data."""

from pathlib import Path

import pytest

from data_prep.embedded import write_embedded
from pipeline.study.settings import StudySettings


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded data set with 8 rows a subset. Not to be changed."""
    folder = tmp_path_factory.mktemp("embedded") / "data"
    write_embedded(folder, rows=8, seed=0)
    return folder


@pytest.fixture
def settings(embedded: Path, base_checkpoint: Path, tmp_path: Path) -> StudySettings:
    """Two arms of the ablation, four steps each."""
    return StudySettings(
        kind="ablation",
        checkpoint=base_checkpoint,
        shards_from=(embedded,),
        mmeb=embedded / "MMEB-eval",
        benchmarks=embedded / "benchmarks",
        out=tmp_path / "study",
        arms=("both_losses", "full"),
        track_uri=f"sqlite:///{tmp_path}/mlflow.db",
        track_artifacts=str(tmp_path / "mlartifacts"),
        words=("--steps", "4", "--batch.pairs", "8", "--batch.sub-batch", "4", "--batch.conversations", "4", "--track.no-system-metrics"),
    )
