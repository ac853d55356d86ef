"""Images inside a page: small, counted, and a stated placeholder where there is none."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

from data_prep.samples import ImageRef
from pipeline.evaluate.page.pictures import Pictures


def opened(picture) -> Image.Image:
    kind, data = picture.uri.split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def file(image: Image.Image, name: str = "x.png") -> ImageRef:
    data = io.BytesIO()
    image.save(data, "PNG")
    return ImageRef(name, data=data.getvalue())


def test_drawings_stay_sharp_and_photographs_small() -> None:
    drawing = Pictures().show("a", file(Image.new("RGB", (84, 60), "red")))
    assert (opened(drawing).format, opened(drawing).getpixel((5, 5)), (drawing.width, drawing.height)) == ("PNG", (255, 0, 0), (84, 60))
    noise = np.random.default_rng(0).integers(0, 256, (600, 300, 3), dtype=np.uint8)
    photograph = Pictures().show("b", file(Image.fromarray(noise)))
    assert (opened(photograph).format, opened(photograph).size) == ("JPEG", (112, 224))


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        (None, "picture not at hand"),
        (ImageRef("x.png", data=b"no image"), "no picture (format)"),
        (ImageRef("x.png", data=b""), "no picture (broken)"),
    ],
)
def test_placeholders(ref, said) -> None:
    shown = Pictures().show("x.png", ref)
    assert (shown.uri, shown.problem) == (None, said)


def test_paths_that_lead_out_are_not_opened(tmp_path) -> None:
    (tmp_path / "root").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", tmp_path / "root/link.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        assert Pictures().show(name, ImageRef(name, tmp_path / "root")).problem == "no picture (outside_root)"
    assert Pictures().show("gone.png", ImageRef("gone.png", tmp_path)).problem == "no picture (missing)"


def test_the_budget_holds(picture) -> None:
    """Pictures of about 10 kB each: only so many fit, one that was shown costs again."""
    pictures = Pictures(budget=60_000)
    shown = [pictures.show("x", picture(seed % 4, 112, 112)) for seed in range(12)]
    fitting = [one for one in shown if one.uri]
    assert 2 <= len(fitting) < 12 and sum(len(one.uri) for one in fitting) <= 60_000
    assert shown[-1].problem == "left out: the page's room for pictures is used up"
