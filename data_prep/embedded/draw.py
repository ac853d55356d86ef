"""Scene -> picture. What a scene means is in `scenes`; how it happens to look (tint, shade, a pixel of displacement) is here.

Invariant: the lowest bit of the background's red is 0 in training pictures and 1 in all others. The two can therefore never
share an image, not even a crop.
"""

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from math import cos, pi, sin
from random import Random

from PIL import Image, ImageDraw, ImageFont

from data_prep.embedded.scenes import COLORS, Part, Scene, Thing

HEIGHT = 84
NARROW, WIDE = 84, 112
CROP = 28
"""Side in pixels of the window cut out around one thing; it is shown at twice that size."""

_RGB = dict(
    zip(
        COLORS,
        (
            *((222, 30, 38), (255, 146, 0), (245, 215, 10), (20, 150, 50)),
            *((35, 65, 225), (128, 40, 170), (255, 130, 190), (25, 25, 25)),
        ),
        strict=True,
    )
)
_DIAMETER = {"small": 17, "large": 26}
_FINE = 8  # masks are drawn this much larger and reduced, for smooth edges


@dataclass(frozen=True)
class Look:
    """What a picture does not mean: background RGB, a shade added to every colour, each thing's displacement, pixel width."""

    tint: tuple[int, int, int]
    shade: int
    offsets: tuple[tuple[int, int], ...]
    width: int


@dataclass(frozen=True)
class Picture:
    """A scene and its look; with `crop`, only the window around that thing."""

    scene: Scene
    look: Look
    crop: int | None = None


def picture(scene: Scene, part: Part, rng: Random, wide: float = 0.0) -> Picture:
    """A picture of the scene with a random look; `wide` is the chance of 84x112 instead of 84x84 pixels."""
    red, green, blue = (rng.randint(228, 255) for _ in range(3))
    tint = (red & ~1 | (part != Part.TRAIN), green, blue)
    offsets = tuple((rng.randint(-1, 1), rng.randint(-1, 1)) for _ in scene.things)
    return Picture(scene, Look(tint, rng.randint(-14, 14), offsets, WIDE if rng.random() < wide else NARROW))


def paint(shown: Picture) -> Image.Image:
    """The picture as an RGB image: 84 pixels high and `width` wide, or 56x56 for a crop."""
    look = shown.look
    canvas = Image.new("RGB", (look.width, HEIGHT), look.tint)
    centers = [_center(thing, offset, look.width) for thing, offset in zip(shown.scene.things, look.offsets, strict=True)]
    for thing, (x, y) in zip(shown.scene.things, centers, strict=True):
        size = _DIAMETER[thing.size]
        color = tuple(min(255, max(0, channel + look.shade)) for channel in _RGB[thing.color])
        canvas.paste(color, (x - size // 2, y - size // 2), _mask(thing.shape, size))
    if shown.crop is None:
        return canvas
    left, top = (min(max(at - CROP // 2, 0), end - CROP) for at, end in zip(centers[shown.crop], canvas.size, strict=True))
    return canvas.crop((left, top, left + CROP, top + CROP)).resize((2 * CROP, 2 * CROP), Image.Resampling.BICUBIC)


def png(shown: Picture) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = BytesIO()
    paint(shown).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _center(thing: Thing, offset: tuple[int, int], width: int) -> tuple[int, int]:
    row, column = divmod(thing.place, 3)
    return (2 * column + 1) * width // 6 + offset[0], (2 * row + 1) * HEIGHT // 6 + offset[1]


@cache
def _mask(shape: str, size: int) -> Image.Image:
    """How much of each pixel the shape covers: a greyscale image of `size` by `size` pixels."""
    fine = Image.new("L", (size * _FINE, size * _FINE), 0)
    if shape.startswith(("letter ", "digit ")):
        _write(fine, shape[-1])
    else:
        _SHAPES[shape](ImageDraw.Draw(fine), fine.width)
    return fine.reduce(_FINE)


def _write(fine: Image.Image, char: str) -> None:
    font = ImageFont.load_default(fine.height)
    stroke = fine.height // 30
    left, top, right, bottom = font.getbbox(char, stroke_width=stroke)
    font = ImageFont.load_default(fine.height**2 / max(right - left, bottom - top))
    left, top, right, bottom = font.getbbox(char, stroke_width=stroke)
    at = ((fine.width - right - left) / 2, (fine.height - bottom - top) / 2)
    ImageDraw.Draw(fine).text(at, char, fill=255, font=font, stroke_width=stroke, stroke_fill=255)


def _polygon(*points: tuple[float, float]):
    """A drawer of the polygon with these corners, in a square from -1 to 1 (y points down)."""
    return lambda draw, n: draw.polygon([((x + 1) * n / 2, (y + 1) * n / 2) for x, y in points], fill=255)


def _discs(*discs: tuple[float, float, float, int]):
    """A drawer of discs (x, y, radius, 255 to paint or 0 to erase), one over another, in a square from -1 to 1."""

    def draw_discs(draw: ImageDraw.ImageDraw, n: int) -> None:
        for x, y, radius, value in discs:
            box = [(c + 1) * n / 2 for c in (x - radius, y - radius, x + radius, y + radius)]
            draw.ellipse(box, fill=value)

    return draw_discs


def _around(radii: list[float]) -> list[tuple[float, float]]:
    """Points at these distances from the middle, evenly around it from the top on."""
    angles = [2 * pi * k / len(radii) for k in range(len(radii))]
    return [(r * sin(angle), -r * cos(angle)) for r, angle in zip(radii, angles, strict=True)]


_ARM = 0.34
_SHAPES = {
    "circle": _discs((0, 0, 1, 255)),
    "square": _polygon((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": _polygon((0, -1), (1, 0.9), (-1, 0.9)),
    "star": _polygon(*_around([1, 0.42] * 5)),
    "cross": _polygon(
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
    ),
    "ring": _discs((0, 0, 1, 255), (0, 0, 0.58, 0)),
}
