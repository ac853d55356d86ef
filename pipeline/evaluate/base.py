"""The scores of an untouched checkpoint, from the scores.json that this same command wrote for it."""

import json
from dataclasses import replace
from pathlib import Path

from data_prep.samples import DataError
from pipeline.evaluate.report import Report
from pipeline.evaluate.stored_report import stored_report


def read_base(path: Path) -> Report:
    """A report as `report.write` left it: scores.json, or the folder that holds it. Tables and figures in it are not needed.

    Raises:
        DataError: no such file, or one that this project's evaluation did not write.
    """
    path = path / "scores.json" if path.is_dir() else path
    try:
        return replace(stored_report(json.loads(path.read_text(encoding="utf-8"))), base=None)
    except OSError as error:
        problem = f"found no scores there: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"found no scores of this project's evaluation: {error!r}"
    raise DataError(
        f"--base {path}: {problem}; expected scores.json, or its folder. Score the base checkpoint by the same command first: bash "
        "launchers/evaluate.sh BASE --mmeb ... --benchmarks ..."
    )
