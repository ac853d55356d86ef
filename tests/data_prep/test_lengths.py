"""Token counts of prepared data, against counts made one by one."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.encode import Encoder, to_row
from data_prep.lengths import histogram, length_table, lengths
from data_prep.samples import DataError, RawSample, Side
from data_prep.shards import load_manifest, write_manifest, write_shard


@pytest.fixture
def folder(encoder: Encoder, tmp_path: Path) -> Path:
    """70 pairs, more than one record batch: one to 70 words, every fifth with two negatives; and an empty shard."""
    texts = [Side("red " * (i + 1)) for i in range(70)]
    raws = [RawSample(f"s/{i}", "s", text, (), Side("a"), (Side("b"), Side("c c")) * (i % 5 == 0)) for i, text in enumerate(texts)]
    records = [write_shard(tmp_path, "a.arrow", "s", [to_row(encoder.sample(raw)) for raw in raws], [])]
    records.append(write_shard(tmp_path, "b.arrow", "t", [], []))
    write_manifest(tmp_path, {}, records)
    return tmp_path


def test_every_sequence_is_counted(folder: Path, encoder: Encoder) -> None:
    found = lengths(folder, load_manifest(folder))
    queries = [len(encoder.sequence(Side("red " * (i + 1)))) for i in range(70)]
    one, two, three = (len(encoder.sequence(Side(text))) for text in ("a", "b", "c c"))
    assert sorted(found["s"].tolist()) == sorted([*queries, *[one] * 70, *[two, three] * 14])
    assert set(found) == {"s"}


def test_histogram() -> None:
    assert histogram(np.array([1, 2, 3, 4, 5, 8, 9, 1024, 1025])) == [(1, 1), (2, 1), (4, 2), (8, 2), (16, 1), (1024, 1), (2048, 1)]


def test_table() -> None:
    lines = length_table({"b": np.array([10, 20, 30, 1000]), "a": np.array([4])}).splitlines()
    assert lines[0].split() == ["source", "sequences", "tokens", "50", "%", "90", "%", "99", "%", "longest"]
    assert [line.split() for line in lines[1:3]] == [["a", "1", "4", "4", "4", "4", "4"], ["b", "4", "1060", "20", "1000", "1000", "1000"]]
    assert lines[3].split() == ["up", "to", "4", "tokens", "1", "#" * 20]
    assert lines[-1].split() == ["up", "to", "1024", "tokens", "1", "#" * 20]


def test_the_command(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(folder), "--lengths"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["s", "168"]
    (folder / "a.arrow").unlink()
    assert main(["inspect", str(folder), "--lengths"]) == 2
    with pytest.raises(DataError, match=r"a\.arrow: missing, but the manifest names it"):
        lengths(folder, load_manifest(folder))
