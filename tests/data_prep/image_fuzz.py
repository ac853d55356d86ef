"""Damaged image files by the thousand: python -m tests.data_prep.image_fuzz [COUNT] [SEED]

Decodes mutants of small files of every format and prints one JSON line: how many were decoded and refused (by code), the slowest in
seconds, and by how many MiB the process grew at most. Anything but a picture or an `ImageError` ends the process with a traceback, and
so does a file that takes longer than `PATIENCE` seconds.
"""

import faulthandler
import json
import resource
import sys
import time
from collections import Counter
from io import BytesIO

import numpy as np
from PIL import Image

from data_prep.images import ImageError, open_image
from data_prep.samples import ImageRef

PATIENCE = 30


def originals() -> dict[str, bytes]:
    """A file of every format and of the ways in which it stores pixels."""
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (24, 31, 4), dtype=np.uint8), "RGBA")
    rgb, gray = noise.convert("RGB"), noise.convert("L")
    deep = Image.fromarray(np.random.default_rng(6).integers(0, 65536, (24, 31), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb], "duration": 50}
    made = {
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "jpeg progressive": (rgb, "JPEG", {"progressive": True}),
        "jpeg gray": (gray, "JPEG", {}),
        "jpeg cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "png": (rgb, "PNG", {"exif": exif}),
        "png alpha": (noise, "PNG", {}),
        "png palette": (rgb.convert("P"), "PNG", {"transparency": 3}),
        "png 16 bit": (deep, "PNG", {}),
        "png 1 bit": (gray.convert("1"), "PNG", {}),
        "png animated": (rgb, "PNG", frames),
        "webp": (noise, "WEBP", {"exif": exif}),
        "webp lossless": (noise, "WEBP", {"lossless": True}),
        "webp animated": (rgb, "WEBP", frames),
        "gif": (rgb, "GIF", {}),
        "gif animated": (rgb, "GIF", frames),
        "bmp": (rgb, "BMP", {}),
        "bmp palette": (rgb.convert("P"), "BMP", {}),
        "tiff": (rgb, "TIFF", {"exif": exif}),
        "tiff lzw": (noise, "TIFF", {"compression": "tiff_lzw"}),
        "tiff jpeg": (rgb, "TIFF", {"compression": "jpeg"}),
        "tiff 16 bit": (deep, "TIFF", {}),
        "tiff fax": (gray.convert("1"), "TIFF", {"compression": "group4"}),
    }
    out = {}
    for name, (image, kind, options) in made.items():
        file = BytesIO()
        image.save(file, kind, **options)
        out[name] = file.getvalue()
    return out


def mutant(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """`data`, damaged in one of seven ways; `other` is a file to take bytes from. Half of the damage is in the first 64 bytes."""
    new = bytearray(data)
    at = int(rng.integers(min(64, len(new)) if rng.random() < 0.5 else len(new)))
    size = int(rng.integers(1, 33))
    match rng.integers(7):
        case 0:  # 1 to 20 flipped bits
            for _ in range(rng.integers(1, 21)):
                new[rng.integers(len(new)) if rng.random() < 0.5 else min(at, len(new) - 1)] ^= 1 << int(rng.integers(8))
        case 1:
            del new[at:]
        case 2:
            new[at : at + size] = bytes(size)
        case 3:
            new[at : at + 4] = int(rng.integers(2**32)).to_bytes(4, "big")  # a length, an offset, a width
        case 4:
            new[at:at] = new[at : at + size]
        case 5:
            new[at:] = other[at:]
        case 6:
            new[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    return bytes(new)


def main(count: int, seed: int) -> None:
    """Decode `count` mutants and print what happened."""
    files = list(originals().values())
    for data in files:
        open_image(ImageRef("whole", data=data))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(count):
        data = mutant(files[number % len(files)], files[rng.integers(len(files))], rng)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        begin = time.perf_counter()
        try:
            assert open_image(ImageRef("mutant", data=data)).mode == "RGB"
            outcomes["decoded"] += 1
        except ImageError as error:
            outcomes[error.code] += 1
        slowest = max(slowest, time.perf_counter() - begin)
    faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"outcomes": outcomes, "slowest_s": round(slowest, 2), "grown_MiB": round(grown, 1)}))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(5000, 0)[len(given) :])
