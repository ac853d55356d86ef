"""A plan's parameters are the model's: published totals, and every count of a loaded checkpoint."""

import json

import pytest
import torch

from data_prep.checkpoint import load_config
from data_prep.samples import DataError
from pipeline.config import ModelSettings
from pipeline.model.crem import load_backbone
from pipeline.model.trainable import make_trainable, parameter_counts
from pipeline.plan.sizes import PUBLISHED, measure, open_model, published_config

TABLE = json.loads(PUBLISHED.read_text())


@pytest.mark.parametrize("name", TABLE)
def test_published_totals(name):
    """The number of parameters that the Hub states for the checkpoint's safetensors."""
    stated = {
        "Qwen2-VL-2B": 2_208_985_600,
        "Qwen2-VL-7B": 8_291_375_616,
        "Qwen2.5-VL-3B": 3_754_622_976,
        "Qwen2.5-VL-7B": 8_292_166_656,
        "Qwen3-VL-2B": 2_127_532_032,
    }
    assert measure(published_config(name), ModelSettings(), name).total == stated[name] == TABLE[name]["published_parameters"]


def test_parts_of_qwen2_vl_2b():
    model = open_model(ModelSettings(checkpoint="work/Qwen2-VL-2B-crem-init"))
    assert model.name == "Qwen2-VL-2B (published sizes)"
    assert {part: count["total"] for part, count in model.parts.items()} == {
        "vision": 665_271_296,
        "language": 1_543_689_728,
        "adapters": 0,
        "chorus": 24_576,
    }
    assert (model.language.layers, model.language.width, model.language.feed_forward, model.language.kv_heads) == (28, 1536, 8960, 2)
    assert (model.vision.layers, model.vision.width, model.vision.feed_forward, model.largest) == (32, 1280, 5120, 151_936 * 1536)


@pytest.mark.parametrize("train", ["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_counts_of_a_loaded_checkpoint(checkpoint_of, family, train):
    settings = ModelSettings(checkpoint=str(checkpoint_of(family)), train=train)
    planned = open_model(settings, learn_temperature=True)
    loaded = make_trainable(load_backbone(settings.checkpoint, torch.float32), settings, 0, learn_temperature=True)
    assert planned.parts == parameter_counts(loaded) and planned.chorus == 4
    assert planned.total == sum(weight.numel() for weight in loaded.parameters())
    assert planned.trained == sum(weight.numel() for weight in loaded.parameters() if weight.requires_grad)
    assert planned.largest == max(weight.numel() for weight in loaded.parameters())


def test_a_checkpoint_without_chorus_is_planned_with_sixteen(base_checkpoint):
    assert measure(load_config(base_checkpoint), ModelSettings(), "base").chorus == 16


def test_an_unknown_name():
    with pytest.raises(DataError, match=r"work/llava: found no such folder, and no published size .*one of Qwen2-VL-2B, Qwen2-VL-7B"):
        open_model(ModelSettings(checkpoint="work/llava"))
