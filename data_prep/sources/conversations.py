"""Conversations about images: ShareGPT4V, LLaVA, and Qwen's own fine-tuning format.

    {"id": ..., "image": "coco/1.jpg" | ["a.jpg", "b.jpg"] | absent,
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}, ...]}

as one JSON array or as JSON lines (ShareGPT4V's Data.md; Qwen3-VL's qwen-vl-finetune README). Image paths are
relative to the file's folder or to the image root. Invariant: there are as many `<image>` markers in the human turns
as images, and none in answers; the markers go, since a context shows its images first. A record without image becomes
a sample with an empty query.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side
from data_prep.sources import records
from data_prep.sources.common import Part, Unusable, check_range, convert, image_base, usable
from data_prep.sources.sharegpt import dialogue_and_images, image_names, turns

LOOKS_FOR = "a ShareGPT4V-like folder: *.json or *.jsonl with `conversations`"


def discover(root: Path, image_root: Path | None, split: str) -> Iterator[Part | Unusable]:
    """Every conversation file directly in `root` (`split` does not apply).

    Unusable: a file of records with `image` but no `conversations`, without rows, or whose images are not found.
    """
    for path in records.files(root):
        source = f"sharegpt4v/{path.stem}"
        yield from usable(source, path, lambda path=path, source=source: _parts(source, path, (image_root, root)))


def _parts(source: str, path: Path, bases: tuple[Path | None, ...]) -> Iterator[Part]:
    keys = records.first_keys(path)
    if "embed_text" in keys or not keys & {"conversations", "image"}:
        return
    if "conversations" not in keys:
        raise DataError(
            f"{path}: found keys {', '.join(sorted(keys))}; missing conversations; "
            "expected conversations, and optionally id and image, in every record"
        )
    base = image_base(path, image_names(path), bases)
    yield Part(source, "conversations", path, len(records.spans(path)[0]), base)


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) in order; see the module's invariant for what is rejected."""
    check_range(part, start, stop, len(records.spans(part.path)[0]))
    return convert(part, records.rows(part.path, start, stop), _sample)


def _sample(part: Part, number: int, record: dict | str) -> RawSample:
    pairs, images = dialogue_and_images(record)
    query = Side(images=tuple(ImageRef(name, part.root) for name in images))
    return RawSample(part.row_id(number), part.source, query, turns=turns(pairs))
