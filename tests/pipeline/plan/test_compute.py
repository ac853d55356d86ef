"""Planned operations against torch's own counter, on small models of every family; and the literal time of crem_2b.

The counter passes over the CPU's flash attention, so attention runs as plain matrix products here, whose backward pass is twice the
forward one and not two and a half times.
"""

from dataclasses import replace

import pytest
import torch
from shrunk import config_of, model_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import ModelSettings
from pipeline.losses.answer import answer_cross_entropy
from pipeline.plan import compute
from pipeline.plan.sizes import measure, open_model
from pipeline.plan.work import Work, assume
from pipeline.recipes import RECIPES

TOKENS, SIDE = 384, 16
IMAGE = SIDE * SIDE // 4
WORK = Work("counted", 1, 1, TOKENS, IMAGE, 1, 40, 1, None, 1, row_tokens=TOKENS, chunk_tokens=TOKENS)
"""One row of 384 tokens, an image of 16 x 16 patches, 40 answer tokens."""


def run(model, plan) -> torch.Tensor:
    """Tower, language model under a dense mask, answer loss: what `Crem.forward` runs, on random numbers."""
    pixels = torch.randn(SIDE * SIDE, plan.patch_numbers)
    features = torch.cat(model.model.get_image_features(pixels, torch.tensor([[1, SIDE, SIDE]]), return_dict=True).pooler_output)
    embeds = torch.cat([features, torch.randn(TOKENS - IMAGE, 192)])[None]
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None]
    positions = torch.arange(TOKENS)[None, None].expand(3, 1, -1)
    hidden = model.model.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return answer_cross_entropy(hidden[0, :40], model.lm_head.weight, torch.arange(40)).sum() + hidden.sum()


def counted(model, plan, backward: bool) -> int:
    """Operations that torch counts."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        loss = run(model, plan)
        if backward:
            loss.backward()
    return counter.get_total_flops()


def planned(plan, once: compute.Operations, checkpointing: bool = False) -> float:
    """A step of one chunk, attention's backward pass as plain products."""
    whole = compute.step(plan, once, cached=False, checkpointing=checkpointing)
    return whole - 0.5 * (once.language_attention + once.vision_attention)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_operations_are_torchs(family):
    config = config_of(family)
    model, plan = model_of(config), measure(config_of(family), ModelSettings(), family)
    once = compute.forward(plan, WORK, mask=True)
    assert once.forward == pytest.approx(counted(model, plan, backward=False), rel=0.01)
    assert planned(plan, once) == pytest.approx(counted(model, plan, backward=True), rel=0.01)


def test_recomputed_blocks_run_once_more():
    model, plan = model_of(config_of("qwen2_vl")), measure(config_of("qwen2_vl"), ModelSettings(), "small")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    once = compute.forward(plan, WORK, mask=True)
    assert planned(plan, once, checkpointing=True) == pytest.approx(counted(model, plan, backward=True), rel=0.01)


def test_adapters_take_no_gradient_of_frozen_weights(checkpoint):
    settings = RECIPES["tiny"]().model.model_copy(update={"checkpoint": str(checkpoint), "train": "lora"})
    plan = open_model(settings)
    full = replace(plan, parts=open_model(RECIPES["tiny"]().model.model_copy(update={"checkpoint": str(checkpoint)})).parts)
    once = compute.forward(plan, WORK, mask=True)
    saved = compute.step(full, once, False, False) - compute.step(plan, once, False, False)
    assert saved == pytest.approx(once.language + once.head + 2 * once.vision + 2.5 * once.vision_attention + once.patches)


def test_several_chunks_run_forward_twice():
    plan = measure(config_of("qwen2_vl"), ModelSettings(), "small")
    once = compute.forward(plan, WORK, mask=True)
    more = compute.step(plan, once, cached=True, checkpointing=False) - compute.step(plan, once, cached=False, checkpointing=False)
    assert more == pytest.approx(once.forward)


def test_without_a_mask_a_token_meets_half_of_its_own_sequence():
    plan = measure(config_of("qwen2_vl"), ModelSettings(), "small")
    masked, causal = (compute.forward(plan, WORK, mask=mask) for mask in (True, False))
    assert causal.language_attention == masked.language_attention / 2
    assert causal.language == masked.language


def test_the_time_of_crem_2b():
    config = RECIPES["crem_2b"]()
    model = open_model(config.model)
    once = compute.forward(model, assume(config, model), mask=True)
    # a layer's matrices: two of 1,536 x 1,536, two of 1,536 x 256, three of 1,536 x 8,960
    assert compute.block_weights(model.language) == 2 * 1536 * 1536 + 2 * 1536 * 256 + 3 * 1536 * 8960 == 46_792_704
    assert once.language == pytest.approx(2 * 1_195_008 * 28 * 46_792_704)
    operations = compute.step(model, once, cached=True, checkpointing=True)
    assert operations == pytest.approx(5.084e16, rel=0.001)
    assert compute.seconds(operations, 8, 400e12, 0.35) == pytest.approx(45.39, rel=0.001)
