"""Benchmarks from files to scores: every answer written, every score recounted from them."""

import base64
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.samples import DataError
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow, load_benchmark
from pipeline.evaluate import vlm
from pipeline.evaluate.generate import Answerer
from pipeline.evaluate.vlm import answer_rows, prompt, read_answer, score_benchmark, total

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


def predictions(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["native", "compressed"])
def test_open_questions(write, answerer, encoder, tmp_path, monkeypatch, mode: str) -> None:
    """The model is asked row by row first; then half of the expected answers are what it said."""
    monkeypatch.setattr(vlm, "BATCH", 2)  # several batches
    questions = [dict(question=f"how many? {'and what colour? ' * (i % 3)}", answer="nothing of the kind") for i in range(6)]
    benchmark = write("Open", questions)
    said = [answer_rows(replace(benchmark, rows=[row]), mode, answerer, encoder, LIMIT)[0].text for row in benchmark.rows]
    assert len(set(said)) > 2
    for i in (0, 2, 5):
        questions[i]["answer"] = said[i]
    score = score_benchmark(write("Open", questions), mode, answerer, encoder, tmp_path / "out", LIMIT)
    lines = predictions(tmp_path / "out", f"Open.{mode}")
    assert [line["index"] for line in lines] == list("012345")
    assert [line["text"] for line in lines] == said
    assert [line["points"] for line in lines] == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert (score.score, score.rows, score.chance, score.unresolved_share) == (0.5, 6, None, 0.0)
    assert score.kind == "open, string recall (no judge)"
    assert score.cache_share == pytest.approx(sum(line["cache_share"] for line in lines) / 6)
    assert (score.cache_share == 1.0) == (mode == "native")


def test_multiple_choice_and_yes_no(write, answerer, encoder, tmp_path) -> None:
    choices = [dict(question="which?", A="a ring", B="a star", C="", answer="AB"[i % 2]) for i in range(5)]
    answers = [dict(question="is it red?", answer=("yes", "No")[i % 2]) for i in range(4)]
    for name, rows, chance in (("Choice", choices, 0.5), ("YesNo", answers, 0.5)):
        benchmark = write(name, rows)
        score = score_benchmark(benchmark, "compressed", answerer, encoder, tmp_path / "out", LIMIT)
        lines = predictions(tmp_path / "out", f"{name}.compressed")
        assert [line["question"] for line in lines] == [row["question"] for row in rows]
        assert [line["expected"] for line in lines] == [row["answer"] for row in rows]
        understood = [line["understood"] for line in lines]
        right = [u is not None and u.lower() == row["answer"].lower() for u, row in zip(understood, rows, strict=True)]
        assert [line["points"] for line in lines] == right
        assert score.score == sum(right) / len(rows)
        assert score.unresolved_share == sum(u is None for u in understood) / len(rows)
        assert score.chance == pytest.approx(chance)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("multiple_choice", "B", ("B", 1.0)),
        ("multiple_choice", "The answer is A.", ("A", 0.0)),
        ("yes_no", "Yes, it is.", ("Yes", 0.0)),
        ("yes_no", "No.", ("No", 1.0)),
        ("yes_no", "a ring", (None, 0.0)),
        ("open", "it is B", ("it is B", 1.0)),
    ],
)
def test_read_answer(kind: str, text: str, expected: tuple) -> None:
    answer = "no" if kind == "yes_no" else "B"
    assert read_answer(kind, row("1", answer), text) == expected


def row(index: str, answer: str = "B", **extra: str) -> BenchmarkRow:
    return BenchmarkRow(index, (), "which?", "", {"A": "a ring", "B": "a star"}, answer, "", extra)


def test_circular_choice_needs_every_rotation() -> None:
    rows = [row(index) for index in ("1", "1000001", "2", "1000002")]
    score, chance, detail = total(Benchmark("Circular", "multiple_choice", rows), [1.0, 1.0, 1.0, 0.0])
    assert (score, chance, detail) == (0.5, 0.25, {})


def test_hallusion_counts_figures_and_questions() -> None:
    """Two figures with the same two questions; one of the four answers is wrong."""
    names = ["VD_ocr_0_0_0_0", "VD_ocr_0_0_0_1", "VD_ocr_0_0_1_0", "VD_ocr_0_0_1_1"]
    rows = [row(name, "yes", **{"l2-category": "ocr"}) for name in names]
    score, _, detail = total(Benchmark("Hallusion", "yes_no", rows), [1.0, 1.0, 1.0, 0.0])
    assert detail == {"a_acc": 0.75, "f_acc": 0.5, "q_acc": 0.5}
    assert score == pytest.approx(1.75 / 3)


def test_plain_yes_no_is_accuracy() -> None:
    assert total(Benchmark("Pope", "yes_no", [row(str(i), "yes") for i in range(4)]), [1.0, 0.0, 0.0, 0.0]) == (0.25, 0.5, {})


def test_prompts_follow_the_kind() -> None:
    asked = {kind: prompt(kind, row("1")) for kind in ("multiple_choice", "yes_no", "open")}
    assert asked["open"] == "which?"
    assert asked["yes_no"] == "which? Please answer yes or no."
    assert "A. a ring\nB. a star" in asked["multiple_choice"]


def test_an_unreadable_image_is_an_error(write, answerer, encoder, tmp_path) -> None:
    broken = base64.b64encode(b"not an image, though quite a long text that is not one").decode()
    benchmark = write("Broken", [dict(question="?", answer="yes"), dict(question="?", answer="no", image=broken)])
    with pytest.raises(DataError, match=r"Broken.tsv#1"):
        score_benchmark(benchmark, "native", answerer, encoder, tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()
