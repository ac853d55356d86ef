"""The files of the embedded data set, in the formats in which the field's data really comes.

    MMEB-train/<Subset>/original-00000-of-00001.parquet    MMEB-train/images/<Subset>/Train/*.png
    MMEB-eval/<Subset>/test-00000-of-00001.parquet         MMEB-eval/images/<Subset>/*.png     MMEB-eval/tasks.json
    sharegpt4v/shapes_captions.json                        sharegpt4v/images/shapes/*.png
    synqa/<Subset>.jsonl                                   (shows images of MMEB-train)
    benchmarks/ShapesBench_{MCQ,YN,VQA}.tsv                (hold their images)

Invariant: a picture is one file, however many rows show it; every file is a pure function of the rows asked for and the seed.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.embedded import exams
from data_prep.embedded.dialogues import ask, dialogue
from data_prep.embedded.draw import Picture, png
from data_prep.embedded.pairs import PLACEHOLDER, TASKS, Half, Pair, Task, train_pairs
from data_prep.embedded.pools import Trial, trials
from data_prep.embedded.sampling import stream
from data_prep.embedded.scenes import Part

TRAIN, EVAL = "MMEB-train", "MMEB-eval"
SYNQA_SUBSETS = ("ShapesI2T", "ShapesCls", "ShapesVQA")
Written = list[tuple[Pair, dict[str, str]]]
"""Training pairs and the parquet rows that were made of them."""


class Gallery:
    """Image files of one folder; `path` writes a picture the first time it is shown.

    Args:
        base: what paths in the data are relative to.
        folder: where the files go, below `base`.
        stem: how their names begin.
    """

    def __init__(self, base: Path, folder: str, stem: str) -> None:
        self._base, self._folder, self._stem = base, folder, stem
        self._names: dict[Picture, str] = {}
        (base / folder).mkdir(parents=True)

    def path(self, shown: Picture | None) -> str:
        """The picture's path relative to the base; "" for none."""
        if shown is None:
            return ""
        if shown not in self._names:
            suffix = "" if shown.crop is None else "_crop"
            name = f"{self._folder}/{self._stem}{len(self._names)}{suffix}.png"
            (self._base / name).write_bytes(png(shown))
            self._names[shown] = name
        return self._names[shown]

    def __len__(self) -> int:
        return len(self._names)


def write_train(root: Path, task: Task, rows: int, seed: int) -> tuple[Written, int]:
    """One MMEB-train subset; the pairs with their rows, and how many images."""
    gallery = Gallery(root / TRAIN, f"images/{task.name}/Train", f"{task.name}_image_")
    written = [(pair, _train_row(pair, task, gallery)) for pair in train_pairs(task, rows, seed)]
    columns = ["qry", "qry_image_path", "pos_text", "pos_image_path"]
    columns += ["neg_text", "neg_image_path"] if task.negatives else []
    schema = pa.schema([(name, pa.string()) for name in columns])
    _parquet(root / TRAIN / task.name / "original-00000-of-00001.parquet", [row for _, row in written], schema)
    return written, len(gallery)


def _train_row(pair: Pair, task: Task, gallery: Gallery) -> dict[str, str]:
    halves = {"qry": pair.query, "pos": pair.target}
    if task.negatives:
        halves["neg"] = pair.negative or Half("")
    row = {}
    for name, half in halves.items():
        row["qry" if name == "qry" else f"{name}_text"] = half.text
        row[f"{name}_image_path"] = gallery.path(half.picture)
    return row


def write_eval(root: Path, task: Task, part: Part, queries: int, seed: int) -> tuple[str, int]:
    """One MMEB-eval subset; its name, and how many images."""
    name = eval_name(task, part)
    gallery = Gallery(root / EVAL / "images", name, f"{name}_image_")
    text, texts = pa.string(), pa.list_(pa.string())
    schema = pa.schema([("qry_text", text), ("qry_img_path", text), ("tgt_text", texts), ("tgt_img_path", texts)])
    rows = [_eval_row(trial, gallery) for trial in trials(task, part, queries, seed)]
    _parquet(root / EVAL / name / "test-00000-of-00001.parquet", rows, schema)
    return name, len(gallery)


def eval_name(task: Task, part: Part) -> str:
    """The folder of a task's evaluation in one part."""
    return task.name + ("OOD" if part == Part.OOD else "")


def _eval_row(trial: Trial, gallery: Gallery) -> dict[str, str | list[str]]:
    return {
        "qry_text": trial.query.text,
        "qry_img_path": gallery.path(trial.query.picture),
        "tgt_text": [half.text for half in trial.candidates],
        "tgt_img_path": [gallery.path(half.picture) for half in trial.candidates],
    }


def write_tasks(root: Path) -> None:
    """MMEB-eval/tasks.json: meta-task and split of every evaluation subset."""
    sets = [(task, part) for task in TASKS for part in eval_parts(task)]
    stated = {eval_name(task, part): {"meta": task.meta, "split": part.upper()} for task, part in sets}
    _json(root / EVAL / "tasks.json", stated)


def eval_parts(task: Task) -> tuple[Part, ...]:
    """The parts in which a task is evaluated."""
    return (Part.IND, Part.OOD) if task.ood else (Part.IND,)


def write_sharegpt4v(root: Path, rows: int, seed: int) -> int:
    """Conversations as one JSON array; how many images. `<image>` ends the first question in one row of five."""
    base = root / "sharegpt4v"
    gallery = Gallery(base, "images/shapes", "")
    records = []
    for index in range(rows):
        rng = stream(seed, "sharegpt4v", index)
        made = dialogue(rng)
        record = {"id": f"shapes_{index:06d}"}
        if made.picture:
            record["image"] = gallery.path(made.picture)
        mark = "" if made.picture is None else rng.choices(["<image>\n{}", "{}\n<image>"], [4, 1])[0]
        records.append(record | {"conversations": messages(made.turns, mark)})
    _json(base / "shapes_captions.json", records)
    return len(gallery)


def messages(turns: Sequence[tuple[str, str]], first: str) -> list[dict[str, str]]:
    """Turns as ShareGPT4V's messages; `first`, if not empty, is a format into which the first question goes."""
    out = []
    for number, (question, answer) in enumerate(turns):
        value = first.format(question) if first and not number else question
        out += [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]
    return out


def write_synqa(root: Path, written: dict[str, Written], seed: int) -> int:
    """Question-answer records on every row of some MMEB-train subsets: rows that serve both losses. How many."""
    folder = root / "synqa"
    folder.mkdir(parents=True)
    count = 0
    for name in SYNQA_SUBSETS:
        records = [synqa_record(name, row, pair, stored, seed) for row, (pair, stored) in enumerate(written[name])]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        count += len(records)
    return count


def synqa_record(subset: str, row: int, pair: Pair, stored: dict[str, str], seed: int) -> dict:
    """One record about the query image of an MMEB-train row, with that row's own contrast."""
    rng = stream(seed, "synqa", subset, row)
    embed_text = pair.query.text.removeprefix(PLACEHOLDER).strip()
    turns = ask(pair.query.picture.scene, rng)
    contrast = {"qry": stored["qry"]} | {key: value for key, value in stored.items() if key[:3] in ("pos", "neg")}
    return {
        "id": f"mmeb-syn/{subset}/{row}/0",
        "source": "mmeb_synqa",
        "subset": subset,
        "split": "original",
        "row": row,
        "side": "qry",
        "image": stored["qry_image_path"],
        "embed_text": embed_text,
        "conversations": messages(turns, f"<image>\n{embed_text}\n{{}}"),
        "generator": "data_prep.embedded",
        "gen": {"prompt_id": "v1", "temperature": 0, "seed": seed},
        "contrast": contrast,
    }


def write_benchmarks(root: Path, rows: int, seed: int) -> dict[str, int]:
    """The three TSV files, and how many questions each holds."""
    tables = {
        "ShapesBench_MCQ": exams.multiple_choice(rows, seed),
        "ShapesBench_YN": exams.yes_no(rows, seed),
        "ShapesBench_VQA": exams.open_ended(rows, seed),
    }
    (root / "benchmarks").mkdir(parents=True)
    for name, table in tables.items():
        with open(root / "benchmarks" / f"{name}.tsv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    return {name: len(table) for name, table in tables.items()}


def _parquet(path: Path, rows: Iterable[dict], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
