"""The journal on disk: what a resume keeps, what it sets aside, and what a reader gets back."""

import json
import math
from pathlib import Path

from pipeline.journal import Journal, Value

LINES = [
    '{"step": 0, "time_ms": 10, "metrics": {"loss": 2.0, "norm": null}}',
    '{"step": 1, "time_ms": 11, "metrics": {"loss": 1.5}}',
    '{"step": 2, "time_ms": 12, "metrics": {"loss": 1.25}}',
]


def write(run_dir: Path, *lines: str) -> Path:
    path = run_dir / "metrics.jsonl"
    path.write_text("".join(lines))
    return path


def test_one_line_a_step_on_disk_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.append(0, 10, {"loss": 2.0, "norm": math.inf})
    assert (tmp_path / "metrics.jsonl").read_text() == LINES[0] + "\n"
    journal.close()


def test_a_resume_keeps_the_steps_before_it(tmp_path: Path) -> None:
    path = write(tmp_path, *(line + "\n" for line in LINES))
    journal = Journal(tmp_path, 2)
    journal.append(2, 20, {"loss": 9.0})
    journal.close()
    assert [json.loads(line)["time_ms"] for line in path.read_text().splitlines()] == [10, 11, 20]
    assert (tmp_path / "metrics.dropped.jsonl").read_text() == LINES[2] + "\n"
    (loss, norm, later) = journal.kept
    assert (loss, later) == (Value("loss", 2.0, 0, 10), Value("loss", 1.5, 1, 11))
    assert norm.key == "norm" and math.isnan(norm.value)


def test_torn_lines_are_set_aside(tmp_path: Path) -> None:
    torn = ['{"step": 1, "time_ms": 11, "met', "[]", '{"step": 1}', '{"step": 1, "time_ms": 1, "metrics": {"loss": "x"}}']
    path = write(tmp_path, LINES[0] + "\n", *(line + "\n" for line in torn))
    Journal(tmp_path, 5).close()
    assert path.read_text() == LINES[0] + "\n"
    assert (tmp_path / "metrics.dropped.jsonl").read_text().splitlines() == torn


def test_a_journal_torn_by_a_crash_takes_new_lines(tmp_path: Path) -> None:
    """Without its last newline the next line would be glued to the torn one."""
    path = write(tmp_path, LINES[0])
    journal = Journal(tmp_path, 1)
    journal.append(1, 11, {"loss": 1.5})
    journal.close()
    assert path.read_text().splitlines() == LINES[:2]
