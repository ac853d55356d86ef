"""The one prompt template: a context, the chorus, and then whatever is generated.

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n          CONTEXT
    <|im_start|>user\\n<image>[embedding instruction]                       CONTEXT   (V, T)
    <chorus x K>                                                           CHORUS    (U)
    [generation instruction]<|im_end|>\\n<|im_start|>assistant\\n            PROMPT    (Q)
    answer<|im_end|>                                                       ANSWER    (A)
    \\n<|im_start|>user\\n[next question]<|im_end|>\\n<|im_start|>assistant\\n PROMPT

A side that is only embedded ends with the chorus (CREM, "compression-based prompt design"). Without the chorus and without
turns' roles this is Qwen2-VL's chat format, token for token. This is the only file that holds prompt text.

Invariant: every special token stands here as a `Special`, never inside a string; whatever is a string is tokenized as plain text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep.samples import Side, Turn
from data_prep.schema import Role

SYSTEM = "You are a helpful assistant."
IMAGE_ONLY_INSTRUCTION = "Represent the given image."
"""Embedding instruction of a side that is an image without text (MMEB's own wording for target images)."""


@dataclass(frozen=True)
class Special:
    """One special token, by its name in the tokenizer."""

    name: str


IM_START = Special("<|im_start|>")
IM_END = Special("<|im_end|>")
VISION_START = Special("<|vision_start|>")
VISION_END = Special("<|vision_end|>")


@dataclass(frozen=True)
class ImageSlot:
    """Stands for the image tokens of the context's image number `index`."""

    index: int


@dataclass(frozen=True)
class ChorusSlot:
    """Stands for the K chorus tokens."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt whose tokens share one role. `user` marks text that came from data."""

    content: str | Special | ImageSlot | ChorusSlot
    role: Role
    user: bool = False


def render(side: Side, turns: Sequence[Turn] = (), open_question: str | None = None) -> list[Segment]:
    """Segments of a context side, its turns, and optionally a last question left open for generation.

    Args:
        side: the context; an image without text gets `IMAGE_ONLY_INSTRUCTION`.
        turns: answered questions; each answer becomes ANSWER tokens (with its end-of-turn token).
        open_question: a question to be answered; the sequence then ends after the assistant's header.
    """
    out = list(_context(side))
    out.append(Segment(ChorusSlot(), Role.CHORUS))
    for number, turn in enumerate(turns):
        out += _question(turn.question, first=number == 0)
        out += [Segment(turn.answer, Role.ANSWER, user=True), Segment(IM_END, Role.ANSWER)]
    if open_question is not None:
        out += _question(open_question, first=not turns)
    return out


def _context(side: Side) -> Iterator[Segment]:
    yield Segment(IM_START, Role.CONTEXT)
    yield Segment("system\n" + SYSTEM, Role.CONTEXT)
    yield Segment(IM_END, Role.CONTEXT)
    yield Segment("\n", Role.CONTEXT)
    yield Segment(IM_START, Role.CONTEXT)
    yield Segment("user\n", Role.CONTEXT)
    for index in range(len(side.images)):
        yield Segment(VISION_START, Role.CONTEXT)
        yield Segment(ImageSlot(index), Role.CONTEXT)
        yield Segment(VISION_END, Role.CONTEXT)
    text = side.text or (IMAGE_ONLY_INSTRUCTION if side.images else "")
    if text:
        yield Segment(text, Role.CONTEXT, user=True)


def _question(question: str, first: bool) -> list[Segment]:
    opening = [] if first else [Segment("\n", Role.PROMPT), Segment(IM_START, Role.PROMPT), Segment("user\n", Role.PROMPT)]
    return [
        *opening,
        Segment(question, Role.PROMPT, user=True),
        Segment(IM_END, Role.PROMPT),
        Segment("\n", Role.PROMPT),
        Segment(IM_START, Role.PROMPT),
        Segment("assistant\n", Role.PROMPT),
    ]
