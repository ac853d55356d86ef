"""One record in ShareGPT's keys, `image` and `conversations`: what `conversations` and `synqa` have in common.

A record becomes the names of its images and (human value, model value) pairs; the pairs lose their `<image>` markers
and become `Turn`s. Whatever does not fit is a `RowError`: the row is set aside, its neighbours are not.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.samples import Turn
from data_prep.sources import records
from data_prep.sources.common import ROWS_PROBED, RowError

MARKER = "<image>"
_HUMAN = ("human", "user")
_MODEL = ("gpt", "assistant")


def image_names(path: Path) -> Iterator[str]:
    """Image paths in the first rows of a file."""
    for _, record in records.rows(path, 0, ROWS_PROBED):
        value = record.get("image") if isinstance(record, dict) else None
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and name:
                yield name


def dialogue_and_images(record: dict | str, unmarked: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
    """(human value, model value) pairs as they stand, and image names: as many as the human values have markers.

    Args:
        record: a record, or what is wrong with it.
        unmarked: accept images without any marker as well.

    Raises:
        RowError: not a record, a video, no alternating turns, bad image names, or another number of markers than images.
    """
    pairs, images = _dialogue(record), _image_names(record)
    marks = sum(question.count(MARKER) for question, _ in pairs)
    if marks != len(images) and not (unmarked and marks == 0):
        raise RowError(f"placeholder_count: {marks} {MARKER} markers but {len(images)} images")
    return pairs, images


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


def _dialogue(record: dict | str) -> list[tuple[str, str]]:
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


def _image_names(record: dict) -> list[str]:
    """Values of `image`: absent, null or "" is none, a string is one, a list is several."""
    value = record.get("image") or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise RowError(f"image: found {type(value).__name__}, expected a path or a list of paths")
    return names
