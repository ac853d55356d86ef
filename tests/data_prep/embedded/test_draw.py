from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from data_prep.embedded.draw import Look, Picture, paint, picture, png
from data_prep.embedded.sampling import sample, stream
from data_prep.embedded.scenes import GLYPHS, SHAPES, Part, Scene, Thing

PLAIN = Look((255, 255, 255), 0, ((0, 0),), 84)


def seen(shown: Picture) -> np.ndarray:
    return np.asarray(paint(shown)).astype(int)


def covered(shown: Picture) -> np.ndarray:
    """Where the picture differs from its background: its top left pixel."""
    pixels = seen(shown)
    return (pixels != pixels[0, 0]).any(-1)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


@pytest.mark.parametrize(("place", "center"), [(0, (14, 14)), (4, (42, 42)), (5, (70, 42)), (7, (42, 70))])
@pytest.mark.parametrize(("size", "pixels"), [("small", 17), ("large", 26)])
def test_a_circle_has_its_size_colour_and_place(place, center, size, pixels):
    shown = Picture(Scene((Thing(size, "blue", "circle", place),)), PLAIN)
    left, top, right, bottom = box(covered(shown))

    assert (right - left + 1, bottom - top + 1) == (pixels, pixels)
    assert ((left + right + 1) // 2, (top + bottom + 1) // 2) == center
    assert seen(shown)[center[1], center[0]].tolist() == [35, 65, 225]


def test_a_wide_picture_spreads_the_columns():
    shown = Picture(Scene((Thing("small", "blue", "circle", 5),)), Look((255, 255, 255), 0, ((0, 0),), 112))
    left, _, right, _ = box(covered(shown))

    assert paint(shown).size == (112, 84)
    assert (left + right) // 2 == 93


def test_shade_and_displacement_are_looks():
    scene = Scene((Thing("small", "blue", "circle", 4),))
    moved = Picture(scene, Look((255, 255, 255), 10, ((1, -1),), 84))

    assert box(covered(moved)) == tuple(a + b for a, b in zip(box(covered(Picture(scene, PLAIN))), (1, -1, 1, -1), strict=True))
    assert seen(moved)[42, 42].tolist() == [45, 75, 235]


@pytest.mark.parametrize("size", ["small", "large"])
def test_shapes_and_glyphs_look_different_and_stay_in_their_cell(size):
    masks = {shape: covered(Picture(Scene((Thing(size, "black", shape, 4),)), PLAIN)) for shape in SHAPES + GLYPHS}

    for mask in masks.values():
        assert mask[28:56, 28:56].sum() == mask.sum() > 20
    closest = min((a ^ b).sum() for a, b in combinations(masks.values(), 2))
    assert closest >= 5


def test_a_crop_shows_its_thing_alone_at_twice_the_size():
    scene = Scene((Thing("large", "blue", "square", 0), Thing("large", "black", "star", 1)))
    crop = paint(Picture(scene, Look((255, 255, 255), 0, ((1, 1), (-1, 0)), 84), crop=0))

    assert crop.size == (56, 56)
    assert crop.getpixel((28, 28)) == (35, 65, 225)
    assert min(sum(pixel) for _, pixel in crop.getcolors(56 * 56)) > 255  # nothing of the black star


@pytest.mark.parametrize(("part", "bit"), [(Part.TRAIN, 0), (Part.IND, 1), (Part.OOD, 1)])
def test_the_background_tells_training_from_evaluation(part, bit):
    for number in range(20):
        rng = stream(number)
        shown = picture(sample("single", part, rng), part, rng)
        corner = seen(Picture(shown.scene, shown.look))[:, [0, -1]].reshape(-1, 3)
        assert shown.look.tint[0] % 2 == bit
        assert (corner == shown.look.tint).all(-1).any()


def test_wide_pictures_come_with_their_chance():
    widths = [picture(Scene((Thing("small", "blue", "star", 4),)), Part.TRAIN, stream(n), wide=0.25).look.width for n in range(200)]

    assert 30 <= widths.count(112) <= 70 and widths.count(84) + widths.count(112) == 200


def test_png_holds_the_painted_pixels():
    shown = picture(Scene((Thing("small", "blue", "star", 4),)), Part.TRAIN, stream(0))

    assert Image.open(BytesIO(png(shown))).tobytes() == paint(shown).tobytes()
