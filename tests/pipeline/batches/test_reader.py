"""Shards as the trainer sees them: everything written comes back, and nothing doubtful gets in."""

import json
from dataclasses import replace

import numpy as np
import pytest

from data_prep.samples import DataError
from data_prep.shards import load_manifest, write_manifest
from pipeline.batches.plan import SourceRows
from pipeline.batches.reader import ShardReader


def same(a, b) -> bool:
    """Whether two token sequences are equal, images included."""
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.roles, b.roles) and a.images == b.images


def test_round_trip(shards, encoder, raw_samples) -> None:
    reader = ShardReader(shards, encoder)
    expected = [encoder.sample(raw) for own in raw_samples.values() for raw in own]
    assert len(reader) == len(expected) == 29
    for number, sample in enumerate(expected):
        row = reader.row(number)
        assert (row.id, row.source) == (sample.id, sample.source)
        assert same(row.query, sample.query)
        assert (row.positive is None) == (sample.positive is None)
        assert row.positive is None or same(row.positive, sample.positive)
        assert len(row.negatives) == len(sample.negatives)
        assert all(map(same, row.negatives, sample.negatives))


def test_sources(shards) -> None:
    pairs, conversations = ShardReader(shards).sources()
    assert pairs == [SourceRows("plain", 0, 13), SourceRows("asked", 13, 9)]
    assert conversations == [SourceRows("chats", 22, 7)]


@pytest.mark.parametrize("change", ["tokenizer", "template", "chorus_ids", "image_id", "patch_size", "merge_size", "resample"])
def test_another_checkpoints_shards_are_refused(write_data, raw_samples, encoder, tmp_path, change: str) -> None:
    fingerprint = json.loads(json.dumps(encoder.fingerprint()))
    (fingerprint if change in fingerprint else fingerprint["image_rules"])[change] = "other"
    folder = write_data(tmp_path / "shards", {"chats": raw_samples["chats"][:2]}, fingerprint=fingerprint)
    with pytest.raises(DataError, match=rf"made for another checkpoint \(different: {change}\).*Prepare the data again"):
        ShardReader(folder, encoder)
    assert len(ShardReader(folder)) == 2


def test_other_limits_are_the_datas_own_business(write_data, raw_samples, encoder, tmp_path) -> None:
    fingerprint = encoder.fingerprint() | {"max_tokens": 77}
    fingerprint["image_rules"] = fingerprint["image_rules"] | {"pixels": [1, 2]}
    folder = write_data(tmp_path / "shards", {"chats": raw_samples["chats"][:2]}, fingerprint=fingerprint)
    assert len(ShardReader(folder, encoder)) == 2


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 0.999])
def test_a_flipped_byte_is_refused(write_data, raw_samples, tmp_path, place: float) -> None:
    folder = write_data(tmp_path / "shards", raw_samples)
    path = folder / "asked-005.arrow"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"asked-005.arrow: found other bytes than the manifest's digest"):
        ShardReader(folder)


def test_missing_stray_and_unfinished_are_refused(write_data, raw_samples, tmp_path) -> None:
    folder = write_data(tmp_path / "shards", raw_samples)
    (folder / "plain-005.arrow").rename(folder / "other.arrow")
    with pytest.raises(DataError, match=r"found other.arrow, which the manifest does not name"):
        ShardReader(folder)
    (folder / "other.arrow").unlink()
    with pytest.raises(DataError, match=r"plain-005.arrow: missing"):
        ShardReader(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"found no manifest.json"):
        ShardReader(folder)


def test_empty_is_refused(write_data, tmp_path) -> None:
    with pytest.raises(DataError, match="found no rows; expected at least one"):
        ShardReader(write_data(tmp_path / "shards", {}))


def test_an_empty_shard_is_passed_over(write_data, raw_samples, tmp_path) -> None:
    """All rows of a slice may have been set aside."""
    folder = write_data(tmp_path / "shards", raw_samples)
    manifest = load_manifest(folder)
    kept = [shard.model_copy(update={"rows": 0}) if shard.name == "plain-005.arrow" else shard for shard in manifest.shards]
    write_manifest(folder, manifest.fingerprint, kept)
    reader = ShardReader(folder, verify=False)
    assert [reader.row(i).id for i in (4, 5)] == ["plain/4", "plain/10"]


def test_mixed_positives_are_refused(write_data, raw_samples, tmp_path) -> None:
    mixed = [*raw_samples["plain"][:3], replace(raw_samples["chats"][0], source="plain")]
    reader = ShardReader(write_data(tmp_path / "shards", {"plain": mixed}))
    with pytest.raises(DataError, match="plain has 1 rows of 4 without a positive; expected all or none"):
        reader.sources()


def test_scattered_sources_are_refused(write_data, raw_samples, tmp_path) -> None:
    folder = write_data(tmp_path / "shards", raw_samples)
    manifest = load_manifest(folder)
    write_manifest(folder, manifest.fingerprint, sorted(manifest.shards, key=lambda shard: shard.name[-9:]))
    with pytest.raises(DataError, match="found shards of other sources between those of plain"):
        ShardReader(folder).sources()
