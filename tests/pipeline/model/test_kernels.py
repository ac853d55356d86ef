"""The door for fused kernels: closed where they cannot run, with a way out; plain changes nothing. The kernels themselves need a GPU."""

import importlib
import importlib.util
import inspect

import pytest
import torch
from transformers.integrations import liger

from data_prep.samples import DataError
from pipeline.config import ModelSettings
from pipeline.model.crem import load_backbone
from pipeline.model.kernels import CHOSEN, apply_kernels, check_kernels

LIGER = ModelSettings(kernels="liger")


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="liger-kernel is installed here")
def test_without_the_package_it_says_how_to_install_it(checkpoint):
    with pytest.raises(DataError, match=r"found no package liger_kernel; .*pip install liger-kernel.*or set --model\.kernels plain"):
        check_kernels(LIGER)
    with pytest.raises(ImportError, match="liger-kernel"):  # and nothing falls back in silence
        apply_kernels(load_backbone(checkpoint, torch.float32), LIGER)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(DataError, match=r"found no GPU; expected one, since the kernels are Triton. Set --model\.kernels plain"):
        check_kernels(LIGER)


def test_plain_leaves_every_forward_pass_alone(checkpoint):
    check_kernels(ModelSettings())
    backbone = load_backbone(checkpoint, torch.float32)
    apply_kernels(backbone, ModelSettings())
    assert not any("forward" in vars(module) for module in backbone.modules())


def test_transformers_door_is_where_we_knock():
    assert list(inspect.signature(liger.apply_liger_kernel).parameters) == ["model", "kernel_config"]
    assert not CHOSEN["fused_linear_cross_entropy"] and not CHOSEN["rope"] and CHOSEN["rms_norm"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_rope_that_liger_replaces_is_not_called_any_more(family):
    """The reason why it is not chosen; if this fails, choose it."""
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    assert not hasattr(module, "apply_multimodal_rotary_pos_emb")
