"""The one prompt template: a context, the chorus, and then whatever is generated.

    HEAD  <image> [embedding instruction]          CONTEXT   (V, T)
    <chorus x K>                                   CHORUS    (U)
    [generation instruction]  ASSISTANT            PROMPT    (Q)
    answer  TURN_END                               ANSWER    (A)
    USER  [next question]  ASSISTANT               PROMPT

In capitals stand the marks of the checkpoint's own chat format: `chat` reads their tokens off its chat template. In ChatML, which all
supported families speak, HEAD is "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n<|im_start|>user\\n", and so on.
A side that is only embedded ends with the chorus (CREM, "compression-based prompt design"). Without the chorus and without
turns' roles this is the checkpoint's chat format, token for token. This is the only file that holds prompt text.

Invariant: special tokens come from marks and slots only; whatever is a string is tokenized as plain text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from data_prep.samples import Side, Turn
from data_prep.schema import Role

SYSTEM = "You are a helpful assistant."
IMAGE_ONLY_INSTRUCTION = "Represent the given image."
"""Embedding instruction of a side that is an image without text (MMEB's own wording for target images)."""


class Mark(Enum):
    """A stretch of the chat format around what is said; its tokens belong to the checkpoint."""

    HEAD = "all before the first user's words, the system line included"
    IMAGE_START = "opens an image"
    IMAGE_END = "closes an image"
    ASSISTANT = "from the end of a question to the beginning of its answer"
    TURN_END = "the one token that ends an answer"
    USER = "from there to the beginning of the next question"


@dataclass(frozen=True)
class ImageSlot:
    """Stands for the image tokens of the context's image number `index`."""

    index: int


@dataclass(frozen=True)
class ChorusSlot:
    """Stands for the K chorus tokens."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt whose tokens share one role."""

    content: str | Mark | ImageSlot | ChorusSlot
    role: Role


def render(side: Side, turns: Sequence[Turn] = (), open_question: str | None = None, instruct: bool = True) -> list[Segment]:
    """Segments of a context side, its turns, and optionally a last question left open for generation.

    Args:
        side: the context; an image without text gets `IMAGE_ONLY_INSTRUCTION`, unless `instruct` is False.
        turns: answered questions; each answer becomes ANSWER tokens (with its end-of-turn token).
        open_question: a question to be answered; the sequence then ends after the assistant's header.
    """
    out = list(_context(side, instruct))
    out.append(Segment(ChorusSlot(), Role.CHORUS))
    for number, turn in enumerate(turns):
        out += _question(turn.question, first=number == 0)
        out += [Segment(turn.answer, Role.ANSWER), Segment(Mark.TURN_END, Role.ANSWER)]
    if open_question is not None:
        out += _question(open_question, first=not turns)
    return out


def _context(side: Side, instruct: bool) -> Iterator[Segment]:
    yield Segment(Mark.HEAD, Role.CONTEXT)
    for index in range(len(side.images)):
        yield Segment(Mark.IMAGE_START, Role.CONTEXT)
        yield Segment(ImageSlot(index), Role.CONTEXT)
        yield Segment(Mark.IMAGE_END, Role.CONTEXT)
    text = side.text or (IMAGE_ONLY_INSTRUCTION if side.images and instruct else "")
    if text:
        yield Segment(text, Role.CONTEXT)


def _question(question: str, first: bool) -> list[Segment]:
    opening = [] if first else [Segment(Mark.USER, Role.PROMPT)]
    return [*opening, Segment(question, Role.PROMPT), Segment(Mark.ASSISTANT, Role.PROMPT)]
