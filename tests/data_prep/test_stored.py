"""Stored pictures come back pixel for pixel, also where WebP cannot hold them."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.stored import WEBP_SIDE, store


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([2, 7, 256]), st.integers(0, 2**32 - 1))
def test_pixel_for_pixel(width: int, height: int, values: int, seed: int) -> None:
    """Drawings of a few values, and noise."""
    pixels = np.random.default_rng(seed).integers(0, values, (height, width, 3), dtype=np.uint8)
    stored = store(Image.fromarray(pixels))
    assert (stored.height, stored.width) == (height, width)
    back = opened(stored.data)
    assert (back.format, back.mode, back.size) == ("WEBP", "RGB", (width, height))
    assert np.array_equal(np.array(back), pixels)


def test_a_black_and_a_white_picture_stay_so() -> None:
    for colour, value in (("black", 0), ("white", 255)):
        assert np.unique(np.array(opened(store(Image.new("RGB", (56, 28), colour)).data))).tolist() == [value]


@pytest.mark.parametrize(("side", "kind"), [(WEBP_SIDE, "WEBP"), (WEBP_SIDE + 1, "PNG")])
def test_the_longest_sides(side: int, kind: str) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, 2, 3), dtype=np.uint8)
    back = opened(store(Image.fromarray(pixels)).data)
    assert back.format == kind
    assert np.array_equal(np.array(back), pixels)


def test_fewer_bytes_than_png() -> None:
    """Neighbouring pixels, and a pixel's colours, are alike and never quite the same: what a camera sees."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))
    gray = np.array(noise.resize((224, 224), Image.Resampling.BICUBIC), np.float64)
    picture = Image.fromarray(np.stack([0.9 * gray + 20, gray, 0.7 * gray], 2).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    assert len(store(picture).data) < 0.8 * len(file.getvalue())
