"""Evaluations read back: counted as they were scored, and refused where they were asked other things."""

import json

import numpy as np
import pytest

from data_prep.samples import DataError
from pipeline.evaluate import metrics
from pipeline.evaluate.compare.evaluations import Key, answer_units, read_evaluation, same_questions
from pipeline.evaluate.compare.statistics import Outcomes, score


def test_sets_and_benchmarks_are_read_as_scored(written, make) -> None:
    benchmark = make.questions("Open", "open", ["a", "b"])
    folder = written().set(make.words("Own", 4), [True, False, True, True]).benchmark(benchmark, "native", [0.5, 1.0]).done()
    read = read_evaluation(folder, "A")
    own, answered = read.items[Key("Own", "P@1")], read.items[Key("Open", "native")]
    assert (own.meta, own.split, own.plain, own.points_NP.tolist()) == ("RET", "IND", True, [[1], [0], [1], [1]])
    assert (answered.plain, answered.points_NP.tolist()) == (False, [[0.5], [1.0]])
    assert (read.label, read.place, read.left_out) == ("A", str(folder), {})


def test_rotations_are_one_unit() -> None:
    rows = [{"kind": "multiple_choice", "index": i, "points": p} for i, p in (("1", 1), ("1000001", 1), ("2", 1), ("1000002", 0), ("3", 0))]
    points, size = answer_units(rows)
    assert points.tolist() == [[1], [0], [0]] and size.tolist() == [[1], [1], [1]]


def test_hallusion_units_count_as_the_metric_does() -> None:
    """Random answers to 3 categories x 4 sets of up to 3 figures and 3 questions."""
    rng = np.random.default_rng(0)
    known = [(c, s, f, q) for c in "abc" for s in range(4) for f in range(1 + s % 3) for q in range(1 + (s + 1) % 3)]
    names = [(c, f"VD_{c}_x_{s}_{f}_{q}") for c, s, f, q in known]
    rows = [{"kind": "yes_no", "category": c, "index": index, "points": float(rng.random() < 0.7)} for c, index in names]
    points, size = answer_units(rows)
    assert len(points) == 12
    expected = metrics.hallusion([row["index"] for row in rows], [row["category"] for row in rows], [row["points"] == 1 for row in rows])
    assert (points.sum(0) / size.sum(0)).tolist() == pytest.approx(list(expected))
    assert score(Outcomes(points[None], size)) == pytest.approx([expected.mean])


@pytest.mark.parametrize("change", ["text", "rows", "order"])
def test_other_questions_are_refused(written, make, change) -> None:
    first = make.words("Own", 4)
    other = {"text": make.words("Own", 4, text="others"), "rows": make.words("Own", 3), "order": make.words("Own", 4)}[change]
    if change == "order":
        other.rows.reverse()
    a = read_evaluation(written("a").set(first, [True] * 4).done(), "A")
    b = read_evaluation(written("b").set(other, [True] * len(other.rows)).done(), "B")
    found = {"text": "4 of 4 rows differ, first row 0", "rows": "4 and 3 rows", "order": "4 of 4 rows differ"}[change]
    with pytest.raises(DataError, match=rf"different questions.*Own \(P@1\), A and B: {found}.*Evaluate them alike"):
        same_questions([a, b])


def test_another_way_of_scoring_is_refused(written, make) -> None:
    questions = make.questions("MCQ", "multiple_choice", ["A", "B"])
    a = read_evaluation(written("a").benchmark(questions, "native", [0.0, 1.0]).done(), "A")
    b = read_evaluation(written("b").benchmark(questions, "native", [1.0, 1.0], judge="judge-7b").done(), "B")
    with pytest.raises(DataError, match=r"MCQ \(native\), A and B: scored by multiple choice and by multiple choice \+ judge judge-7b"):
        same_questions([a, b])


def test_what_only_one_holds(written, make) -> None:
    both, extra = make.words("Both", 2), make.words("Extra", 2)
    a = read_evaluation(written("a").set(both, [True] * 2).set(extra, [True] * 2).done(), "A")
    b = read_evaluation(written("b").set(both, [False] * 2).done(), "B")
    with pytest.raises(DataError, match=r"Extra \(P@1\) only in A.*--common"):
        same_questions([a, b])
    assert same_questions([a, b], common=True) == [Key("Both", "P@1")]
    c = read_evaluation(written("c").set(make.words("Third", 2), [True] * 2).done(), "C")
    with pytest.raises(DataError, match="no set or benchmark that all evaluations hold"):
        same_questions([a, c], common=True)


def test_a_benchmark_scored_otherwise_is_left_out_by_name(written, make) -> None:
    judged = make.questions("Judged", "open", ["1", "2"])
    folder = written().set(make.words("Own", 2), [True] * 2).benchmark(judged, "native", [1, 0]).done()
    _edit(folder, lambda scores: scores["answers"][0].update(score=0.75))
    read = read_evaluation(folder, "A")
    assert list(read.items) == [Key("Own", "P@1")]
    assert "found 0.75 in scores.json, 0.500000 recounted" in read.left_out[Key("Judged", "native")]


def test_retrieval_scores_that_are_not_their_predictions(written, make) -> None:
    folder = written().set(make.words("Own", 2), [True, False]).done()
    _edit(folder, lambda scores: scores["retrieval"][0].update(p_at_1=0.9))
    with pytest.raises(DataError, match=r"Own: found 0\.9 in scores\.json, 0\.500000 recounted"):
        read_evaluation(folder, "A")


def test_unusable_folders(written, make, tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_evaluation(tmp_path / "nowhere", "A")
    folder = written().set(make.words("Own", 1), [True]).done()
    path = folder / "predictions/Own.jsonl"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in rows.items() if name != "digest"}))
    with pytest.raises(DataError, match=r"no entry 'digest'.*Evaluate again"):
        read_evaluation(folder, "A")
    path.write_text("")
    with pytest.raises(DataError, match="found no rows"):
        read_evaluation(folder, "A")
    path.unlink()
    with pytest.raises(DataError, match=r"Own\.jsonl: cannot be read"):
        read_evaluation(folder, "A")
    _edit(folder, lambda scores: scores["retrieval"][0].update(name="../../etc/passwd"))
    with pytest.raises(DataError, match="expected a plain file name"):
        read_evaluation(folder, "A")
    (folder / "scores.json").write_text("{")
    with pytest.raises(DataError, match="found no JSON"):
        read_evaluation(folder, "A")


def _edit(folder, change) -> None:
    scores = json.loads((folder / "scores.json").read_text())
    change(scores)
    (folder / "scores.json").write_text(json.dumps(scores))
