"""Rows that were put down are there after a crash; half a line is not a row."""

from pathlib import Path

import pytest

from data_prep.samples import DataError
from data_prep.synthesize.journal import Journal

RUN = {"seed": 0, "prompts": ["a"]}
ROWS = [{"row": number, "turns": [{"answer": "ä" * number}]} for number in (3, 0, 7, 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of four rows."""
    with Journal(tmp_path / "journal", RUN) as journal:
        journal.add(ROWS[:1])
        journal.add(ROWS[1:])
    return tmp_path / "journal"


def test_rows_come_back(path: Path) -> None:
    with Journal(path, RUN) as journal:
        assert sorted(journal.places) == [0, 1, 3, 7]
        assert [journal.entry(entry["row"]) for entry in ROWS] == ROWS


def test_a_row_is_put_down_once(path: Path) -> None:
    before = path.read_bytes()
    with Journal(path, RUN) as journal:
        journal.add([{"row": 3, "turns": []}, {"row": 9, "turns": []}])
        assert journal.entry(3) == ROWS[0] and journal.entry(9) == {"row": 9, "turns": []}
    assert path.read_bytes() == before + b'{"row": 9, "turns": []}\n'


def test_cut_anywhere_it_opens_with_the_whole_rows_and_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in (*range(0, len(whole), 4), len(whole) - 1):
        path.write_bytes(whole[:size])
        complete = sum(size >= len(b"".join(lines[: n + 1])) for n in range(1, len(lines)))
        with Journal(path, RUN) as journal:
            assert list(journal.places) == [entry["row"] for entry in ROWS[:complete]]
            journal.add(ROWS)
            assert [journal.entry(entry["row"]) for entry in ROWS] == ROWS
        assert path.read_bytes() == whole


def test_another_run_is_refused_and_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(DataError, match="found an unfinished run with another seed; expected the same as now"):
        Journal(path, RUN | {"seed": 1})
    assert path.read_bytes() == before
