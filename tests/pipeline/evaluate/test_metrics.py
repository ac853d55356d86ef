"""Scores against values worked out by hand, and the properties that keep a broken model from scoring well."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate import published
from pipeline.evaluate.metrics import (
    Hallusion,
    OpenMatch,
    Ranking,
    SetScore,
    average,
    chance,
    chance_circular,
    chance_hallusion,
    circular_groups,
    coverage,
    extract_option,
    extract_yes_no,
    hallusion,
    open_match,
    precision_at_1,
)

NAN, INF = math.nan, math.inf
FRUIT = {"A": "apple", "B": "banana", "C": "cherry pie"}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, 0.1, 0.5], Ranking(True, True, 0)),
        ([0.1, 0.2, 0.9], Ranking(False, False, 2)),
        ([0.5, 0.5, 0.1], Ranking(True, False, 0)),  # a tie: MMEB's rule says hit
        ([0.2, 0.7, 0.7], Ranking(False, False, 1)),
        ([0.0, 0.0, 0.0], Ranking(True, False, 0)),  # a collapsed model
        ([NAN, 0.1, 0.2], Ranking(False, False, 2)),
        ([NAN, NAN, NAN], Ranking(False, False, -1)),
        ([0.1, NAN, 0.0], Ranking(True, True, 0)),
        ([0.1, INF, 0.0], Ranking(True, True, 0)),
        ([INF, 0.1, 0.0], Ranking(False, False, 1)),
        ([-0.3], Ranking(True, True, 0)),
    ],
)
def test_precision_at_1(scores: list[float], expected: Ranking) -> None:
    assert precision_at_1(np.array(scores, dtype=np.float32)) == expected


@pytest.mark.parametrize("scores", [np.zeros(0), np.zeros((2, 2)), np.float32(1.0)])
def test_precision_at_1_refuses_other_shapes(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape"):
        precision_at_1(scores)


@given(st.lists(st.floats(width=32), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_precision_at_1_is_sound(scores: list[float], random) -> None:
    ranking = precision_at_1(np.array(scores))
    others = scores[1:]
    random.shuffle(others)
    shuffled = precision_at_1(np.array([scores[0], *others]))
    assert (shuffled.hit, shuffled.strict_hit) == (ranking.hit, ranking.strict_hit)
    assert not ranking.strict_hit or ranking.hit
    assert not ranking.hit or math.isfinite(scores[0])
    assert ranking.best == -1 or math.isfinite(scores[ranking.best])


def test_average_weighs_sets_not_meta_tasks() -> None:
    rows = [
        SetScore("CLS", "IND", 0.2),
        SetScore("CLS", "OOD", 0.4),
        SetScore("RET", "IND", 0.9),
        SetScore(None, None, 0.1),
        SetScore("RET", None, 0.5),
    ]
    means = average(rows)
    assert means == {
        "CLS": pytest.approx(0.3),
        "VQA": None,
        "RET": pytest.approx(0.7),
        "GD": None,
        "IND": pytest.approx(0.55),
        "OOD": pytest.approx(0.4),
        "all": pytest.approx(0.42),
    }
    assert coverage(rows) == {"CLS": 2, "VQA": 0, "RET": 2, "GD": 0, "IND": 2, "OOD": 1, "all": 5}
    assert set(average([]).values()) == {None}


def test_average_reproduces_vlm2vecs_stored_scores() -> None:
    """formats: 58.61 / 49.16 / 65.02 / 73.05 by meta-task give 59.73 overall, with 10, 10, 12 and 4 sets."""
    parts = [("CLS", 0.5861, 10), ("VQA", 0.4916, 10), ("RET", 0.6502, 12), ("GD", 0.7305, 4)]
    rows = [SetScore(meta, None, value) for meta, value, count in parts for _ in range(count)]
    assert average(rows)["all"] == pytest.approx(0.5973, abs=5e-5)


@pytest.mark.parametrize("row", [SetScore("RTE", "IND", 0.5), SetScore("RET", "ODD", 0.5), SetScore("RET", "IND", NAN)])
def test_average_refuses_typos_and_nan(row: SetScore) -> None:
    with pytest.raises(ValueError, match=r"expected|finite"):
        average([row])


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("The answer is B", "B"),
        ("The answer is **B**.", "B"),
        ("B because it is long and it is yellow", None),  # rule 2: not within the last four, no option text
        ("B one two three", "B"),  # fourth from the end
        ("B one two three four", None),  # fifth from the end
        ("B. a banana is in here", "B"),  # rule 2 fails, rule 5 rescues
        ("A or B", None),  # two letters
        ("b", None),  # letters are upper case
        ("D", None),  # not an option
        ("banana", "B"),
        ("It is a Cherry Pie!", "C"),
        ("apple and banana", None),
        ("banana " * 10, None),  # longer than twice the option texts (21 characters)
        ("Z", "Z"),
        ("Cannot determine the answer", "Z"),
        ("I'm sorry, but without the image provided I would say B", "Z"),
        ("", None),
    ],
)
def test_extract_option(prediction: str, expected: str | None) -> None:
    assert extract_option(prediction, FRUIT) == expected


def test_extract_option_switches() -> None:
    verbose = "The correct answer is **B** since it is yellow and long, and A is not"
    assert extract_option(verbose, FRUIT) is None
    assert extract_option(verbose, FRUIT, answer_is=True) == "B"
    assert extract_option("The answer is E, which I chose after long thought here", {"E": "x"}, answer_is=True) is None
    article = "Here is A big yellow thing"
    assert extract_option(article, FRUIT) == "A"
    assert extract_option(article, FRUIT, wary_of_article=True) is None
    doubted = "The answer is A because of that"  # an article, perhaps: rule 4 is not asked either, as in VLMEvalKit
    assert extract_option(doubted, FRUIT, answer_is=True, wary_of_article=True) is None
    assert extract_option(doubted, FRUIT, answer_is=True) == "A"


def test_extract_option_takes_empty_options_as_absent() -> None:
    assert extract_option("D", {"A": "cat", "D": ""}) is None
    assert extract_option("a cat", {"A": "cat", "D": " "}) == "A"


@given(st.text(max_size=60))
def test_extract_option_answers_with_an_option_or_nothing(prediction: str) -> None:
    assert extract_option(prediction, FRUIT, answer_is=True) in {"A", "B", "C", "Z", None}


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Yes", "Yes"),
        ("No.", "No"),
        ("yes, it is", "Yes"),
        ("no,it is not", "No"),
        ("Yes and no", None),
        ("Nothing of the sort", None),
        ("**Yes**", None),
        ("", None),
        ("no 1,000 yes-men", "No"),  # a number with a thousands mark: '-' is deleted, "yesmen" is no word of ours
    ],
)
def test_extract_yes_no(prediction: str, expected: str | None) -> None:
    assert extract_yes_no(prediction) == expected


def test_circular_groups() -> None:
    indices = [1, 1_000_001, 2, 1_000_002, 2_000_002, 3]
    assert circular_groups(indices, [True, True, True, True, False, True]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no rows"):
        circular_groups([], [])


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_circular_groups_without_rotations_is_accuracy(correct: list[bool]) -> None:
    assert circular_groups(range(len(correct)), correct) == pytest.approx(sum(correct) / len(correct))


def test_hallusion() -> None:
    indices = ["VD_figure_1_0_0_0", "VD_figure_1_0_0_1", "VD_figure_1_0_1_0", "VD_figure_1_0_1_1"]
    score = hallusion(indices, ["figure"] * 4, [True, True, True, False])
    assert score == Hallusion(0.75, 0.5, 0.5)
    assert score.mean == pytest.approx(1.75 / 3)
    other_category = hallusion(indices, ["figure", "figure", "map", "map"], [True, True, True, False])
    assert other_category == Hallusion(0.75, 0.5, 0.75)
    assert chance_hallusion(indices, ["figure"] * 4) == pytest.approx((0.5 + 0.25 + 0.25) / 3)
    with pytest.raises(ValueError, match="6 fields"):
        hallusion(["VD_1"], ["figure"], [True])


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("Paris", "paris", OpenMatch(True, 1.0)),
        ("It is Paris.", "Paris", OpenMatch(False, 1.0)),
        ("Parisian", "Paris", OpenMatch(False, 0.0)),
        ("1", "1<OR>one", OpenMatch(True, 1.0)),
        ("one apple", "1<OR>one", OpenMatch(False, 1.0)),
        ("x = -1", "-1<AND>-5", OpenMatch(False, 0.5)),
        ("x = -1 or x = -5", "-1<AND>-5", OpenMatch(False, 1.0)),
        ("x = 1 or x = 5", "-1<AND>-5", OpenMatch(False, 0.0)),
        ("four and no", "no<AND>4<OR>four", OpenMatch(False, 1.0)),
        ("It costs 1,250.50 $", "1250.50", OpenMatch(False, 1.0)),
        ("3.14", "3", OpenMatch(False, 0.0)),
        ("", "x", OpenMatch(False, 0.0)),
    ],
)
def test_open_match(prediction: str, answer: str, expected: OpenMatch) -> None:
    assert open_match(prediction, answer) == expected


@pytest.mark.parametrize("answer", ["", "a<AND>", "<OR>b", "..."])
def test_open_match_refuses_references_that_match_everything(answer: str) -> None:
    with pytest.raises(ValueError, match="empty alternative"):
        open_match("anything", answer)


def test_chance() -> None:
    assert chance([2, 4]) == 0.375
    assert chance_circular([1, 1_000_001, 2], [2, 2, 4]) == 0.25
    assert chance_circular([1, 2], [4, 0]) == 0.125, "an open question cannot be guessed"
    with pytest.raises(ValueError, match="at least one"):
        chance([4, 0])


def test_published_rows_follow_from_their_parts() -> None:
    """A slip of the pen in a copied row would show; two rows are inconsistent in the source itself."""
    odd = set()
    for row in published.MMEB:
        by_meta = (10 * row.CLS + 10 * row.VQA + 12 * row.RET + 4 * row.GD) / 36
        by_split = by_meta if row.IND is None else (20 * row.IND + 16 * row.OOD) / 36
        assert by_meta == pytest.approx(by_split, abs=0.11)
        if abs(by_meta - row.all) > 0.11:
            odd.add((row.model, row.size))
    assert odd == {("VLM2Vec", "2B"), ("MMRet", "7B")}
    assert all(sum(row[1:7]) / 6 == pytest.approx(row.avg, abs=0.051) for row in published.VLM)
    assert all(row.cache == pytest.approx(0.07 * row.chorus) for row in published.CHORUS if row.chorus)
