"""The small checkpoint of each family: the same bytes every time, and an ordinary folder to transformers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_prep.checkpoint import FAMILIES
from pipeline.model.base import BaseSize, write_base

TINY = BaseSize(hidden=64, layers=1, heads=2, kv_heads=1, feed_forward=32, vision_width=32, vision_layers=1, vision_heads=2, vocabulary=300)
CORPUS = ["a red circle", "the blue square is above it"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_call_writes_the_same_bytes(tmp_path: Path, family: str) -> None:
    count = write_base(tmp_path / "one", CORPUS, TINY, family=family)
    assert write_base(tmp_path / "two", iter(CORPUS), TINY, family=family) == count
    write_base(tmp_path / "other", CORPUS, TINY, seed=1, family=family)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert [name for name in one if one[name] != other[name]] == ["model.safetensors"]
    assert set(one) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }


def test_transformers_opens_the_folder(base_checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_checkpoint)
    processor = AutoImageProcessor.from_pretrained(base_checkpoint)
    model, report = AutoModelForImageTextToText.from_pretrained(base_checkpoint, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    assert type(model).__name__ == "Qwen2VLForConditionalGeneration"
    assert (processor.patch_size, processor.merge_size, processor.temporal_patch_size) == (14, 2, 2)
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (3136, 1003520)
    config, ids = model.config, tokenizer.convert_tokens_to_ids
    assert [config.image_token_id, config.video_token_id, config.vision_start_token_id] == [
        ids("<|image_pad|>"),
        ids("<|video_pad|>"),
        ids("<|vision_start|>"),
    ]
    assert model.generation_config.eos_token_id == [ids("<|im_end|>"), ids("<|endoftext|>")]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    rows = model.get_input_embeddings().num_embeddings
    assert rows % 64 == 0 and 128 <= rows - len(tokenizer) < 192
    assert config.text_config.rope_parameters["mrope_section"] == [4, 6, 6]
    assert sum(p.numel() for p in model.parameters()) < 500_000


def test_qwen2_5_vl_attends_in_windows_and_in_the_last_block_everywhere(checkpoint_of) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_of("qwen2_5_vl"))
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.patch_size, vision.spatial_merge_size, vision.window_size) == (14, 2, 56)
    assert (vision.depth, vision.fullatt_block_indexes) == (3, [2])
    assert text.rope_parameters["mrope_section"] == [4, 6, 6]
    assert hasattr(model.model.visual.blocks[0].mlp, "gate_proj") and not hasattr(model.model.visual.blocks[0].norm1, "bias")


def test_qwen3_vl_has_deepstack_and_a_learnt_grid_of_positions(checkpoint_of) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_of("qwen3_vl"))
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration"
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.patch_size, vision.spatial_merge_size, vision.num_position_embeddings) == (16, 2, 256)
    assert (vision.depth, vision.deepstack_visual_indexes) == (3, [0, 1])
    assert text.rope_parameters["mrope_section"] == [6, 5, 5] and text.rope_parameters["mrope_interleaved"]
    assert len(model.model.visual.deepstack_merger_list) == 2 and hasattr(model.model.language_model.layers[0].self_attn, "q_norm")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_size_is_about_two_million_parameters(tmp_path: Path, family: str) -> None:
    assert 1_500_000 < write_base(tmp_path / "base", CORPUS, family=family) < 2_500_000


@pytest.mark.parametrize("family", FAMILIES)
def test_it_generates_text(checkpoint_of, family: str) -> None:
    """Through the model's own processor path: an image and a question."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of(family))
    processor = AutoImageProcessor.from_pretrained(checkpoint_of(family))
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_of(family))
    pixels = processor(torch.zeros(3, 56, 56, dtype=torch.uint8).numpy(), return_tensors="pt")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * 4), return_tensors="pt").input_ids
    kinds = (ids == model.config.image_token_id).int()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **pixels, max_new_tokens=3)
    assert out.shape[1] - ids.shape[1] in (1, 2, 3)


def test_the_real_proportion_of_rope_sections_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="head size 24: expected a multiple of 16, so that M-RoPE splits it 2:3:3"):
        write_base(tmp_path / "x", CORPUS, TINY.model_copy(update={"hidden": 48}))
    with pytest.raises(ValueError, match="head size 16: expected a multiple of 32, so that M-RoPE splits it 6:5:5"):
        write_base(tmp_path / "x", CORPUS, TINY.model_copy(update={"hidden": 32}), family="qwen3_vl")
