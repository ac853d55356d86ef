"""What decontamination finds and what it drops wrongly: python -m tests.benchmarks.decontamination DATA [--planted N] [--rows N]

DATA is an embedded set (python -m data_prep.embedded DATA), whose training and evaluation share no scene, no picture and no caption by
construction. So every training row that is dropped against its own evaluation is a false drop: a row whose scene differs. Then copies of
evaluation pictures, compressed again or resized, and of its captions are looked up, as if they stood in training rows: those must be
found. Both for several values of `Rule.near`; the one in use is marked.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from data_prep import sources
from data_prep.cluster import cluster
from data_prep.decontaminate import EvaluationIndex, Rule
from data_prep.evaluation import read_evaluation
from data_prep.images import open_image
from data_prep.samples import ImageRef, RawSample, Rejected, Side
from data_prep.sources.mmeb_eval import load_sets

NEARS = (1.0, 2.0, 3.0, 4.0, 6.0)


def saved(kind: str, quality: int | None = None) -> Callable[[Image.Image], Image.Image]:
    """Written to a file of this format and read again."""

    def again(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, kind, **({} if quality is None else {"quality": quality}))
        return open_image(ImageRef("planted", data=file.getvalue()))

    return again


def resized(factor: float, how: Image.Resampling = Image.Resampling.BICUBIC) -> Callable[[Image.Image], Image.Image]:
    """Scaled, both sides alike."""
    return lambda picture: picture.resize((round(picture.width * factor), round(picture.height * factor)), how)


ALTERATIONS = {
    "the same pixels, as BMP": saved("BMP"),
    "JPEG 95": saved("JPEG", 95),
    "JPEG 85": saved("JPEG", 85),
    "JPEG 75": saved("JPEG", 75),
    "JPEG 50": saved("JPEG", 50),
    "JPEG 30": saved("JPEG", 30),
    "WEBP 75": saved("WEBP", 75),
    "GIF": saved("GIF"),
    "half size": resized(0.5),
    "a third": resized(1 / 3),
    "double size": resized(2),
    "1.37 x, Lanczos": resized(1.37, Image.Resampling.LANCZOS),
    "square, 64 x 64": lambda picture: picture.resize((64, 64), Image.Resampling.BILINEAR),
    "half size, JPEG 85": lambda picture: saved("JPEG", 85)(resized(0.5)(picture)),
    "double size, JPEG 50": lambda picture: saved("JPEG", 50)(resized(2)(picture)),
    "mirrored (not looked for)": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--planted", type=int, default=300, help="evaluation pictures that are planted in every alteration")
    parser.add_argument("--rows", type=int, default=500, help="training rows of each source that are compared")
    args = parser.parse_args(argv)
    with cluster(2) as workers:
        evaluation = read_evaluation((args.data,), workers)
    indices = [EvaluationIndex(evaluation.looks, evaluation.texts, Rule(near=near)) for near in NEARS]
    print(f"{len(evaluation.looks)} evaluation images, {len(evaluation.texts)} texts")
    print(f"{'':32}" + "".join(f"{f'near {near:g}' + '*' * (near == Rule().near):>10}" for near in NEARS))
    false_drops(args.data, indices, args.rows)
    sides = {side for found in load_sets(args.data / "MMEB-eval") for row in found.rows for side in (row.query, *row.candidates)}
    rng = random.Random(0)
    refs = sorted({ref for side in sides for ref in side.images}, key=lambda ref: ref.name)
    planted_images(rng.sample(refs, min(args.planted, len(refs))), indices)
    planted_texts(sorted({side.text for side in sides if not side.images}), indices[NEARS.index(Rule().near)])


def false_drops(data: Path, indices: list[EvaluationIndex], limit: int) -> None:
    """Training rows that are dropped, in percent by source, and why."""
    total, why = 0, Counter()
    sums = [0] * len(indices)
    print("training rows dropped though their scene differs, in percent (rows compared)")
    for source in dict.fromkeys(part.source for part in sources.discover(data)):
        rows = list(_rows(data, source, limit))
        reasons = [[index.reason(row) for row in rows] for index in indices]
        why.update(reason.split(":")[0] for reason in reasons[NEARS.index(Rule().near)] if reason)
        drops = [sum(reason is not None for reason in own) for own in reasons]
        _line(f"  {source} ({len(rows)})", [100 * count / len(rows) for count in drops])
        total, sums = total + len(rows), [a + b for a, b in zip(sums, drops, strict=True)]
    _line(f"  all ({total})", [100 * count / total for count in sums])
    print(f"  reasons at *: {dict(why)}")


def planted_images(refs: list[ImageRef], indices: list[EvaluationIndex]) -> None:
    """Share of the altered copies that are found."""
    pictures = [open_image(ref) for ref in refs]
    print(f"planted copies found, in percent ({len(pictures)} of each)")
    for name, alter in ALTERATIONS.items():
        rows = [RawSample("p", "p", Side(images=(ImageRef("planted", picture=alter(picture)),))) for picture in pictures]
        _line(f"  {name}", [100 * sum(index.reason(row) is not None for row in rows) / len(rows) for index in indices])


def planted_texts(texts: list[str], index: EvaluationIndex) -> None:
    """Share of the evaluation's texts found under another instruction, case and punctuation; short ones are labels and must not be."""
    found = {True: [], False: []}
    for text in texts:
        body = text.partition(": ")[2] or text
        long = len(body.split()) >= index.rule.min_words
        found[long].append(index.reason(RawSample("p", "p", Side(f"Some other words: {body.upper()}!"))) is not None)
    print(f"planted texts found: {sum(found[True])} of {len(found[True])} long ones, {sum(found[False])} of {len(found[False])} labels")


def _rows(data: Path, source: str, limit: int):
    left = limit
    for part in (part for part in sources.discover(data) if part.source == source):
        for row in sources.read(part, 0, min(left, part.rows)):
            left -= 1
            if not isinstance(row, Rejected):
                yield row


def _line(name: str, values: list[float]) -> None:
    print(f"{name:32}" + "".join(f"{value:10.2f}" for value in values))


if __name__ == "__main__":
    main()
