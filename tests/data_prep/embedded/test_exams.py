import base64
from collections import Counter, defaultdict

import pytest

from data_prep.embedded.exams import multiple_choice, open_ended, yes_no
from data_prep.embedded.questions import ANSWERS

MCQ = "index question hint A B C D answer category image source l2-category comment split"
YN = "index category l2-category visual_input set_id figure_id sample_note question_id question gt_answer_details answer image"


def test_multiple_choice_rows():
    rows = multiple_choice(80, 0)

    assert " ".join(rows[0]) == MCQ
    assert [row["index"] for row in rows] == [str(number) for number in range(80)]
    assert Counter(row["answer"] for row in rows) == {letter: 20 for letter in "ABCD"}
    assert Counter(row["split"] for row in rows) == {"IND": 60, "OOD": 20}
    for row in rows:
        options = [row[letter] for letter in "ABCD" if row[letter]]
        assert row[row["answer"]] in options
        assert len(options) == len(set(options)) >= 3
        assert any(set(options) <= set(answers) for answers in ANSWERS.values())
    assert 0 < sum(row["D"] == "" for row in rows) <= 10
    assert any(row["hint"] for row in rows)


def test_neither_part_of_the_questions_favours_a_letter():
    rows = [row for row in multiple_choice(64, 0) if row["split"] == "OOD"]

    assert Counter(row["answer"] for row in rows) == {letter: 4 for letter in "ABCD"}


def test_yes_no_rows_come_in_sets_of_two_figures_and_two_questions():
    rows = yes_no(30, 0)

    assert " ".join(rows[0]) == YN
    assert len(rows) == 32
    assert [row["index"] for row in rows[:4]] == [f"shapes_VD_spatial_0_{f}_{q}" for f in (0, 1) for q in (0, 1)]
    assert Counter(row["answer"] for row in rows) == {"Yes": 16, "No": 16}
    assert {row["l2-category"] for row in rows} == {"spatial", "color", "object", "count"}
    for row in rows:
        if row["question_id"] == "1":
            assert row["image"] == row["index"][:-1] + "0"
        else:
            assert len(row["image"]) > 64


def test_every_yes_no_question_is_true_of_one_figure_only():
    answers = defaultdict(list)
    figures = defaultdict(set)
    for row in yes_no(80, 0):
        answers[row["set_id"], row["question"]].append(row["answer"])
        figures[row["set_id"], row["figure_id"]].add(row["answer"])

    assert {tuple(sorted(pair)) for pair in answers.values()} == {("No", "Yes")}
    assert {tuple(sorted(pair)) for pair in figures.values()} == {("No", "Yes")}


def test_open_rows():
    rows = open_ended(60, 0)

    assert list(rows[0]) == ["index", "image", "question", "answer", "category"]
    assert any("<AND>" in row["answer"] for row in rows)
    counted = {row["answer"] for row in rows if row["question"].startswith("How many")}
    assert "two<OR>2" in counted and counted <= {"one<OR>1", "two<OR>2", "three<OR>3", "four<OR>4", "five<OR>5"}
    assert {row["category"] for row in rows} == {"rec", "rec,spat", "rec,math", "ocr"}


@pytest.mark.parametrize("make", [multiple_choice, yes_no, open_ended])
def test_rows_are_a_function_of_their_number_and_the_seed(make):
    assert make(8, 0) == make(16, 0)[:8]
    assert make(8, 0) != make(8, 1)


def test_images_are_png_files():
    for row in open_ended(3, 0):
        assert base64.b64decode(row["image"]).startswith(b"\x89PNG")
