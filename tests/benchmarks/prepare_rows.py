"""The rows that both sides of `prepare_speed` make ready: some of any MMEB-train folder, as a small MMEB-train folder."""

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from data_prep.samples import RawSample
from data_prep.sources import discover, read


@dataclass(frozen=True)
class Rows:
    """`root` holds the tables, `images` the pictures by subset; how many rows, sides and pictures on sides there are."""

    root: Path
    images: Path
    count: int
    sides: int
    pictures: int


def choose(data: Path, count: int, out: Path, seed: int = 0) -> Rows:
    """`count` rows of `data`, drawn over all its usable rows; pictures are linked, or copied where that cannot be."""
    parts = [part for part in discover(data) if part.reader == "mmeb_train"]
    usable = [(part, row) for part in parts for row, raw in enumerate(read(part, 0, part.rows)) if isinstance(raw, RawSample)]
    drawn = random.Random(seed).sample(usable, min(count, len(usable)))
    sides = pictures = 0
    for part in parts:
        own = sorted(row for owner, row in drawn if owner is part)
        if own:
            subset = part.source.rpartition("/")[2]
            (out / "rows" / subset).mkdir(parents=True, exist_ok=True)
            pq.write_table(pq.read_table(part.path).take(own), out / "rows" / subset / part.path.name)
            chosen = set(own)
            samples = (raw for row, raw in enumerate(read(part, 0, part.rows)) if row in chosen)
            for side in (side for raw in samples for side in (raw.query, raw.positive, *raw.negatives)):
                sides, pictures = sides + 1, pictures + len(side.images)
                for image in side.images:
                    _link(image.root / image.name, out / "images" / subset / image.name)
    (out / "images").mkdir(exist_ok=True)
    return Rows(out / "rows", out / "images", len(drawn), sides, pictures)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
