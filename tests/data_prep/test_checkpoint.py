"""What is read of a checkpoint before any weight: its family by config.json, its image processor, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import CLIPImageProcessorPil, LlavaConfig, Qwen2Config, Qwen3VLMoeConfig

from data_prep.checkpoint import FAMILIES, load_config, load_image_processor
from data_prep.encode import Encoder
from data_prep.samples import DataError
from pipeline.model.__main__ import main
from pipeline.model.crem import load_backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_is_the_configs_model_type(checkpoint_of, family: str, tmp_path: Path) -> None:
    """A folder's name says nothing."""
    folder = shutil.copytree(checkpoint_of(family), tmp_path / "Qwen2.5-VL-72B-Instruct")
    assert load_config(folder).model_type == family


OLDER = {
    "image_token_id": 151655,
    "hidden_size": 64,
    "num_attention_heads": 1,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
PUBLISHED = {
    "qwen2_vl": OLDER | {"vision_config": {"embed_dim": 64, "in_chans": 3, "patch_size": 14}},
    "qwen2_5_vl": OLDER | {"vision_config": {"spatial_patch_size": 14, "window_size": 112}},
    "qwen3_vl": {
        "image_token_id": 151655,
        "text_config": {"model_type": "qwen3_vl_text", "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20]}},
        "vision_config": {"model_type": "qwen3_vl", "patch_size": 16},
    },
}
"""How published config.json files are laid out: the text part flat in the older ones, M-RoPE under its older name in all."""


@pytest.mark.parametrize("family", FAMILIES)
def test_configurations_as_published(family: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family} | PUBLISHED[family]))
    config = load_config(tmp_path)
    expected = ([24, 20, 20], 16) if family == "qwen3_vl" else ([16, 24, 24], 14)
    assert (config.text_config.rope_parameters["mrope_section"], config.vision_config.patch_size) == expected
    assert (config.image_token_id, config.vision_config.spatial_merge_size) == (151655, 2)


UNSUPPORTED = {
    "llava": (
        LlavaConfig,
        r"model_type 'llava', which lacks image tokens of merged patches \(vision_config.spatial_merge_size\); "
        r"positions in time, height and width \(M-RoPE: mrope_section\)\. Expected one of",
    ),
    "text": (Qwen2Config, r"model_type 'qwen2', which lacks a vision tower \(vision_config\); an image placeholder token"),
    "experts": (Qwen3VLMoeConfig, r"model_type 'qwen3_vl_moe', which lacks an entry in data_prep/checkpoint.py"),
}


@pytest.fixture(params=UNSUPPORTED)
def unsupported(request, tmp_path: Path) -> tuple[Path, str]:
    """A folder with the configuration of another family, and what is said of it."""
    config, message = UNSUPPORTED[request.param]
    config = config()
    if request.param == "experts":
        config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [24, 20, 20]}
    config.save_pretrained(tmp_path / "other")
    return tmp_path / "other", message


def test_other_families_are_refused_by_what_they_lack(unsupported, tmp_path: Path, capsys) -> None:
    folder, message = unsupported
    for opens in (Encoder, load_config, load_backbone):
        with pytest.raises(DataError, match=message) as caught:
            opens(folder)
        assert "supported families qwen2_vl, qwen2_5_vl, qwen3_vl" in str(caught.value)
    assert main(["chorus", str(folder), str(tmp_path / "out")]) == 2
    assert "supported families qwen2_vl, qwen2_5_vl, qwen3_vl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_family_that_transformers_does_not_know_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen9_vl"}))
    with pytest.raises(DataError, match="found a checkpoint of model_type 'qwen9_vl', which lacks a vision tower"):
        load_config(tmp_path)


def _edited(checkpoint: Path, folder: Path, **changes) -> Path:
    """A copy whose preprocessor_config.json has other entries; None takes one out."""
    shutil.copytree(checkpoint, folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2_vl", {"size": None, "min_pixels": 3136, "max_pixels": 12845056}),
        ("qwen2_5_vl", {"size": None, "min_pixels": 3136, "max_pixels": 12845056, "image_processor_type": "Qwen2_5_VLImageProcessor"}),
        ("qwen3_vl", {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "image_processor_type": "Qwen2VLImageProcessorFast"}),
    ],
)
def test_image_processors_as_published(checkpoint_of, family: str, changes: dict, tmp_path: Path) -> None:
    """The forms in which the families' checkpoints name their processor and limits; none needs torchvision."""
    encoder = Encoder(_edited(checkpoint_of(family), tmp_path / "published", **changes))
    assert type(encoder.images).__name__ == "Qwen2VLImageProcessorPil"
    assert encoder.fingerprint()["image_rules"] == {
        "pixels": [65536, 16777216] if family == "qwen3_vl" else [3136, 12845056],
        "patch_size": 16 if family == "qwen3_vl" else 14,
        "merge_size": 2,
        "resample": 3,
        "stored_as": "webp lossless 0",
    }


def test_an_image_processor_of_another_checkpoint_is_refused(checkpoint_of, tmp_path: Path) -> None:
    folder = _edited(checkpoint_of("qwen3_vl"), tmp_path / "a", patch_size=14)
    with pytest.raises(DataError, match=r"found patch, merge and temporal patch size \(14, 2, 2\) .* expected \(16, 2, 2\)"):
        Encoder(folder)
    folder = _edited(checkpoint_of("qwen3_vl"), tmp_path / "b")
    CLIPImageProcessorPil().save_pretrained(folder)
    with pytest.raises(DataError, match="found the image processor CLIPImageProcessorPil; expected Qwen2VLImageProcessor"):
        Encoder(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match=r"found no usable image processor; expected preprocessor_config\.json"):
        load_image_processor(str(folder), load_config(folder))
