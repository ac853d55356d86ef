"""A folder of shards belongs to one set of data and settings: what differs is found, and named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.claim import claim, data_facts
from data_prep.samples import DataError
from data_prep.sources import discover


def test_facts_by_source(corpus: Path) -> None:
    facts = data_facts(discover(corpus))
    assert {source: (own["rows"], own["split"]) for source, own in facts.items()} == {
        "mmeb_train/Colours": (20, "original"),
        "sharegpt4v/chats": (10, ""),
    }
    assert facts["mmeb_train/Colours"]["images"] == [".."]
    assert facts["sharegpt4v/chats"]["images"] == ["."]
    assert [len(digest) for digest in facts["mmeb_train/Colours"]["sha256"]] == [64, 64]  # of two files


def test_the_same_data_elsewhere_is_the_same(corpus: Path, write_corpus: Callable[[Path], Path], tmp_path: Path) -> None:
    assert data_facts(discover(write_corpus(tmp_path / "elsewhere" / "data"))) == data_facts(discover(corpus))


def test_as_many_rows_and_bytes_are_not_the_same_data(write_corpus: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "data")
    claim(tmp_path, {"data": data_facts(discover(root))})
    path = root / "chats" / "chats.json"
    size = path.stat().st_size
    path.write_text(path.read_text().replace("ring 3", "rung 3"))
    assert path.stat().st_size == size
    with pytest.raises(DataError, match=r"\(different: data\.sharegpt4v/chats\)"):
        claim(tmp_path, {"data": data_facts(discover(root))})


def test_pictures_from_another_folder_are_not_the_same_data(write_corpus: Callable[[Path], Path], tmp_path: Path) -> None:
    root, other = write_corpus(tmp_path / "data"), write_corpus(tmp_path / "other")
    claim(tmp_path, {"data": data_facts(discover(root))})
    with pytest.raises(DataError, match=r"\(different: data\.mmeb_train/Colours, data\.sharegpt4v/chats\)"):
        claim(tmp_path, {"data": data_facts(discover(root, other / "MMEB-train"))})


def test_what_differs_is_named(tmp_path: Path) -> None:
    kept = {"encoder": {"image_rules": {"stored_as": "webp"}, "max_tokens": 1}, "encoder_digest": "a", "rows_per_shard": 4}
    claim(tmp_path, kept)
    claim(tmp_path, kept)
    new = {"encoder": {"image_rules": {}, "max_tokens": 2}, "encoder_digest": "b", "rows_per_shard": 4, "against": "c"}
    with pytest.raises(DataError, match=r"\(different: against, encoder\.image_rules, encoder\.max_tokens\); expected the same\. "):
        claim(tmp_path, new)
    assert json.loads((tmp_path / "settings.json").read_text()) == kept


@pytest.mark.parametrize("text", ['{"a":', "", "[]", "\udcff"])
def test_damaged_settings_are_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=r"settings\.json: found no readable settings; expected .* remove this folder"):
        claim(tmp_path, {})


def test_foreign_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old.arrow").touch()
    with pytest.raises(DataError, match=r"found old\.arrow but no settings\.json"):
        claim(tmp_path, {})
