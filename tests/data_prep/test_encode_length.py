"""Too long rows: turns, then text, then set aside, and never a cut inside an image, an answer or the chorus."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from data_prep.__main__ import summary
from data_prep.encode import Encoder, EncodeSettings, TooLongError
from data_prep.job import Slice, make_shard
from data_prep.samples import ImageRef, RawSample, Side, Turn
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from data_prep.shards import write_manifest
from data_prep.sources import discover

WORDS = ("red", "circle ", "above\n", "環", "é", "🙂", "<|image_pad|>", "  ", "a", "▁", "represent the given image. ")


def limited(encoder: Encoder, max_tokens: int, min_text_tokens: int) -> Encoder:
    """The same encoder with other limits, without reading its files again."""
    other = copy.copy(encoder)
    other.settings = EncodeSettings(max_tokens=max_tokens, min_text_tokens=min_text_tokens)
    return other


def equal(one: TokenSequence, other: TokenSequence) -> bool:
    return one.images == other.images and np.array_equal(one.ids, other.ids) and np.array_equal(one.roles, other.roles)


def beginnings(text: str) -> list[str]:
    """The text and all its beginnings without white space at the end, longest first."""
    return list(dict.fromkeys([text] + [text[:stop].rstrip() for stop in range(len(text), 0, -1)]))


def texts(least: int, most: int) -> st.SearchStrategy[str]:
    """So many of `WORDS`, without outer white space."""
    return st.lists(st.sampled_from(WORDS), min_size=least, max_size=most).map("".join).map(str.strip)


said = texts(1, 6).map(lambda text: text or "a")


@settings(max_examples=1000)
@example("\U0001f642", 0, [("red", "circle <|image_pad|>represent the given image. red")], 50, 1)
@example("red " * 20 + "x", 2, [("how many?", "three")], 40, 8)
@given(
    words=texts(0, 5) | texts(20, 40),
    images=st.integers(0, 1),
    turns=st.lists(st.tuples(said, said), max_size=3),
    max_tokens=st.integers(50, 300),
    min_text_tokens=st.integers(1, 40),
)
def test_what_is_left_is_the_encoding_of_a_shorter_row(encoder, picture_56, words, images, turns, max_tokens, min_text_tokens) -> None:
    """Rows and limits: the result is that of fewer turns and a beginning of the text, the longest that fit; or there is none."""
    side, asked = Side(words, (ImageRef("a", data=picture_56),) * images), tuple(Turn(*turn) for turn in turns)
    whole = encoder.sequence(side, asked)
    floor = min(len(encoder.plain_text_ids(words)), min_text_tokens)
    try:
        sample = limited(encoder, max_tokens, min_text_tokens).sample(RawSample("s/0", "s", side, asked))
    except TooLongError as error:
        assert str(error).startswith(f"too_long: {len(whole)} tokens, expected at most {max_tokens}; ")
        event("set aside")
        first = len(encoder.plain_text_ids(words[:1]))  # a text does not end within its first character
        spare = len(encoder.plain_text_ids(words)) - max(floor, first)
        assert len(encoder.sequence(side, asked[:1])) - spare > max_tokens - 3, "a shortened text may fall into up to three more pieces"
        return
    found = sample.query
    event(f"lost {sample.shortened}")
    assert len(found) <= max_tokens
    assert (found.ids == encoder.image_id).sum() == 4 * images == 4 * len(found.images)
    assert found.ids[found.roles == Role.CHORUS].tolist() == list(encoder.chorus_ids)
    kept = next(n for n in range(len(asked), -1, -1) if (found.roles == Role.ANSWER).sum() == answer_tokens(encoder, asked[:n]))
    assert kept >= min(1, len(asked))
    assert ("turns" in sample.shortened) == (kept < len(asked))
    if "text" not in sample.shortened:
        assert equal(found, encoder.sequence(side, asked[:kept]))
        assert kept == len(asked) or len(encoder.sequence(side, asked[: kept + 1])) > max_tokens
        return
    assert kept == min(1, len(asked)), "text goes only when no more turns can"
    own = next(start for start in beginnings(words) if equal(found, encoder.sequence(Side(start, side.images), asked[:kept])))
    assert own != words and len(encoder.sequence(side, asked[:kept])) > max_tokens


def answer_tokens(encoder: Encoder, turns: tuple[Turn, ...]) -> int:
    return sum(len(encoder.plain_text_ids(turn.answer)) + 1 for turn in turns)


def test_a_row_says_what_it_lost(encoder: Encoder) -> None:
    long, turn = Side("a red circle " * 20), Turn("how many?", "three")
    length = len(encoder.sequence(long, (turn,)))
    assert encoder.sample(RawSample("s/0", "s", long, (turn,))).shortened == ()
    short = limited(encoder, length, 8)
    assert short.sample(RawSample("s/0", "s", long, (turn, turn))).shortened == ("turns",)
    short = limited(encoder, length - 10, 8)
    assert short.sample(RawSample("s/0", "s", long, (turn,))).shortened == ("text",)
    assert short.sample(RawSample("s/0", "s", long, (turn, turn))).shortened == ("text", "turns")
    assert short.sample(RawSample("s/0", "s", Side("a"), (), Side("b"), (long, Side("c"), Side("a red ring " * 99)))).shortened == ("text",)


def test_images_and_answers_are_not_shortened(encoder: Encoder, picture_56: bytes) -> None:
    pictures = Side("a ring", (ImageRef("a", data=picture_56),) * 30)
    with pytest.raises(TooLongError):
        limited(encoder, 100, 1).sample(RawSample("s/0", "s", pictures))
    with pytest.raises(TooLongError):
        limited(encoder, 100, 1).sample(RawSample("s/0", "s", Side("a ring"), (Turn("what?", "three stars " * 60),)))


def test_evaluation_and_inference_never_shorten(encoder: Encoder) -> None:
    with pytest.raises(TooLongError):
        limited(encoder, 60, 1).sequence(Side("a red circle " * 20))


def test_shards_and_the_summary_count_what_was_lost(checkpoint: Path, tmp_path: Path) -> None:
    turns = [{"from": who, "value": text} for text in ("what is it?", "it?") for who in ("human", "gpt")]
    rows = [{"conversations": turns}, {"conversations": turns * 9}, {"conversations": [turns[0], {"from": "gpt", "value": "x y " * 300}]}]
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [part] = discover(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    record = make_shard(Slice(part, 0, 3, "0.arrow"), str(checkpoint), EncodeSettings(max_tokens=150, min_text_tokens=8), out)
    assert (record.rows, record.shortened, [row.reason.split(":")[0] for row in record.rejected]) == (2, {"turns": 1}, ["too_long"])
    manifest = write_manifest(out, {}, [record, record.model_copy(update={"shortened": {"text": 5, "turns": 2}})])
    assert manifest.shortened == {"turns": 3, "text": 5}
    assert summary(out, manifest).splitlines()[-3:-1] == [
        "  shortened to --max-tokens, lost text: 5",
        "  shortened to --max-tokens, lost turns: 3",
    ]
