"""The ways of embedding that are timed, from sides (words, and files of pictures) to one vector for every occurrence."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from sentence_transformers import SentenceTransformer

from data_prep.encode import Encoder
from data_prep.sequence import TokenSequence
from pipeline.evaluate.embed import Batches, by_length, embed_batches
from pipeline.evaluate.open import Opened
from pipeline.evaluate.shared_head import shared_length
from pipeline.evaluate.units import Item, plan
from pipeline.evaluate.worker import compute, vectors
from tests.benchmarks.embedding_speed.sentence import item
from tests.benchmarks.embedding_speed.task import Task

OURS, ALL = "ours, as evaluated", "ours, all at once"
EVERY, NO_HEAD, GIVEN = "ours, every occurrence", "ours, head in every sequence", "ours, order as given, padded"
LIBRARY, LIBRARY_ROWS = "sentence-t., distinct", "sentence-t., row by row"
BATCH_TOKENS = 8192

Order = Callable[[Sequence[int], int], Batches]


def ways(opened: Opened, encoder: Encoder, library: SentenceTransformer, batch: int, task: Task) -> dict[str, Callable[[], np.ndarray]]:
    """Every way by name; each returns a vector per occurrence, float32 [number of sides, D]."""
    return {
        LIBRARY_ROWS: partial(_row_by_row, library, batch, task),
        LIBRARY: partial(_once, library, batch, task),
        GIVEN: partial(_ours, opened, encoder, task, as_given),
        NO_HEAD: partial(_ours, opened, encoder, task, by_length, head=False),
        EVERY: partial(_ours, opened, encoder, task, by_length, once=False),
        ALL: partial(_ours, opened, encoder, task, by_length),
        OURS: partial(_evaluated, opened, encoder, task),
    }


def encodings(way: str, task: Task) -> int:
    """How many sides a way puts through the model."""
    return len(task.sides) if way in (EVERY, LIBRARY_ROWS) else len(task.distinct)


def as_given(lengths: Sequence[int], batch_tokens: int) -> Batches:
    """One sequence a row, padded to the longest of its batch, in the order given."""
    batches: list[list[list[int]]] = []
    longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if not batches or longest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
            longest = length
        batches[-1].append([i])
    return batches


def _ours(opened: Opened, encoder: Encoder, task: Task, order: Order, head: bool = True, once: bool = True) -> np.ndarray:
    sides = task.distinct if once else task.sides
    sequences: list[TokenSequence] = [encoder.sequence(side) for side in sides]
    shared = shared_length(sequences, encoder.image_id) if head else 0
    batches = order([len(sequence) - shared for sequence in sequences], BATCH_TOKENS)
    vectors = embed_batches(opened.model, opened.collator, sequences, batches, shared=shared)[0].numpy()
    return vectors[task.place] if once else vectors


def _evaluated(opened: Opened, encoder: Encoder, task: Task) -> np.ndarray:
    """Through the evaluation's own units: every file is read once to be measured and digested, and once more to be embedded."""
    planned = plan("sides", "embed", [Item(side) for side in task.sides], encoder, 0, {})
    found = [vectors(compute(unit, opened)) for unit in planned.units]
    return np.stack([found[unit][place] for unit, place in planned.places])


def _once(library: SentenceTransformer, batch: int, task: Task) -> np.ndarray:
    vectors = library.encode([item(side) for side in task.distinct], batch_size=batch, show_progress_bar=False)
    return vectors[task.place]


def _row_by_row(library: SentenceTransformer, batch: int, task: Task) -> np.ndarray:
    """As one calls it: a query and its candidates at a time."""
    sides = [task.sides[row] for row in task.rows]
    return np.concatenate([library.encode([item(side) for side in row], batch_size=batch, show_progress_bar=False) for row in sides])
