"""The run: MMEB-train folder and checkpoint -> the same folder's parquet files with negative columns, and a report.

Everything grows in a hidden folder beside the output, which takes the output's name when it is complete: whole or not at all. What is
there already - windows of embeddings, finished files - is kept when the same command runs again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data_prep.encode import Encoder, EncodeSettings
from data_prep.lock import hold
from data_prep.samples import DataError, RawSample
from data_prep.shards import write_json
from data_prep.sources import Part
from data_prep.sources.mmeb_train import REQUIRED, values
from data_prep.sources.parquet import Table
from data_prep.synthesize.inputs import data_files, mmeb_parts
from pipeline import comm
from pipeline.evaluate.open import Opened, open_checkpoint
from pipeline.evaluate.stored import checkpoint_digest
from pipeline.mine.choose import ChooseSettings, Chosen, choose
from pipeline.mine.columns import Stated, as_stated, write_copy
from pipeline.mine.corpus import Corpus, Sameness, read_corpus
from pipeline.mine.search import nearest
from pipeline.mine.windows import Windows, embed_windows

QUERIES = 4096
"""Queries that are searched at a time."""
MOST_NEVER = 256
"""Neighbours fetched beyond the last rank, to make up for own positives; a query with more of them has fewer ranks to draw from."""
REPORT = "report.json"


class MineSettings(BaseModel):
    """What to mine in, with which model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    """An MMEB-train folder, or its parent."""
    checkpoint: str
    """Checkpoint with chorus tokens: an exported folder, or a hub id."""
    out: Path
    """New folder for the parquet files."""
    split: str = "original"
    """MMEB-train's split: original or diverse_instruction."""
    image_root: Path | None = None
    """Folder the image paths start from, where it is not the data's own."""
    k: int | None = Field(default=None, gt=0)
    """Chorus tokens used, of those the checkpoint has; None: all."""
    encode: EncodeSettings = EncodeSettings()
    """Pixel and length limits; a side beyond them is no candidate, and a row that has it gets no negatives."""
    choose: ChooseSettings = ChooseSettings()
    """Which neighbours become negatives."""


def mine(settings: MineSettings, local_rank: int = 0, say: Callable[[str], None] = print) -> dict | None:
    """Run to the report (rank 0; None on the others), which also lies in OUT/report.json.

    Raises:
        DataError: unusable input, another job or other settings at the same output.
    """
    out = settings.out.absolute()
    parts = mmeb_parts([settings.root], settings.image_root, settings.split)
    encoder = Encoder(settings.checkpoint, settings.encode).shortened(settings.k)
    work = out.with_name(f".{out.name}.work")
    with _claimed(out, work, _fingerprint(settings, encoder, parts), say):
        opened = open_checkpoint(settings.checkpoint, encoder, _device(local_rank))
        subsets = [(name.rpartition("/")[2], list(own)) for name, own in groupby(parts, lambda part: part.source)]
        for name, own in subsets:
            _embed(opened, encoder, own, work / "windows" / name, name)
        comm.barrier()
        if comm.rank():
            return None
        report = {name: _mine_subset(own, work, name, settings.choose) for name, own in subsets}
        write_json(work / "out" / REPORT, report)
        os.replace(work / "out", out)
    shutil.rmtree(work)
    return report


@contextmanager
def _claimed(out: Path, work: Path, fingerprint: dict, say: Callable[[str], None]) -> Iterator[None]:
    """Rank 0 holds the working folder and checks that it is of this run; all ranks learn what is wrong."""
    problem, held = None, nullcontext()
    if comm.rank() == 0:
        try:
            if out.exists():
                raise DataError(f"{out}: found it there, expected no such folder; remove it, or name another --out")
            work.mkdir(parents=True, exist_ok=True)
            held = hold(out, work / ".lock", "mine")
            held.__enter__()
            _check_same(work, fingerprint, say)
        except DataError as error:
            problem = str(error)
    try:
        if found := comm.agree(problem):
            raise DataError(found)
        yield
    finally:
        held.__exit__(None, None, None)


def _fingerprint(settings: MineSettings, encoder: Encoder, parts: list[Part]) -> dict:
    """Everything the result depends on."""
    return {
        "checkpoint": checkpoint_digest(settings.checkpoint, encoder),
        "encoder": encoder.fingerprint(),
        "choose": settings.choose.model_dump(),
        "data": data_files(parts),
    }


def _check_same(work: Path, fingerprint: dict, say: Callable[[str], None]) -> None:
    path = work / "settings.json"
    if not path.is_file():
        write_json(path, fingerprint)
        return
    found = json.loads(path.read_text())
    if differing := [key for key in fingerprint if found.get(key) != fingerprint[key]]:
        raise DataError(
            f"{work}: found an unfinished run with another {', '.join(differing)}; expected the same, or negatives of two kinds would be "
            "mixed. Finish it with its own settings, remove this folder, or name another --out"
        )
    say(f"{len(list(work.glob('windows/*/*.npy')))} windows of embeddings are there already: skipped")


def _device(local_rank: int) -> str | None:
    import torch

    return f"cuda:{local_rank}" if torch.cuda.is_available() else None


def _embed(opened: Opened, encoder: Encoder, parts: list[Part], folder: Path, name: str) -> None:
    embed_windows(opened, encoder, read_corpus(parts).sides, folder, f"embed {name}")


def _mine_subset(parts: list[Part], work: Path, name: str, settings: ChooseSettings) -> dict:
    """Write one subset's files; returns its counts."""
    corpus = read_corpus(parts)
    windows = Windows(work / "windows" / name)
    chosen, usable = _choose_all(corpus, windows, settings)
    stated = _stated_targets(parts, corpus)
    negatives: list[list[Stated]] = []
    for number, row in enumerate(corpus.rows):
        own = [as_stated(side) for side in row.negatives] if isinstance(row, RawSample) else []
        negatives.append(own + [stated[n] for n in chosen[number].numbers] if number in chosen else own)
    start = 0
    for part in parts:
        write_copy(part.path, work / "out" / name / part.path.name, negatives[start : start + part.rows])
        start += part.rows
    mined = [one for one in chosen.values() if one.numbers]
    return {
        "rows": len(corpus.rows),
        "targets": corpus.targets,
        "unusable rows": len(corpus.rows) - usable,
        "rows with mined negatives": len(mined),
        "share with mined negatives": round(len(mined) / len(corpus.rows), 4),
        "rows with any negatives": sum(map(bool, negatives)),
        "mined negatives": sum(len(one.numbers) for one in mined),
        "ranks considered": sum(one.considered for one in chosen.values()),
        "dropped as probable false negatives": sum(one.dropped for one in chosen.values()),
    }


def _choose_all(corpus: Corpus, windows: Windows, settings: ChooseSettings) -> tuple[dict[int, Chosen], int]:
    """{row: what was chosen for it} and how many rows could be used; a block of queries at a time."""
    same = Sameness(corpus, windows.digests())
    pairs = [(n, row) for n, row in enumerate(corpus.rows) if isinstance(row, RawSample)]
    unstatable = {n for n in range(corpus.targets) if len(corpus.sides[n].images) > 1}  # the columns hold one picture a negative
    out: dict[int, Chosen] = {}
    for start in range(0, len(pairs), QUERIES):
        some = pairs[start : start + QUERIES]
        queries_QD = windows.rows([corpus.number[row.query] for _, row in some])
        positives_QD = windows.rows([corpus.number[row.positive] for _, row in some])
        own_Q = (queries_QD * positives_QD).sum(axis=1)  # NaN where a side could not be used
        some = [(q, n, row, same.never(row) | unstatable) for q, (n, row) in enumerate(some) if np.isfinite(own_Q[q])]
        if not some:
            continue
        reach = settings.last_rank + min(MOST_NEVER, max(len(never) for *_, never in some))
        k = min(reach, corpus.targets)
        scores_Qk, found_Qk = nearest(queries_QD[[q for q, *_ in some]], windows.blocks(corpus.targets), k)
        for place, (q, n, row, never) in enumerate(some):
            out[n] = choose(row.id, found_Qk[place], scores_Qk[place], float(own_Q[q]), never, settings)
    return out, len(out)


def _stated_targets(parts: list[Part], corpus: Corpus) -> dict[int, Stated]:
    """{target: its text and image path as the columns of its first row state them}."""
    out: dict[int, Stated] = {}
    rows = iter(corpus.rows)
    for part in parts:
        with Table(part.path, REQUIRED, {}) as table:
            for (_, cells), row in zip(table.slice(0, part.rows), rows, strict=False):
                if isinstance(row, RawSample):
                    text, paths = cells["pos_text"] or "", [*values(cells["pos_image_path"]), ""]
                    out.setdefault(corpus.number[row.positive], (text, paths[0]))
    return out
