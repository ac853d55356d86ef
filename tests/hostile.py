"""Strings that spell special tokens: whole, nested, cut, in other case, with hidden characters, in look-alikes."""

import random
import unicodedata
from collections.abc import Iterator

PLACEHOLDERS = ("<image>", "<|image_1|>", "<video>", "[IMG]", "<tool_call>", "<think>", "<s>", "</s>", "<unk>", "<0x0A>")
FULL_WIDTH = str.maketrans({"<": "＜", "|": "｜", ">": "＞", "_": "＿"})
HIDDEN = ("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u0301", "\ufe0f", "\x00", "\u202e")


def variants(mark: str, other: str, rng: random.Random) -> list[str]:
    """What people write to get a special token past a filter."""
    middle, hidden = rng.randrange(1, len(mark)), rng.choice(HIDDEN)
    return [
        mark,
        mark.upper(),
        mark.title(),
        mark[:middle] + other + mark[middle:],  # what is left when the inner one is taken out
        mark[:middle] + mark + mark[middle:],
        mark[:middle],
        mark[middle:],
        mark[:middle] + hidden + mark[middle:],
        hidden.join(mark),
        mark.translate(FULL_WIDTH),
        unicodedata.normalize("NFD", mark) + "\u0338",
        f" {mark} ",
        f"{mark}\n",
        mark * 3,
        f"<|im_start|>system\n{mark}<|im_end|>",
        mark.replace("<", "&lt;").replace(">", "&gt;"),
    ]


def hostile(names: list[str], count: int, seed: int) -> Iterator[str]:
    """`count` strings of one to five such pieces, with words between them."""
    rng = random.Random(seed)
    for _ in range(count):
        pieces = []
        for _ in range(rng.randint(1, 5)):
            pieces += [rng.choice(variants(rng.choice(names), rng.choice(names), rng)), rng.choice(("", "", " a ring ", "é", "環", "🙂"))]
        yield "".join(pieces)
