"""Heat maps of where the chorus looks, from the command line and for the evaluation (CREM, Figure 4).

    python -m pipeline.evaluate.attention CHECKPOINT --images A.png B.jpg [--texts ...] [--k K] [--layer N] [--out FOLDER]

One picture and one JSON file of numbers per image; what they mean is said in `chorus_maps`.
"""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from PIL import Image

from data_prep.checkpoint import load_config
from data_prep.command import exit_status
from data_prep.encode import Encoder, EncodeSettings
from data_prep.samples import DataError, ImageRef, Side
from data_prep.sequence import TokenSequence
from data_prep.shards import atomic_file
from data_prep.sources.mmeb_eval import EvalSet
from pipeline.evaluate.chorus_maps import ImageMaps, chorus_attention, entropy, image_maps
from pipeline.evaluate.heat_maps import heat_maps
from pipeline.evaluate.open import Opened, open_checkpoint

DPI = 110
"""Dots per inch of the pictures."""
SHOWN = 4
"""Query images that the evaluation draws."""


@dataclass(frozen=True)
class Drawn:
    """Files written, and the images' mean figures (see `ImageMaps.figures`)."""

    files: list[Path]
    figures: dict[str, float]


def draw(opened: Opened, items: Sequence[tuple[Side, TokenSequence]], folder: Path, layer: int | None = None) -> Drawn:
    """One picture and one JSON file of numbers per image of the items (a side and its tokens).

    Args:
        layer: decoder layer, from 0; None: the mean of all layers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    figures: list[dict[str, float]] = []
    for side, sequence in items:
        rows_LKT = chorus_attention(opened.model, opened.collator, sequence)
        layers = f"mean of {len(rows_LKT)} layers" if layer is None else f"layer {layer} (of 0 to {len(rows_LKT) - 1})"
        rows_KT = rows_LKT.mean(dim=0) if layer is None else rows_LKT[layer]
        for ref, maps in zip(side.images, image_maps(rows_KT, sequence, opened.encoder), strict=True):
            stem = re.sub(r"[^\w.-]+", "_", Path(ref.name).stem)[:60]
            files += _write(maps, folder / f"{len(figures):02}-{stem}", Path(ref.name).name, side.text, layers)
            figures.append(maps.figures())
    return Drawn(files, {name: sum(own[name] for own in figures) / len(figures) for name in (figures or [{}])[0]})


def _write(maps: ImageMaps, path: Path, name: str, text: str, layers: str) -> list[Path]:
    """`path`.png and `path`.json of one image."""
    figures = maps.figures()
    columns = {"image_mass": maps.mass_K, "even_mass": maps.even_mass_K, "entropy": entropy(maps.maps_KYX)}
    tokens = [{"chorus": i} | {key: float(values[i]) for key, values in columns.items()} for i in range(len(maps.mass_K))]
    facts = {"image": name, "text": text, "layers": layers, "grid": list(maps.maps_KYX.shape[1:])}
    png, numbers = (path.with_name(f"{path.name}.{ending}") for ending in ("png", "json"))
    with atomic_file(numbers) as temporary:
        temporary.write_text(json.dumps(facts | figures | {"tokens": tokens}, indent=2, allow_nan=False) + "\n")
    labels = [f"chorus {i}\n{100 * float(mass):.0f} % on the image" for i, mass in enumerate(maps.mass_K)]
    title = f"{name if len(name) <= 60 else name[:59] + '…'}\n{layers}: {in_words(figures)}"
    with Image.open(io.BytesIO(maps.image.data)) as image:
        figure = heat_maps(image.convert("RGB"), maps.maps_KYX.numpy(), labels, title)
    figure.savefig(png, dpi=DPI)
    return [png, numbers]


def in_words(figures: dict[str, float]) -> str:
    """The figures on one line."""
    shared = f", overlap {figures['overlap']:.2f}" if "overlap" in figures else ""
    return f"on the image {figures['image_mass']:.2f} (even: {figures['even_mass']:.2f}), entropy {figures['entropy']:.2f}{shared}"


def first_queries(sets: Sequence[EvalSet], count: int = SHOWN) -> list[Side]:
    """Queries of the first set that has some with images: the first `count` of them whose images differ."""
    for eval_set in sets:
        found: dict[tuple[ImageRef, ...], Side] = {}
        for row in eval_set.rows:
            if row.query.images:
                found.setdefault(row.query.images, row.query)
        if found:
            return list(found.values())[:count]
    return []


def main(argv: list[str] | None = None) -> int:
    """Draw the maps of pictures named on the command line; returns the exit status (2: bad input, said so on standard error)."""
    args = _parser().parse_args(argv)
    return exit_status(run, args)


def run(args: argparse.Namespace) -> int:
    """Check and encode all input, then open the weights and draw."""
    layers = load_config(args.checkpoint).get_text_config().num_hidden_layers
    if args.layer is not None and not 0 <= args.layer < layers:
        raise DataError(f"layer = {args.layer}: found a checkpoint of {layers} decoder layers; expected 0 to {layers - 1}")
    settings = EncodeSettings(min_pixels=args.min_pixels, max_pixels=args.max_pixels, max_tokens=32768)
    encoder = Encoder(args.checkpoint, settings).shortened(args.k)
    items = [(side, encoder.sequence(side)) for side in sides(args.images, args.texts, args.together)]
    name = Path(args.checkpoint).resolve().parent.name + ("" if args.k is None else f"-k{args.k}")
    out = args.out or Path("work/attention") / name
    drawn = draw(open_checkpoint(args.checkpoint, encoder), items, out, args.layer)
    print(f"attention of the chorus, mean over the images: {in_words(drawn.figures)}")
    print(f"heat maps and their numbers: {out}\n" + "\n".join(f"  {path}" for path in drawn.files))
    return 0


def sides(images: Sequence[str], texts: Sequence[str], together: bool = False) -> list[Side]:
    """One item per image file with its text, or one item of them all.

    Raises:
        DataError: no image, or another number of texts than of items.
    """
    if not images:
        found = f"{len(texts)} texts without an image" if texts else "no image"
        raise DataError(f"found {found}; expected --images FILE ...: maps are drawn over images")
    # an absolute path below the root folder: whoever names a file may name any, also through a link
    refs = [ImageRef(os.path.abspath(image), Path("/")) for image in images]
    groups = [tuple(refs)] if together else [(ref,) for ref in refs]
    if texts and len(texts) != len(groups):
        raise DataError(
            f"found {len(texts)} texts for {len(groups)} items with images; expected one text each ('' for none), or no --texts. "
            "A text without an image has no map"
        )
    return [Side(text.strip(), group) for text, group in zip(texts or [""] * len(groups), groups, strict=True)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bash launchers/attention.sh", allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="an exported folder, or any checkpoint with chorus tokens")
    parser.add_argument("--images", nargs="*", default=[], help="image files; each is an item of its own, and gets a picture")
    parser.add_argument("--texts", nargs="*", default=[], help="embedding instructions, one per item (default: the template's own)")
    parser.add_argument("--together", action="store_true", help="all images are one item")
    parser.add_argument("--k", type=int, help="chorus tokens used, of those the checkpoint has (default: all)")
    parser.add_argument("--layer", type=int, help="decoder layer, from 0 (default: the mean of all)")
    parser.add_argument("--out", type=Path, help="folder for pictures and numbers (default: work/attention/<run>)")
    parser.add_argument("--min-pixels", type=int, help="smallest image area (default: the checkpoint's)")
    parser.add_argument("--max-pixels", type=int, help="largest image area (default: the checkpoint's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
