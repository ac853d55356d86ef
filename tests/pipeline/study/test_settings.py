"""Everything a study needs is looked at before it begins, and refused in words."""

import shutil

import pytest
from pydantic import ValidationError

from data_prep.samples import DataError
from data_prep.sources import Part
from pipeline.study.settings import StudySettings, merge, option_name, read_plan, source_names


def test_a_plan_holds_arms_their_resolved_settings_and_digests(settings):
    plan = read_plan(settings)
    assert [arm.name for arm in plan.arms] == ["both_losses", "full"]
    assert (plan.configs["both_losses"].loss.compression_probability, plan.configs["full"].loss.compression_probability) == (0.0, 0.5)
    assert {config.steps for config in plan.configs.values()} == {4}
    assert set(plan.inputs) == {"checkpoint", "data", "mmeb", "benchmarks", "max_pixels"}


def test_an_arm_of_one_kind_of_data_names_this_data(settings):
    plan = read_plan(settings.model_copy(update={"arms": ("homogeneous_only",)}))
    assert plan.configs["homogeneous_only"].data.weights == {"sharegpt4v/shapes_captions": 0.0}


def test_other_data_other_digests(settings, embedded, tmp_path):
    before = read_plan(settings).inputs
    shutil.copytree(embedded, tmp_path / "copy")
    same = settings.model_copy(update={"shards_from": (tmp_path / "copy",), "benchmarks": tmp_path / "copy" / "benchmarks"})
    assert read_plan(same).inputs == before
    table = next((tmp_path / "copy" / "synqa").glob("*.jsonl"))
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert {name for name, value in read_plan(same).inputs.items() if value != before[name]} == {"data"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "none"), "the trainer refuses its options"),
        (("--setps", "4"), "the trainer refuses its options"),
        (("--batch.pairs", "7", "--batch.sub-batch", "4"), "not a multiple"),
        (("--out", "x"), "--out: found it among"),
        (("--model.checkpoint=x",), r"--model.checkpoint: found it among"),
        (("--data.weights", "a", "0"), r"--data.weights: found it among"),
        (("--track.parent", "0"), r"--track.parent: found it among"),
        (("--resume",), "--resume: found it among"),
    ],
)
def test_bad_trainer_options_are_refused(settings, words, message):
    with pytest.raises(DataError, match=message):
        read_plan(settings.model_copy(update={"words": words}))


@pytest.mark.parametrize("name", ["checkpoint", "mmeb", "benchmarks", "shards_from"])
def test_missing_folders_are_refused(settings, tmp_path, name):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(DataError, match=f"{nowhere}.*found no.*expected"):
        read_plan(settings.model_copy(update={name: (nowhere,) if name == "shards_from" else nowhere}))


def test_a_checkpoint_with_a_chorus_is_refused(settings, checkpoint):
    with pytest.raises(DataError, match="found 4 chorus tokens; expected none"):
        read_plan(settings.model_copy(update={"checkpoint": checkpoint}))


def test_an_unknown_recipe_is_refused(settings):
    with pytest.raises(DataError, match="found the recipe 'huge'"):
        read_plan(settings.model_copy(update={"recipe": "huge"}))


def test_unknown_keys_are_refused(settings):
    with pytest.raises(ValidationError):
        StudySettings(**settings.model_dump(), step=4)


def test_merge_gives_the_arm_the_last_word():
    users = ["--steps", "4", "--loss.generation_weight", "0.3", "--chorus.elastic", "1", "2", "--seed=1"]
    assert merge(users, ("--loss.generation-weight", "0")) == [*users[:2], *users[4:], "--loss.generation-weight", "0"]
    assert merge(users, ()) == users


def test_option_name():
    assert option_name("--loss.retrieval_weight=1") == option_name("--loss.retrieval-weight") == "loss.retrieval-weight"


def test_source_names(tmp_path):
    parts = [
        Part("mmeb_train/A", "mmeb_train", tmp_path, 1, tmp_path),
        Part("sharegpt4v/B", "conversations", tmp_path, 1, tmp_path),
        Part("synqa/A", "synqa", tmp_path, 1, tmp_path, kind="paired"),
        Part("synqa/A-unpaired", "synqa", tmp_path, 1, tmp_path, kind="unpaired"),
    ]
    assert source_names(parts) == (("synqa/A", "synqa/A-unpaired"), ("sharegpt4v/B",), ("synqa/A-unpaired", "sharegpt4v/B"))
