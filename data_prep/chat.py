"""The tokens of a checkpoint's chat format, read off its own chat template.

A probe conversation goes through the template once; what stands between the probe's words are the marks (`template.Mark`). So special
tokens, line breaks and roles are the checkpoint's, and the prompt is what its own `apply_chat_template` would give.
"""

from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from data_prep.samples import DataError
from data_prep.template import SYSTEM, Mark

_WORDS = ("(before)", "(after)", "(answer)", "(question)", "(last)")
"""What the probe says: text before and after an image, an answer, a question, an answer. No template spells these."""


def chat_marks(tokenizer: PreTrainedTokenizerBase, image_id: int, checkpoint: str) -> dict[Mark, tuple[int, ...]]:
    """Token ids of every mark.

    Args:
        image_id: the checkpoint's image placeholder.
        checkpoint: folder or hub id, for messages.

    Raises:
        DataError: no chat template, one without images, or one that opens or closes answers differently from turn to turn.
    """
    if not tokenizer.chat_template:
        raise DataError(
            f"{checkpoint}: found a tokenizer without a chat template; expected the model's own, which says where turns and images begin "
            f"and end. Take it from the published checkpoint (chat_template.jinja, or chat_template in tokenizer_config.json)"
        )
    before, after, answer, question, last = _WORDS
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [_text(before), {"type": "image"}, _text(after)]},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": [_text(question)]},
        {"role": "assistant", "content": last},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    words = [before, tokenizer.convert_ids_to_tokens(image_id), after, answer, question, last]
    head, image_start, image_end, assistant, between, assistant_again, end = (
        tuple(tokenizer(piece, add_special_tokens=False).input_ids) for piece in _cut(rendered, words, checkpoint)
    )
    # text follows a mark and precedes one: each is tokenized by itself, which is how the whole is tokenized where marks hold special tokens
    if assistant != assistant_again or not between or between[:1] != end[:1]:
        raise DataError(
            f"{checkpoint}: found a chat template that opens or closes an answer in another way in the last turn than before (as templates "
            f"of thinking models do); expected the same in every turn. Use the instruct checkpoint of this model"
        )
    return {
        Mark.HEAD: head,
        Mark.IMAGE_START: image_start,
        Mark.IMAGE_END: image_end,
        Mark.ASSISTANT: assistant,
        Mark.TURN_END: between[:1],
        Mark.USER: between[1:],
    }


def _cut(rendered: str, words: list[str], checkpoint: str) -> list[str]:
    """The pieces of `rendered` before, between and after `words`, which must stand in it once each and in this order."""
    places = [rendered.find(word) for word in words]
    if -1 in places or any(a >= b for a, b in pairwise(places)) or any(rendered.count(word) != 1 for word in words):
        raise DataError(
            f"{checkpoint}: found a chat template that does not show {', '.join(words)} once each in this order; expected one of a "
            f"vision-language model, which writes its image token where the message has an image. It gave: {rendered!r}"
        )
    starts = [0, *(place + len(word) for place, word in zip(places, words, strict=True))]
    return [rendered[start:stop] for start, stop in zip(starts, [*places, len(rendered)], strict=True)]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
