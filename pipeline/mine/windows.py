"""Sides -> embeddings and picture digests on disk, a window of sides at a time.

    <folder>/000012.npy    float32 [n, D], unit length; a row of NaN where a side could not be used
    <folder>/000012.json   {"digests": [[...], ...], "unusable": {place: reason}}

A window that is there is whole and is not made again. Every rank makes its share; none needs more memory than a window.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.encode import Encoder
from data_prep.samples import DataError, Side
from data_prep.sequence import TokenSequence
from data_prep.shards import atomic_file, write_json
from pipeline import comm
from pipeline.evaluate.embed import embed
from pipeline.evaluate.open import Opened

WINDOW = 2048
"""Sides whose images are in memory at a time."""


def embed_windows(opened: Opened, encoder: Encoder, sides: Sequence[Side], folder: Path, title: str, window: int = WINDOW) -> None:
    """Make this rank's windows that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(sides), window)
    for number in tqdm(range(comm.rank(), len(starts), comm.world_size()), desc=title, disable=None, leave=False):
        path = folder / f"{number:06d}.npy"
        if not path.is_file():
            _make(opened, encoder, sides[starts[number] : starts[number] + window], path)


def _make(opened: Opened, encoder: Encoder, sides: Sequence[Side], path: Path) -> None:
    sequences: dict[int, TokenSequence] = {}
    unusable: dict[int, str] = {}
    for place, side in enumerate(sides):
        try:
            sequences[place] = encoder.sequence(side)
        except DataError as error:
            unusable[place] = str(error)
    # digests of the decoded, resized pictures: two files of the same picture agree
    digests = [[hashlib.sha256(i.data).hexdigest()[:32] for i in sequences[p].images] if p in sequences else [] for p in range(len(sides))]
    vectors = np.full((len(sides), opened.model.backbone.config.get_text_config().hidden_size), np.nan, np.float32)
    if sequences:
        vectors[list(sequences)] = embed(opened.model, opened.collator, list(sequences.values())).numpy()
    write_json(path.with_suffix(".json"), {"digests": digests, "unusable": unusable})
    with atomic_file(path) as temporary, temporary.open("wb") as file:  # last: the window counts from here on
        np.save(file, vectors)


class Windows:
    """The finished windows of one subset, memory-mapped."""

    def __init__(self, folder: Path):
        self.paths = sorted(folder.glob("*.npy"))
        self._vectors = [np.load(path, mmap_mode="r") for path in self.paths]
        self._starts = np.cumsum([0, *map(len, self._vectors)])

    def digests(self) -> list[tuple[str, ...]]:
        """For every side the digests of its pictures."""
        return [tuple(own) for path in self.paths for own in json.loads(path.with_suffix(".json").read_text())["digests"]]

    def rows(self, numbers: Sequence[int]) -> np.ndarray:
        """float32 [len(numbers), D]: the embeddings of these sides, NaN where one could not be used."""
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        return np.stack([self._vectors[w][n - self._starts[w]] for w, n in zip(which, numbers, strict=True)])

    def blocks(self, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(side numbers, embeddings) of the usable ones among the first `stop` sides, a window at a time."""
        for start, vectors in zip(self._starts, self._vectors, strict=False):
            block = np.asarray(vectors[: max(0, stop - start)])
            usable = np.flatnonzero(np.isfinite(block).all(axis=1))
            yield start + usable, block[usable]
