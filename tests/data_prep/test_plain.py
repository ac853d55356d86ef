"""Text is only text: 10,000 strings made of special tokens, whole, nested, cut, in other case and in look-alike characters."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data_prep.checkpoint import FAMILIES
from data_prep.encode import Encoder
from data_prep.plain import first_tokens, plain_tokenizer
from tests.hostile import PLACEHOLDERS, hostile

STRINGS = 10_000


@pytest.fixture(scope="module")
def with_added(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer with added tokens that are not marked special, as Qwen2.5-VL and Qwen3-VL have them."""
    folder = tmp_path_factory.mktemp("added") / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<think>", "<|fim_prefix|>"]) == 4
    tokenizer.save_pretrained(folder)
    return folder


def test_none_of_10000_strings_becomes_a_special_token(encoder: Encoder) -> None:
    known = encoder.tokenizer.added_tokens_decoder
    names = [token.content for token in known.values()] + list(PLACEHOLDERS)
    assert {"<|image_pad|>", "<|im_end|>", "<|chorus_0|>", "<|chorus_3|>", "<|vision_start|>"} <= set(names)
    strings = list(hostile(names, STRINGS, seed=1))
    found = [encoder.plain.encode(text, add_special_tokens=False).ids for text in strings]
    leaks = [text for text, ids in zip(strings, found, strict=True) if known.keys() & set(ids)]
    assert leaks == []
    assert found[:200] == [encoder.plain_text_ids(text) for text in strings[:200]], "which is how every text of a row is tokenized"
    assert encoder.tokenizer.batch_decode(found) == strings, "and nothing of the text is lost"
    naive = encoder.tokenizer(strings, add_special_tokens=False).input_ids
    assert sum(bool(known.keys() & set(ids)) for ids in naive) > 5000, "the tokenizer itself does make special tokens of them"


@pytest.mark.parametrize("family", FAMILIES)
def test_nor_in_any_family(checkpoint_of, family: str) -> None:
    encoder = Encoder(checkpoint_of(family))
    known = encoder.tokenizer.added_tokens_decoder
    names = [token.content for token in known.values()]
    assert all(known.keys().isdisjoint(encoder.plain_text_ids(text)) for text in hostile(names, 500, seed=2))


def test_nor_an_added_token_that_is_not_marked_special(with_added: Path) -> None:
    """`split_special_tokens`, the tokenizer's own switch, lets those through."""
    tokenizer = AutoTokenizer.from_pretrained(with_added)
    known, plain = tokenizer.added_tokens_decoder, plain_tokenizer(tokenizer)
    names = [token.content for token in known.values()]
    assert any(known.keys() & set(tokenizer(name, split_special_tokens=True, add_special_tokens=False).input_ids) for name in names)
    assert all(known.keys().isdisjoint(plain.encode(text).ids) for text in hostile(names, 2000, seed=3))


@given(st.text(max_size=60))
def test_other_text_is_tokenized_as_the_checkpoint_does(encoder: Encoder, text: str) -> None:
    ids = encoder.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert encoder.plain_text_ids(text) == ids


@given(st.text(max_size=40), st.integers(0, 60))
def test_the_first_tokens_are_whole_characters(encoder: Encoder, text: str, count: int) -> None:
    start = first_tokens(encoder.plain, text, count)
    assert text.startswith(start)
    tokens = encoder.tokenizer.convert_ids_to_tokens(encoder.plain_text_ids(text))
    covered = b"".join(bytes_of(token) for token in tokens[:count]).decode(errors="ignore")  # without a last character in part
    expected = covered.rstrip() if count < len(tokens) else covered
    assert start.replace("▁", " ").rstrip() == expected.replace("▁", " ").rstrip()


def bytes_of(token: str) -> bytes:
    """What a piece of the vocabulary stands for."""
    return bytes([int(token[3:5], 16)]) if token.startswith("<0x") else token.replace("▁", " ").encode()


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [("a red circle", 0, ""), ("環環環", 1, ""), ("環環環", 3, "環"), ("環環環", 5, "環"), ("環環環", 6, "環環"), ("環環環", 9, "環環環")],
)
def test_a_character_of_three_bytes_is_kept_whole(encoder: Encoder, text: str, count: int, expected: str) -> None:
    assert first_tokens(encoder.plain, text, count) == expected
