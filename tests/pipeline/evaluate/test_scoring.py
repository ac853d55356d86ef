"""From texts to points to scores, against values worked out by hand."""

import pytest

from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate.scoring import choices, gold, own_reading, read_answer, total, undecided


def row(index: str, answer: str = "B", category: str = "", options: bool = True, **extra: str) -> BenchmarkRow:
    return BenchmarkRow(index, (), "which?", "", {"A": "a ring", "B": "a star"} if options else {}, answer, category, extra)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("multiple_choice", "B", ("B", 1.0)),
        ("multiple_choice", "The answer is A.", ("A", 0.0)),
        ("multiple_choice", "I cannot say", (None, 0.0)),
        ("yes_no", "Yes, it is.", ("Yes", 0.0)),
        ("yes_no", "No.", ("No", 1.0)),
        ("yes_no", "a ring", (None, 0.0)),
        ("open", "it is B", ("it is B", 1.0)),
    ],
)
def test_read_answer(kind: str, text: str, expected: tuple) -> None:
    answer = "no" if kind == "yes_no" else "B"
    assert read_answer(kind, row("1", answer), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24/7", ("A", 1.0)),
        ("It is 24/7.", ("A", 1.0)),  # within twice the options' length, and the reference stands in it
        ("other answers", ("B", 0.0)),
        ("something of another kind, at length and in detail", (None, 0.0)),
    ],
)
def test_an_open_question_among_options_is_a_choice_of_its_reference(text: str, expected: tuple) -> None:
    asked = row("1", "24/7", options=False)
    assert (choices(asked), gold(asked)) == ({"A": "24/7", "B": "Other Answers"}, "A")
    assert read_answer("multiple_choice", asked, text) == expected


def test_a_lost_group_needs_no_judge() -> None:
    """Question 1 is lost by its second rotation, 2 is open in both, 3 is unread once."""
    rows = [row(index) for index in ("1", "1000001", "2", "1000002", "3", "1000003")]
    read = [(None, 0.0), ("A", 0.0), (None, 0.0), (None, 0.0), ("B", 1.0), (None, 0.0)]
    assert undecided(Benchmark("MMBench_DEV_EN", "multiple_choice", rows), read) == [2, 3, 5]
    assert undecided(Benchmark("Own", "yes_no", rows), read) == [0, 2, 3, 5]


def test_circular_choice_needs_every_rotation() -> None:
    rows = [row(index) for index in ("1", "1000001", "2", "1000002")]
    assert total(Benchmark("Circular", "multiple_choice", rows), [1.0, 1.0, 1.0, 0.0]) == (0.5, 0.25, {})


def test_an_index_that_is_no_number_is_a_question_of_its_own() -> None:
    rows = [row(index) for index in ("a", "b", "1", "1000001")]
    assert total(Benchmark("Own", "multiple_choice", rows), [1.0, 0.0, 1.0, 1.0])[0] == pytest.approx(2 / 3)


def test_abilities_and_categories() -> None:
    """MMBench's six abilities by their abbreviations; groups are whole within a category."""
    names = ["coarse_perception", "coarse_perception", "logic_reasoning"]
    indices = ("1", "1000001", "2")
    rows = [row(index, category=f"c{i % 2}", **{"l2-category": name}) for i, (index, name) in enumerate(zip(indices, names, strict=True))]
    detail = total(Benchmark("MMBench_DEV_EN", "multiple_choice", rows), [1.0, 0.0, 1.0])[2]
    assert detail == {"by_category": {"c0": 1.0, "c1": 0.0}, "by_l2-category": {"CP": 0.0, "LR": 1.0}}


def test_mmvets_capabilities_count_a_row_for_each() -> None:
    rows = [row(str(i), "x", category, options=False) for i, category in enumerate(["ocr,math", "ocr", "rec,know,gen"])]
    score, _, detail = total(Benchmark("MMVet", "open", rows), [1.0, 0.5, 0.0])
    assert score == 0.5
    assert detail["by_category"] == {"gen": 0.0, "know": 0.0, "math": 1.0, "ocr": 0.75, "rec": 0.0}


def test_hallusion_counts_figures_and_questions() -> None:
    """Two figures with the same two questions; one of the four answers is wrong."""
    names = ["VD_ocr_0_0_0_0", "VD_ocr_0_0_0_1", "VD_ocr_0_0_1_0", "VD_ocr_0_0_1_1"]
    rows = [row(name, "yes", **{"l2-category": "ocr"}) for name in names]
    score, _, detail = total(Benchmark("Hallusion", "yes_no", rows), [1.0, 1.0, 1.0, 0.0])
    assert detail == {"a_acc": 0.75, "f_acc": 0.5, "q_acc": 0.5}
    assert score == pytest.approx(1.75 / 3)


def test_plain_yes_no_is_accuracy() -> None:
    assert total(Benchmark("Pope", "yes_no", [row(str(i), "yes") for i in range(4)]), [1.0, 0.0, 0.0, 0.0]) == (0.25, 0.5, {})


def test_mmmus_own_reading_stands_beside_vlmevalkits() -> None:
    rows = [row("1"), row("2", "8.36", options=False), row("3", "24/7", options=False)]
    benchmark = Benchmark("MMMU_DEV_VAL", "multiple_choice", rows)
    texts = ["B", "The result is 8.357", "round the clock"]
    points = [read_answer("multiple_choice", r, text)[1] for r, text in zip(rows, texts, strict=True)]
    assert points == [1.0, 0.0, 0.0]
    assert own_reading(benchmark, texts, points) == {
        "open_rows": 2,
        "open_by_mmmus_own_reading": 0.5,
        "all_with_mmmus_own_reading": pytest.approx(2 / 3),
    }
    assert total(benchmark, points)[1] == pytest.approx(0.5 / 3), "an open question cannot be guessed"
    assert own_reading(Benchmark("MMStar", "multiple_choice", rows[:1]), texts[:1], points[:1]) == {}
