"""Synthetic question-answer records about MMEB-train images: one row that serves both losses.

    {"image": "images/ChartQA/Train/1.png", "side": "qry", "embed_text": "Represent the given image ...",
     "conversations": [{"from": "human", "value": "<image>\\n{embed_text}\\n{question}"},
                       {"from": "gpt", "value": "{answer}"}],
     "contrast": {"qry": ..., "pos_text": ..., "pos_image_path": ..., "neg_text": ..., "neg_image_path": ...}, ...}

as JSON lines: this project's own format, with ShareGPT4V's keys. Image paths are those of MMEB-train. Invariant: the
query is image plus `embed_text`, exactly the MMEB query; what is left of the human turn is the question. A record
about another side (`side` other than "qry") keeps its turns but no pair, for its query would be its own positive.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side
from data_prep.sources import records
from data_prep.sources.common import (
    Part,
    RowError,
    check_range,
    convert,
    image_base,
    plain,
    required_side,
)
from data_prep.sources.mmeb_train import negatives
from data_prep.sources.sharegpt import MARKER, dialogue_and_images, first_image, turns

LOOKS_FOR = "a synqa folder: *.jsonl with `conversations` and `embed_text`"
MMEB_FOLDER = "MMEB-train"


def discover(root: Path, image_root: Path | None, split: str) -> list[Part]:
    """Every synqa file directly in `root` (`split` does not apply).

    Image paths are tried below `image_root`, `root`, and an MMEB-train folder in or beside `root`, in that order.

    Raises:
        DataError: records without `conversations`, or whose first image is below none of those folders.
    """
    parts = []
    bases = (image_root, root, root / MMEB_FOLDER, root.resolve().parent / MMEB_FOLDER)
    for path in records.files(root):
        keys = records.first_keys(path)
        if "embed_text" not in keys:
            continue
        if "conversations" not in keys:
            raise DataError(f"{path}: found keys {', '.join(sorted(keys))}; expected conversations beside embed_text")
        base = image_base(path, first_image(path), bases)
        parts.append(Part(f"synqa/{path.stem}", "synqa", path, len(records.spans(path)[0]), base))
    return parts


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) in order; rejected as conversations are, and when query or positive is empty."""
    check_range(part, start, stop, len(records.spans(part.path)[0]))
    return convert(part, records.rows(part.path, start, stop), _sample)


def _sample(part: Part, number: int, record: dict | str) -> RawSample:
    pairs, images = dialogue_and_images(record, unmarked=True)
    embed_text = _text(record, "embed_text").replace(MARKER, "")
    query = Side(plain(embed_text), tuple(ImageRef(name, part.root) for name in images))
    if query.empty:
        raise RowError("empty_side: query has neither text nor image")
    pairs = [(_question(question, query.text), answer) for question, answer in pairs]
    positive, others = _contrast(record, part.root)
    return RawSample(part.row_id(number), part.source, query, turns(pairs), positive, others)


def _text(record: dict, key: str) -> str:
    value = record.get(key) or ""
    if not isinstance(value, str):
        raise RowError(f"{key}: found {type(value).__name__}, expected text")
    return value


def _question(value: str, embed_text: str) -> str:
    value = plain(value.replace(MARKER, ""))
    rest = value.removeprefix(embed_text)
    # "Find" must not be cut from a question that starts with "Finding".
    return rest if not rest or rest[0].isspace() else value


def _contrast(record: dict, root: Path) -> tuple[Side | None, tuple[Side, ...]]:
    contrast = record.get("contrast")
    if not contrast or record.get("side", "qry") != "qry":
        return None, ()
    if not isinstance(contrast, dict):
        raise RowError(f"contrast: found {type(contrast).__name__}, expected an object")
    positive = required_side("positive", _text(contrast, "pos_text"), _text(contrast, "pos_image_path"), root)
    return positive, negatives(contrast.get("neg_text"), contrast.get("neg_image_path"), root)
