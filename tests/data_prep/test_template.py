"""The prompt, segment by segment, and token for token against the chat template of the checkpoint's own tokenizer."""

from itertools import groupby

import pytest

from data_prep.encode import Encoder
from data_prep.samples import ImageRef, Side, Turn
from data_prep.template import ChorusSlot, ImageSlot, Mark, Segment, render

IMAGE = ImageRef("a.png")


MARKS = {
    Mark.HEAD: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
    Mark.IMAGE_START: "<|vision_start|>",
    Mark.IMAGE_END: "<|vision_end|>",
    Mark.ASSISTANT: "<|im_end|>\n<|im_start|>assistant\n",
    Mark.TURN_END: "<|im_end|>",
    Mark.USER: "\n<|im_start|>user\n",
}
"""ChatML, as `test_chat` finds it in the checkpoint."""


def spelt(side: Side, turns: tuple[Turn, ...] = (), open_question: str | None = None) -> list[tuple[str, str]]:
    """(role, text) per stretch of one role."""
    segments = render(side, turns, open_question)
    return [(role.name, "".join(map(_text, group))) for role, group in groupby(segments, key=lambda segment: segment.role)]


def _text(segment: Segment) -> str:
    match segment.content:
        case Mark() as mark:
            return MARKS[mark]
        case ImageSlot(index):
            return f"[image {index}]"
        case ChorusSlot():
            return "[chorus]"
        case text:
            return text


HEAD = MARKS[Mark.HEAD]


def test_a_side_ends_with_the_chorus() -> None:
    assert spelt(Side("find it:", (IMAGE, IMAGE))) == [
        (
            "CONTEXT",
            HEAD + "<|vision_start|>[image 0]<|vision_end|><|vision_start|>[image 1]<|vision_end|>find it:",
        ),
        ("CHORUS", "[chorus]"),
    ]
    assert spelt(Side("only text")) == [("CONTEXT", HEAD + "only text"), ("CHORUS", "[chorus]")]


def test_an_image_without_text_gets_the_instruction() -> None:
    context = HEAD + "<|vision_start|>[image 0]<|vision_end|>Represent the given image."
    assert spelt(Side(images=(IMAGE,))) == [("CONTEXT", context), ("CHORUS", "[chorus]")]


def test_an_image_that_is_asked_about_gets_none_if_none_is_wanted() -> None:
    contents = [segment.content for segment in render(Side(images=(IMAGE,)), open_question="how many?", instruct=False)]
    shown = [Mark.HEAD, Mark.IMAGE_START, ImageSlot(0), Mark.IMAGE_END]
    assert contents == [*shown, ChorusSlot(), "how many?", Mark.ASSISTANT]


def test_an_empty_side_gets_no_instruction() -> None:
    assert spelt(Side()) == [("CONTEXT", HEAD), ("CHORUS", "[chorus]")]


def test_one_turn() -> None:
    assert spelt(Side("look"), (Turn("what?", "a ring"),)) == [
        ("CONTEXT", HEAD + "look"),
        ("CHORUS", "[chorus]"),
        ("PROMPT", "what?<|im_end|>\n<|im_start|>assistant\n"),
        ("ANSWER", "a ring<|im_end|>"),
    ]


def test_several_turns_and_an_open_question() -> None:
    turns = (Turn("what?", "a ring"), Turn("colour?", "red"))
    assert spelt(Side("look"), turns, "size?") == [
        ("CONTEXT", HEAD + "look"),
        ("CHORUS", "[chorus]"),
        ("PROMPT", "what?<|im_end|>\n<|im_start|>assistant\n"),
        ("ANSWER", "a ring<|im_end|>"),
        ("PROMPT", "\n<|im_start|>user\ncolour?<|im_end|>\n<|im_start|>assistant\n"),
        ("ANSWER", "red<|im_end|>"),
        ("PROMPT", "\n<|im_start|>user\nsize?<|im_end|>\n<|im_start|>assistant\n"),
    ]


def test_a_question_alone() -> None:
    assert spelt(Side("look"), open_question="what?")[2:] == [("PROMPT", "what?<|im_end|>\n<|im_start|>assistant\n")]


def test_strings_are_what_data_says_and_nothing_else() -> None:
    segments = render(Side("look", (IMAGE,)), (Turn("what?", "a ring"),), "size?")
    assert [segment.content for segment in segments if isinstance(segment.content, str)] == ["look", "what?", "a ring", "size?"]


@pytest.mark.parametrize(
    ("side", "turns", "open_question"),
    [
        (Side("a red circle. "), (Turn("how many stars?", "three yellow stars."),), None),
        (Side("a red circle. "), (Turn("how many?", "three."), Turn("what colour?", "grey.")), None),
        (Side("a red circle. "), (Turn("how many?", "three."),), "what colour?"),
        (Side("a red circle. "), (), "what colour?"),
        (Side(images=(IMAGE, IMAGE)), (Turn("\u00e9\u732b \U0001f431?", "two  squares\nand a ring"),), None),
    ],
)
def test_without_the_chorus_it_is_the_chat_template(
    encoder: Encoder, side: Side, turns: tuple[Turn, ...], open_question: str | None, picture_56: bytes
) -> None:
    side = Side(side.text, tuple(ImageRef("a.png", data=picture_56) for _ in side.images))
    ours = encoder.sequence(side, turns, open_question).ids.tolist()
    ours = [token for token in ours if token not in encoder.chorus_ids]
    parts = [{"type": "image"} for _ in side.images]
    instruction = side.text or "Represent the given image."
    questions = [turn.question for turn in turns] + [open_question] * (open_question is not None)
    messages = []
    for number, question in enumerate(questions):
        text = question if number else instruction + question
        messages.append({"role": "user", "content": [*(parts if number == 0 else []), {"type": "text", "text": text}]})
        if number < len(turns):
            messages.append({"role": "assistant", "content": turns[number].answer})
    text = encoder.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_question is not None)
    text = text.replace("<|image_pad|>", "<|image_pad|>" * 4)  # a picture of 56 x 56 is four tokens
    if open_question is None:
        text = text.removesuffix("\n")
    assert ours == encoder.tokenizer(text, add_special_tokens=False).input_ids
