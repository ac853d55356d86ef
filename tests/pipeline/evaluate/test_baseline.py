"""An untouched checkpoint of every family, without chorus tokens, through the same code: held against stock transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from data_prep.checkpoint import FAMILIES
from data_prep.encode import Encoder
from data_prep.samples import DataError, Side
from data_prep.schema import Role
from pipeline.evaluate.__main__ import main
from pipeline.evaluate.compare.__main__ import main as compare
from pipeline.evaluate.embed import embed
from pipeline.evaluate.open import Opened, open_checkpoint
from pipeline.evaluate.report import BASELINE
from tests.pipeline.evaluate.test_main import mmeb, tsv  # noqa: F401 - fixtures: a set with pictures, three open questions

QUESTION = "how many rings are there?"


@pytest.fixture(scope="module", params=FAMILIES)
def untouched(request, base_checkpoint, checkpoint_of) -> Path:
    """The folder that `checkpoint_of` made its chorus in."""
    return base_checkpoint if request.param == "qwen2_vl" else checkpoint_of(request.param).parent / "base"


@pytest.fixture(scope="module")
def opened(untouched) -> Opened:
    return open_checkpoint(untouched, Encoder(untouched, baseline=True))


@pytest.fixture(scope="module")
def stock(untouched):
    return AutoModelForImageTextToText.from_pretrained(untouched, dtype=torch.float32).eval()


def inputs(opened: Opened, sequence) -> dict[str, torch.Tensor]:
    """As `generate` takes them."""
    ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
    pixels, grids = opened.collator.pixels(sequence.images)
    out = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == opened.encoder.image_id).int()}
    return out | ({"pixel_values": pixels, "image_grid_thw": grids} if sequence.images else {})


def test_prompts_are_the_checkpoints_own(untouched, opened, picture) -> None:
    """A question about a picture: token for token what the checkpoint's processor and chat template make of it."""
    sequence = opened.encoder.sequence(Side(images=(picture(0),)), open_question=QUESTION)
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    said = [{"role": "system", "content": "You are a helpful assistant."}, user]
    text = opened.encoder.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    pad = opened.encoder.tokenizer.convert_ids_to_tokens(opened.encoder.image_id)
    expected = opened.encoder.tokenizer(text.replace(pad, pad * 4)).input_ids
    assert text.count(pad) == 1 and sequence.ids.tolist() == expected
    (at,) = np.flatnonzero(sequence.roles == Role.CHORUS)
    assert opened.encoder.tokenizer.decode([sequence.ids[at]]) == "<|vision_end|>"


def test_the_last_tokens_state_is_the_embedding(opened, stock, picture) -> None:
    sides = [Side("a red circle"), Side("find it:", (picture(1, 84),)), Side("", (picture(2),)), Side("a ring " * 9)]
    sequences = [opened.encoder.sequence(side) for side in sides]
    assert [np.flatnonzero(s.roles == Role.CHORUS).tolist() for s in sequences] == [[len(s) - 1] for s in sequences]
    for sequence, vector in zip(sequences, embed(opened.model, opened.collator, sequences), strict=True):
        with torch.no_grad():
            state = stock.model(**inputs(opened, sequence)).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, torch.nn.functional.normalize(state, dim=0), atol=1e-5, rtol=0)


def test_native_answers_are_those_of_generate(opened, stock, picture) -> None:
    sequences = [opened.encoder.sequence(Side(images=(picture(i, 56 + 28 * i),)), open_question=QUESTION) for i in range(3)]
    ours = [answer.text for answer in opened.answerer.answer(sequences, "native", 6)]
    for sequence, text in zip(sequences, ours, strict=True):
        new = {"do_sample": False, "max_new_tokens": 6, "suppress_tokens": opened.answerer.banned_ids.tolist()}
        out = stock.generate(**inputs(opened, sequence), **new)[0, len(sequence) :]
        assert opened.encoder.tokenizer.decode(out, skip_special_tokens=True).strip() == text


def test_lengths_are_known_without_decoding(opened, picture) -> None:
    encoder = opened.encoder.with_image_tokens(None, 6)
    for sizes in ([(56, 56)], [(300, 80), (30, 500)], []):
        side = Side("look", tuple(picture(3, *size) for size in sizes))
        for question in (None, QUESTION):
            assert encoder.length(side, sizes, question) == len(encoder.sequence(side, open_question=question))


def test_the_command_end_to_end(base_checkpoint, checkpoint, mmeb, tsv, tmp_path, capsys) -> None:  # noqa: F811
    """A baseline, then a chorus with the baseline as its base, then both compared: compressed answers of the first are "-" throughout."""

    def evaluate(folder: Path, out: str, *more: str) -> dict:
        words = ["--mmeb", mmeb, "--benchmarks", tsv, "--max-new-tokens", 4, "--out", tmp_path / out]
        words += ["--track-uri", f"sqlite:///{tmp_path}/mlflow.db", "--track-artifacts", tmp_path / "artifacts", *more]
        assert main([str(folder), *map(str, words)]) == 0
        return json.loads((tmp_path / out / "scores.json").read_text())

    scores = evaluate(base_checkpoint, "base")
    shown = capsys.readouterr().out
    assert f"pooling: {BASELINE}" in shown and BASELINE == "baseline: no chorus tokens, last-token pooling"
    assert scores["title"].startswith("Baseline evaluation of ")
    assert (scores["facts"]["pooling"], scores["facts"]["compressed answers"]) == (BASELINE, "-")
    assert {answer["mode"] for answer in scores["answers"]} == {"native"} and scores["attention"] == {}
    assert sorted(path.name for path in (tmp_path / "base/predictions").iterdir()) == ["Asked.jsonl", "Open.native.jsonl", "Shown.jsonl"]
    (line,) = [line for line in shown.splitlines() if line.startswith("Open ")]
    assert line.split()[-6:-1] == [f"{100 * scores['answers'][0]['score']:.1f}", "-", "-", "-", "-"]
    page = (tmp_path / "base/report.html").read_text()
    assert BASELINE in page and "Where the chorus looks" not in page

    ours = evaluate(checkpoint, "ours", "--base", str(tmp_path / "base"))
    assert {answer["mode"] for answer in ours["answers"]} == {"native", "compressed"} and ours["base"]["facts"] == scores["facts"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Open, open, string recall")]
    assert len(line.split()) >= 5 and "-" not in line.split()[-5:]

    assert compare([str(tmp_path / "base"), str(tmp_path / "ours"), "--out", str(tmp_path / "compared"), "--resamples", "1000"]) == 0
    text = (tmp_path / "compared/comparison.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| Open, compressed")]
    assert [cell.strip() for cell in row.split("|")[4:6]] == ["-", "-"]
    stored = {(line["name"], line["mode"]): line for line in json.loads((tmp_path / "compared/comparison.json").read_text())["lines"]}
    compressed = stored["Open", "compressed"]
    own = next(answer["score"] for answer in ours["answers"] if answer["mode"] == "compressed")
    assert (
        compressed["estimates"][0] is None and compressed["estimates"][1]["value"] == pytest.approx(own) and compressed["tests"] == [None]
    )
    assert stored["Open", "native"]["tests"][0]["method"] and "Open, compressed" in (tmp_path / "compared/compare.html").read_text()


def test_k_means_nothing_to_a_baseline(base_checkpoint, tsv, tmp_path, capsys) -> None:  # noqa: F811
    assert main([str(base_checkpoint), "--benchmarks", str(tsv), "--k", "2", "--out", str(tmp_path / "out")]) == 2
    assert "error: k = 2: found a checkpoint without chorus tokens, which is scored as a baseline" in capsys.readouterr().err


def test_all_else_still_asks_for_a_chorus(base_checkpoint) -> None:
    with pytest.raises(DataError, match="found a checkpoint without chorus tokens"):
        Encoder(base_checkpoint)
