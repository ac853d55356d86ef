"""A model whose embeddings differ."""

import shutil

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="session")
def lively(checkpoint, tmp_path_factory):
    """`checkpoint` with its matrices times four, so that embeddings differ and their gradient is more than rounding."""
    folder = tmp_path_factory.mktemp("lively") / "checkpoint"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    scaled = {name: weight * 4 if weight.ndim > 1 else weight for name, weight in weights.items()}
    save_file(scaled, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
