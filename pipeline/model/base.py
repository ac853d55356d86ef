"""Write a small random-weight Qwen2-VL as an ordinary Hugging Face folder: the embedded default's starting point.

What is kept from the real architecture: 14-pixel patches, 2 x 2 merge, temporal patch 2, M-RoPE sections in the real
proportion, grouped-query attention, tied embeddings, the special-token names, spare embedding rows above the tokenizer. What is
not: width, depth and vocabulary. Everything after this file takes "a checkpoint folder or hub id" and knows no special case. Tokenizer and
image processor open through their Auto classes; AutoProcessor would need torchvision for its video half, so nothing here uses it.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from data_prep.samples import DataError
from data_prep.shards import atomic_folder
from data_prep.template import IMAGE_ONLY_INSTRUCTION, SYSTEM
from pipeline.model.tokenizer import to_hugging_face, train_sentencepiece

SPARE_ROWS = 128
"""Embedding rows beyond the tokenizer at least, as the real checkpoints have them: room for the chorus without a resize."""


_FRAME = [SYSTEM, IMAGE_ONLY_INSTRUCTION, "system", "user", "assistant"] * 200
"""Text that stands in every prompt: as frequent in the tokenizer's corpus as it is in training."""


class BaseSize(BaseModel):
    """Width and depth of the small Qwen2-VL; the defaults give about 2 M parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = 128
    """Hidden size of the language model."""
    layers: int = 4
    """Decoder layers."""
    heads: int = 4
    """Attention heads; hidden / heads must be a multiple of 8 for the M-RoPE sections."""
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


def write_base(folder: Path, corpus: Iterable[str], size: BaseSize = BaseSize(), seed: int = 0) -> int:
    """Write config, safetensors, tokenizer, image processor and generation config to `folder`; the same call, the same bytes.

    Returns:
        The number of parameters.

    Raises:
        DataError: `folder` exists.
    """
    if folder.exists():
        raise DataError(f"{folder} exists: expected a new folder; remove it or name another")
    tokenizer = to_hugging_face(train_sentencepiece([*corpus, *_FRAME], size.vocabulary))
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(_config(size, tokenizer))
    ids = tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")], pad_token_id=ids("<|endoftext|>")
    )
    with atomic_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        (unfinished / "preprocessor_config.json").write_text(json.dumps(_IMAGE_PROCESSOR, indent=2) + "\n")
    return sum(p.numel() for p in model.parameters())


_IMAGE_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
    "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 1280 * 28 * 28},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def _config(size: BaseSize, tokenizer: PreTrainedTokenizerFast) -> Qwen2VLConfig:
    ids = tokenizer.convert_tokens_to_ids
    half = size.hidden // size.heads // 2
    section = [half // 4, 3 * half // 8, 3 * half // 8]  # 16 : 24 : 24 of the real head size 128
    if sum(section) != half:
        raise ValueError(f"head size {2 * half}: expected a multiple of 16, so that M-RoPE splits it 2:3:3; change hidden or heads")
    text = dict(
        vocab_size=-(-(len(tokenizer) + SPARE_ROWS) // 64) * 64,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "mrope_section": section, "rope_theta": 1e6},
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|im_end|>"),
        pad_token_id=ids("<|endoftext|>"),
        tie_word_embeddings=True,
        initializer_range=size.init_std,
    )
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
    return Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
