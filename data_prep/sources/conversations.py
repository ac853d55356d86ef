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

from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side, Turn
from data_prep.sources import records
from data_prep.sources.common import ROWS_PROBED, Part, RowError, check_range, convert, image_base, visible

LOOKS_FOR = "a ShareGPT4V-like folder: *.json or *.jsonl with `conversations`"
MARKER = "<image>"
_HUMAN = ("human", "user")
_MODEL = ("gpt", "assistant")


def discover(root: Path, image_root: Path | None, split: str) -> list[Part]:
    """Every conversation file directly in `root` (`split` does not apply).

    Raises:
        DataError: a file of records with `image` but no `conversations`, without rows, or whose first image is missing.
    """
    parts = []
    for path in record_files(root):
        keys = first_keys(path)
        if "embed_text" in keys or not keys & {"conversations", "image"}:
            continue
        if "conversations" not in keys:
            raise DataError(
                f"{path}: found keys {', '.join(sorted(keys))}; missing conversations; "
                "expected conversations, and optionally id and image, in every record"
            )
        base = image_base(path, first_image(path), (image_root, root))
        parts.append(Part(f"sharegpt4v/{path.stem}", "conversations", path, len(records.spans(path)[0]), base))
    return parts


def record_files(root: Path) -> list[Path]:
    """JSON and JSON-lines files directly in a folder, sorted."""
    return [path for path in visible(root) if path.suffix in (".json", ".jsonl") and path.is_file()]


def first_keys(path: Path) -> set[str]:
    """Keys of the first whole record; none for a `.json` file that is no list of records (settings, metadata).

    Raises:
        DataError: a file without rows, a `.jsonl` file that begins with no object, an array that is cut off.
    """
    found = [row for _, row in records.rows(path, 0, 8)]
    if not found:
        raise DataError(f"{path}: found 0 rows, expected at least one record; download the file again or remove it")
    for row in found:
        if isinstance(row, dict):
            return set(row)
    if path.suffix == ".jsonl":
        raise DataError(f"{path}: {found[0]}; expected one JSON object a line; write the file again or remove it")
    return set()


def first_image(path: Path) -> str | None:
    """The first image path in the first rows of a file, if there is one."""
    for _, record in records.rows(path, 0, ROWS_PROBED):
        value = record.get("image") if isinstance(record, dict) else None
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and name:
                return name
    return None


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) in order; see the module's invariant for what is rejected."""
    check_range(part, start, stop, len(records.spans(part.path)[0]))
    return convert(part, records.rows(part.path, start, stop), _sample)


def _sample(part: Part, number: int, record: dict | str) -> RawSample:
    pairs, images = dialogue(record), image_names(record)
    marks = sum(question.count(MARKER) for question, _ in pairs)
    if marks != len(images):
        raise RowError(f"placeholder_count: {marks} {MARKER} markers but {len(images)} images")
    query = Side(images=tuple(ImageRef(name, part.root) for name in images))
    return RawSample(part.row_id(number), part.source, query, turns=turns(pairs))


def image_names(record: dict) -> list[str]:
    """Values of `image`: absent, null or "" is none, a string is one, a list is several."""
    value = record.get("image") or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise RowError(f"image: found {type(value).__name__}, expected a path or a list of paths")
    return names


def dialogue(record: dict | str) -> list[tuple[str, str]]:
    """(human value, model value) pairs, as they stand.

    Raises:
        RowError: not a record, a video, no turns, a system message, or roles that do not alternate from human to model.
    """
    if isinstance(record, str):
        raise RowError(record)
    if record.get("video"):
        raise RowError("video: found a video, expected images")
    messages = record.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise RowError("conversations: found no list of turns")
    values = [_value(message, number) for number, message in enumerate(messages)]
    if len(values) % 2:
        raise RowError(f"roles: found {len(values)} turns, expected every human turn to have an answer")
    return list(zip(values[0::2], values[1::2], strict=True))


def _value(message: object, number: int) -> str:
    role, value = (message.get("from"), message.get("value")) if isinstance(message, dict) else (None, None)
    if role == "system":
        raise RowError(f"system_turn: turn {number} is a system message; the prompt template has its own")
    expected = _MODEL if number % 2 else _HUMAN
    if role not in expected:
        raise RowError(f"roles: turn {number} is from {role!r}, expected {expected[0]!r}")
    if not isinstance(value, str):
        raise RowError(f"conversations: turn {number} has no text value")
    return value


def turns(pairs: list[tuple[str, str]]) -> tuple[Turn, ...]:
    """Questions without image markers, and their answers, outer whitespace removed.

    Raises:
        RowError: an answer with a marker, an empty answer, or a question that is empty without its markers.
    """
    out = []
    for number, (question, answer) in enumerate(pairs):
        question, answer = question.replace(MARKER, "").strip(), answer.strip()
        if MARKER in answer:
            raise RowError(f"placeholder_count: answer {number} contains {MARKER}")
        if not answer:
            raise RowError(f"empty_answer: answer {number} is empty")
        if not question:
            raise RowError(f"empty_question: question {number} is empty")
        out.append(Turn(question, answer))
    return tuple(out)
