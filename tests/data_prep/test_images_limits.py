"""Images meant to do harm, and what they cost: thousands of damaged files, bombs, endless animations, empty and misnamed files."""

import json
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from data_prep.images import ImageError, open_image
from data_prep.samples import ImageRef

ROOT = Path(__file__).parents[2]


def test_5000_damaged_files_neither_crash_nor_hang() -> None:
    """In a process of its own, so that a crash would be seen; `python -m tests.data_prep.image_fuzz 50000 7` tries others."""
    command = [sys.executable, "-m", "tests.data_prep.image_fuzz", "5000", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert sum(result["outcomes"].values()) == 5000
    assert result["outcomes"]["decoded"] > 500 and result["outcomes"]["broken"] > 500 and result["outcomes"]["format"] > 500
    assert result["outcomes"]["pixels"] > 10, "some mutants claim to be huge"
    assert result["slowest_s"] < 5 and result["grown_MiB"] < 500


def test_an_animation_costs_its_first_frame() -> None:
    frames = [Image.new("L", (64, 64), number % 256) for number in range(2000)]
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    begin = time.process_time()
    assert open_image(ImageRef("x", data=file.getvalue())).getpixel((5, 5)) == (0, 0, 0)
    assert time.process_time() - begin < 0.2


OPEN_ALL = """
import json, resource, sys, time
from pathlib import Path
from data_prep.images import ImageError, open_image
from data_prep.samples import ImageRef
open_image(ImageRef("small.png", Path(sys.argv[1])))
before, begin, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), []
for path in sorted(Path(sys.argv[1]).glob("bomb.*")):
    try:
        open_image(ImageRef(path.name, path.parent))
    except ImageError as error:
        said.append(str(error))
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - begin, said]))
"""


def test_bombs_are_refused_without_their_memory(tmp_path: Path) -> None:
    """Pictures within their formats' own bounds, of few bytes each, that would take 169 MB as RGB; seen from a fresh process."""
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG"):
        options = {"TIFF": {"compression": "tiff_lzw"}, "WEBP": {"method": 0}}.get(kind, {})
        Image.new("1" if kind in ("PNG", "TIFF", "BMP") else "L", (7500, 7500)).save(tmp_path / f"bomb.{kind}", kind, **options)
    done = subprocess.run([sys.executable, "-c", OPEN_ALL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    grown_KiB, seconds, said = json.loads(done.stdout)
    assert [message.partition(": found ")[2] for message in said] == [
        "7500 x 7500 pixels, expected at most 50000000 pixels and 16384 a side"
    ] * 6
    assert grown_KiB < 30 * 1024 and seconds < 1


def test_an_empty_file_is_broken() -> None:
    with pytest.raises(ImageError, match=r"^broken: 'a.png': found 0 bytes, expected an image file"):
        open_image(ImageRef("a.png", data=b""))


def test_the_content_decides_not_the_extension(tmp_path: Path) -> None:
    """A PNG called .jpg is a picture, as on the web; text called .png is none."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    (tmp_path / "red.png").rename(tmp_path / "photo.jpg")
    assert open_image(ImageRef("photo.jpg", tmp_path)).getpixel((0, 0)) == (255, 0, 0)
    for name, content in {"text.png": b"not a picture at all", "page.jpg": b"<html>404</html>", "movie.gif": bytes(100)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"^format: '{name}': found no readable header, expected one of JPEG"):
            open_image(ImageRef(name, tmp_path))


SEEN = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "RGBX", "RGBa", "I;16", "I;16L", "I;16B", "I;16N")
REFUSED = {"I": "format", "F": "format", "La": "broken"}


@pytest.mark.parametrize("mode", SEEN)
def test_every_other_mode_of_an_opened_picture_becomes_rgb(mode: str) -> None:
    assert open_image(ImageRef("x", picture=Image.new(mode, (8, 8)))).mode == "RGB"


@pytest.mark.parametrize("mode", REFUSED)
def test_modes_that_are_refused(mode: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(ImageRef("x", picture=Image.new(mode, (8, 8))))
    assert caught.value.code == REFUSED[mode]
