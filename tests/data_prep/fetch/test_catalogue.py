"""The catalogue: names, commits and digests are well formed, and parts are those of the formats."""

import pytest
from pydantic import ValidationError

from data_prep.fetch.catalogue import CATALOGUE, MMEB_SUBSETS, Archive, Repository, listing
from data_prep.samples import DataError
from data_prep.sources.mmeb_sets import task_of


def test_the_training_subsets_are_twenty_and_all_in_distribution():
    assert len(MMEB_SUBSETS) == len(set(MMEB_SUBSETS)) == 20
    assert {task_of(name)[1] for name in MMEB_SUBSETS} == {"IND"}


def test_every_name_is_listed_with_its_source():
    text = listing()
    assert list(CATALOGUE) == [
        "mmeb-train", "mmeb-eval", "mmeb-test-instruct", "mme5-hardneg", "mme5-synthetic", "sharegpt4v", "vlmevalkit",
    ]  # fmt: skip
    assert all(name in text for name in CATALOGUE)
    assert "TIGER-Lab/MMEB-train @ 76dd0a440b6d4c02776830a804443fffbb2d0bfa" in text
    assert "intfloat/mmE5-synthetic @ main, resolved when fetched" in text


def test_folders_are_distinct():
    assert len({corpus.folder for corpus in CATALOGUE.values()}) == len(CATALOGUE)


def test_parts_come_in_the_catalogue_s_order():
    entry = CATALOGUE["vlmevalkit"]
    assert entry.chosen(()) == (
        "MMBench_DEV_EN", "MMBench_DEV_EN_V11", "AI2D_TEST", "MMStar", "HallusionBench", "MMVet", "MMMU_DEV_VAL",
    )  # fmt: skip
    assert entry.chosen(("MMVet", "MMStar")) == ("MMStar", "MMVet")
    with pytest.raises(DataError, match="it has no parts; leave --only out"):
        CATALOGUE["mmeb-eval"].chosen(("CIRR",))


@pytest.mark.parametrize("entry", [{"revision": "main"}, {"revision": "76dd0a4"}, {"repo": "MMEB"}, {"repo": "a/../b"}, {"branch": "x"}])
def test_what_is_no_repository_is_refused(entry):
    with pytest.raises(ValidationError):
        Repository(**{"repo": "a/b", **entry})


@pytest.mark.parametrize("into", ["", "/", "../x", "a/../b", "/etc", "a/", "a b"])
def test_archives_unpack_below_the_corpus_only(into):
    with pytest.raises(ValidationError):
        Archive(pattern="*.zip", into=into)
