"""Images as data URIs: decoded by the safe opener, made small, and counted, so that a page stays small whatever the data.

An image that cannot be shown becomes a `Picture` that says why; nothing here stops a report.
"""

import base64
import io
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

from data_prep.images import ImageError, open_image
from data_prep.samples import ImageRef

BUDGET = 4_000_000
"""Bytes of data URIs on one page."""
THUMBNAIL = 224
"""Longer side of a gallery picture, in pixels."""


@dataclass(frozen=True)
class Picture:
    """`uri` is None where there is nothing to show; `problem` then says why. Sizes in pixels."""

    name: str
    uri: Markup | None = None
    width: int = 0
    height: int = 0
    problem: str = ""


class Pictures:
    """Makes pictures until the budget is spent."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._left = budget
        self._made: dict[tuple[ImageRef, int], Picture] = {}

    def show(self, name: str, ref: ImageRef | None, side: int = THUMBNAIL) -> Picture:
        """The image with its longer side at most `side` pixels; `ref` None: the data is not at hand."""
        if ref is None:
            return Picture(name, problem="picture not at hand")
        if (ref, side) not in self._made:
            self._made[ref, side] = self._make(name, ref, side)
        made = self._made[ref, side]
        if made.uri and len(made.uri) > self._left:
            return Picture(name, problem="left out: the page's room for pictures is used up")
        self._left -= len(made.uri or "")
        return made

    def _make(self, name: str, ref: ImageRef, side: int) -> Picture:
        try:
            image = open_image(ref)
        except ImageError as error:
            return Picture(name, problem=f"no picture ({error.code})")
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return Picture(name, _uri(image), *image.size)


def _uri(image: Image.Image) -> Markup:
    """PNG or JPEG, whichever is smaller: drawings stay sharp, photographs stay small."""
    encoded = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        file = io.BytesIO()
        image.save(file, kind, **options)
        encoded[kind] = file.getvalue()
    kind = min(encoded, key=lambda kind: len(encoded[kind]))
    return Markup(f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}")  # neither holds a character of markup
