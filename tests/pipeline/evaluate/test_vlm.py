"""Benchmarks from files to scores: every answer written, every score recounted from them."""

import base64
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.encode import Encoder, EncodeSettings
from data_prep.samples import DataError, Side
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow, load_benchmark
from pipeline.evaluate import units
from pipeline.evaluate.endpoint import Endpoint
from pipeline.evaluate.generate import Answerer
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.open import Opened
from pipeline.evaluate.vlm import plan_benchmark, prompt, score_benchmark
from tests.pipeline.evaluate.judge_server import JudgeServer

LIMIT = 6


@pytest.fixture(scope="module")
def answerer(model, collator, encoder) -> Answerer:
    """Says words only, so that any answer can be a reference."""
    decode = encoder.tokenizer.decode
    vocabulary = range(model.backbone.config.text_config.vocab_size)
    silent = [i for i in vocabulary if not any(c.isalpha() for c in decode([i], skip_special_tokens=True))]
    return Answerer(model, collator, encoder.tokenizer, [encoder.tokenizer.eos_token_id], silent)


@pytest.fixture
def write(tmp_path: Path, picture):
    """Writes rows as a VLMEvalKit TSV; row i shows picture i."""

    def write(name: str, rows: list[dict]) -> Benchmark:
        path = tmp_path / f"{name}.tsv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["index", "image", *rows[0]], delimiter="\t")
            writer.writeheader()
            for i, row in enumerate(rows):
                image = base64.b64encode(picture(i, 56 + 28 * (i % 3)).data).decode()
                writer.writerow({"index": i, "image": image} | row)
        return load_benchmark(path)

    return write


@pytest.fixture
def score(encoder, answerer, computed):
    """Plans, computes and scores a benchmark with the model that says words."""

    def score(benchmark: Benchmark, mode: str, out: Path, judge: Judge | None = None, encoder=encoder) -> list:
        task = plan_benchmark(benchmark, mode, encoder, {}, LIMIT)
        kept = computed([task], Opened(encoder, answerer.model, answerer.collator, answerer))
        return score_benchmark(benchmark, mode, task, kept, out, judge)

    return score


def predictions(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["native", "compressed"])
def test_open_questions(write, answerer, encoder, score, tmp_path, monkeypatch, mode: str) -> None:
    """The model is asked row by row first; then half of the expected answers are what it said."""
    monkeypatch.setattr(units, "ANSWERS", 2)  # several units
    questions = [dict(question=f"how many? {'and what colour? ' * (i % 3)}", answer="nothing of the kind") for i in range(6)]
    benchmark = write("Open", questions)
    asked = [encoder.sequence(Side(images=row.images), open_question=row.question) for row in benchmark.rows]
    said = [answerer.answer([one], mode, LIMIT)[0].text for one in asked]
    assert len(set(said)) > 2
    for i in (0, 2, 5):
        questions[i]["answer"] = said[i]
    (scored,) = score(write("Open", questions), mode, tmp_path / "out")
    lines = predictions(tmp_path / "out", f"Open.{mode}")
    assert [line["index"] for line in lines] == list("012345")
    assert [line["text"] for line in lines] == said
    assert [line["points"] for line in lines] == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert (scored.score, scored.rows, scored.chance, scored.unresolved_share) == (0.5, 6, None, 0.0)
    assert scored.kind == "open, string recall (no judge)"
    assert scored.cut_share == sum(not line["finished"] for line in lines) / 6
    assert scored.cache_share == pytest.approx(sum(line["cache_share"] for line in lines) / 6)
    assert (scored.cache_share == 1.0) == (mode == "native")


def test_multiple_choice_and_yes_no(write, score, tmp_path) -> None:
    choices = [dict(question="which?", A="a ring", B="a star", C="", answer="AB"[i % 2]) for i in range(5)]
    answers = [dict(question="is it red?", answer=("yes", "No")[i % 2]) for i in range(4)]
    for name, rows, chance in (("Choice", choices, 0.5), ("YesNo", answers, 0.5)):
        benchmark = write(name, rows)
        (scored,) = score(benchmark, "compressed", tmp_path / "out")
        lines = predictions(tmp_path / "out", f"{name}.compressed")
        assert [line["question"] for line in lines] == [row["question"] for row in rows]
        assert [line["expected"] for line in lines] == [row["answer"] for row in rows]
        understood = [line["understood"] for line in lines]
        right = [u is not None and u.lower() == row["answer"].lower() for u, row in zip(understood, rows, strict=True)]
        assert [line["points"] for line in lines] == right
        assert scored.score == sum(right) / len(rows)
        assert scored.unresolved_share == sum(u is None for u in understood) / len(rows)
        assert scored.chance == pytest.approx(chance)


def small(encoder: Encoder) -> Encoder:
    """With limits that a person set, which win: the six benchmarks' own make 1280 tokens of a picture."""
    return encoder.with_settings(EncodeSettings(min_pixels=28 * 28, max_pixels=16 * 28 * 28))


def row(index: str, answer: str = "B", **extra: str) -> BenchmarkRow:
    return BenchmarkRow(index, (), "which?", "", {"A": "a ring", "B": "a star"}, answer, "", extra)


def test_prompts_follow_the_kind() -> None:
    asked = {kind: prompt(kind, row("1")) for kind in ("multiple_choice", "yes_no", "open")}
    assert asked["open"] == "which?"
    assert asked["yes_no"] == "which? Please answer yes or no."
    assert "A. a ring\nB. a star" in asked["multiple_choice"]


def test_an_unreadable_image_is_an_error(write, score, tmp_path) -> None:
    broken = base64.b64encode(b"not an image, though quite a long text that is not one").decode()
    benchmark = write("Broken", [dict(question="?", answer="yes"), dict(question="?", answer="no", image=broken)])
    with pytest.raises(DataError, match=r"Broken.tsv#1"):
        score(benchmark, "native", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mmmu_asks_in_english_and_leaves_image_marks_in_the_text() -> None:
    asked = replace(row("1"), question="Look at <image 1> and 图 <image 2>")
    options = "Options:\nA. a ring\nB. a star\n"
    start = f"Question: Look at <image 1> and 图 <image 2>\n{options}"
    assert prompt("multiple_choice", asked, always_english=True) == start + "Please select the correct answer from the options above."
    assert prompt("multiple_choice", asked) == start + "请直接回答选项字母。"
    assert prompt("multiple_choice", replace(asked, options={}, question="<image 1> costs?"), True) == "Question: <image 1> costs?"


def test_a_named_benchmark_gets_its_image_sizes_and_length(write, encoder) -> None:
    """MMStar's pictures have 1280 tokens at least, a set of one's own the checkpoint's few; limits reach encoder and answers."""
    seen = []
    rows = [dict(question="which?", A="a ring", B="a star", answer="A")]
    for name, limit in (("MMStar", None), ("Mine", None), ("MMStar", 5)):
        (unit,) = plan_benchmark(write(name, rows), "compressed", encoder, {}, limit).units
        seen.append((unit.settings.min_pixels, unit.settings.max_pixels, unit.limit, unit.tokens > 1280))
    area = encoder.factor**2
    assert seen == [(1280 * area, 16384 * area, 2048, True), (None, None, 64, False), (1280 * area, 16384 * area, 5, True)]


def test_mmvet_has_no_number_without_a_judge(write, encoder, score, tmp_path) -> None:
    rows = [dict(question="what?", answer="zebra") for _ in range(3)]
    unscored, recall = score(write("MMVet", rows), "native", tmp_path / "out", None, small(encoder))
    assert (unscored.kind, unscored.score, unscored.chance, unscored.unresolved_share) == ("not scored: needs a judge", None, None, 1.0)
    assert (recall.kind, recall.score) == ("open, string recall (no judge)", 0.0)
    assert [line["grade"] for line in predictions(tmp_path / "out", "MMVet.native")] == [None] * 3


def test_a_judge_grades_mmvet_and_reads_what_is_unread(write, encoder, score, tmp_path) -> None:
    """Grades by question; of the multiple-choice answers, which are nonsense, one is matched right, one wrong, one not at all."""
    says = {"first": "0.4", "second": "1.0", "third": 400, "fourth": "B", "fifth": "A", "sixth": "well"}
    with JudgeServer(lambda prompt: next(reply for name, reply in says.items() if f'Question: "{name}' in prompt)) as server:
        judge = Judge(Endpoint(server.url, "wise"), tmp_path / "judge", backoff=0.001)
        open_rows = [dict(question=f"{name}?", answer="zebra") for name in ("first", "second", "third")]
        graded, recall = score(write("MMVet", open_rows), "native", tmp_path / "out", judge, small(encoder))
        choice_rows = [dict(question=f"{name}?", A="qqq", B="www", answer="B") for name in ("fourth", "fifth", "sixth")]
        (matched,) = score(write("Mine", choice_rows), "native", tmp_path / "out", judge)
    assert (graded.kind, graded.judge, graded.score) == ("open, graded by a judge", "wise", pytest.approx(1.4 / 3))
    assert (graded.judged_share, graded.unresolved_share) == (1.0, pytest.approx(1 / 3))
    assert (recall.kind, recall.judge, recall.score) == ("open, string recall (no judge)", "", 0.0)
    assert [line["grade"] for line in predictions(tmp_path / "out", "MMVet.native")] == [0.4, 1.0, None]
    assert (matched.kind, matched.judge, matched.score) == ("multiple choice + judge", "wise", pytest.approx(1 / 3))
    assert (matched.judged_share, matched.unresolved_share) == (1.0, pytest.approx(1 / 3))
    assert [line["understood"] for line in predictions(tmp_path / "out", "Mine.native")] == ["B", "A", None]
    assert judge.tally.failed == 1


def test_rows_left_out_are_stated(write, encoder, score, tmp_path) -> None:
    rows = [dict(question="which?", A="a ring", B="a star", answer="A", split=split) for split in ("dev", "validation", "validation")]
    (scored,) = score(write("MMMU_DEV_VAL", rows), "native", tmp_path / "out", None, small(encoder))
    assert (scored.rows, scored.left_out) == (2, {"of split dev": 1})
