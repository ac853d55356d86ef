"""The inference API: what it returns is what its parts give one by one, and what it cannot use it names."""

import io
import os
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pipeline.inference
from data_prep.samples import DataError, Side
from pipeline.evaluate.embed import embed
from pipeline.inference import CremModel, StoredContext

LIMIT = 6
QUESTIONS = ["how many?", "what colour is the largest shape of all of them?", "?", "are there stars?", "which ring is it?"]


@pytest.fixture(scope="module")
def folder(checkpoint, model, tmp_path_factory) -> Path:
    """`checkpoint` with the weights of `model`, which let everything be seen."""
    out = tmp_path_factory.mktemp("inference") / "export"
    shutil.copytree(checkpoint, out)
    model.backbone.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def crem(folder) -> CremModel:
    return CremModel.open(folder)


@pytest.fixture(scope="module")
def pictures(picture, tmp_path_factory) -> list:
    """A path, its text form, an opened image, several of them, and none."""
    root = tmp_path_factory.mktemp("pictures")
    for seed, size in enumerate([(56, 56), (84, 56), (112, 84)]):
        (root / f"{seed}.png").write_bytes(picture(seed, *size).data)
    opened = Image.open(root / "2.png")
    return [root / "0.png", str(root / "1.png"), opened, [root / "1.png", opened, root / "0.png"], None]


TEXTS = ["a ring", None, "  look\n", "three stars and a very long caption, of the kind that some people write", "text alone"]


@pytest.fixture(scope="module")
def sides(picture) -> list[Side]:
    """What `pictures` and `TEXTS` mean."""
    a, b, c = picture(0, 56, 56), picture(1, 84, 56), picture(2, 112, 84)
    images = [(a,), (b,), (c,), (b, c, a), ()]
    return [Side((text or "").strip(), own) for text, own in zip(TEXTS, images, strict=True)]


@pytest.mark.parametrize("k", [1, 3, 4, None])
def test_embed_is_that_of_the_parts(crem, encoder, model, collator, sides, pictures, k) -> None:
    expected = embed(model, collator, [encoder.shortened(k).sequence(side) for side in sides])
    vectors = crem.embed(pictures, TEXTS, k)
    assert (vectors.shape, vectors.dtype, str(vectors.device)) == (expected.shape, torch.float32, "cpu")
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(crem.embed(images=pictures[:2], k=k)[1], expected[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(crem.embed(texts=TEXTS[4:], k=k)[0], expected[4], atol=1e-5, rtol=0)


def test_windows_change_nothing(crem, pictures, monkeypatch) -> None:
    whole = crem.embed(pictures, TEXTS)
    monkeypatch.setattr(pipeline.inference, "WINDOW", 2)
    torch.testing.assert_close(crem.embed(pictures, TEXTS), whole, atol=1e-5, rtol=0)


@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    items=st.lists(st.tuples(st.integers(0, 3), st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)), min_size=1, max_size=4),
)
def test_one_forward_serves_every_k(crem, pictures, sizes, items) -> None:
    """Embedding with k tokens is pooling the first k states of a longer chorus."""
    images, texts = [pictures[i] for i, _ in items], [f"x{text}" for _, text in items]
    nested = crem.embed_nested(images, texts, sizes)
    assert nested.shape[:2] == (len(sizes), len(items))
    for p, k in enumerate(sizes):
        torch.testing.assert_close(nested[p], crem.embed(images, texts, k), atol=1e-5, rtol=0)
    torch.testing.assert_close(crem.embed_nested(images, texts, [*sizes, 4])[:-1], nested, atol=1e-5, rtol=0)


def test_k_matters(crem, pictures) -> None:
    """Without which the equalities above would show nothing."""
    nested = crem.embed_nested(pictures, TEXTS, [1, 2, 3, 4])
    assert min((nested[i] - nested[j]).norm(dim=1).min() for i in range(4) for j in range(i)) > 1e-2


@pytest.mark.parametrize("k", [1, 2, None])
@pytest.mark.parametrize("mode", ["native", "compressed"])
def test_answers_are_those_of_the_answerer_one_by_one(crem, encoder, sides, pictures, mode, k, monkeypatch) -> None:
    short = encoder.shortened(k)
    expected = []
    for side, question in zip(sides, QUESTIONS, strict=True):
        [answer] = crem.opened.answerer.answer([short.sequence(side, open_question=question)], mode, LIMIT)
        expected.append(answer.text)
    assert len(set(expected)) > 2
    monkeypatch.setattr(pipeline.inference, "BATCH", 2)
    assert crem.answer(pictures, QUESTIONS, mode, k, LIMIT, texts=TEXTS) == expected


def test_questions_without_context(crem, encoder) -> None:
    expected = [crem.opened.answerer.answer([encoder.sequence(Side(), open_question=q)], "native", LIMIT)[0].text for q in QUESTIONS]
    assert crem.answer(None, QUESTIONS, max_new_tokens=LIMIT) == expected
    assert crem.answer([None] * 5, QUESTIONS, max_new_tokens=LIMIT) == expected


@pytest.mark.parametrize("k", [1, 3, None])
def test_stored_answers_equal_those_with_the_images(crem, pictures, k, monkeypatch, tmp_path) -> None:
    """Token for token, over the disk, in batches that are not those of the answers with images."""
    expected = crem.answer(pictures, QUESTIONS, "compressed", k, LIMIT, texts=TEXTS)
    crem.remember(pictures, TEXTS, k).save(tmp_path / "new" / "memory.safetensors")
    stored = StoredContext.load(tmp_path / "new" / "memory.safetensors")
    assert crem.answer_from(stored, QUESTIONS, LIMIT) == expected
    monkeypatch.setattr(pipeline.inference, "BATCH", 2)
    assert crem.answer_from(stored, QUESTIONS, LIMIT) == expected
    again = crem.remember(pictures, TEXTS, k)
    assert (again.k, again.prefix_lengths, again.next_positions) == (stored.k, stored.prefix_lengths, stored.next_positions)
    torch.testing.assert_close(again.keys_LBHkE, stored.keys_LBHkE, atol=1e-5, rtol=1e-5)
    assert stored.cache_shares == [(k or 4) / length for length in stored.prefix_lengths]


def test_stored_logits_equal_those_with_the_images(crem, pictures, monkeypatch) -> None:
    logits, choose = [], crem.opened.answerer._choose
    monkeypatch.setattr(crem.opened.answerer, "_choose", lambda logits_BV: (logits.append(logits_BV), choose(logits_BV))[1])
    stored = crem.remember(pictures, TEXTS, 2)
    for i in range(5):
        logits.clear()
        crem.answer(pictures[i : i + 1], QUESTIONS[i : i + 1], "compressed", 2, LIMIT, texts=TEXTS[i : i + 1])
        steps = len(logits)
        crem.answer_from(stored.select([i]), QUESTIONS[i : i + 1], LIMIT)
        assert steps > 1
        torch.testing.assert_close(torch.cat(logits[steps:]), torch.cat(logits[:steps]), atol=1e-5, rtol=1e-5)


def test_several_questions_about_one_context(crem, pictures) -> None:
    stored = crem.remember(pictures[:2])
    expected = crem.answer([pictures[1]] * 3 + [pictures[0]], QUESTIONS[:4], "compressed", max_new_tokens=LIMIT)
    assert crem.answer_from(stored.select([1, 1, 1, 0]), QUESTIONS[:4], LIMIT) == expected


def test_another_checkpoint_refuses_the_cache(crem, folder, checkpoint, pictures, tmp_path) -> None:
    stored = crem.remember(pictures)
    other = CremModel.open(checkpoint)
    with pytest.raises(DataError, match=r"found a chorus cache of checkpoint \w{16}, expected one of .*mean nothing to other weights"):
        other.answer_from(stored, QUESTIONS)
    copied = shutil.copytree(folder, tmp_path / "copy")
    assert CremModel.open(copied).digest == crem.digest != other.digest


def test_modes_of_opened_pictures(crem, tmp_path) -> None:
    """Gray, palette, transparent and rotated pictures look the same opened as from their file."""
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (56, 84, 4), dtype=np.uint8), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGBA", "L", "P", "1"):
        noise.convert(mode).save(tmp_path / f"{mode}.png", exif=exif)
    paths = sorted(tmp_path.iterdir())
    opened = [Image.open(path) for path in paths]
    assert torch.equal(crem.embed(opened), crem.embed(paths))
    assert [image.mode for image in opened] == [path.stem for path in paths], "the caller's pictures are left as they were"


def test_a_link_may_lead_out_of_its_folder(crem, pictures, tmp_path) -> None:
    """The caller names the file; model hubs link every file elsewhere."""
    (tmp_path / "link.png").symlink_to(pictures[0])
    assert torch.equal(crem.embed([tmp_path / "link.png"]), crem.embed([pictures[0]]))


def truncated() -> Image.Image:
    """Opened, with half of its file there: the fault shows when the pixels are read."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (56, 56, 3), dtype=np.uint8)).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:4000]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: m.embed(), "found neither images nor texts; expected as many of each, at least one"),
        (lambda m, p: m.embed([], []), "found 0 images, 0 texts"),
        (lambda m, p: m.embed(p[:2], TEXTS), "found 2 images, 5 texts; expected as many of each"),
        (lambda m, p: m.embed(texts="a ring"), r"texts: found one str, expected a list with one entry per item, e.g. \[text\]"),
        (lambda m, p: m.embed(p[2]), "images: found one .*, expected a list"),
        (lambda m, p: m.embed([p[0], None], ["x", " "]), "item 1: found neither image nor text"),
        (lambda m, p: m.embed([p[0], "nowhere.png"]), "item 1: missing: 'nowhere.png': expected a file at"),
        (lambda m, p: m.embed(["http://169.254.169.254/a.png"]), "item 0: missing: 'a.png'"),
        (lambda m, p: m.embed(["a\0.png"]), "item 0: .*is no usable path"),
        (lambda m, p: m.embed([[p[0], 3]]), "item 0: found int, expected a path or a Pillow image"),
        (lambda m, p: m.embed([Image.new("RGB", (4000, 10))]), "item 0: aspect: 'picture of item 0': found 4000 x 10"),
        (lambda m, p: m.embed([Image.new("F", (56, 56))]), "item 0: format: 'picture of item 0': found pixel mode F"),
        (lambda m, p: m.embed([truncated()]), "item 0: broken: .*cannot be decoded"),
        (lambda m, p: m.embed(p[:1], k=5), "k = 5: found a checkpoint of 4 chorus tokens; expected 1 to 4"),
        (lambda m, p: m.embed_nested(p[:1], None, []), "sizes: found none, expected at least one k"),
        (lambda m, p: m.embed_nested(p[:1], None, [1, 0]), "k = 0: found a checkpoint of 4"),
        (lambda m, p: m.answer(p[:1], ["a?"], k=9), "k = 9: found"),
        (lambda m, p: m.answer(p[:1], ["a?", "b?"]), "found 1 images, 2 questions"),
        (lambda m, p: m.answer(p[:1], "a?"), "questions: found one str"),
        (lambda m, p: m.answer(p[:1], ["a?"], mode="squeezed"), "mode: found 'squeezed', expected one of native, compressed"),
        (lambda m, p: m.answer(p[:1], ["a?"], max_new_tokens=0), "max_new_tokens = 0: expected at least 1"),
        (lambda m, p: m.remember(p[:1], k=0), "k = 0: found"),
        (lambda m, p: m.answer_from(m.remember(p[:2]), ["a?"]), "found 1 questions for 2 stored contexts, expected one each"),
    ],
)
def test_bad_input_is_named(crem, pictures, call, message) -> None:
    with pytest.raises(DataError, match=message):
        call(crem, pictures)


def test_a_missing_checkpoint(tmp_path, base_checkpoint) -> None:
    with pytest.raises(DataError, match="found no checkpoint there"):
        CremModel.open(tmp_path / "none")
    with pytest.raises(DataError, match="without chorus tokens"):
        CremModel.open(base_checkpoint)


def test_the_example_in_the_documentation_runs(folder, picture, tmp_path, monkeypatch) -> None:
    """As it stands: a folder with an export and two pictures is all it needs."""
    [example] = re.findall(r"\n((?:    .*\n|\n)+)\nEvery call", pipeline.inference.__doc__)
    assert "answer_from" in example
    (tmp_path / "work/run").mkdir(parents=True)
    (tmp_path / "work/run/export").symlink_to(folder)
    for seed, name in enumerate(("scan.png", "photo.png")):
        (tmp_path / name).write_bytes(picture(seed).data)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(textwrap.dedent(example), names)
    assert names["found"].numbers[0, 0] == names["best"]
    assert names["best"] in (0, 1) and names["pages"].shape == (2, 64) and len(names["native"]) == 2
    assert os.path.getsize("memory.safetensors") < 8000, "two contexts of two chorus tokens in two layers"
