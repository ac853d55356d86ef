"""The model of a run without its weights: parameters by part, and the widths that memory and operations depend on.

Weights are made on torch's meta device, where a tensor has a shape and no memory, by the very code that training runs
(`make_trainable`): what is counted is what will train.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from data_prep.checkpoint import FAMILIES, load_config
from data_prep.samples import DataError
from pipeline.config import ModelSettings
from pipeline.model.trainable import make_trainable, parameter_counts

PUBLISHED = Path(__file__).with_name("published.json")
"""Sizes of published checkpoints, from their config.json on the Hugging Face Hub (Qwen/Qwen2-VL-2B-Instruct and so on), shortened to what
shapes depend on. "published_parameters" is the number that the Hub states for their safetensors; a test compares."""

CHORUS = 16
"""Chorus tokens assumed where the checkpoint has not been given any: the paper's K."""


@dataclass(frozen=True)
class Stack:
    """A stack of transformer blocks."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    matrices: int
    """Of the feed-forward part: 3 where it is gated (SwiGLU), else 2."""
    kept: int
    """Tensors of feed-forward width that autograd keeps: gated 4 (gate, its activation, up, product), quick GELU 3 (input, sigmoid,
    product), GELU 2 (input, output)."""


@dataclass(frozen=True)
class Model:
    """What a plan knows of a model."""

    name: str
    family: str
    parts: dict[str, dict[str, int]]
    """Trained and total parameters by part (`model.trainable.parameter_counts`)."""
    total: int
    """All parameters; where adapters train, also the chorus rows that stand in for rows of the embedding."""
    trained: int
    """Parameters with a gradient."""
    language: Stack
    vision: Stack
    vocabulary: int
    patches: int
    """Patches that become one image token."""
    patch_numbers: int
    """Pixels of a patch, colours and time included."""
    merger_width: int
    mergers: int
    """The merger, and one more for every DeepStack level."""
    window_patches: int
    """Patches of an attention window of the vision tower; 0: it attends over the whole image."""
    full_layers: int
    """Vision layers that attend over the whole image."""
    largest: int
    """Parameters of the largest tensor (in a real model the embedding)."""
    chorus: int


def open_model(settings: ModelSettings, learn_temperature: bool = False) -> Model:
    """The model of these settings: from its folder where it lies on disk, else from the table of published sizes.

    Raises:
        DataError: neither a checkpoint nor a published size.
    """
    if Path(settings.checkpoint).is_dir():
        return measure(load_config(settings.checkpoint), settings, str(settings.checkpoint), learn_temperature)
    table = json.loads(PUBLISHED.read_text())
    found = [name for name in table if name.lower() in Path(settings.checkpoint).name.lower()]
    if not found:
        raise DataError(
            f"{settings.checkpoint}: found no such folder, and no published size in its name; expected a checkpoint folder, or a name with "
            f"one of {', '.join(table)} in it: set --model.checkpoint"
        )
    return measure(published_config(found[0]), settings, f"{found[0]} (published sizes)", learn_temperature)


def published_config(name: str) -> PreTrainedConfig:
    """The configuration of an entry of `published.json`."""
    written = json.loads(PUBLISHED.read_text())[name]
    written.pop("published_parameters")
    return CONFIG_MAPPING[written.pop("model_type")](**written)


def measure(config: PreTrainedConfig, settings: ModelSettings, name: str, learn_temperature: bool = False) -> Model:
    """Make the model on the meta device and count."""
    assert config.model_type in FAMILIES
    if not getattr(config, "chorus_token_ids", None):
        config.chorus_token_ids = list(range(CHORUS))
    with torch.device("meta"):
        backbone = AutoModelForImageTextToText.from_config(config)
        crem = make_trainable(backbone, settings, seed=0, learn_temperature=learn_temperature)
    text, vision = config.text_config, config.vision_config
    width = vision.embed_dim if config.model_type == "qwen2_vl" else vision.hidden_size
    shapes = [tuple(weight.shape) for weight in crem.parameters()]
    windows = getattr(vision, "fullatt_block_indexes", None)
    patches = vision.spatial_merge_size**2
    return Model(
        name=name,
        family=config.model_type,
        parts=parameter_counts(crem),
        total=sum(map(math.prod, shapes)),
        trained=sum(weight.numel() for weight in crem.parameters() if weight.requires_grad),
        language=Stack(
            text.num_hidden_layers,
            text.hidden_size,
            text.num_attention_heads,
            text.num_key_value_heads,
            getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            text.intermediate_size,
            matrices=3,
            kept=4,
        ),
        vision=Stack(
            vision.depth,
            width,
            vision.num_heads,
            vision.num_heads,
            width // vision.num_heads,
            vision.intermediate_size if config.model_type != "qwen2_vl" else int(width * vision.mlp_ratio),
            matrices=3 if config.model_type == "qwen2_5_vl" else 2,
            kept={"qwen2_vl": 3, "qwen2_5_vl": 4, "qwen3_vl": 2}[config.model_type],
        ),
        vocabulary=text.vocab_size,
        patches=patches,
        patch_numbers=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        merger_width=width * patches,
        mergers=1 + len(getattr(vision, "deepstack_visual_indexes", ())),
        window_patches=(vision.window_size // vision.patch_size) ** 2 if windows is not None else 0,
        full_layers=len(windows) if windows is not None else vision.depth,
        largest=max(map(math.prod, shapes)),
        chorus=len(config.chorus_token_ids),
    )
