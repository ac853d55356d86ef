"""Small checkpoints for all tests: written once per session by the project's own commands, never changed by a test. The tests' order."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this process shares the tests, and the cores, with others (`launchers/test.sh` without arguments)."""
if ONE_OF_SEVERAL:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from data_prep.encode import Encoder
from pipeline.model.base import BaseSize, write_base
from pipeline.model.chorus import add_chorus

settings.register_profile("project", deadline=None, derandomize=True, database=None)  # same cases every run, no folder left behind
settings.load_profile("project")

LONGEST = (
    "tests/test_readme.py",
    "tests/pipeline/train/test_launch.py",
    "tests/pipeline/train/test_survival.py",
    "tests/pipeline/evaluate/test_crew.py",
    "tests/pipeline/train/test_averaging_ranks.py",
    "tests/data_prep/test_faults.py",
    "tests/data_prep/test_job.py",
    "tests/data_prep/synthesize/test_job.py",
    "tests/pipeline/supervise/test_trainer.py",
    "tests/pipeline/train/test_balance.py",
    "tests/pipeline/train/test_families.py",
    "tests/pipeline/train/test_zero.py",
    "tests/pipeline/train/test_reshard.py",
    "tests/pipeline/train/test_lora.py",
    "tests/pipeline/train/test_modalities.py",
    "tests/pipeline/train/test_gradient_caching.py",
    "tests/pipeline/train/test_step.py",
    "tests/pipeline/supervise/test_job.py",
)
"""Files of more than some fifteen seconds, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes take files from one queue, the longest come first, so that none is left with one at the end."""
    if ONE_OF_SEVERAL:
        place = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))  # stable: files stay together


SMALL = BaseSize(
    hidden=64, layers=2, heads=2, kv_heads=1, feed_forward=96, vision_width=32, vision_layers=1, vision_heads=2, vocabulary=400
)
"""Head size 32 (a multiple of 16), vision head size 16; about a hundred thousand parameters."""

CORPUS = (
    "a red circle is above the blue square.",
    "how many green triangles are in the picture?",
    "there are three yellow stars and one grey ring.",
    "what colour is the largest shape?",
    "the ring is left of the circle, and two squares are below it.",
    "represent the given image.\nfind the picture that fits:",
)


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2-VL folder without chorus tokens."""
    folder = tmp_path_factory.mktemp("base") / "base"
    write_base(folder, CORPUS, SMALL)
    return folder


@pytest.fixture(scope="session")
def checkpoint(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base_checkpoint` with four chorus tokens."""
    folder = tmp_path_factory.mktemp("chorus") / "chorus"
    add_chorus(base_checkpoint, folder, k=4)
    return folder


@pytest.fixture(scope="session")
def checkpoint_of(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small checkpoint with four chorus tokens by family: `checkpoint` itself for qwen2_vl, and one of each other family.

    Those have three vision blocks, windowed and full; Qwen3-VL also three decoder layers, so that two DeepStack levels are read.
    """

    @cache
    def write(family: str) -> Path:
        if family == "qwen2_vl":
            return checkpoint
        folder = tmp_path_factory.mktemp(family)
        size = SMALL.model_copy(update={"vision_layers": 3, "layers": 3 if family == "qwen3_vl" else SMALL.layers})
        write_base(folder / "base", CORPUS, size, family=family)
        add_chorus(folder / "base", folder / "chorus", k=4)
        return folder / "chorus"

    return write


@pytest.fixture(scope="session")
def encoder(checkpoint: Path) -> Encoder:
    """The encoder of `checkpoint`, with its default limits."""
    return Encoder(checkpoint)
