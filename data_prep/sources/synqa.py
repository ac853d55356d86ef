"""Synthetic question-answer records about MMEB-train images: one row that serves both losses.

    {"image": "images/ChartQA/Train/1.png", "side": "qry", "embed_text": "Represent the given image ...",
     "conversations": [{"from": "human", "value": "<image>\\n{embed_text}\\n{question}"},
                       {"from": "gpt", "value": "{answer}"}],
     "contrast": {"qry": ..., "pos_text": ..., "pos_image_path": ..., "neg_text": ..., "neg_image_path": ...}, ...}

as JSON lines: this project's own format, with ShareGPT4V's keys. Image paths are those of MMEB-train. Invariant: the
query is image plus `embed_text`, exactly the MMEB query; what is left of the human turn is the question. A record
about another side (`side` other than "qry") keeps its turns but no pair, for its query would be its own positive.

A source is all pairs or has none, since batches of pairs are drawn by source. So a file that has rows of both kinds is
two sources, synqa/NAME with the pairs and synqa/NAME-unpaired with the rest; ids keep the row's number in the file.
(The other families are of one kind by their format: an MMEB row without a positive is set aside, a conversation has none.)
"""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side
from data_prep.sources import records
from data_prep.sources.common import (
    Part,
    RowError,
    Unusable,
    check_range,
    convert,
    image_base,
    plain,
    required_side,
    usable,
)
from data_prep.sources.mmeb_train import negatives
from data_prep.sources.sharegpt import MARKER, dialogue_and_images, image_names, turns

LOOKS_FOR = "a synqa folder: *.jsonl with `conversations` and `embed_text`"
MMEB_FOLDER = "MMEB-train"
PAIRED, UNPAIRED = "paired", "unpaired"
"""Kinds of rows."""


def discover(root: Path, image_root: Path | None, split: str) -> Iterator[Part | Unusable]:
    """Every synqa file directly in `root` (`split` does not apply).

    Image paths are tried below `image_root`, `root`, and an MMEB-train folder in or beside `root`, in that order.
    Unusable: records without `conversations`, or whose images are below none of those folders.
    """
    bases = (image_root, root, root / MMEB_FOLDER, root.resolve().parent / MMEB_FOLDER)
    for path in records.files(root):
        yield from usable(f"synqa/{path.stem}", path, lambda path=path: _found(path, bases))


def _found(path: Path, bases: tuple[Path | None, ...]) -> list[Part]:
    keys = records.first_keys(path)
    if "embed_text" not in keys:
        return []
    if "conversations" not in keys:
        raise DataError(f"{path}: found keys {', '.join(sorted(keys))}; expected conversations beside embed_text")
    return _parts(path, image_base(path, image_names(path), bases))


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) in order; rejected as conversations are, and when query or positive is empty."""
    numbers = _numbers(part.path)[part.kind] if part.kind else range(len(records.spans(part.path)[0]))
    check_range(part, start, stop, len(numbers))
    return convert(part, records.at(part.path, numbers[start:stop]), _sample)


def _parts(path: Path, root: Path) -> list[Part]:
    """The file as one source, or as two where it has rows of both kinds."""
    source, numbers = f"synqa/{path.stem}", _numbers(path)
    if not all(numbers.values()):
        return [Part(source, "synqa", path, len(records.spans(path)[0]), root)]
    names = {PAIRED: source, UNPAIRED: f"{source}-{UNPAIRED}"}
    return [Part(name, "synqa", path, len(numbers[kind]), root, kind=kind) for kind, name in names.items()]


def _numbers(path: Path) -> dict[str, Sequence[int]]:
    """Row numbers by kind, ascending; they depend on the file alone, so every worker finds the same.

    One pass over the file in each process, remembered while size and time stamp stay the same.
    """
    rows = len(records.spans(path)[0])
    info = path.stat()
    return _numbers_of(path, rows, info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=8)
def _numbers_of(path: Path, rows: int, _size: int, _changed: int) -> dict[str, Sequence[int]]:
    kinds = [_kind(record) for _, record in records.rows(path, 0, rows)]
    rest = PAIRED if PAIRED in kinds else UNPAIRED  # an unreadable record will be set aside: it is no reason for another source
    return {kind: array("Q", (row for row, own in enumerate(kinds) if (own or rest) == kind)) for kind in (PAIRED, UNPAIRED)}


def _kind(record: dict | str) -> str | None:
    """Whether a record claims a pair about its query; None where it cannot be read."""
    if isinstance(record, str):
        return None
    return PAIRED if record.get("contrast") and record.get("side", "qry") == "qry" else UNPAIRED


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
    if _kind(record) == UNPAIRED:
        return None, ()
    contrast = record["contrast"]
    if not isinstance(contrast, dict):
        raise RowError(f"contrast: found {type(contrast).__name__}, expected an object")
    positive = required_side("positive", _text(contrast, "pos_text"), _text(contrast, "pos_image_path"), root)
    return positive, negatives(contrast.get("neg_text"), contrast.get("neg_image_path"), root)
