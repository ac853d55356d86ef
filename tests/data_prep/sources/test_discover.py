"""Finding parts: one corpus or several side by side, and messages for a folder that is not what was meant."""

import pickle

import pytest

from data_prep.samples import DataError
from data_prep.sources import Part, discover, read

PAIR = {"qry": "q", "qry_image_path": "", "pos_text": "p", "pos_image_path": ""}
TALK = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
FILE = "original-00000-of-00001.parquet"


@pytest.fixture
def corpora(tmp_path, write_parquet, write_json):
    """MMEB-train, sharegpt4v and synqa beside evaluation data and clutter."""
    root = tmp_path / "data"
    write_parquet(root / "MMEB-train" / "Zebra" / FILE, [PAIR] * 3)
    write_parquet(root / "MMEB-train" / "Ant" / FILE, [PAIR] * 2)
    write_parquet(root / "MMEB-train" / "._Ant" / FILE, [PAIR])
    write_parquet(root / "MMEB-train" / "Ant" / ("._" + FILE), [{"junk": 1}])
    write_json(root / "sharegpt4v" / "caps.json", [TALK] * 4)
    write_json(root / "a synqa" / "ant_synqa.jsonl", [{**TALK, "embed_text": "e"}] * 5)
    write_parquet(root / "MMEB-eval" / "Ant" / FILE, [{"junk": 1}])
    write_json(root / "benchmarks" / "b.json", [TALK])
    write_json(root / ".cache" / "c.json", [TALK])
    return root


def test_every_family_beside_the_others(corpora):
    parts = discover(corpora)
    assert [(part.source, part.reader, part.rows, part.root.name) for part in parts] == [
        ("mmeb_train/Ant", "mmeb_train", 2, "MMEB-train"),
        ("mmeb_train/Zebra", "mmeb_train", 3, "MMEB-train"),
        ("sharegpt4v/caps", "conversations", 4, "sharegpt4v"),
        ("synqa/ant_synqa", "synqa", 5, "a synqa"),
    ]
    ids = [sample.id for part in parts for sample in read(part, 0, part.rows)]
    assert len(ids) == len(set(ids)) == 14


def test_each_corpus_on_its_own(corpora):
    assert [part.source for part in discover(corpora / "MMEB-train")] == ["mmeb_train/Ant", "mmeb_train/Zebra"]
    assert [part.source for part in discover(corpora / "sharegpt4v")] == ["sharegpt4v/caps"]
    assert [part.source for part in discover(str(corpora / "a synqa"))] == ["synqa/ant_synqa"]


def test_parts_are_values(corpora):
    parts = discover(corpora)
    assert pickle.loads(pickle.dumps(parts)) == parts == discover(corpora)
    assert len(set(parts)) == 4
    assert isinstance(parts[0], Part)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/no: found no folder there; expected one with training data"):
        discover(tmp_path / "no")
    with pytest.raises(DataError, match=f"{tmp_path}/no: found no folder there"):
        discover(tmp_path, image_root=tmp_path / "no")


def test_nothing_recognised_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: no training data recognised")
    for fact in (
        "<Subset>/original-*.parquet",
        "*.json or *.jsonl with `conversations`",
        "`embed_text`",
        "Found notes.txt.",
    ):
        assert fact in message


def test_another_split_is_hinted_at(corpora):
    with pytest.raises(DataError, match=r"There are parquet files of the splits original, but 'diverse' was asked for"):
        discover(corpora / "MMEB-train", split="diverse")


@pytest.mark.parametrize("split", ["", "*", "../x", "a-b"])
def test_odd_split_names(corpora, split):
    with pytest.raises(DataError, match=r"expected letters, digits and underscores, such as 'original'"):
        discover(corpora, split=split)


def test_two_sets_of_one_name(corpora, write_parquet):
    write_parquet(corpora / "more" / "Ant" / FILE, [PAIR])
    with pytest.raises(
        DataError, match=r"two sets are called mmeb_train/Ant: .*MMEB-train.* and .*more.*; rename or move"
    ):
        discover(corpora)


def test_a_split_that_is_missing_is_not_hidden_by_other_data(corpora):
    with pytest.raises(DataError, match="MMEB-train: found MMEB-train sets of the splits original, expected 'other' as well"):
        discover(corpora, split="other")
