"""Image decoding: what a viewer would show, and `ImageError` for everything else; which files are read is in test_images_files.py.

Expected pixels are literals; images are written by the test.
"""

import pickle
import struct
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from data_prep.images import CODES, ImageError, ImageLimits, header_size, open_image
from data_prep.samples import DataError, ImageRef

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
LIMITS = ImageLimits()


def encode(image: Image.Image, kind: str, **options) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def row(mode: str, *pixels) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


def palette(*indices: int) -> Image.Image:
    image = row("P", *indices)
    image.putpalette([255, 0, 0, 0, 0, 255, 9, 99, 199])
    return image


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes) -> bytes:
    """A PNG put together by hand, for what Pillow does not write; `raw` holds the filtered scan lines."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def pixels(data: bytes) -> list[tuple[int, int, int]]:
    image = open_image(ImageRef("x", data=data))
    assert image.mode == "RGB" and image.info == {}
    return [tuple(int(value) for value in pixel) for pixel in np.asarray(image).reshape(-1, 3)]


def code(ref: ImageRef, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(ref, limits)
    assert isinstance(caught.value, DataError)
    assert caught.value.code in CODES and str(caught.value).startswith(caught.value.code + ": ")
    assert repr(ref.name) in str(caught.value)
    return caught.value.code


def flat_transparent() -> Image.Image:
    return row("RGBA", (255, 0, 0, 0), (0, 0, 255, 255), (0, 0, 0, 128), (255, 0, 0, 51))


ON_WHITE = [WHITE, BLUE, (127, 127, 127), (255, 204, 204)]

MODES = {
    "1-bit png": (encode(row("1", 0, 255), "PNG"), [BLACK, WHITE]),
    "gray png": (encode(row("L", 0, 128, 255), "PNG"), [BLACK, (128, 128, 128), WHITE]),
    "rgb png": (encode(row("RGB", (1, 2, 3), RED), "PNG"), [(1, 2, 3), RED]),
    "rgb bmp": (encode(row("RGB", (1, 2, 3), RED), "BMP"), [(1, 2, 3), RED]),
    "rgba png": (encode(flat_transparent(), "PNG"), ON_WHITE),
    "rgba webp": (encode(flat_transparent(), "WEBP", lossless=True, exact=True), ON_WHITE),
    "rgba tiff": (encode(flat_transparent(), "TIFF"), ON_WHITE),
    "gray + alpha png": (encode(row("LA", (0, 0), (40, 255), (0, 128)), "PNG"), [WHITE, (40, 40, 40), (127, 127, 127)]),
    "palette png": (encode(palette(0, 1, 2), "PNG"), [RED, BLUE, (9, 99, 199)]),
    "palette png, one clear": (encode(palette(0, 1, 2), "PNG", transparency=1), [RED, WHITE, (9, 99, 199)]),
    "palette png, alphas": (
        encode(palette(0, 1, 2), "PNG", transparency=b"\x00\x33\xff"),
        [WHITE, (204, 204, 255), (9, 99, 199)],
    ),
    "palette gif": (encode(palette(0, 1, 2), "GIF"), [RED, BLUE, (9, 99, 199)]),
    "palette gif, one clear": (encode(palette(0, 1, 2), "GIF", transparency=0), [WHITE, BLUE, (9, 99, 199)]),
    "gray png, one clear": (encode(row("L", 7, 8), "PNG", transparency=7), [WHITE, (8, 8, 8)]),
    "rgb png, one clear": (encode(row("RGB", RED, BLUE), "PNG", transparency=RED), [WHITE, BLUE]),
    "16-bit gray png": (
        png(5, 1, 16, 0, b"\0" + struct.pack(">5H", 0, 255, 256, 32768, 65535)),
        [BLACK, BLACK, (1, 1, 1), (128, 128, 128), WHITE],
    ),
    "16-bit gray tiff": (
        encode(Image.fromarray(np.array([[0, 513, 65535]], "<u2")), "TIFF"),
        [BLACK, (2, 2, 2), WHITE],
    ),
    "16-bit gray tiff, big endian": (
        encode(Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 513, 65535)), "TIFF"),
        [BLACK, (2, 2, 2), WHITE],
    ),
    "16-bit rgb png": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 258, 0, 65535, 0, 32768, 255)),
        [(1, 0, 255), (0, 128, 0)],
    ),
    "16-bit gray + alpha png": (
        png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 0, 0, 10240, 65535)),
        [WHITE, (40, 40, 40)],
    ),
    "16-bit gray png, one clear": (
        png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 513, 512, 65535), chunk(b"tRNS", struct.pack(">H", 513))),
        [WHITE, (2, 2, 2), WHITE],
    ),
    "cmyk tiff": (
        encode(row("CMYK", (0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (255, 255, 0, 0)), "TIFF"),
        [WHITE, RED, BLACK, BLUE],
    ),
    "ycbcr tiff": (encode(row("YCbCr", (255, 128, 128), (0, 128, 128)), "TIFF"), [WHITE, BLACK]),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_these_pixels(name):
    data, expected = MODES[name]
    assert pixels(data) == expected


@pytest.mark.parametrize("mode, colour", [("RGB", RED), ("CMYK", (0, 255, 255, 0)), ("L", 76)])
def test_jpeg_modes(mode, colour):
    expected = (76, 76, 76) if mode == "L" else RED
    found = np.array(pixels(encode(Image.new(mode, (16, 16), colour), "JPEG", quality=95)))
    assert np.abs(found - expected).max() <= 3


def test_lab() -> None:
    """Lab of white, black, and of sRGB's red seen under D50: 54.3, 80.8, 69.9."""
    found = pixels(encode(row("LAB", (255, 128, 128), (0, 128, 128), (138, 209, 198)), "TIFF"))
    assert np.abs(np.array(found) - [WHITE, BLACK, RED]).max() <= 5  # Lab has 8 bits a channel, too


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_defined_look_are_refused(mode):
    data = encode(Image.new(mode, (4, 4)), "TIFF")
    assert code(ImageRef("x.tif", data=data)) == "format"
    with pytest.raises(ImageError, match=f"found pixel mode {mode}, expected gray, palette"):
        open_image(ImageRef("x.tif", data=data))


UPRIGHT = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(kind, orientation):
    stored = Image.new("RGB", (3, 2))
    stored.putdata([(ord(letter), 0, 0) for letter in "abcdef"])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    shown = np.asarray(open_image(ImageRef("x", data=encode(stored, kind, exif=exif, **options))))[:, :, 0]
    assert ["".join(map(chr, line)) for line in shown] == UPRIGHT[orientation]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_headers_size_is_the_pictures(kind):
    """Also of a file whose pixels are cut off: nothing is decoded."""
    data = encode(Image.new("RGB", (31, 17)), kind)
    assert header_size(data, "x") == (31, 17)
    if kind in ("PNG", "BMP", "JPEG"):
        assert header_size(data[: len(data) - 8], "x") == (31, 17)


def test_a_header_beyond_the_limits_is_refused():
    data = encode(Image.new("RGB", (31, 17)), "PNG")
    for limits, code in ((ImageLimits(max_pixels=31 * 17 - 1), "pixels"), (ImageLimits(max_aspect=1.5), "aspect")):
        with pytest.raises(ImageError) as caught:
            header_size(data, "x", limits)
        assert caught.value.code == code
    with pytest.raises(ImageError) as caught:
        header_size(b"no picture", "x")
    assert caught.value.code == "format"


def test_exif_orientation_of_a_16_bit_gray_image():
    exif = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0")
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 256, 512), exif)
    assert pixels(data) == [(2, 2, 2), (1, 1, 1)]


def test_unknown_orientation_leaves_the_image_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert pixels(encode(row("RGB", RED, BLUE), "PNG", exif=exif)) == [RED, BLUE]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert Image.open(BytesIO(data)).n_frames == 2
    assert set(pixels(data)) == {RED}


FOREIGN = {
    "eps": encode(Image.new("RGB", (4, 4)), "EPS"),
    "pdf": encode(Image.new("RGB", (4, 4)), "PDF"),
    "ico": encode(Image.new("RGB", (16, 16)), "ICO"),
    "ppm": encode(Image.new("RGB", (4, 4)), "PPM"),
    "psd": b"8BPS\0\x01" + bytes(200),
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "text": b"this is not an image",
    "html": b"<html><body>404 Not Found</body></html>",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused(kind):
    assert code(ImageRef("photo.jpg", data=FOREIGN[kind])) == "format"
    with pytest.raises(ImageError, match=r"expected one of JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        open_image(ImageRef("photo.jpg", data=FOREIGN[kind]))


@pytest.mark.parametrize(
    "width, height, expected",
    [
        (30000, 30000, "pixels"),  # beyond Pillow's own error limit
        (10000, 10000, "pixels"),  # Pillow only warns
        (8000, 7000, "pixels"),  # Pillow is silent
        (100000, 1, "pixels"),
        (1, 16385, "pixels"),
        (402, 2, "aspect"),
        (1, 201, "aspect"),
    ],
)
def test_size_is_refused_from_the_header(width, height, expected):
    data = png(width, height, 8, 2, b"\0")  # no pixel data behind it: only a check of the header can tell
    assert code(ImageRef("bomb.png", data=data)) == expected


def test_size_messages_say_found_and_expected():
    with pytest.raises(ImageError, match=r"found 8000 x 7000 pixels, expected at most 50000000 pixels and 16384 a side"):
        open_image(ImageRef("b.png", data=png(8000, 7000, 8, 2, b"\0")))
    with pytest.raises(ImageError, match=r"found 1 x 201, expected an aspect ratio up to 200"):
        open_image(ImageRef("b.png", data=png(1, 201, 8, 2, b"\0")))


def test_limits_are_inclusive():
    data = encode(Image.new("RGB", (200, 1)), "PNG")
    assert open_image(ImageRef("x", data=data), ImageLimits(len(data), 200, 200, 200)).size == (200, 1)
    assert code(ImageRef("x", data=data), ImageLimits(max_bytes=len(data) - 1)) == "too_large"
    assert code(ImageRef("x", data=data), ImageLimits(max_pixels=199)) == "pixels"
    assert code(ImageRef("x", data=data), ImageLimits(max_side=199)) == "pixels"
    assert code(ImageRef("x", data=data), ImageLimits(max_aspect=199)) == "aspect"


def test_compressed_text_bomb_is_refused():
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100 * 2**20), 9))
    assert code(ImageRef("x.png", data=png(1, 1, 8, 0, b"\0\0", text))) == "broken"


def test_one_by_one_pixel_is_an_image():
    assert pixels(encode(row("RGB", RED), "PNG")) == [RED]


def noise(kind: str) -> bytes:
    values = np.random.default_rng(5).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    return encode(Image.fromarray(values), kind)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused_or_unharmed(kind):
    whole = noise(kind)
    intact = pixels(whole)
    refused = 0
    for percent in range(100):
        try:
            assert pixels(whole[: len(whole) * percent // 100]) == intact
        except ImageError as error:
            assert error.code in ("broken", "format")
            refused += 1
    assert refused >= 98


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_flipped_bits_never_escape_as_another_error(kind):
    random = np.random.default_rng(11)
    whole = np.frombuffer(noise(kind), np.uint8)
    outcomes = {"decoded": 0, "refused": 0}
    slowest = 0.0
    for _ in range(200):
        mutant = whole.copy()
        for _ in range(random.integers(1, 21)):
            mutant[random.integers(mutant.size if random.random() < 0.5 else 64)] ^= 1 << random.integers(8)
        begin = time.perf_counter()
        try:
            assert open_image(ImageRef("x", data=mutant.tobytes())).mode == "RGB"
            outcomes["decoded"] += 1
        except ImageError:
            outcomes["refused"] += 1
        slowest = max(slowest, time.perf_counter() - begin)
    assert outcomes["refused"] > 0 and sum(outcomes.values()) == 200
    assert slowest < 2


def test_neither_root_nor_bytes():
    assert code(ImageRef("x.png")) == "missing"


def test_errors_survive_pickling():
    with pytest.raises(ImageError) as caught:
        open_image(ImageRef("x.png", data=b"?"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, str(again)) == (caught.value.code, str(caught.value))


def test_an_opened_picture_is_held_to_the_same_rules() -> None:
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    ref = ImageRef("opened", picture=picture)
    assert open_image(ref).getpixel((0, 0)) == (255, 255, 255), "transparency on white"
    assert picture.mode == "RGBA", "and left as it was"
    with pytest.raises(ImageError, match=r"^pixels: 'opened': found 40 x 20 pixels, expected at most 799"):
        open_image(ref, ImageLimits(max_pixels=799))
    turned = Image.new("RGB", (40, 20))
    turned.getexif()[0x0112] = 6
    assert open_image(ImageRef("turned", picture=turned)).size == (20, 40)
