"""Merged and split data sets: every row once, no byte of a shard changed, and nothing joined that does not belong together."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from data_prep import assemble
from data_prep.__main__ import main
from data_prep.assemble import merge, split
from data_prep.encode import Encoder, to_row
from data_prep.lengths import lengths
from data_prep.samples import DataError, RawSample, Rejected, Side, Turn
from data_prep.shards import load_manifest, verify_shards, write_manifest, write_shard
from pipeline.batches.reader import ShardReader

Write = Callable[..., Path]


@pytest.fixture
def write(encoder: Encoder, tmp_path: Path) -> Write:
    """write(name, {source: first row of each shard}): two rows a shard, one row set aside per source."""

    def one(name: str, sources: dict[str, list[int]], facts: int = 100, **entries) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        records = []
        for number, (source, starts) in enumerate(sources.items()):
            for start in starts:
                samples = [RawSample(f"{source}/{i}", source, Side(f"row {i}"), (Turn("q", "a"),)) for i in (start, start + 1)]
                rows = [to_row(encoder.sample(sample)) for sample in samples]
                aside = [Rejected(f"{source}/{start + 50}", source, "missing: no file")]
                shard = f"{number:04d}-{source.replace('/', '.')}-{start // 2:06d}.arrow"
                records.append(write_shard(folder, shard, source, rows, aside))
        fingerprint = {"encoder": encoder.fingerprint(), "encoder_digest": "d", "rows_per_shard": 2, **entries}
        write_manifest(folder, fingerprint | {"data": {source: {"rows": facts} for source in sources}}, records)
        return folder

    return one


def ids(folder: Path) -> list[str]:
    verify_shards(folder, load_manifest(folder))
    reader = ShardReader(folder)
    return [reader.row(number).id for number in range(len(reader))]


def test_sets_are_joined_whatever_their_order(write: Write, tmp_path: Path, encoder: Encoder) -> None:
    a, b = write("a", {"m/x": [0, 2], "m/y": [0]}), write("b", {"m/z": [0]}, rows_per_shard=3)
    merged = merge([a, b], tmp_path / "ab")
    assert merge([b, a], tmp_path / "ba") == merged == load_manifest(tmp_path / "ab")
    assert ids(tmp_path / "ab") == ["m/x/0", "m/x/1", "m/x/2", "m/x/3", "m/z/0", "m/z/1", "m/y/0", "m/y/1"]
    assert merged.fingerprint["data"] == {"m/x": {"rows": 100}, "m/y": {"rows": 100}, "m/z": {"rows": 100}}
    assert merged.fingerprint["rows_per_shard"] is None
    assert [row.id for row in merged.rejected] == ["m/x/50", "m/x/52", "m/z/50", "m/y/50"]
    assert len(ShardReader(tmp_path / "ab", encoder).sources()[1]) == 3


def test_what_was_split_merges_to_the_same_bytes(write: Write, tmp_path: Path) -> None:
    whole = write("whole", {"m/x": [0, 2, 4, 6], "m/y": [0, 2]})
    parts = [tmp_path / "p0", tmp_path / "p1"]
    manifests = split(whole, parts)
    assert [manifest.rows for manifest in manifests] == [6, 6]
    assert [ids(part) for part in parts] == [
        ["m/x/0", "m/x/1", "m/x/4", "m/x/5", "m/y/0", "m/y/1"],
        ["m/x/2", "m/x/3", "m/x/6", "m/x/7", "m/y/2", "m/y/3"],
    ]
    merge(parts[::-1], tmp_path / "again")
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


def test_a_part_keeps_only_its_sources_facts(write: Write, tmp_path: Path) -> None:
    first, second = split(write("whole", {"m/x": [0], "m/y": [0]}), [tmp_path / "p0", tmp_path / "p1"])
    assert (list(first.fingerprint["data"]), list(second.fingerprint["data"])) == (["m/x"], ["m/y"])


def test_another_file_system_gets_copies(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that is played here: a link that the kernel refuses."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    a, b = write("a", {"m/x": [0]}), write("b", {"m/y": [0]})
    linked = merge([a, b], tmp_path / "linked")
    monkeypatch.setattr(assemble.os, "link", refuse)
    assert merge([a, b], tmp_path / "copied") == linked
    name = linked.shards[0].name
    assert [(tmp_path / out / name).stat().st_nlink for out in ("linked", "copied")] == [2, 1]
    assert ids(tmp_path / "copied") == ["m/x/0", "m/x/1", "m/y/0", "m/y/1"]


def test_what_does_not_belong_together_is_refused(write: Write, tmp_path: Path) -> None:
    a = write("a", {"m/x": [0]})
    cases = {
        r"other: found shards prepared otherwise than those of .*a \(different: encoder_digest\)": write(
            "other", {"m/y": [0]}, encoder_digest="e"
        ),
        r"facts: found m/x made from other data than that of the same name in .*a": write("facts", {"m/x": [2]}, facts=7),
        r"overlap: found row m/x/1, which .*a holds as well; expected every row once": write("overlap", {"m/x": [1]}),
    }
    for message, other in cases.items():
        with pytest.raises(DataError, match=message):
            merge([a, other], tmp_path / "out")
    with pytest.raises(DataError, match="expected two or more different folders of shards to merge"):
        merge([a, a], tmp_path / "out")
    with pytest.raises(DataError, match="found something there; expected the name of a new folder"):
        merge([a, write("b", {"m/y": [0]})], a)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "facts", "other", "overlap"]


def test_damaged_and_missing_shards_are_refused(write: Write, tmp_path: Path) -> None:
    a, b, c = write("a", {"m/x": [0]}), write("b", {"m/y": [0]}), write("c", {"m/z": [0]})
    (shard,) = b.glob("*.arrow")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"000000\.arrow: found other bytes than the manifest's digest"):
        merge([a, b], tmp_path / "out")
    next(c.glob("*.arrow")).unlink()
    with pytest.raises(DataError, match=r"000000\.arrow: missing, but the manifest names it"):
        merge([a, c], tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_too_few_shards_to_split(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 1 shards, expected 2 parts or more and a shard at least for each of 2"):
        split(write("a", {"m/x": [0]}), [tmp_path / "p", tmp_path / "q"])
    assert not (tmp_path / "p").exists()


def test_the_commands(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = str(write("whole", {"m/x": [0, 2]}))
    assert main(["split", whole, str(tmp_path / "p"), str(tmp_path / "q")]) == 0
    assert main(["merge", str(tmp_path / "again"), str(tmp_path / "p"), str(tmp_path / "q")]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " rows in " in line]
    assert rows == ["2", "2", "4"]
    assert main(["merge", str(tmp_path / "again"), whole, str(tmp_path / "p")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'p'}: found row m/x/0, which {whole} holds as well")
    shards = load_manifest(tmp_path / "again").shards
    assert [pa.ipc.open_file(str(tmp_path / "again" / shard.name)).num_record_batches for shard in shards] == [1, 1]


def test_folders_lie_apart(write: Write, tmp_path: Path) -> None:
    """Nothing is written where a part would be lost among, or twice under, another."""
    whole, other = write("whole", {"m/x": [0, 2, 4]}), write("other", {"m/y": [0]})
    for outs in (["a", "a"], ["a", "a/b"]):
        with pytest.raises(DataError, match="expected folders apart from each other"):
            split(whole, [tmp_path / "apart" / name for name in outs])
    assert not (tmp_path / "apart").exists()
    with pytest.raises(DataError, match="expected folders apart from each other"):
        merge([whole, other], other / "in")


@pytest.mark.parametrize(("damage", "message"), [("cut", "found no whole arrow file"), ("gone", "missing, but the manifest names it")])
def test_a_damaged_shard_is_named_before_anything_is_read(write: Write, tmp_path: Path, damage: str, message: str) -> None:
    folder, other = write("one", {"m/x": [0, 2]}), write("two", {"m/x": [4]})
    shard = sorted(folder.glob("*.arrow"))[0]
    os.truncate(shard, 100) if damage == "cut" else shard.unlink()
    for use in (
        lambda: ShardReader(folder, verify=False),
        lambda: lengths(folder, load_manifest(folder)),
        lambda: merge([folder, other], tmp_path / "out"),
    ):
        with pytest.raises(DataError, match=f"{shard.name}: {message}"):
            use()


def test_a_place_that_cannot_be_made_is_refused(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="none can be made"):
        merge([write("one", {"m/x": [0]}), write("two", {"m/y": [0]})], tmp_path / "file" / "out")
