"""Where the time of one preparing worker goes: every call of each step timed, in this process, on one thread."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from PIL import Image
from transformers import PreTrainedTokenizerBase

from data_prep import encode, job, shards
from data_prep.job import PrepareSettings, plan
from data_prep.sources import discover

STEPS = {
    "decode": (encode, "open_image"),
    "resize": (Image.Image, "resize"),
    "encode the picture": (Image.Image, "save"),
    "tokenize": (PreTrainedTokenizerBase, "__call__"),
    "digest": (shards, "file_digest"),
    "flush to disk": (os, "fsync"),
}
"""Step -> what is timed. None of them calls another."""


def profile(settings: PrepareSettings, rows: int) -> list[str]:
    """Lines of a table: milliseconds a row and share of every step, and what is left over (tables read, roles, arrow built and written)."""
    parts = discover(settings.roots[0], settings.image_root)
    out = settings.out.with_name("profiled")
    out.mkdir()
    job._encoder(settings.checkpoint, settings.encode)  # loaded once per worker: not a cost of rows
    seconds: Counter[str] = Counter()
    with _timed(seconds):
        start = time.perf_counter()
        for piece in plan(parts, settings.rows_per_shard):
            job.make_shard(piece, settings.checkpoint, settings.encode, out)
        whole = time.perf_counter() - start
    seconds["the rest"] = whole - sum(seconds.values())
    lines = [f"\none worker, {1000 * whole / rows:.2f} ms a row:"]
    return lines + [f"  {step:20}{1000 * own / rows:8.3f} ms {own / whole:7.1%}" for step, own in seconds.most_common()]


@contextmanager
def _timed(seconds: Counter[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for step, (owner, name) in STEPS.items():
            stack.enter_context(patch.object(owner, name, _clocked(getattr(owner, name), step, seconds)))
        yield


def _clocked(function: Callable, step: str, seconds: Counter[str]) -> Callable:
    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[step] += time.perf_counter() - start

    return call
