"""Write a small random-weight checkpoint of any supported family as an ordinary Hugging Face folder: where everything here starts from.

Kept from the real architectures: patch size, 2 x 2 merge, temporal patch 2, M-RoPE sections in the real proportion, grouped-query
attention, tied embeddings, the special-token names, spare embedding rows above the tokenizer; and of

    qwen2_vl     14-pixel patches, M-RoPE sections side by side
    qwen2_5_vl   the same; in the vision tower window attention, full in the last block, gated MLPs and RMS norms
    qwen3_vl     16-pixel patches, interleaved M-RoPE, normed queries and keys, a learnt grid of vision positions, DeepStack features

What is not: width, depth and vocabulary. Everything after this file takes "a checkpoint folder or hub id" and knows no special case.
Tokenizer and image processor open through their Auto classes; AutoProcessor would need torchvision for its video half, so nothing
here uses it.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from data_prep.samples import DataError
from data_prep.shards import atomic_folder
from data_prep.template import IMAGE_ONLY_INSTRUCTION, SYSTEM
from pipeline.model.tokenizer import to_hugging_face, train_sentencepiece

SPARE_ROWS = 128
"""Embedding rows beyond the tokenizer at least, as the real checkpoints have them: room for the chorus without a resize."""


_FRAME = [SYSTEM, IMAGE_ONLY_INSTRUCTION, "system", "user", "assistant"] * 200
"""Text that stands in every prompt: as frequent in the tokenizer's corpus as it is in training."""


class BaseSize(BaseModel):
    """Width and depth of the small model; the defaults give about 2 M parameters in every family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = 128
    """Hidden size of the language model."""
    layers: int = 4
    """Decoder layers."""
    heads: int = 4
    """Attention heads; hidden / heads must be a multiple of 16 (Qwen3-VL: 32) for the M-RoPE sections."""
    kv_heads: int = 2
    """Key-value heads (grouped-query attention)."""
    feed_forward: int = 384
    """Inner size of the gated MLP."""
    vision_width: int = 128
    """Width of the vision tower."""
    vision_layers: int = 2
    """Blocks of the vision tower."""
    vision_heads: int = 4
    """Attention heads of the vision tower."""
    vocabulary: int = 768
    """Pieces sentencepiece may learn, the 256 byte pieces included."""
    init_std: float = 0.05
    """Standard deviation of the random weights; the library's 0.02 is meant for widths of thousands and learns late at this one."""


def write_base(folder: Path, corpus: Iterable[str], size: BaseSize = BaseSize(), seed: int = 0, family: str = "qwen2_vl") -> int:
    """Write config, safetensors, tokenizer, image processor and generation config to `folder`; the same call, the same bytes.

    Args:
        family: one of `data_prep.checkpoint.FAMILIES`.

    Returns:
        The number of parameters.

    Raises:
        DataError: `folder` exists.
    """
    if folder.exists():
        raise DataError(f"{folder} exists: expected a new folder; remove it or name another")
    tokenizer = to_hugging_face(train_sentencepiece([*corpus, *_FRAME], size.vocabulary))
    torch.manual_seed(seed)
    config, architecture, image_processor = _FAMILIES[family]
    model = architecture(config(size, tokenizer))
    ids = tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")], pad_token_id=ids("<|endoftext|>")
    )
    with atomic_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        (unfinished / "preprocessor_config.json").write_text(json.dumps(image_processor, indent=2) + "\n")
    return sum(p.numel() for p in model.parameters())


def _qwen2_vl(size: BaseSize, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    text = _text(size, tokenizer, shares=(4, 6, 6))  # 16 : 24 : 24 of the real head size 128
    vision = dict(
        depth=size.vision_layers,
        embed_dim=size.vision_width,
        hidden_size=size.hidden,
        num_heads=size.vision_heads,
        mlp_ratio=4,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
        initializer_range=size.init_std,
    )
    return Qwen2VLConfig(text_config=text, vision_config=vision, **_marks(tokenizer))


def _qwen2_5_vl(size: BaseSize, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    text = _text(size, tokenizer, shares=(4, 6, 6))
    vision = dict(
        depth=size.vision_layers,
        hidden_size=size.vision_width,
        intermediate_size=3 * size.vision_width,
        out_hidden_size=size.hidden,
        num_heads=size.vision_heads,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
        window_size=56,  # 2 x 2 image tokens (real: 4 x 4), so that pictures of a few tokens have several windows
        fullatt_block_indexes=[size.vision_layers - 1],  # real: every eighth block, the last among them
        initializer_range=size.init_std,
    )
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_marks(tokenizer))


def _qwen3_vl(size: BaseSize, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    text = _text(size, tokenizer, shares=(6, 5, 5), mrope_interleaved=True)  # 24 : 20 : 20
    text["head_dim"] = size.hidden // size.heads
    vision = dict(
        depth=size.vision_layers,
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        out_hidden_size=size.hidden,
        num_heads=size.vision_heads,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        num_position_embeddings=16 * 16,  # real: 48 x 48; either way resampled to each image's grid
        # real: three blocks spread over the tower; here all but the last. One level is added after each of the first decoder layers;
        # what is added after the last one no other token reads
        deepstack_visual_indexes=[*range(min(size.vision_layers, size.layers) - 1)],
        initializer_range=size.init_std,
    )
    return Qwen3VLConfig(text_config=text, vision_config=vision, **_marks(tokenizer))


def _text(size: BaseSize, tokenizer: PreTrainedTokenizerFast, shares: tuple[int, int, int], **rope: bool) -> dict:
    """The language model's configuration; `shares` of time, height and width in half a head, in sixteenths."""
    ids = tokenizer.convert_tokens_to_ids
    half = size.hidden // size.heads // 2
    section = [share * half // 16 for share in shares]
    if sum(section) != half:
        needed, ratio = (16, "2:3:3") if shares[0] == 4 else (32, "6:5:5")
        raise ValueError(f"head size {2 * half}: expected a multiple of {needed}, so that M-RoPE splits it {ratio}; change hidden or heads")
    return dict(
        vocab_size=-(-(len(tokenizer) + SPARE_ROWS) // 64) * 64,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "mrope_section": section, "rope_theta": 1e6} | rope,
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|im_end|>"),
        pad_token_id=ids("<|endoftext|>"),
        tie_word_embeddings=True,
        initializer_range=size.init_std,
    )


def _marks(tokenizer: PreTrainedTokenizerFast) -> dict:
    """What all families' configurations say outside text and vision: ids of the marks around images, tied embeddings."""
    ids = tokenizer.convert_tokens_to_ids
    return dict(
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _image_processor(processor: str, patch: int, mean: list[float], std: list[float]) -> dict:
    """preprocessor_config.json: images of 4 to 1280 tokens."""
    token = (2 * patch) ** 2
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
        "size": {"shortest_edge": 4 * token, "longest_edge": 1280 * token},
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": mean,
        "image_std": std,
    }


_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_HALF = [0.5, 0.5, 0.5]

_FAMILIES: dict[str, tuple[Callable, type, dict]] = {
    "qwen2_vl": (_qwen2_vl, Qwen2VLForConditionalGeneration, _image_processor("Qwen2VLProcessor", 14, _CLIP_MEAN, _CLIP_STD)),
    "qwen2_5_vl": (_qwen2_5_vl, Qwen2_5_VLForConditionalGeneration, _image_processor("Qwen2_5_VLProcessor", 14, _CLIP_MEAN, _CLIP_STD)),
    "qwen3_vl": (_qwen3_vl, Qwen3VLForConditionalGeneration, _image_processor("Qwen3VLProcessor", 16, _HALF, _HALF)),
}
"""Configuration, architecture and image processor of every family in `data_prep.checkpoint.FAMILIES`."""
