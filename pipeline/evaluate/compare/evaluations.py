"""A finished evaluation read back: what one checkpoint made of every question, and that several of them were asked the same.

    <folder>/scores.json                            as `pipeline.evaluate.report` writes it
    <folder>/predictions/<set>.jsonl                a retrieval set, a row per query
    <folder>/predictions/<benchmark>.<mode>.jsonl   a benchmark answered natively or from the chorus

Scores are counted anew from the predictions by the rules of `pipeline.evaluate.metrics`. A benchmark whose scores.json says otherwise is
scored by a rule that this file does not know: it is left out, and named. For a retrieval set that is an error.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.samples import DataError
from pipeline.evaluate.compare.statistics import Outcomes, score
from pipeline.evaluate.metrics import ROTATION
from pipeline.evaluate.readings import GRADED
from pipeline.evaluate.report import BASELINE

TOLERANCE = 1e-6
"""Difference between a score and its recount that is rounding."""


class Key(NamedTuple):
    """A retrieval set (`mode` "P@1"), or a benchmark in one mode."""

    name: str
    mode: str


@dataclass(frozen=True)
class Item:
    """One set or benchmark. `points_NP`, `size_NP`: its units, see `statistics.Outcomes`; `plain`: a unit is one row, right or wrong."""

    meta: str | None
    split: str | None
    digests: tuple[str, ...]
    points_NP: np.ndarray
    size_NP: np.ndarray
    scored_by: str = ""
    """How answers were scored, and by which judge."""

    @property
    def plain(self) -> bool:
        return self.size_NP.shape[1] == 1 and bool((self.size_NP == 1).all()) and bool(np.isin(self.points_NP, (0, 1)).all())


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. `left_out`: benchmarks that cannot be compared -> why. `baseline`: of a checkpoint that has no compressed answers."""

    label: str
    place: str
    items: dict[Key, Item]
    left_out: dict[Key, str]
    baseline: bool = False

    def cannot_have(self, key: Key) -> bool:
        """Whether what it lacks there, it lacks for want of a chorus."""
        return self.baseline and key.mode == "compressed"


def read_evaluation(folder: Path, label: str, place: str | None = None) -> Evaluation:
    """Read one evaluation.

    Raises:
        DataError: a file is missing or unreadable, rows lack their digest, or a retrieval score is not that of its predictions.
    """
    report = _json(folder / "scores.json")
    items: dict[Key, Item] = {}
    left_out: dict[Key, str] = {}
    try:
        for row in report["retrieval"]:
            key = Key(row["name"], "P@1")
            rows = list(_rows(folder, row["name"]))
            items[key] = _item(rows, *_ones([row["hit"] for row in rows]), row["meta"], row["split"])
            if problem := _differs(items[key], row["p_at_1"]):
                raise DataError(f"{folder}: {row['name']}: {problem}; expected the same: these files do not belong together")
        for row in report["answers"]:
            key = Key(row["name"], row["mode"])
            if key in items or row["score"] is None:  # scored in two ways, the one that counts first; or in none
                continue
            rows = list(_rows(folder, f"{row['name']}.{row['mode']}"))
            item = _item(rows, *answer_units(rows, row["kind"] == GRADED), None, None, f"{row['kind']} {row.get('judge', '')}".strip())
            if problem := _differs(item, row["score"]):
                left_out[key] = f"scored by a rule that is not known here: {problem}"
            else:
                items[key] = item
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: found no entry {error} in scores.json or in its predictions; expected an evaluation by this version: older ones "
            "did not say what each row asked. Evaluate again"
        ) from error
    if not items:
        why = "; ".join(left_out.values()) or "scores.json is empty"
        raise DataError(f"{folder}: found no set or benchmark that can be compared; expected at least one: {why}")
    baseline = report.get("facts", {}).get("pooling") == BASELINE
    return Evaluation(label, place or str(folder), items, left_out, baseline)


def answer_units(rows: Sequence[dict], graded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, P] and sizes [N, P] of a benchmark's units, by its kind.

    Multiple choice: a question with its rotations, right where all are. Yes/no with figures in the index (HallusionBench): all rows of a
    figure set, in the parts aAcc, fAcc and qAcc. Else a row. `graded`: by the judge's grades, an unread answer's being 0.
    """
    kind = rows[0]["kind"]
    points = [float(row["grade"] or 0) if graded else float(row["points"]) for row in rows]
    if kind == "multiple_choice":
        groups: dict[int | str, bool] = defaultdict(lambda: True)
        for row, point in zip(rows, points, strict=True):
            index = row["index"]
            groups[int(index) % ROTATION if index.isdecimal() else index] &= point == 1.0
        return _ones(list(groups.values()))
    if kind == "yes_no" and all(row["index"].count("_") >= 5 for row in rows):
        return _hallusion_units(rows, points)
    return _ones(points)


def _hallusion_units(rows: Sequence[dict], points: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """A unit per set (category, field 3): no figure (fields 3, 4) and no question (fields 3, 5) lies in two of them."""
    parts: dict[tuple, list[dict[tuple, bool]]] = defaultdict(lambda: [{}, {}, {}])
    for row, point in zip(rows, points, strict=True):
        fields = row["index"].split("_")
        unit = (row["category"], fields[3])
        for groups, group in zip(parts[unit], ((row["index"],), (fields[4],), (fields[5],)), strict=True):
            groups[group] = groups.get(group, True) and point == 1.0
    right = [[sum(groups.values()) for groups in unit] for unit in parts.values()]
    size = [[len(groups) for groups in unit] for unit in parts.values()]
    return np.array(right, dtype=float), np.array(size, dtype=float)


def same_questions(evaluations: Sequence[Evaluation], common: bool = False) -> list[Key]:
    """What all evaluations hold, in the first one's order; compressed answers: what all hold that can have them.

    Args:
        common: leave out what some lack; otherwise that is an error.

    Raises:
        DataError: other questions or candidates under one name, something that only some hold (unless `common`), nothing in common.
    """
    lacking, differing = [], []
    for key in dict.fromkeys(key for one in evaluations for key in (*one.items, *one.left_out)):
        holders = [one for one in evaluations if key in one.items or key in one.left_out]
        if any(one not in holders and not one.cannot_have(key) for one in evaluations):
            lacking.append(f"{key.name} ({key.mode}) only in {', '.join(one.label for one in holders)}")
    known = dict.fromkeys(key for one in evaluations for key in one.items)
    shared = [key for key in known if all(key in one.items or one.cannot_have(key) for one in evaluations)]
    for key in shared:
        first, *others = (one for one in evaluations if key in one.items)
        apart = [(one.label, _apart(first, one, key)) for one in others]
        differing += [f"{key.name} ({key.mode}), {first.label} and {label}: {what}" for label, what in apart if what]
    if differing:
        raise DataError(
            f"found different questions under one name: {'; '.join(differing)}. Expected the same queries and candidates in the same "
            "order, scored in the same way: a difference between scores would not be one between checkpoints. Evaluate them alike"
        )
    if lacking and not common:
        raise DataError(f"found {'; '.join(lacking)}; expected the same sets everywhere. Compare what all have with --common")
    if not shared:
        raise DataError("found no set or benchmark that all evaluations hold; expected at least one")
    return shared


def _apart(one: Evaluation, other: Evaluation, key: Key) -> str | None:
    ways = one.items[key].scored_by, other.items[key].scored_by
    if ways[0] != ways[1]:
        return f"scored by {ways[0]} and by {ways[1]}"
    ours, theirs = one.items[key].digests, other.items[key].digests
    if len(ours) != len(theirs):
        return f"{len(ours)} and {len(theirs)} rows"
    rows = [number for number, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    return f"{len(rows)} of {len(ours)} rows differ, first row {rows[0]}" if rows else None


def _item(
    rows: list[dict], points_NP: np.ndarray, size_NP: np.ndarray, meta: str | None, split: str | None, scored_by: str = ""
) -> Item:
    return Item(meta, split, tuple(row["digest"] for row in rows), points_NP, size_NP, scored_by)


def _ones(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(points, dtype=float)[:, None], np.ones((len(points), 1))


def _differs(item: Item, reported: float) -> str | None:
    counted = float(score(Outcomes(item.points_NP[None], item.size_NP))[0])
    if reported is not None and abs(counted - reported) <= TOLERANCE:
        return None
    return f"found {reported} in scores.json, {counted:.6f} recounted"


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected a finished evaluation; check the path") from error
    except ValueError as error:
        raise DataError(f"{path}: found no JSON: {error}; expected what the evaluation wrote. Evaluate again") from error


def _rows(folder: Path, name: str) -> Iterator[dict]:
    """The predictions of one set; its name may not lead out of the folder."""
    if Path(name).name != name:
        raise DataError(f"{folder}: found a set named {name!r}; expected a plain file name")
    path = folder / "predictions" / f"{name}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; expected the predictions behind scores.json. Evaluate again") from error
    if not rows:
        raise DataError(f"{path}: found no rows; expected the predictions behind scores.json. Evaluate again")
    return iter(rows)
