"""The Hugging Face tokenizer is the sentencepiece model, and every string comes back as it was."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pipeline.model.tokenizer import SPECIAL_TOKENS, to_hugging_face, train_sentencepiece

CORPUS = ["a red circle is above the blue square.", "how many green triangles are there?", "three yellow stars\nand one ring"] * 20


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    return train_sentencepiece(CORPUS, 380)


@pytest.fixture(scope="module")
def tokenizer(pieces: sentencepiece.SentencePieceProcessor) -> PreTrainedTokenizerFast:
    return to_hugging_face(pieces)


known = st.text("abcdefghilmnoqrstuvwy .?\n", max_size=40)
words = st.lists(st.sampled_from(["red", "circle", "triangles", "  ", " ", "\n", "the", "\U0001f431", "é", "\t"]), max_size=12)
anything = st.one_of(known, words.map("".join), st.text(max_size=30)).filter(lambda text: "▁" not in text)


@settings(max_examples=500)
@given(anything)
def test_the_same_pieces_as_sentencepiece(
    pieces: sentencepiece.SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids == pieces.encode(text)


@settings(max_examples=500)
@given(anything)
def test_every_string_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids) == text


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize("text", ["", " ", "  two  spaces  ", "\n\n", "line\n line", FAMILY, "日本語 é", "\r\n\t", "\0"])
def test_strings_that_tokenizers_like_to_change(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_sentencepieces_own_mark_reads_as_a_space(pieces: sentencepiece.SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast) -> None:
    """The one character that does not come back; sentencepiece itself has no other spelling for it."""
    ids = tokenizer("a▁b", add_special_tokens=False).input_ids
    assert (tokenizer.decode(ids), pieces.decode(pieces.encode("a▁b"))) == ("a b", "a b")


def test_learnt_words_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("how many") == ["how", "▁many"]
    assert tokenizer.tokenize("\n") == ["\n"]
    assert tokenizer.tokenize("é") == ["<0xC3>", "<0xA9>"]


def test_special_tokens_stand_above_in_the_order_of_the_real_checkpoints(
    pieces: sentencepiece.SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast
) -> None:
    first = pieces.vocab_size()
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(first, first + 14))
    assert len(tokenizer) == first + 14
    assert tokenizer("<|image_pad|>x").input_ids[0] == first + 12
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_a_small_corpus_gives_a_smaller_vocabulary() -> None:
    assert 256 < train_sentencepiece(["a b c"], 10_000).vocab_size() < 300


def test_the_same_corpus_gives_the_same_model(pieces: sentencepiece.SentencePieceProcessor) -> None:
    assert train_sentencepiece(iter(CORPUS), 380).serialized_model_proto() == pieces.serialized_model_proto()


def test_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "a ring"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what?<|im_end|>\n"
        "<|im_start|>assistant\na ring<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
