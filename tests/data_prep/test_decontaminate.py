"""Which rows count as evaluation data: the same pixels, the same look, the same whole text; and what does not."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.decontaminate import EvaluationIndex, Look, Rule, look, text_keys, with_pictures
from data_prep.images import ImageError
from data_prep.samples import ImageRef, RawSample, Side, Turn

CAPTION = "a small red circle above a large blue square"


def scene(seed: int, size: tuple[int, int] = (112, 84)) -> Image.Image:
    """Eight by six coloured places, enlarged: a picture with large shapes."""
    places = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(places).resize(size, Image.Resampling.BICUBIC)


def file(picture: Image.Image, kind: str = "PNG", **options) -> ImageRef:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return ImageRef(f"train.{kind.lower()}", data=out.getvalue())


def row(query: Side = Side("find"), turns: tuple[Turn, ...] = (), positive: Side | None = None, negatives: tuple[Side, ...] = ()):
    return RawSample("s/0", "s", query, turns, positive, negatives)


def shows(ref: ImageRef) -> RawSample:
    return row(Side(images=(ref,)))


@pytest.fixture(scope="module")
def index() -> EvaluationIndex:
    looks = [(f"Set, row {seed}, query", look(scene(seed))) for seed in range(50)]
    return EvaluationIndex(looks, [("Captions, row 7, candidate 0", f"Find the picture of this: {CAPTION}.")])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_the_same_pixels_in_any_lossless_file(index: EvaluationIndex, kind: str) -> None:
    ref = file(scene(3), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert index.reason(shows(ref)) == f"eval_image: 'train.{kind.lower()}' has the pixels of Set, row 3, query"


@pytest.mark.parametrize(
    "altered",
    [
        file(scene(3), "JPEG", quality=75),
        file(scene(3), "WEBP", quality=75),
        file(scene(3).resize((56, 42))),
        file(scene(3).resize((224, 168)), "JPEG"),
        file(scene(3).resize((80, 80))),
    ],
)
def test_the_same_look_compressed_or_resized(index: EvaluationIndex, altered: ImageRef) -> None:
    assert index.reason(shows(altered)) == f"eval_image_near: {altered.name!r} looks like Set, row 3, query"


def test_other_pictures_are_no_matches(index: EvaluationIndex) -> None:
    assert [index.reason(shows(file(scene(seed)))) for seed in range(100, 200)] == [None] * 100
    shifted = Image.fromarray(np.roll(np.asarray(scene(3)), 30, axis=1))
    assert index.reason(shows(file(shifted))) is None


def test_every_image_of_a_row_is_compared(index: EvaluationIndex) -> None:
    known, other = file(scene(3)), file(scene(300))
    assert index.reason(row(Side("x", (other, known)))).startswith("eval_image: ")
    assert index.reason(row(positive=Side(images=(known,)))).startswith("eval_image: ")
    assert index.reason(row(negatives=(Side("x"), Side(images=(known,))))).startswith("eval_image: ")
    assert index.reason(row(Side("x", (other,)), positive=Side(images=(other,)), negatives=(Side("x"),))) is None


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_the_distance_is_the_root_mean_square(red: int, green: int, blue: int) -> None:
    """Against brute force: an index of one thumbnail, moved by a constant of each colour."""
    base = np.zeros((8, 8, 3), np.uint8)
    base[::2] = 100
    moved = np.clip(base.astype(int) + np.array([red, green, blue]) % 8, 0, 255).astype(np.uint8)
    distance = np.sqrt(((moved.astype(float) - base) ** 2).mean())
    found = EvaluationIndex([("there", Look(b"a", base))], []).near(Look(b"b", moved))
    assert found == ("there" if distance <= 3 else None)


def test_the_nearest_of_several_is_named_and_all_within_reach_are_found() -> None:
    """Sorting by mean must lose nothing: 400 thumbnails close to each other, against a loop over all."""
    rng = np.random.default_rng(0)
    base = rng.integers(60, 200, (8, 8, 3))
    looks = [Look(bytes([n % 256, n // 256]), (base + rng.integers(-6, 7, (8, 8, 3))).astype(np.uint8)) for n in range(400)]
    index = EvaluationIndex([(str(n), own) for n, own in enumerate(looks)], [])
    hits = 0
    for _ in range(200):
        noise = rng.integers(-4, 5, (8, 8, 3)) * rng.integers(1, 3)
        one = (looks[rng.integers(400)].thumbnail + noise).astype(np.uint8)
        distances = [np.sqrt(((one.astype(float) - own.thumbnail) ** 2).mean()) for own in looks]
        expected = str(int(np.argmin(distances))) if min(distances) <= 3 else None
        assert index.near(Look(b"x", one)) == expected
        hits += expected is not None
    assert 50 < hits < 150


def test_a_picture_that_shows_nothing_is_compared_exactly_only() -> None:
    white = Image.new("RGB", (60, 60), "white")
    index = EvaluationIndex([("page", look(white))], [])
    assert index.reason(shows(file(white))).startswith("eval_image: ")
    assert index.reason(shows(file(Image.new("RGB", (61, 60), "white")))) is None


def test_mostly_white_pictures_must_be_closer() -> None:
    """Two charts whose lines lie elsewhere differ by less than 3 levels, but not by less than 0.3 of their contrast."""

    def chart(at: int) -> Image.Image:
        pixels = np.full((160, 160, 3), 255, np.uint8)
        pixels[at : at + 4, 20:140] = (60, 60, 200)
        return Image.fromarray(pixels)

    one, other = look(chart(40)), look(chart(100))
    assert 3 < np.std(one.thumbnail, axis=(0, 1)).max() < 30
    assert EvaluationIndex([("there", one)], [], Rule(near=100, near_share=100)).near(other) == "there"
    assert EvaluationIndex([("there", one)], []).near(other) is None
    assert EvaluationIndex([("there", one)], []).near(look(chart(40).resize((240, 240)))) == "there"


@pytest.mark.parametrize(
    ("made", "where"),
    [
        (row(Side(CAPTION)), "query"),
        (row(Side(f"Find me an everyday image that matches the given caption: {CAPTION.title()}")), "query"),
        (row(Side(f"Retrieve an image of this news caption. {CAPTION}!")), "query"),
        (row(Side(f"find the picture  of this:\n{CAPTION}")), "query"),
        (row(positive=Side(CAPTION + ".")), "positive"),
        (row(Side(images=(file(scene(300)),)), (Turn("what?", "no"), Turn("what?", CAPTION))), "answer"),
    ],
)
def test_a_whole_text(index: EvaluationIndex, made: RawSample, where: str) -> None:
    assert index.reason(made) == f"eval_text: its {where} is a text of Captions, row 7, candidate 0"


@pytest.mark.parametrize(
    "made",
    [
        row(Side(f"{CAPTION} on white")),
        row(Side(CAPTION.removesuffix(" square"))),
        row(Side("Find the picture of this: a small red ring above a large blue square.")),
        row(Side(CAPTION, (file(scene(300)),))),  # beside an image it is the image that tells
        row(negatives=(Side(CAPTION),)),  # said to be wrong, so nothing of the answer is learnt
        row(Side("look"), (Turn(CAPTION, "yes"),)),
    ],
)
def test_texts_that_do_not_count(index: EvaluationIndex, made: RawSample) -> None:
    assert index.reason(made) is None


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("one two three four five", 0),
        ("one two three four five six", 1),
        ("Find this: one two three four five", 1),  # the whole is long enough, the rest is not
        ("Find this: one two three four five six", 2),
        ("Find. This: one two three four five six", 3),
        ("at 12:30 the 3.5 km run begins again", 1),  # no blank after the mark: no instruction ends there
        ("red, red; red - red: red", 0),
        ("一二三四五", 0),
        ("一二三四五六", 1),
        ("", 0),
    ],
)
def test_how_many_keys_a_text_has(text: str, keys: int) -> None:
    assert len(list(text_keys(text, min_words=6))) == keys


def test_lone_surrogates_are_compared_too() -> None:
    assert len(list(text_keys("a b c d e \udcff f", min_words=6))) == 1


def test_the_digest_is_that_of_the_content() -> None:
    looks = [(str(seed), look(scene(seed))) for seed in range(5)]
    texts = [("t", CAPTION), ("u", f"{CAPTION} again")]
    same = EvaluationIndex(looks, texts).digest()
    assert EvaluationIndex(looks[::-1], texts[::-1]).digest() == same
    others = [
        EvaluationIndex(looks[1:], texts),
        EvaluationIndex(looks, texts[1:]),
        EvaluationIndex(looks, texts, Rule(near=4)),
        EvaluationIndex([("elsewhere", looks[0][1]), *looks[1:]], texts),
        EvaluationIndex([], []),
    ]
    assert len({same, *(other.digest() for other in others)}) == 6


def test_an_empty_index_matches_nothing() -> None:
    empty = EvaluationIndex([], [])
    assert empty.reason(row(Side(CAPTION, (file(scene(1)),)))) is None and empty.reason(row(Side(CAPTION))) is None


def test_decoding_before_comparing_changes_nothing(encoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = file(scene(1), "JPEG", exif=exif)
    clear = file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 84, 4), dtype=np.uint8), "RGBA"))
    raw = row(Side("a", (turned, clear)), (Turn("q", "a"),), Side(images=(clear,)), (Side(images=(turned,)), Side("n")))
    plain, decoded = encoder.sample(raw), encoder.sample(with_pictures(raw))
    assert [s.images for s in (plain.query, plain.positive, *plain.negatives)] == [
        s.images for s in (decoded.query, decoded.positive, *decoded.negatives)
    ]
    assert plain.query.ids.tolist() == decoded.query.ids.tolist()
    with pytest.raises(ImageError, match=r"^broken: 'a'"):
        with_pictures(row(Side(images=(ImageRef("a", data=b""),))))
