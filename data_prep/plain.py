"""Text that is only text: a checkpoint's tokenizer without its added tokens, and the beginning of a text in whole tokens.

`split_special_tokens=True` spells out the tokens that are marked special, but not the others that a tokenizer has been given
(Qwen2.5-VL's and Qwen3-VL's `<tool_call>`, `<|fim_prefix|>`, `<|repo_name|>`): those a text could still call by name.
"""

import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The same pieces and merges, but no added token, special or not: no text can spell one."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return Tokenizer.from_str(json.dumps(state | {"added_tokens": [], "truncation": None, "padding": None}))


def first_tokens(tokenizer: Tokenizer, text: str, count: int) -> str:
    """The longest beginning of `text` that its first `count` tokens cover, in whole characters, without white space at its end."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    if count >= len(offsets):
        return text
    # the pieces of one character (its bytes) all carry that character's place: a character is kept when all of them are
    return text[: offsets[count][0]].rstrip()
