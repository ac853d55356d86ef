"""Negatives written as MMEB's columns come back through the reader as the sides they were."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.samples import ImageRef, Side
from data_prep.sources.mmeb_train import negatives
from pipeline.mine.columns import as_stated, cell, write_copy

MARK = "<|image_1|>\nRepresent the given image.\n"
CASES = [
    [],
    [("a cat", "")],
    [("['a cat']", "")],
    [("[sic]", "")],
    [(MARK, "images/a.png")],
    [("", "images/a.png")],
    [("a cat", ""), ('it\'s "one", \\ two\n', "")],
    [(MARK, "images/a b.png"), ("", "images/['x'].png"), ("a cat", "")],
]


@pytest.mark.parametrize("stated", CASES, ids=str)
def test_the_reader_finds_what_was_written(stated: list[tuple[str, str]], tmp_path: Path) -> None:
    texts, paths = (cell([own[place] for own in stated]) for place in (0, 1))
    read = negatives(texts, paths, tmp_path)
    expected = [Side(text.replace("<|image_1|>", "").strip(), (ImageRef(path, tmp_path),) if path else ()) for text, path in stated]
    assert list(read) == expected
    assert negatives(*(cell([as_stated(side)[place] for side in read]) for place in (0, 1)), tmp_path) == read


def test_one_negative_is_a_plain_string() -> None:
    assert [cell([]), cell(["a"]), cell(["a", ""]), cell(["[a]"])] == ["", "a", "['a', '']", "['[a]']"]


def test_a_copy_keeps_every_other_column(tmp_path: Path) -> None:
    rows = [{"qry": f"q{i}", "qry_image_path": "", "extra": i, "neg_text": "old"} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    write_copy(tmp_path / "in.parquet", tmp_path / "new" / "out.parquet", [[("a", "b.png")], [], [("x", ""), ("y", "")]])
    assert pq.read_table(tmp_path / "new" / "out.parquet").to_pylist() == [
        {"qry": "q0", "qry_image_path": "", "extra": 0, "neg_text": "a", "neg_image_path": "b.png"},
        {"qry": "q1", "qry_image_path": "", "extra": 1, "neg_text": "", "neg_image_path": ""},
        {"qry": "q2", "qry_image_path": "", "extra": 2, "neg_text": "['x', 'y']", "neg_image_path": "['', '']"},
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.parquet"]
