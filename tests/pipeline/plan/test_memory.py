"""Planned bytes against counted ones: what autograd saves; and the literal plan of crem_2b. (States: train/test_sharding.py.)"""

from dataclasses import replace

import pytest
import torch
from shrunk import config_of, model_of

from pipeline.config import ModelSettings
from pipeline.plan import memory
from pipeline.plan.sizes import measure, open_model
from pipeline.plan.work import assume
from pipeline.recipes import RECIPES
from pipeline.train.ds_config import read_sharding
from pipeline.train.sharding import Sharding

TOKENS = 256
PATCHES = 16 * 16


def saved(run, model) -> int:
    """Bytes of all storages that autograd saves for the backward pass, weights apart; each once."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    assert output.requires_grad
    return sum(size for pointer, size in sizes.items() if pointer not in own)


def language(model, dtype):
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None]
    embeds = torch.randn(1, TOKENS, 192, dtype=dtype, requires_grad=True)
    positions = torch.arange(TOKENS)[None, None].expand(3, 1, -1)
    run = model.model.language_model
    return lambda: run(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state


def vision(model, dtype):
    tower = model.config.vision_config
    pixels = torch.randn(PATCHES, 6 * tower.patch_size**2, dtype=dtype)
    grid = torch.tensor([[1, 16, 16]])
    return lambda: torch.cat(model.model.get_image_features(pixels, grid, return_dict=True).pooler_output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_layers_saved_activations(family, dtype):
    """One layer more, counted and planned: equal to the byte."""
    e = dtype.itemsize
    one, two = (model_of(config_of(family, layers=n, depth=n), dtype) for n in (1, 2))
    plan = measure(config_of(family), ModelSettings(), family)
    counted = (saved(language(two, dtype), two) - saved(language(one, dtype), one)) / TOKENS
    assert counted == memory.decoder_saved(plan.language, e, keys=TOKENS, head_norms=family == "qwen3_vl")
    counted = (saved(vision(two, dtype), two) - saved(vision(one, dtype), one)) / PATCHES
    assert counted == pytest.approx(memory.vision_saved(plan.vision, e, rms=family == "qwen2_5_vl"), rel=0.01)


def test_a_recomputed_layer_saves_its_input():
    one, two = (model_of(config_of("qwen2_vl", layers=n)) for n in (1, 2))
    for model in (one, two):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    counted = (saved(language(two, torch.float32), two) - saved(language(one, torch.float32), one)) / TOKENS
    assert counted == 4 * 192


def sharding_of(**zero) -> Sharding:
    return Sharding.model_validate({"zero_optimization": zero, "bf16": {"enabled": True}})


def test_states_by_stage():
    """Bytes of a thousand parameters over four ranks: ZeRO's table, with gradients in float32."""
    planned = {stage: memory.states(1000, 1000, sharding_of(stage=stage), 4).gpu for stage in (1, 2, 3)}
    assert planned[1] == {"weights": 2000, "masters": 1000, "moments": 2000, "gradients": 6000}
    assert planned[2] == {"weights": 2000, "masters": 1000, "moments": 2000, "gradients": 1000}
    assert planned[3] == {"weights": 500, "masters": 1000, "moments": 2000, "gradients": 1000}
    plain = Sharding.model_validate({"zero_optimization": {"stage": 0}})
    assert memory.states(1000, 1000, plain, 4).gpu == {"weights": 4000, "moments": 8000, "gradients": 4000}
    adapters = memory.states(1000, 8, sharding_of(stage=3), 4).gpu
    assert adapters == {"weights": 500, "masters": 8, "moments": 16, "gradients": 8}
    nodes = memory.states(1000, 1000, sharding_of(stage=3, zero_hpz_partition_size=2), 4).gpu
    assert nodes["weights, second copy"] == 1000
    both = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    offloaded = memory.states(1000, 1000, sharding_of(stage=3, **both), 4)
    assert offloaded.gpu == {} and sum(offloaded.host.values()) == 500 + 1000 + 2000 + 2000


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_moving_average_takes_four_bytes_of_what_trains(stage):
    """Shared out as the moments are; on the host where they are."""
    sharding = Sharding.model_validate({"zero_optimization": {"stage": stage}})
    without, with_ = (memory.states(1000, 600, sharding, 4, averaged) for averaged in (False, True))
    assert with_.gpu == without.gpu | {"average": 600 if stage else 2400} and with_.host == without.host == {}
    offloaded = memory.states(1000, 600, sharding_of(stage=3, offload_optimizer={"device": "cpu"}), 4, averaged=True)
    assert offloaded.host["average"] == 600 and "average" not in offloaded.gpu


def test_the_plan_of_crem_2b_on_eight_gpus():
    """The literal bytes, so that a changed formula is seen."""
    config = RECIPES["crem_2b"]()
    model = open_model(config.model)
    held = memory.of_one_gpu(model, assume(config, model), read_sharding(config.deepspeed), 8, checkpointing=True, mask=True)
    numbers = 2_208_985_600
    expected = {"weights": 2 * numbers // 8, "masters": 4 * numbers // 8, "moments": numbers, "gradients": 4 * numbers // 8}
    expected |= {"ZeRO-3 gathers": 2 * (1_000_000_000 + 200_000_000), "reduce buckets": 800_000_000}
    expected |= {"answer logits": 3 * 4 * 2**24 + 2 * 151_936 * 1536, "reserve (assumed)": 4 * 2**30}
    expected |= {"contrastive matrix": 4 * (4 * 2048 * 1536 + 5 * 128 * 1024)}
    # 28 layers' inputs and one layer: norms, attention of 12 heads of 128 and a mask's row of 4,096, three matrices of 8,960
    layer = 2 * (8 * 1536 + 4) + (8 * 1536 + 48 + 2 * 4096) + 4 * 2 * 8960
    expected |= {"activations, language": 16_384 * (28 * 2 * 1536 + layer)}
    # 80 % of the tokens show images, four patches each: 32 blocks' inputs and one block of width 1,280 and 16 heads
    block = 2 * (4 * 1280 + 4) + (7 * 2 * 1280 + 64) + 3 * 2 * 5120
    expected |= {"activations, vision": 52_116 * (32 * 2 * 1280 + block)}
    assert held == memory.Held(expected, {})
    assert sum(held.gpu.values()) / 2**30 == pytest.approx(22.1, abs=0.2)


def test_smaller_chunks_and_recomputing_take_less():
    config = RECIPES["crem_7b"]()
    model = open_model(config.model)
    work, sharding = assume(config, model), read_sharding(config.deepspeed)

    def total(chunk: int, checkpointing: bool) -> int:
        return sum(memory.of_one_gpu(model, replace(work, chunk_tokens=chunk), sharding, 8, checkpointing, True).gpu.values())

    assert total(4096, True) < total(8192, True) < total(8192, False)
