"""Token ids, roles and pixels: the checkpoint's own rules, and nothing that data says becomes a special token."""

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor

from data_prep.checkpoint import FAMILIES
from data_prep.encode import Encoder, EncodeSettings, TooLongError, fingerprint_digest, to_row
from data_prep.images import open_image
from data_prep.samples import DataError, ImageRef, RawSample, Side, Turn
from data_prep.schema import ROW, Role
from data_prep.sequence import count_answer_tokens
from data_prep.stored import PreparedImage
from pipeline.model.chorus import add_chorus


def noise(width: int, height: int, seed: int = 0) -> ImageRef:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return ImageRef(f"{seed}-{width}x{height}.png", data=file.getvalue())


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (56, 56, 4),
        (112, 84, 12),
        (100, 60, 8),  # rounds to 112 x 56
        (10, 10, 4),  # enlarged to the smallest area of 4 tokens
        (2000, 20, 71),  # one token high
        (20, 2000, 71),
        (1500, 1500, 1225),  # reduced to 35 x 35 tokens, below the largest area of 1280
    ],
)
def test_image_tokens(encoder: Encoder, width: int, height: int, tokens: int) -> None:
    sequence = encoder.sequence(Side(images=(noise(width, height),)))
    (image,) = sequence.images
    assert (sequence.ids == encoder.image_id).sum() == tokens
    assert image.height % 28 == image.width % 28 == 0
    assert image.height // 28 * (image.width // 28) == tokens


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (64, 64, 4),
        (56, 56, 4),  # rounds to 64 x 64
        (100, 60, 6),  # rounds to 96 x 64
        (10, 10, 4),
        (1500, 1500, 1225),  # reduced to 35 x 35 tokens
    ],
)
def test_image_tokens_of_a_family_with_larger_patches(checkpoint_of, width: int, height: int, tokens: int) -> None:
    encoder = Encoder(checkpoint_of("qwen3_vl"))
    sequence = encoder.sequence(Side(images=(noise(width, height),)))
    (image,) = sequence.images
    assert encoder.factor == 32 and image.height % 32 == image.width % 32 == 0
    assert image.height // 32 * (image.width // 32) == (sequence.ids == encoder.image_id).sum() == tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("width", "height"), [(56, 56), (100, 60), (61, 333), (10, 10), (1500, 900), (560, 28)])
def test_pixels_are_those_of_the_checkpoints_processor(checkpoint_of, family: str, width: int, height: int) -> None:
    encoder, processor = Encoder(checkpoint_of(family)), AutoImageProcessor.from_pretrained(checkpoint_of(family))
    ref = noise(width, height)
    expected = processor(open_image(ref), return_tensors="np")
    prepared = Image.open(io.BytesIO(encoder.image(ref).data))
    found = processor(prepared, do_resize=False, return_tensors="np")
    assert found["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist()
    np.testing.assert_array_equal(found["pixel_values"], expected["pixel_values"])


def test_pixel_limits_of_the_settings(checkpoint: Path) -> None:
    small = Encoder(checkpoint, EncodeSettings(max_pixels=8 * 28 * 28))
    assert (small.image(noise(280, 280)).height, small.image(noise(280, 280)).width) == (56, 56)
    large = Encoder(checkpoint, EncodeSettings(min_pixels=9 * 28 * 28))
    assert (large.image(noise(28, 28)).height, large.image(noise(28, 28)).width) == (84, 84)
    with pytest.raises(DataError, match="min_pixels = 3136, max_pixels = 784: expected min_pixels at most max_pixels"):
        Encoder(checkpoint, EncodeSettings(max_pixels=784))


MARKS = ("<|image_pad|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|chorus_0|>", "<|chorus_3|>", "<|endoftext|>", "<image>")
hostile = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=8)), max_size=6).map("".join)


@settings(max_examples=2000)
@given(text=hostile, question=hostile, answer=hostile)
def test_no_text_becomes_a_special_token(encoder: Encoder, picture_56: bytes, text: str, question: str, answer: str) -> None:
    sequence = encoder.sequence(Side(text or "x", (ImageRef("a", data=picture_56),)), (Turn(question, answer),))
    special = encoder.tokenizer.added_tokens_decoder
    names = Counter(special[i].content for i in sequence.ids.tolist() if i in special)
    assert names == {
        "<|im_start|>": 3,
        "<|im_end|>": 3,
        "<|vision_start|>": 1,
        "<|image_pad|>": 4,
        "<|vision_end|>": 1,
        **{f"<|chorus_{i}|>": 1 for i in range(4)},
    }
    assert encoder.tokenizer.decode(encoder.plain_text_ids(text)) == text.replace("▁", " ")


def test_the_tokenizer_itself_does_make_special_tokens_of_such_text(encoder: Encoder) -> None:
    """Without which the test above would show nothing."""
    ids = encoder.tokenizer("".join(MARKS), add_special_tokens=False).input_ids
    assert sum(i in encoder.tokenizer.added_tokens_decoder for i in ids) == 7


def test_roles_line_up(encoder: Encoder) -> None:
    turns = (Turn("how many?", "three"), Turn("what colour?", "red"))
    sequence = encoder.sequence(Side("a ring", (noise(56, 56),)), turns, "which shape?")
    assert (sequence.ids.dtype, sequence.roles.dtype, len(sequence)) == (np.int32, np.uint8, len(sequence.roles))
    chorus = np.flatnonzero(sequence.roles == Role.CHORUS)
    assert sequence.ids[chorus].tolist() == list(encoder.chorus_ids)
    assert chorus.tolist() == list(range(chorus[0], chorus[0] + 4))
    assert set(sequence.roles[: chorus[0]].tolist()) == {Role.CONTEXT}
    answers = encoder.tokenizer.decode(sequence.ids[sequence.roles == Role.ANSWER])
    assert answers == "three<|im_end|>red<|im_end|>"
    prompt = encoder.tokenizer.decode(sequence.ids[sequence.roles == Role.PROMPT])
    header = "<|im_end|>\n<|im_start|>assistant\n"
    again = "\n<|im_start|>user\n"
    assert prompt == f"how many?{header}{again}what colour?{header}{again}which shape?{header}"
    expected = len(encoder.plain_text_ids("three")) + len(encoder.plain_text_ids("red")) + 2
    assert count_answer_tokens(sequence) == expected


def test_an_encoder_is_not_changed_by_being_shortened(encoder: Encoder) -> None:
    before = encoder.fingerprint()
    short = encoder.shortened(2)
    assert short.chorus_ids == encoder.chorus_ids and short.fingerprint()["chorus_ids"] == list(encoder.chorus_ids[:2])
    assert encoder.fingerprint() == before == encoder.shortened(None).fingerprint() == short.shortened(4).fingerprint()


@pytest.mark.parametrize("k", [0, -1, 5])
def test_chorus_tokens_that_are_not_there(encoder: Encoder, k: int) -> None:
    message = f"k = {k}: found a checkpoint of 4 chorus tokens; expected 1 to 4"
    with pytest.raises(DataError, match=message):
        encoder.shortened(k)


def test_too_long_is_refused_never_cut(checkpoint: Path, encoder: Encoder) -> None:
    side = Side("a red circle", (noise(84, 84),))
    length = len(encoder.sequence(side))
    assert len(Encoder(checkpoint, EncodeSettings(max_tokens=length)).sequence(side)) == length
    with pytest.raises(TooLongError, match=f"^too_long: {length} tokens, expected at most {length - 1}; raise max_tokens"):
        Encoder(checkpoint, EncodeSettings(max_tokens=length - 1)).sequence(side)


@settings(max_examples=100)
@given(
    text=st.text(max_size=20),
    sizes=st.lists(st.tuples(st.integers(10, 400), st.integers(10, 400)), max_size=2),
    turned=st.booleans(),
    question=st.none() | st.text(min_size=1, max_size=9),
)
def test_a_length_needs_no_pixels(encoder: Encoder, text, sizes, turned, question) -> None:
    """Of headers' sizes, also where a picture is yet to be turned, is that of the whole sequence; 100 random sides."""
    side = Side(text, tuple(noise(*size) for size in sizes))
    stated = [size[::-1] if turned else size for size in sizes]
    assert encoder.length(side, stated, question) == len(encoder.sequence(side, open_question=question))


def test_a_length_that_is_too_long_is_refused(encoder: Encoder) -> None:
    short = encoder.with_settings(EncodeSettings(max_tokens=50))
    with pytest.raises(TooLongError, match=r"^too_long: \d+ tokens, expected at most 50"):
        short.length(Side("", (noise(300, 300),)), [(300, 300)])
    assert encoder.settings.max_tokens == 4096, "the encoder it was made from is as it was"


def test_a_checkpoint_without_chorus_says_how_to_add_it(base_checkpoint: Path) -> None:
    with pytest.raises(DataError, match="without chorus tokens") as caught:
        Encoder(base_checkpoint)
    assert f"python -m pipeline.model chorus {base_checkpoint} OUT --k 16" in str(caught.value)


def test_a_missing_checkpoint_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no checkpoint there; expected a folder with config\.json, or a hub id"):
        Encoder(tmp_path / "none")


def test_rows_survive_arrow(encoder: Encoder) -> None:
    one, other = noise(56, 56, 1), noise(84, 56, 2)
    raw = RawSample("s/0", "s", Side("a", (one, other)), (Turn("q", "a"),), Side("b", (other,)), (Side("c"), Side(images=(one,))))
    sample = encoder.sample(raw)
    row = pa.RecordBatch.from_pylist([to_row(sample)], schema=ROW).to_pylist()[0]
    assert (row["id"], row["source"]) == ("s/0", "s")
    assert row["query"]["ids"] == sample.query.ids.tolist()
    assert row["query"]["roles"] == sample.query.roles.tolist()
    assert [row["query"]["images"], row["positive"]["images"]] == [[0, 1], [1]]
    assert [negative["images"] for negative in row["negatives"]] == [[], [0]]
    assert [PreparedImage(**image) for image in row["images"]] == list(sample.query.images)
    assert [(image["height"], image["width"]) for image in row["images"]] == [(56, 56), (56, 84)]


def test_a_generation_row_has_no_positive(encoder: Encoder) -> None:
    row = to_row(encoder.sample(RawSample("s/0", "s", Side("a"), (Turn("q", "a"),))))
    assert pa.RecordBatch.from_pylist([row], schema=ROW).to_pylist()[0]["positive"] is None


def test_the_fingerprint_changes_with_what_shards_depend_on(
    encoder: Encoder, checkpoint: Path, base_checkpoint: Path, tmp_path: Path
) -> None:
    def digest(folder: Path, **limits: int) -> str:
        return fingerprint_digest(Encoder(folder, EncodeSettings(**limits)).fingerprint())

    def changed(name: str, file: str, old: str, new: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(checkpoint, folder)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return folder

    add_chorus(base_checkpoint, tmp_path / "more", k=5)
    same = fingerprint_digest(encoder.fingerprint())
    others = [
        digest(checkpoint, min_pixels=784),
        digest(checkpoint, max_pixels=7840),
        digest(checkpoint, max_tokens=100),
        digest(tmp_path / "more"),
        digest(changed("size", "preprocessor_config.json", "1003520", "1003519")),
        digest(changed("tokenizer", "tokenizer.json", "<|box_end|>", "<|box_over|>")),
    ]
    assert digest(checkpoint) == digest(shutil.copytree(checkpoint, tmp_path / "copy")) == same
    assert len({same, *others}) == 7
    assert json.loads(json.dumps(encoder.fingerprint())) == encoder.fingerprint()


@pytest.mark.parametrize(
    ("stated", "asked", "pixels"),
    [
        ({}, (2, 3), (2, 3)),
        ({}, (None, 5), (None, 5)),
        ({}, (7, None), (7, None)),
        ({"min_pixels": 4}, (2, 6), (4, 6)),  # what a person set stays
        ({"max_pixels": 5}, (2, 6), (2, 5)),
        ({"min_pixels": 8}, (2, 6), (8, 8)),  # and pulls the other along
        ({"max_pixels": 4}, (5, 6), (4, 4)),
        ({"min_pixels": 3, "max_pixels": 9}, (4, 5), (3, 9)),
    ],
)
def test_image_limits_in_tokens(checkpoint: Path, encoder: Encoder, stated: dict, asked: tuple, pixels: tuple) -> None:
    """Literal limits in image tokens of 28 x 28 pixels; None: the checkpoint's own."""
    area = 28 * 28
    settings = EncodeSettings(**{name: tokens * area for name, tokens in stated.items()})
    other = Encoder(checkpoint, settings).with_image_tokens(*asked)
    own = encoder.images.size["shortest_edge"], encoder.images.size["longest_edge"]
    expected = tuple(limit if tokens is None else tokens * area for tokens, limit in zip(pixels, own, strict=True))
    assert (other.settings.min_pixels, other.settings.max_pixels) == expected
    assert other.settings.max_tokens == settings.max_tokens


def test_a_picture_is_made_as_large_as_a_benchmark_wants_it(encoder: Encoder) -> None:
    """VLMEvalKit's 1280 tokens at least: 28 x 28 pixels become 36 x 36 tokens; the encoder it came from stays as it was."""
    made = encoder.with_image_tokens(1280, 16384).image(noise(28, 28))
    assert (made.height, made.width) == (36 * 28, 36 * 28)
    assert encoder.settings.min_pixels is None
