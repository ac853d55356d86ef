"""Means and their standard errors, worked out by hand."""

import math

import pytest

from data_prep.samples import DataError
from pipeline.study.scores import Difference, Mean, Scores, compare, mean_of_sets, read_scores

REPORT = {
    "retrieval": [
        {"split": "IND", "p_at_1": 0.5, "queries": 100, "chance": 0.1},
        {"split": "OOD", "p_at_1": 0.2, "queries": 64, "chance": 0.2},
        {"split": None, "p_at_1": 0.8, "queries": 16, "chance": 0.3},
    ],
    "answers": [
        {"name": "MCQ", "mode": "native", "score": 0.5, "rows": 25, "chance": 0.25, "cache_share": 1.0},
        {"name": "MCQ", "mode": "compressed", "score": 0.4, "rows": 24, "chance": 0.25, "cache_share": 0.1},
        {"name": "Open", "mode": "native", "score": 0.3, "rows": 21, "chance": None, "cache_share": 1.0},
        {"name": "Open", "mode": "compressed", "score": 0.2, "rows": 16, "chance": None, "cache_share": 0.3},
        {"name": "Open", "mode": "native", "score": 0.9, "rows": 21, "chance": None, "cache_share": 1.0},  # in another way: not counted
        {"name": "MMVet", "mode": "native", "score": None, "rows": 21, "chance": None, "cache_share": 1.0},
    ],
}


def test_mean_of_sets():
    assert mean_of_sets([(0.5, 25)]) == Mean(0.5, 0.1)  # sqrt(0.25 / 25)
    assert mean_of_sets([]) is None
    value, error = mean_of_sets([(0.5, 100), (0.2, 64)])
    assert value == pytest.approx(0.35) and error == pytest.approx(math.sqrt(0.0025 + 0.0025) / 2)


def test_scores_of_an_evaluation():
    scores = read_scores(REPORT, chorus=True)
    values = [round(mean.value, 9) for mean in scores[:5]]
    assert values == [0.5, 0.5, 0.2, 0.4, 0.3]
    assert scores.cache == pytest.approx(0.2)
    assert scores.guess_p_at_1 == pytest.approx(0.2) and scores.guess_answers == 0.125
    assert scores.compressed.error == pytest.approx(math.sqrt(0.01 + 0.01) / 2)


def test_without_a_chorus_there_is_no_compressed_figure():
    scores = read_scores(REPORT, chorus=False)
    assert scores.compressed is None and scores.cache is None and scores.native.value == pytest.approx(0.4)


def test_empty_report():
    assert read_scores({"retrieval": [], "answers": []}, chorus=True) == Scores(*[None] * 8)


def test_foreign_file_is_refused():
    with pytest.raises(DataError, match="found no entry 'answers'"):
        read_scores({"retrieval": []}, chorus=True)


def test_compare():
    difference = compare(Mean(0.5, 0.03), Mean(0.46, 0.04))
    assert difference.value == pytest.approx(0.04) and difference.error == pytest.approx(0.05) and difference.within_noise
    assert compare(Mean(0.5, 0.03), Mean(0.403, 0.04)).within_noise and not compare(Mean(0.5, 0.03), Mean(0.401, 0.04)).within_noise
    assert compare(Mean(0.5, 0.03), None) is None
    assert Difference(0.0, 0.0, 0.0).within_noise
