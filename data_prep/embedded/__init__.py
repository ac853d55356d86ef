"""The embedded default data set: procedurally drawn scenes in the field's real on-disk formats, without any download.

It runs through the same readers as the real corpora, and a two-million-parameter model can learn it in minutes on a CPU.
Invariant: the whole tree is a pure function of the seed and of the number of rows; training rows of a smaller set are the
first rows of a larger one; training and evaluation share no image, no scene and no caption (see `scenes`).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from data_prep.embedded import writers
from data_prep.embedded.dialogues import dialogue
from data_prep.embedded.pairs import PLACEHOLDER, TASKS, Task, train_pairs
from data_prep.embedded.sampling import stream
from data_prep.embedded.scenes import COLORS, GLYPHS, PLACES, SHAPES, plural
from data_prep.samples import DataError

DEFAULT_ROWS = 3000
CONVERSATIONS = 3
"""Conversations for each row of the largest subsets: answers are learnt later than embeddings."""
_SAMPLED = 600
"""Rows of each kind from which the tokenizer's corpus is taken."""


def write_embedded(root: Path, rows: int = DEFAULT_ROWS, seed: int = 0) -> dict[str, dict[str, int]]:
    """Write the data set; returns {"MMEB-train/ShapesI2T": {"rows": ..., "images": ...}, ...}.

    Args:
        root: a folder that does not exist or is empty. It appears only when all of it is written.
        rows: rows of the largest training subsets; the others are shares of it.
        seed: another seed, other scenes; the held-out pairs and the split stay the same.

    Raises:
        DataError: `root` is not empty, or rows is less than 1.
    """
    root = Path(root)
    if rows < 1:
        raise DataError(f"rows: found {rows}, expected at least 1")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: found data there, expected no folder or an empty one; remove it or name another")
    unfinished = root.with_name(f"{root.name}.tmp-{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        summary = _write(unfinished, rows, seed)
        os.replace(unfinished, root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary


def _write(root: Path, rows: int, seed: int) -> dict[str, dict[str, int]]:
    summary, written = {}, {}
    for task in TASKS:
        written[task.name], images = writers.write_train(root, task, _share(task, rows), seed)
        summary[f"{writers.TRAIN}/{task.name}"] = {"rows": len(written[task.name]), "images": images}
    queries = evaluation_rows(rows)
    for task in TASKS:
        for part in writers.eval_parts(task):
            name, images = writers.write_eval(root, task, part, queries, seed)
            summary[f"{writers.EVAL}/{name}"] = {"rows": queries, "images": images}
    writers.write_tasks(root)
    spoken = rows * CONVERSATIONS
    summary["sharegpt4v"] = {"rows": spoken, "images": writers.write_sharegpt4v(root, spoken, seed)}
    summary["synqa"] = {"rows": writers.write_synqa(root, written, seed), "images": 0}
    for name, count in writers.write_benchmarks(root, queries, seed).items():
        summary[f"benchmarks/{name}"] = {"rows": count, "images": 0}
    return summary


def evaluation_rows(rows: int) -> int:
    """Queries per evaluation subset and questions per benchmark: a twenty-fifth of `rows`, from 8 to MMEB's own 1000."""
    return max(8, min(1000, rows // 25))


def _share(task: Task, rows: int) -> int:
    return max(1, round(rows * task.share))


def corpus(seed: int = 0) -> Iterator[str]:
    """A few thousand different lines that hold every word of the set, for training a tokenizer.

    They come from the functions that write the data, with markers of images taken out.
    """
    lines = dict.fromkeys(line.strip() for text in _texts(seed) for line in text.splitlines())
    return (line for line in lines if line)


def _texts(seed: int) -> Iterator[str]:
    yield " ".join([*COLORS, *SHAPES, *map(plural, SHAPES), *GLYPHS, *PLACES])
    for task in TASKS:
        for pair in train_pairs(task, round(_SAMPLED * task.share), seed):
            yield from (half.text.removeprefix(PLACEHOLDER) for half in (pair.query, pair.target))
    for index in range(_SAMPLED):
        for turn in dialogue(stream(seed, "sharegpt4v", index)).turns:
            yield from turn
