"""Which predictions a page shows, and with what: by a rule, not by hand.

Retrieval: for each meta-task the first right and the first wrong query of its sets, set by set, until there are enough of each. Answers:
for each benchmark the first row of each outcome: both modes right, one of them, neither.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from data_prep.samples import DataError, ImageRef, Side
from data_prep.sources.benchmarks import Benchmark
from data_prep.sources.mmeb_eval import EvalSet
from pipeline.evaluate.metrics import META_TASKS
from pipeline.evaluate.page.clean import brief
from pipeline.evaluate.page.pictures import Picture, Pictures
from pipeline.evaluate.record import question_digest, retrieval_digest
from pipeline.evaluate.report import Report

EACH = 3
"""Right and wrong queries shown per meta-task."""
OUTCOMES = {
    (True, True): "both right",
    (True, False): "only native right",
    (False, True): "only compressed right",
    (False, False): "neither right",
}


@dataclass(frozen=True)
class Shown:
    """A query, target or candidate as a page shows it. `score` is its cosine, where it has one."""

    text: str
    pictures: list[Picture]
    score: float | None = None
    true: bool = False


@dataclass(frozen=True)
class Retrieved:
    """One query with its best candidates, and its true target where that is not among them."""

    set_name: str
    row: int
    right: bool
    query: Shown
    top: list[Shown]
    missed: Shown | None
    true_rank: int
    candidates: int

    @property
    def shared(self) -> str:
        """The text that all candidates shown have beside their pictures (an instruction), "" where they differ."""
        seen = [*self.top, *([self.missed] if self.missed else [])]
        same = len({one.text for one in seen}) == 1 and all(one.pictures for one in seen)
        return seen[0].text if same else ""


@dataclass(frozen=True)
class Answered:
    """One question with both answers; `modes`: mode -> (what was said, whether it counts as right)."""

    benchmark: str
    index: str
    outcome: str
    question: str
    options: Mapping[str, str]
    expected: str
    pictures: list[Picture]
    modes: Mapping[str, tuple[str, bool]]


def retrieval_gallery(report: Report, folder: Path, sets: Sequence[EvalSet], pictures: Pictures) -> dict[str, list[Retrieved]]:
    """Examples by meta-task, right ones first. `sets`: the data, for its pictures; may lack some or all."""
    known = {eval_set.name: eval_set for eval_set in sets}
    out: dict[str, list[Retrieved]] = {}
    for meta in (*META_TASKS, None):
        names = [row.name for row in report.retrieval if row.meta == meta]
        examples = [pick for hit in (True, False) for pick in _in_turn(folder, names, hit)]
        if examples:
            out[meta or "other"] = [_retrieved(name, row, known.get(name), pictures) for name, row in examples]
    return out


def _in_turn(folder: Path, names: Sequence[str], hit: bool) -> list[tuple[str, dict]]:
    """EACH rows with this outcome: the first of every set, then the second of every set, and so on."""
    by_set = []
    for name in names:
        found: list[tuple[str, dict]] = []
        for row in predictions(folder, name):
            if row["hit"] == hit:
                found.append((name, row))
            if len(found) == EACH:
                break
        by_set.append(found)
    turns = chain.from_iterable(zip_longest(*by_set))
    return [pick for pick in turns if pick is not None][:EACH]


def _retrieved(name: str, row: dict, eval_set: EvalSet | None, pictures: Pictures) -> Retrieved:
    sides: dict[int | None, Side] = {}
    if eval_set is not None:
        stored = eval_set.rows[row["row"]] if row["row"] < len(eval_set.rows) else None
        _check(stored is not None and retrieval_digest(stored) == row["digest"], name, f"row {row['row']}")
        sides = {None: stored.query} | {i: stored.candidates[i] for i in (0, *(one["candidate"] for one in row["top"]))}

    def show(stored: dict, number: int | None) -> Shown:
        own = {image.name: image for image in sides[number].images} if number in sides else {}
        shown = [pictures.show(image, own.get(image)) for image in stored["images"]]
        return Shown(brief(without_placeholder(stored["text"])), shown, stored.get("score"), number == 0)

    top = [show(one, one["candidate"]) for one in row["top"]]
    missed = None if any(one.true for one in top) else show(row["true"] | {"score": row["true_score"]}, 0)
    return Retrieved(name, row["row"], row["hit"], show(row["query"], None), top, missed, row["true_rank"], row["candidates"])


def answer_gallery(report: Report, folder: Path, benchmarks: Sequence[Benchmark], pictures: Pictures) -> dict[str, list[Answered]]:
    """Examples by benchmark, for those that were answered in both modes."""
    known = {benchmark.name: benchmark for benchmark in benchmarks}
    answered = dict.fromkeys((row.name, row.mode) for row in report.answers)
    both = [name for name, mode in answered if mode == "native" and (name, "compressed") in answered]
    return {name: _answers(folder, name, known.get(name), pictures) for name in both}


def _answers(folder: Path, name: str, benchmark: Benchmark | None, pictures: Pictures) -> list[Answered]:
    known = {row.index: row for row in benchmark.rows} if benchmark else {}
    found: dict[str, Answered] = {}
    for native, compressed in zip(predictions(folder, f"{name}.native"), predictions(folder, f"{name}.compressed"), strict=True):
        right = (native["points"] == 1, compressed["points"] == 1)
        if OUTCOMES[right] not in found:
            own: tuple[ImageRef | None, ...] = (None,) * len(native["images"])
            if benchmark:
                row = known.get(native["index"])
                _check(row is not None and question_digest(native["kind"], row) == native["digest"], name, f"index {native['index']}")
                own = row.images
            shown = [pictures.show(image, ref) for image, ref in zip(native["images"], own, strict=True)]
            modes = {"native": (brief(native["text"]), right[0]), "compressed": (brief(compressed["text"]), right[1])}
            found[OUTCOMES[right]] = Answered(
                name, native["index"], OUTCOMES[right], brief(native["question"]), native["options"], native["expected"], shown, modes
            )
        if len(found) == len(OUTCOMES):
            break
    return [found[outcome] for outcome in OUTCOMES.values() if outcome in found]


def _check(same: bool, name: str, where: str) -> None:
    if not same:
        raise DataError(f"{name}, {where}: found other data than was scored; expected the same, for its pictures. Name that data")


def predictions(folder: Path, name: str) -> Iterator[dict]:
    """The rows of one prediction file.

    Raises:
        DataError: the file cannot be read, or is of a version whose rows did not say what they asked.
    """
    path = folder / "predictions" / f"{name}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if "digest" not in row:
                    raise DataError(f"{path}: found rows that do not say what they asked; expected this version's. Evaluate again")
                yield row
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected the predictions behind scores.json. Evaluate again") from error


def without_placeholder(text: str) -> str:
    """MMEB's mark for "an image stands here" says nothing beside the image."""
    return text.replace("<|image_1|>", "").strip()
