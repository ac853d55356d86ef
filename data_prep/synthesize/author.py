"""One MMEB-train row -> the questions and answers a model writes about its image: what runs in the workers.

Invariant: what is written about a row depends on the row, the prompts, the checkpoint and the seed alone, never on its neighbours.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from PIL import Image

from data_prep.images import ImageError, open_image
from data_prep.samples import ImageRef
from data_prep.sources import Part
from data_prep.sources.common import plain
from data_prep.sources.mmeb_train import OPTIONAL, REQUIRED, values
from data_prep.sources.parquet import Table
from data_prep.synthesize.dialect import Request
from data_prep.synthesize.engine import Engine, EngineName, WriteSettings, open_engine
from data_prep.synthesize.prompts import Prompt

Side = Literal["auto", "qry", "pos"]


@dataclass(frozen=True)
class Chunk:
    """Rows of one part by number: the unit of work. `first`: number of the part's row 0 over all parts."""

    part: Part
    rows: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Job:
    """What every author is told."""

    checkpoint: str
    engine: EngineName
    write: WriteSettings
    prompts: tuple[Prompt, ...]
    side: Side
    seed: int


class Author:
    """Opens the checkpoint with its first chunk and keeps it."""

    def __init__(self, job: Job):
        self.job = job

    @cached_property
    def engine(self) -> Engine:
        """The weights in memory."""
        return open_engine(self.job.engine, self.job.checkpoint, self.job.write)

    def work(self, chunk: Chunk) -> list[dict]:
        """A journal entry for every row of the chunk: {"row", "side", "turns"}, or {"row", "reject"} with the reason."""
        entries, shown = [], []
        for number, row in read_rows(chunk.part, chunk.rows):
            entry: dict = {"row": chunk.first + number}
            entries.append(entry)
            side = chosen_side(row, self.job.side)
            if side is None:
                entry["reject"] = "no_image"
                continue
            try:
                pictures = tuple(open_image(ImageRef(name, chunk.part.root)) for name in side_images(row, side))
            except ImageError as error:
                entry["reject"] = f"image_{error}"
                continue
            entry["side"] = side
            shown.append((entry, chunk.part.row_id(number), side_text(row, side), pictures))
        for (entry, *_), turns in zip(shown, self._turns(shown), strict=True):
            entry["turns"] = turns
        return entries

    def _turns(self, shown: list[tuple]) -> list[list[dict]]:
        """For every row one turn per prompt: first all questions are written, then all answers."""
        turns = [
            {"prompt_id": prompt.id, "seed": turn_seed(self.job.seed, row_id, prompt.id), "question": prompt.filled(text), "finished": True}
            for _, row_id, text, _ in shown
            for prompt in self.job.prompts
        ]
        pictures = [own for *_, own in shown for _ in self.job.prompts]
        asked = [i for i in range(len(turns)) if self.job.prompts[i % len(self.job.prompts)].ask]
        self._reply(asked, turns, pictures, "question")
        for i in asked:
            turns[i]["question"] = first_question(turns[i]["question"])
        self._reply([i for i, turn in enumerate(turns) if turn["question"]], turns, pictures, "answer")
        width = len(self.job.prompts)
        return [turns[start : start + width] for start in range(0, len(turns), width)]

    def _reply(self, which: Sequence[int], turns: list[dict], pictures: list[tuple[Image.Image, ...]], key: str) -> None:
        requests = [Request(pictures[i], turns[i]["question"], turns[i]["seed"]) for i in which]
        for i, reply in zip(which, self.engine.write(requests) if requests else (), strict=True):
            turns[i][key] = reply.text
            turns[i]["finished"] &= reply.finished


def read_rows(part: Part, numbers: Sequence[int]) -> list[tuple[int, dict]]:
    """(number, columns as they stand in the file) for rows of a part, ascending."""
    wanted = set(numbers)
    with Table(part.path, REQUIRED, OPTIONAL) as table:
        return [(number, row) for number, row in table.slice(min(wanted), max(wanted) + 1) if number in wanted]


def chosen_side(row: dict, side: Side) -> str | None:
    """Which side of a row is asked about: the query where it has an image, else the positive; None: no image there."""
    sides = ("qry", "pos") if side == "auto" else (side,)
    return next((name for name in sides if side_images(row, name)), None)


def side_images(row: dict, side: str) -> list[str]:
    """Image paths of a side, as the data states them."""
    return [name for name in values(row[f"{side}_image_path"]) if name]


def side_text(row: dict, side: str) -> str:
    """MMEB's text of a side, without image placeholder and outer whitespace."""
    return plain(row["qry" if side == "qry" else f"{side}_text"])


def turn_seed(seed: int, row_id: str, prompt_id: str) -> int:
    """The seed of one turn: 48 bits, so that JSON readers keep it whole."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{row_id}/{prompt_id}".encode()).digest()[:6])


def first_question(text: str) -> str:
    """The question of a reply that may say more: its first line with a word, without a heading like "Question:" and without quotes."""
    lines = (re.sub(r"^\W*question\b\W*", "", line, flags=re.IGNORECASE).strip().strip("\"'“”*").strip() for line in text.splitlines())
    return next((line for line in lines if re.search(r"\w", line)), "")
