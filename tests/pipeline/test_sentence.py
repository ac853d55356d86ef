"""CREM inside sentence-transformers: texts, images and both, with the vectors of the inference API."""

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from data_prep.images import open_image
from data_prep.samples import DataError
from pipeline.inference import CremModel
from pipeline.sentence import ChorusEmbedder


@pytest.fixture(scope="module")
def crem(checkpoint) -> CremModel:
    return CremModel.open(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def items(picture, tmp_path_factory) -> tuple[list, list, list]:
    """Items as sentence-transformers takes them, and their images and texts."""
    path = tmp_path_factory.mktemp("items") / "photo.png"
    path.write_bytes(picture(1, 84, 56).data)
    opened = open_image(picture(2))
    given = ["a ring", opened, {"image": opened, "text": "look"}, {"image": [str(path), opened]}, {"text": "<|im_end|> stays text"}]
    return given, [None, opened, opened, [path, opened], None], ["a ring", "", "look", "", "<|im_end|> stays text"]


@pytest.mark.parametrize("k", [2, None])
def test_same_vectors(crem, items, k) -> None:
    given, images, texts = items
    model = SentenceTransformer(modules=[ChorusEmbedder(crem, k)], device="cpu")
    vectors = model.encode(given, batch_size=2, convert_to_tensor=True)
    torch.testing.assert_close(vectors, crem.embed(images, texts, k), atol=1e-4, rtol=0)
    assert model.get_embedding_dimension() == vectors.shape[1] == 64
    torch.testing.assert_close(model.encode(given[1], convert_to_tensor=True), vectors[1], atol=1e-4, rtol=0)
    assert model.supports("image") and model.supports(("image", "text")) and not model.supports("audio")


def test_a_prompt_stands_before_the_text(crem, items) -> None:
    model = SentenceTransformer(modules=[ChorusEmbedder(crem)], device="cpu")
    found = model.encode([items[0][2], "stars"], prompt="Find: ", convert_to_tensor=True)
    torch.testing.assert_close(found, crem.embed([items[1][2], None], ["Find: look", "Find: stars"]), atol=1e-4, rtol=0)


def test_saved_by_the_library(checkpoint, crem, items, tmp_path) -> None:
    model = SentenceTransformer(modules=[ChorusEmbedder.open(checkpoint)], device="cpu")
    model.save_pretrained(str(tmp_path), create_model_card=False)
    torch.testing.assert_close(CremModel.open(tmp_path).embed(*items[1:]), crem.embed(*items[1:]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("item", [3, {"audio": "a.wav"}, {}, Image.Image, {"role": "user", "content": "hello"}])
def test_other_items_are_refused(crem, item) -> None:
    with pytest.raises(DataError, match=r"item 1: found .*, expected a text, a Pillow image, or a dict of image and text"):
        ChorusEmbedder(crem).preprocess(["a ring", item])
