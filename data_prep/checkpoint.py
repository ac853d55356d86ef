"""Opening a checkpoint folder: which model families this pipeline runs, and what is read of each before any weight.

Families are told apart by `model_type` in the checkpoint's config.json, never by size or name.

A family is supported when its pieces are read by the rules they were trained with: positions (M-RoPE), image tokens, and what its vision
tower hands to its language model (`pipeline.model.family`). Anything else is refused before work starts, with what it lacks.
"""

from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from data_prep.samples import DataError

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Supported values of `model_type`. Mixture-of-experts and later families are others, whatever their name begins with."""


def load_config(checkpoint: str | Path) -> PreTrainedConfig:
    """The checkpoint's configuration.

    Raises:
        DataError: there is no such checkpoint here, or it is of a family that is not supported.
    """
    checkpoint = str(checkpoint)
    try:
        written, _ = PreTrainedConfig.get_config_dict(checkpoint)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{checkpoint}: found no checkpoint there; expected a folder with config.json, or a hub id already downloaded "
            f"(HF_HUB_OFFLINE=0 lets this command download it). First cause: {str(error).splitlines()[0]}"
        ) from error
    _check_family(written, checkpoint)
    return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)


def load_image_processor(checkpoint: str, config: PreTrainedConfig) -> Qwen2VLImageProcessorPil:
    """The checkpoint's image processor; all supported families use this class, each with its own numbers.

    Always the Pillow one, so that pixels do not depend on whether torchvision is installed.

    Raises:
        DataError: the checkpoint has none, one of another kind, or one that cuts other patches than the vision tower expects.
    """
    try:
        images = AutoImageProcessor.from_pretrained(checkpoint, config=config, backend="pil", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{checkpoint}: found no usable image processor; expected preprocessor_config.json beside config.json, as published "
            f"checkpoints have it: copy it there. First cause: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(images, Qwen2VLImageProcessorPil):
        raise DataError(f"{checkpoint}: found the image processor {type(images).__name__}; expected Qwen2VLImageProcessor with this family")
    vision = config.vision_config
    found = (images.patch_size, images.merge_size, images.temporal_patch_size)
    expected = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    if found != expected:
        raise DataError(
            f"{checkpoint}: found patch, merge and temporal patch size {found} in preprocessor_config.json; expected {expected} as in "
            f"config.json, or image tokens would not match image features. Take both files from the same checkpoint"
        )
    return images


def has_chorus(config: PreTrainedConfig) -> bool:
    """Whether the checkpoint has been given chorus tokens (or, in their place, the end-of-sequence token)."""
    return bool(getattr(config, "chorus_token_ids", None))


def chorus_ids(config: PreTrainedConfig, checkpoint: str) -> tuple[int, ...]:
    """The ids of the chorus tokens, as `python -m pipeline.model chorus` recorded them in config.json.

    Raises:
        DataError: the checkpoint has none.
    """
    if not has_chorus(config):
        raise DataError(
            f"{checkpoint}: found a checkpoint without chorus tokens (no chorus_token_ids in config.json); expected one that has "
            f"them. Add them once:\n    python -m pipeline.model chorus {checkpoint} OUT --k 16\nand use OUT from then on."
        )
    return tuple(config.chorus_token_ids)


def _check_family(config: dict, checkpoint: str) -> None:
    """Refuse a checkpoint of a family that is not supported.

    Args:
        config: config.json as it stands, before transformers fills in defaults.
        checkpoint: folder or hub id, for the message.

    Raises:
        DataError: naming the family found, what it lacks, and the families that are supported.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise DataError(
            f"{checkpoint}: found a checkpoint of model_type {family!r}, which lacks {'; '.join(_missing(config))}. "
            f"Expected one of the supported families {', '.join(FAMILIES)}: start from such a checkpoint, e.g. the small random one that "
            f"`python -m pipeline.model base OUT --family {FAMILIES[-1]}` writes"
        )


def _missing(config: dict) -> list[str]:
    """What the pipeline needs and this configuration does not show; for one that has it all, that nobody has taught it the family."""
    text, vision = config.get("text_config", config), config.get("vision_config")
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    needed = {
        "a vision tower (vision_config)": vision,
        "an image placeholder token (image_token_id)": config.get("image_token_id", config.get("image_token_index")),
        "image tokens of merged patches (vision_config.spatial_merge_size)": (vision or {}).get("spatial_merge_size"),
        "positions in time, height and width (M-RoPE: mrope_section)": rope.get("mrope_section"),
    }
    absent = [what for what, found in needed.items() if not found]
    return absent or ["an entry in data_prep/checkpoint.py and pipeline/model/family.py that says how its image features are read"]
