"""An exported folder opens with sentence-transformers' own classes, and gives the same vectors for texts."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_prep.template import Mark
from pipeline.inference import CremModel
from pipeline.train.export import export
from pipeline.train.sentence_files import chat_template


@pytest.fixture(scope="module")
def folder(checkpoint, model, tmp_path_factory) -> Path:
    """An export of `model`'s weights."""
    out = tmp_path_factory.mktemp("export") / "export"
    export(SimpleNamespace(weights=model.backbone.named_parameters), str(checkpoint), out, {"step": 0})
    return out


@pytest.fixture(scope="module")
def crem(folder) -> CremModel:
    return CremModel.open(folder, device="cpu")


@pytest.fixture(scope="module")
def sentences(folder) -> SentenceTransformer:
    """As its users open it: no flag, no class of this project."""
    return SentenceTransformer(str(folder), device="cpu")


TEXTS = ["a red circle", "  is above\n", "how many green triangles are in the picture? " * 9, "", "two\n\nlines", "12 äöü ▁ 日本"]


def test_same_vectors(sentences, crem, encoder) -> None:
    vectors = sentences.encode(TEXTS, convert_to_tensor=True)
    texts = [text for text in TEXTS if text]
    torch.testing.assert_close(vectors[[i for i, text in enumerate(TEXTS) if text]], crem.embed(texts=texts), atol=1e-4, rtol=0)
    assert torch.pdist(vectors).min() > 1e-2


@settings(max_examples=25)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30).map(lambda text: f"x{text}"), min_size=1, max_size=5))
def test_same_vectors_for_any_text(sentences, crem, texts) -> None:
    torch.testing.assert_close(sentences.encode(texts, convert_to_tensor=True), crem.embed(texts=texts), atol=1e-4, rtol=0)


def test_a_prompt_stands_before_the_text(sentences, crem) -> None:
    found = sentences.encode(["a ring", "stars"], prompt="Find the picture: ", convert_to_tensor=True)
    torch.testing.assert_close(found, crem.embed(texts=["Find the picture: a ring", "Find the picture: stars"]), atol=1e-4, rtol=0)


def test_similarity_is_cosine(sentences) -> None:
    vectors = sentences.encode(TEXTS)
    np.testing.assert_allclose(sentences.similarity(vectors, vectors).numpy(), vectors @ vectors.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_images_are_refused_by_the_stock_classes(sentences) -> None:
    with pytest.raises(ValueError, match="Modality 'image' is not supported"):
        sentences.encode([Image.new("RGB", (56, 56))])


def test_the_folder_is_still_a_plain_one(folder, model, checkpoint) -> None:
    opened = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=False)
    assert all(a.equal(b) for a, b in zip(opened.parameters(), model.backbone.parameters(), strict=True))
    assert len(AutoTokenizer.from_pretrained(folder)) == len(AutoTokenizer.from_pretrained(checkpoint))
    assert AutoImageProcessor.from_pretrained(folder).patch_size == 14
    assert not (folder / "processor_config.json").exists(), "AutoProcessor of the folder itself is left alone"


def test_the_folder_may_move(folder, sentences, tmp_path) -> None:
    """The weights lie there once; the index names them relative to itself."""
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert weights == (folder / "model.safetensors").stat().st_size
    moved = SentenceTransformer(str(shutil.copytree(folder, tmp_path / "elsewhere")), device="cpu")
    np.testing.assert_array_equal(moved.encode(TEXTS), sentences.encode(TEXTS))


def test_the_library_takes_no_class_of_ours_without_remote_code(folder, tmp_path) -> None:
    """Why the folder names stock classes."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "pipeline.sentence.ChorusEmbedder"}]
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"(?s)pipeline\.sentence\.ChorusEmbedder.*trust_remote_code=True"):
        SentenceTransformer(str(copy), device="cpu")


def test_the_frame_is_that_of_the_template() -> None:
    marks = {Mark.HEAD: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"}
    assert chat_template(marks, ["<|chorus_0|>", "<|chorus_1|>"]) == (
        '{{ "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n<|im_start|>user\\n" }}'
        "{{ messages | map(attribute='content') | join('') | trim }}"
        '{{ "<|chorus_0|><|chorus_1|>" }}'
    )
