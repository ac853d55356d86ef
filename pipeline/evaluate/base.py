"""The scores of an untouched checkpoint, from the scores.json that this same command wrote for it."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from data_prep.samples import DataError
from pipeline.evaluate.report import AnswerScore, Report, RetrievalScore


def read_base(path: Path) -> Report:
    """A report as `report.write` left it: scores.json, or the folder that holds it. Tables and figures in it are not needed.

    Raises:
        DataError: no such file, or one that this project's evaluation did not write.
    """
    path = path / "scores.json" if path.is_dir() else path
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        retrieval = tuple(_made(RetrievalScore, row) for row in stored["retrieval"])
        answers = tuple(_made(AnswerScore, row) for row in stored["answers"])
        return Report(str(stored["title"]), retrieval, answers, dict(stored["facts"]))
    except OSError as error:
        problem = f"found no scores there: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"found no scores of this project's evaluation: {error!r}"
    raise DataError(
        f"--base {path}: {problem}; expected scores.json, or its folder. Score the base checkpoint by the same command first: bash "
        "launchers/evaluate.sh BASE --mmeb ... --benchmarks ..."
    )


def _made(kind: type, row: Mapping) -> RetrievalScore | AnswerScore:
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in row.items() if name in known})
