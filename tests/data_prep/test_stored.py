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
    """Flat shapes on a gradient: what drawings are made of."""
    picture = Image.fromarray(np.broadcast_to(np.arange(112, dtype=np.uint8)[:, None, None], (112, 112, 3)).copy())
    picture.paste("red", (20, 20, 60, 60))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    assert len(store(picture).data) < 0.85 * len(file.getvalue())
