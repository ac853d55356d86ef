"""Which settings a checkpoint must share with the run that continues it."""

import pytest

from data_prep.samples import DataError
from pipeline.config import RunConfig
from pipeline.train.checkpoint import Belongs, CheckpointManifest, check, newest_whole
from pipeline.train.commit import commit

BELONGS = Belongs(zero_stage=3, precision="fp32", data_digest="d")
DROPOUT = {"model": {"train": "lora", "lora": {"dropout": 0.1}}}


def write(root, content: dict, **layout):
    """An empty checkpoint of step 2, committed; returns it."""
    layout = {"world_size": 1, "zero_stage": 3, "precision": "fp32"} | layout
    manifest = CheckpointManifest(step=2, content=content, data_digest="d", tracked_run=None, files={}, **layout)
    (root / "new").mkdir()
    commit(root / "new", root / "step-00000002", manifest.model_dump(mode="json"))
    return root / "step-00000002"


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        ({}, {"model": {"train": "lora"}}, "model.train: full then, lora now"),
        ({}, {"model": {"freeze_vision": True}}, "model.freeze_vision: False then, True now"),
        ({"model": {"train": "lora"}}, DROPOUT, "model.lora.dropout: 0.0 then, 0.1 now"),
        ({}, {"ema": {"decay": 0.9}}, "ema: None then, {'decay': 0.9, "),
        ({"ema": {"decay": 0.9}}, {"ema": {"decay": 0.99}}, "ema.decay: 0.9 then, 0.99 now"),
        (DROPOUT, DROPOUT | {"batch": {"chunk_tokens": 4096}}, "batch.chunk_tokens: 8192 then, 4096 now"),
        (DROPOUT, DROPOUT | {"batch": {"row_tokens": 1024}}, "batch.row_tokens: 2048 then, 1024 now"),
    ],
    ids=["train", "freeze_vision", "dropout", "an average", "another average", "chunks with dropout", "rows with dropout"],
)
def test_other_content_is_refused_and_named(tmp_path, then: dict, now: dict, named: str) -> None:
    folder = write(tmp_path, RunConfig.model_validate(then).content())
    with pytest.raises(DataError, match=named):
        check(folder, RunConfig.model_validate(now), BELONGS)


def test_a_manifest_that_was_just_read_is_not_read_again(tmp_path, monkeypatch) -> None:
    """And it is looked at like any other."""
    folder = write(tmp_path, RunConfig().content())
    found = newest_whole(tmp_path, print)
    monkeypatch.setattr("pipeline.train.commit.read", lambda folder: pytest.fail("digested twice"))
    assert found[0] == folder and check(folder, RunConfig(), BELONGS, found[1]).step == 2
    with pytest.raises(DataError, match="trained on other shards"):
        check(folder, RunConfig(), BELONGS._replace(data_digest="e"), found[1])


@pytest.mark.parametrize("model", [{}, {"train": "lora"}], ids=["full", "lora"])
def test_chunking_is_layout_where_nothing_is_dropped(tmp_path, model: dict) -> None:
    """Without dropout the number of chunks does not change the gradient, and may change at resume."""
    folder = write(tmp_path, RunConfig.model_validate({"model": model}).content())
    now = {"model": model | {"gradient_checkpointing": True}, "batch": {"row_tokens": 1024, "chunk_tokens": 4096}}
    assert check(folder, RunConfig.model_validate(now), BELONGS).step == 2


@pytest.mark.parametrize("layout", [{"world_size": 4}, {"zero_stage": 2}, {"zero_stage": 1, "world_size": 16}])
def test_ranks_and_stage_may_be_others(tmp_path, layout: dict) -> None:
    folder = write(tmp_path, RunConfig().content(), **layout)
    assert check(folder, RunConfig(deepspeed="another.json"), BELONGS).step == 2


@pytest.mark.parametrize(
    ("settings", "layout", "named"),
    [
        ({}, {"precision": "bf16"}, "found a checkpoint of a run in bf16, expected one in fp32"),
        ({}, {"zero_stage": 0}, "1 ranks, ZeRO stage 0; this run has 1 ranks, stage 3. ZeRO-0 has no shards"),
        (DROPOUT, {"world_size": 2}, "2 ranks, ZeRO stage 3; this run has 1 ranks, stage 3. Dropout masks belong to ranks"),
    ],
    ids=["precision", "ZeRO-0", "ranks with dropout"],
)
def test_layouts_that_cannot_go_on(tmp_path, settings: dict, layout: dict, named: str) -> None:
    folder = write(tmp_path, RunConfig.model_validate(settings).content(), **layout)
    with pytest.raises(DataError, match=named):
        check(folder, RunConfig.model_validate(settings), BELONGS)


@pytest.mark.parametrize(
    ("then", "now"), [({"caps": {"a": 3}}, {"caps": {"a": 4}}), ({}, {"epochs": {"a": 1}}), ({}, {"weights": {"a": 1}})]
)
def test_another_mixture_is_another_run(tmp_path, then: dict, now: dict) -> None:
    folder = write(tmp_path, RunConfig(data=then).content())
    with pytest.raises(DataError, match=f"data.{next(iter(now))}"):
        check(folder, RunConfig(data=now), BELONGS)


def test_other_shards_are_refused(tmp_path) -> None:
    folder = write(tmp_path, RunConfig().content())
    with pytest.raises(DataError, match="trained on other shards"):
        check(folder, RunConfig(), BELONGS._replace(data_digest="e"))
