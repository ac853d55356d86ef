"""Published configurations made small: every family's own code with tiny widths, so that planned numbers can be counted for real."""

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from pipeline.plan.sizes import published_config

NAMES = {"qwen2_vl": "Qwen2-VL-2B", "qwen2_5_vl": "Qwen2.5-VL-3B", "qwen3_vl": "Qwen3-VL-2B"}


def config_of(family: str, layers: int = 2, depth: int = 2) -> PreTrainedConfig:
    """Widths that are all different, heads shared by threes, vision attention over the whole image."""
    config = published_config(NAMES[family])
    text, vision = config.text_config, config.vision_config
    text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.vocab_size = layers, 192, 512, 640
    text.num_attention_heads, text.num_key_value_heads = 6, 2
    text.rope_parameters["mrope_section"] = [6, 5, 5] if family == "qwen3_vl" else [4, 6, 6]
    vision.depth, vision.num_heads = depth, 3
    if family == "qwen2_vl":
        vision.hidden_size, vision.embed_dim = 192, 96
    else:
        vision.out_hidden_size, vision.hidden_size, vision.intermediate_size = 192, 96, 160
    if family == "qwen2_5_vl":
        vision.fullatt_block_indexes = list(range(depth))
    if family == "qwen3_vl":
        text.head_dim, vision.deepstack_visual_indexes = 32, []
    config.image_token_id = 600
    return config


def model_of(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Random weights, ready to train."""
    return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa").train()
