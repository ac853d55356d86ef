"""Shards on disk: whole or not at all, every altered byte found, and readable by others."""

import json
import os
import random
from pathlib import Path

import datasets
import pytest

from data_prep.encode import Encoder, to_row
from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side, Turn
from data_prep.shards import (
    Manifest,
    finished_shard,
    load_manifest,
    remove_leftovers,
    verify_shards,
    write_json,
    write_manifest,
    write_shard,
)


@pytest.fixture(scope="module")
def rows(encoder: Encoder, picture_56: bytes) -> list[dict]:
    """70 rows, more than one record batch; every seventh has an image."""
    image = ImageRef("a.png", data=picture_56)
    return [
        to_row(encoder.sample(RawSample(f"s/{i}", "s", Side(f"number {i}", (image,) * (i % 7 == 0)), (Turn("q", "a"),)))) for i in range(70)
    ]


@pytest.fixture
def folder(tmp_path: Path, rows: list[dict]) -> Path:
    """Two shards and their manifest."""
    aside = [Rejected("s/70", "s", "missing: no file")]
    records = [write_shard(tmp_path, "a.arrow", "s", rows[:5], aside), write_shard(tmp_path, "b.arrow", "s", rows[5:], [])]
    write_manifest(tmp_path, {"made": "by a test"}, records)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_is_read(folder: Path, rows: list[dict], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert names(folder) == ["a.arrow", "a.json", "b.arrow", "b.json", "manifest.json"]
    manifest = load_manifest(folder)
    assert (manifest.schema_version, manifest.fingerprint, manifest.rows) == (1, {"made": "by a test"}, 70)
    assert [(shard.name, shard.rows, shard.bytes) for shard in manifest.shards] == [
        ("a.arrow", 5, (folder / "a.arrow").stat().st_size),
        ("b.arrow", 65, (folder / "b.arrow").stat().st_size),
    ]
    assert manifest.rejected == [Rejected("s/70", "s", "missing: no file")]
    verify_shards(folder, manifest)
    files = [str(folder / shard.name) for shard in manifest.shards]
    opened = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path_factory.mktemp("cache")))
    assert opened["id"][:] == [f"s/{i}" for i in range(70)]
    assert opened[7]["query"]["ids"] == rows[7]["query"]["ids"].tolist()
    assert opened[7]["images"] == rows[7]["images"]
    assert opened[8]["images"] == []


def test_the_same_rows_give_the_same_bytes(folder: Path, rows: list[dict], tmp_path_factory: pytest.TempPathFactory) -> None:
    again = write_shard(tmp_path_factory.mktemp("again"), "b.arrow", "s", iter(rows[5:]), [])
    assert again == load_manifest(folder).shards[1]


@pytest.mark.parametrize("good", [0, 3, 64, 66])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, rows: list[dict], good: int) -> None:
    def failing():
        yield from rows[:good]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, "a.arrow", "s", failing(), [])
    assert names(tmp_path) == []
    assert finished_shard(tmp_path, "a.arrow") is None


def test_a_failure_leaves_the_earlier_shard_as_it_was(folder: Path) -> None:
    before = (folder / "a.arrow").read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_shard(folder, "a.arrow", "s", (1 / 0 for _ in range(1)), [])
    assert (folder / "a.arrow").read_bytes() == before
    verify_shards(folder, load_manifest(folder))


def test_every_flipped_bit_is_found(folder: Path) -> None:
    manifest, path = load_manifest(folder), folder / "b.arrow"
    good = path.read_bytes()
    rng = random.Random(0)
    found = 0
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        assert finished_shard(folder, "b.arrow") is None
        with pytest.raises(DataError, match=r"b\.arrow: found other bytes than the manifest's digest; prepare the data again"):
            verify_shards(folder, manifest)
        found += 1
    path.write_bytes(good)
    verify_shards(folder, manifest)
    assert (found, finished_shard(folder, "b.arrow")) == (200, manifest.shards[1])


def test_a_truncated_shard_is_found(folder: Path) -> None:
    os.truncate(folder / "a.arrow", (folder / "a.arrow").stat().st_size - 1)
    assert finished_shard(folder, "a.arrow") is None
    with pytest.raises(DataError, match=r"a\.arrow: found other bytes"):
        verify_shards(folder, load_manifest(folder))


def test_a_missing_shard_is_found(folder: Path) -> None:
    (folder / "a.arrow").unlink()
    assert finished_shard(folder, "a.arrow") is None
    with pytest.raises(DataError, match=r"a\.arrow: missing, but the manifest names it"):
        verify_shards(folder, load_manifest(folder))


def test_a_stray_shard_is_found(folder: Path) -> None:
    (folder / "c.arrow").write_bytes((folder / "a.arrow").read_bytes())
    with pytest.raises(DataError, match=r"found c\.arrow, which the manifest does not name"):
        verify_shards(folder, load_manifest(folder))


@pytest.mark.parametrize("text", ["", "{", '{"name": "a.arrow"}', "\udcff"])
def test_a_shard_without_a_readable_record_is_not_finished(folder: Path, text: str) -> None:
    (folder / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    assert finished_shard(folder, "a.arrow") is None
    (folder / "a.json").unlink()
    assert finished_shard(folder, "a.arrow") is None


def test_a_folder_without_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no manifest\.json; expected a folder of finished shards") as caught:
        load_manifest(tmp_path)
    assert f"bash launchers/prepare.sh DATA_FOLDER --checkpoint CHECKPOINT --out {tmp_path}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', "\udcff"])
def test_an_unreadable_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="found an unreadable manifest"):
        load_manifest(folder)


def test_another_schema_version_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(DataError, match="found schema version 2, expected 1; prepare the data again"):
        load_manifest(folder)


def test_the_manifests_digest_changes_with_any_entry(folder: Path) -> None:
    manifest = load_manifest(folder)
    one, two = manifest.shards
    others = [
        manifest.model_copy(update={"shards": (two, one)}),
        manifest.model_copy(update={"shards": (one,)}),
        manifest.model_copy(update={"shards": (one.model_copy(update={"rows": 6}), two)}),
        manifest.model_copy(update={"fingerprint": {}}),
    ]
    assert len({other.digest() for other in (manifest, *others)}) == 5
    assert Manifest.model_validate_json(manifest.model_dump_json()).digest() == manifest.digest()


def test_leftovers_of_killed_writers_go(folder: Path) -> None:
    (folder / ".a.arrow.tmp-123").touch()
    before = [name for name in names(folder) if not name.startswith(".")]
    remove_leftovers(folder)
    assert names(folder) == before


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [2]})
    assert path.read_text() == '{\n "a": [\n  2\n ],\n "b": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [2], "b": 1}
    assert names(tmp_path) == ["a.json"]
