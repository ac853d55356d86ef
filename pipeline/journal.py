"""A run's metrics on local disk: one JSON line a step, written before anything else happens to it.

    {"step": 3, "time_ms": 1760000000000, "metrics": {"loss": 1.5, "grad_norm": null}}

null stands for NaN or infinity. Invariant: after a resume at step s the file holds whole lines of steps before s and nothing else;
what was cut away, torn lines included, stands in metrics.dropped.jsonl.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Value(NamedTuple):
    """One metric at one step."""

    key: str
    value: float
    step: int
    time_ms: int


class Journal:
    """metrics.jsonl, cut back to the steps before `resume_step`; `kept` holds those as values."""

    def __init__(self, run_dir: Path, resume_step: int) -> None:
        self.path = run_dir / "metrics.jsonl"
        self.kept: list[Value] = []
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        good, dropped = [], []
        for line in text.splitlines():
            values = _parse(line)
            keep = values is not None and all(value.step < resume_step for value in values)
            (good if keep else dropped).append(line + "\n")
            self.kept += values if keep else ()
        if dropped:
            with open(run_dir / "metrics.dropped.jsonl", "a", encoding="utf-8") as aside:
                aside.writelines(dropped)
        if "".join(good) != text:  # also where a crash took no more than the last newline
            partial = run_dir / ".metrics.jsonl.partial"
            partial.write_text("".join(good), encoding="utf-8")
            os.replace(partial, self.path)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - open for the run's length

    def append(self, step: int, time_ms: int, row: Mapping[str, float]) -> None:
        """Write one step's numbers; they are the operating system's when this returns."""
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self._file.write(json.dumps({"step": step, "time_ms": time_ms, "metrics": finite}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_values(run_dir: Path) -> list[Value]:
    """Every value of a journal, which stays as it is; torn lines are passed over; none where there is no journal."""
    path = run_dir / "metrics.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [value for line in text.splitlines() for value in _parse(line) or ()]


def _parse(line: str) -> list[Value] | None:
    """The values of one journal line; None for a line that a crash left torn."""
    try:
        row = json.loads(line)
        step, time_ms = int(row["step"]), int(row["time_ms"])
        metrics = {key: math.nan if value is None else float(value) for key, value in row["metrics"].items()}
        return [Value(key, value, step, time_ms) for key, value in metrics.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
