"""An `ImageRef` from anywhere -> an upright 8-bit RGB picture, or an `ImageError`.

Image files come from strangers. The invariant: nothing outside `ref.root` is read, no network is touched, nothing is
decoded before its size in bytes and in pixels has been checked, and bad input raises `ImageError` and nothing else.
What comes back looks as a viewer would show it: EXIF orientation applied, transparency on white, 16-bit gray scaled
down, the first frame of an animation. ICC profiles are not applied, and the result carries no metadata.

The byte and pixel limits are our own, below Pillow's bomb limits; the image processor that all supported families share refuses
aspect ratios above 200.
"""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from data_prep.samples import DataError, ImageRef

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow plugins that may look at a file. EPS (runs Ghostscript), FITS, PSD and PDF are among those left out."""

CODES = ("missing", "outside_root", "not_a_file", "too_large", "format", "broken", "pixels", "aspect")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the turn that undoes it; 1 and unknown values need none."""


@dataclass(frozen=True)
class ImageLimits:
    """What is decoded at most: file size in bytes, width x height and longer side in pixels, longer / shorter side."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 16384
    max_aspect: float = 200.0


class ImageError(DataError):
    """An image that cannot be used. `code` is one of `CODES`; the message starts with it and names the image."""

    def __init__(self, code: str, message: str):
        assert code in CODES, code
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


def open_image(ref: ImageRef, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """The picture as it looks, mode RGB, original size after EXIF rotation, without metadata.

    Raises:
        ImageError: whatever is wrong with the reference, the file or its content.
    """
    if ref.picture is not None:
        with _as_image_errors(ref.name, limits):
            return _finish(ref.picture, ref.name, limits)
    return _decode(_read(ref, limits), ref.name, limits)


def image_bytes(ref: ImageRef, limits: ImageLimits = ImageLimits()) -> bytes:
    """The image file as it lies there, not decoded.

    Raises:
        ImageError: there is no such file, it is outside its root, empty or too large.
    """
    return _read(ref, limits)


def header_size(data: bytes, name: str, limits: ImageLimits = ImageLimits()) -> tuple[int, int]:
    """Width and height in pixels as the file's header states them, before any turn that EXIF asks for; nothing is decoded.

    Raises:
        ImageError: no header of a known format, or a size beyond the limits.
    """
    with _as_image_errors(name, limits), Image.open(BytesIO(data), formats=FORMATS) as image:
        _check_size(image.size, name, limits)
        return image.size


def resolve(ref: ImageRef) -> Path:
    """The existing regular file that `ref` names, all symlinks followed, inside `ref.root`.

    Raises:
        ImageError: missing, outside_root or not_a_file.
    """
    if ref.root is None:
        raise ImageError("missing", f"{ref.name!r}: found neither a root folder nor file bytes, expected one of them")
    try:
        root = ref.root.resolve()
        path = (root / ref.name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # name too long, NUL byte, symlink loop
        raise ImageError("missing", f"{ref.name!r} is no usable path below {ref.root}: {error}") from error
    if not path.is_relative_to(root):
        raise ImageError("outside_root", f"{ref.name!r}: found a path that leads to {path}, expected one below {root}")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ImageError("missing", f"{ref.name!r}: expected a file at {path}, found: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ImageError("not_a_file", f"{ref.name!r}: expected a regular file at {path}, found {_kind(mode)}")
    return path


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _read(ref: ImageRef, limits: ImageLimits) -> bytes:
    if ref.data is not None:
        _check_bytes(len(ref.data), ref.name, limits)
        return ref.data
    path = resolve(ref)
    try:
        # The path holds no symlink any more; O_NOFOLLOW and O_NONBLOCK guard against a swap after the check.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError("missing", f"{ref.name!r}: expected a readable file at {path}: {error.strerror}") from error
    with open(handle, "rb") as file:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise ImageError("not_a_file", f"{ref.name!r}: expected a regular file, found {_kind(info.st_mode)}")
        _check_bytes(info.st_size, ref.name, limits)
        try:
            data = file.read(limits.max_bytes + 1)
        except OSError as error:
            raise ImageError("broken", f"{ref.name!r} cannot be read: {error.strerror}") from error
    _check_bytes(len(data), ref.name, limits)
    return data


def _check_bytes(count: int, name: str, limits: ImageLimits) -> None:
    if count == 0:
        raise ImageError("broken", f"{name!r}: found 0 bytes, expected an image file")
    if count > limits.max_bytes:
        raise ImageError("too_large", f"{name!r}: found {count} bytes, expected at most {limits.max_bytes}")


def _decode(data: bytes, name: str, limits: ImageLimits) -> Image.Image:
    with _as_image_errors(name, limits), Image.open(BytesIO(data), formats=FORMATS) as image:
        return _finish(image, name, limits)


def _finish(image: Image.Image, name: str, limits: ImageLimits) -> Image.Image:
    """Header -> pixels -> upright RGB; an opened picture may still be lazy, and is left as it was."""
    _check_size(image.size, name, limits)
    image.load()
    return _to_rgb(_upright(image), name)


@contextmanager
def _as_image_errors(name: str, limits: ImageLimits) -> Iterator[None]:
    """Whatever goes wrong inside becomes an `ImageError` that names the image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("pixels", f"{name!r}: expected at most {limits.max_pixels} pixels: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            "format", f"{name!r}: found no readable header, expected one of {', '.join(FORMATS)}"
        ) from error
    except (
        Exception
    ) as error:  # parsers fed damaged bytes raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise ImageError("broken", f"{name!r}: cannot be decoded: {type(error).__name__}: {error}") from error


def _check_size(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("broken", f"{name!r}: found {width} x {height} pixels, expected at least 1 x 1")
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        allowed = f"at most {limits.max_pixels} pixels and {limits.max_side} a side"
        raise ImageError("pixels", f"{name!r}: found {width} x {height} pixels, expected {allowed}")
    if max(size) > limits.max_aspect * min(size):
        raise ImageError(
            "aspect", f"{name!r}: found {width} x {height}, expected an aspect ratio up to {limits.max_aspect}"
        )


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also writes the other EXIF tags anew, and fails on odd ones.
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode in ("I", "F"):  # nothing says which values are black and white
        raise ImageError("format", f"{name!r}: found pixel mode {image.mode}, expected gray, palette, RGB(A), CMYK or Lab")
    if image.mode == "LAB":
        image = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = image.convert("RGB")
    rgb.info.clear()
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray as 8-bit gray, with alpha where one value stands for "clear"; Pillow's own conversion makes all above 255 white."""
    values = np.asarray(image)
    gray = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return gray
