"""The patch embedding as a matrix product, against the convolution that every family's stock model runs."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from data_prep.checkpoint import FAMILIES
from data_prep.samples import Side
from pipeline.batches.collate import Job
from pipeline.model.crem import load_backbone
from pipeline.model.patches import PatchProjection, as_matrix_product


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_stock_models_convolution_forward_and_backward(kit_of, picture, family: str) -> None:
    kit = kit_of(family)
    stock = AutoModelForImageTextToText.from_pretrained(kit.checkpoint, dtype=torch.float32).model.visual
    ours = load_backbone(kit.checkpoint, torch.float32).model.visual
    assert type(stock.patch_embed.proj) is nn.Conv3d and type(ours.patch_embed.proj) is PatchProjection
    batch = kit.collator([[Job(kit.encoder.sequence(Side(images=(picture(1), picture(2, 112, 84)))))]])
    slope = torch.randn(len(batch.pixels), ours.patch_embed.embed_dim, generator=torch.Generator().manual_seed(0))
    out = []
    for tower in (stock, ours):
        rows = tower.patch_embed(batch.pixels)
        rows.backward(slope)
        out.append((rows.detach(), *[weight.grad for weight in tower.patch_embed.parameters()]))
    assert len(out[0]) == (3 if family == "qwen3_vl" else 2)  # Qwen3-VL's has a bias
    for expected, found in zip(*out, strict=True):
        scale = float(expected.abs().max())
        assert scale > 0
        torch.testing.assert_close(found / scale, expected / scale, atol=5e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_keep_names_shapes_and_values(kit_of, family: str) -> None:
    stock = AutoModelForImageTextToText.from_pretrained(kit_of(family).checkpoint, dtype=torch.float32)
    ours = load_backbone(kit_of(family).checkpoint, torch.float32)
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert all(torch.equal(ours.state_dict()[name], weight) for name, weight in stock.state_dict().items())


@pytest.mark.parametrize("change", [{"stride": 1}, {"padding": 1}, {"dilation": 2}])
def test_a_projection_that_is_more_than_a_matrix_is_refused(change: dict) -> None:
    projection = nn.Conv3d(3, 8, (2, 14, 14), **({"stride": (2, 14, 14)} | change))
    with pytest.raises(ValueError, match="no matrix product over patches"):
        as_matrix_product(projection)
    assert type(projection) is nn.Conv3d
