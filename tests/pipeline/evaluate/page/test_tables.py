"""The paper's tables with ours: what may stand there, and scores by number of chorus tokens from wherever they lie."""

import json

import pytest

from data_prep.samples import DataError
from pipeline.evaluate.page.tables import MARK, chorus_curves, chorus_point, chorus_table, other_sizes, read_report, study_points, vlm_table
from pipeline.evaluate.report import AnswerScore, Report


def answer(name: str, score: float, mode: str = "native", kind: str = "multiple choice") -> AnswerScore:
    return AnswerScore(name, kind, mode, 10, score, None, 0.0, 1.0)


def test_table_2_takes_what_was_scored_by_its_protocol() -> None:
    names = {"MMBench_DEV_EN_V11": 0.1, "AI2D_TEST": 0.2, "HallusionBench": 0.3, "MMMU_DEV_VAL": 0.4, "MMStar": 0.5, "MMVetish": 0.9}
    answers = [answer(name, score) for name, score in names.items() if name != "MMVetish"]
    answers += [answer("MMVet", 0.6, kind="open, string recall (no judge)"), answer("ShapesMMStar", 0.7, "compressed")]
    table = vlm_table(Report("x", answers=tuple(answers)))
    assert table.rows[0] == ("ours, native", "10.0", "not scored", "20.0", "30.0", "40.0", "50.0", "-")
    assert table.rows[1] == ("ours, compressed", *("-",) * 7)
    assert table.rows[2] == (f"{MARK}Qwen2-VL-2B", "72.3", "45.7", "73.8", "41.9", "41.1", "46.1", "53.5")
    judged = [*answers[:-2], answer("MMVet", 0.6, kind="judged")]
    assert vlm_table(Report("x", answers=tuple(judged))).rows[0][-1] == "35.0"


def test_two_files_of_one_benchmark_are_not_mixed() -> None:
    table = vlm_table(Report("x", answers=(answer("MMBench_DEV_EN", 0.5), answer("MMBench_DEV_EN_V11", 0.4))))
    assert table.rows[0][1] == "not scored"
    assert "MMB: found MMBench_DEV_EN and MMBench_DEV_EN_V11; name one of them, then it has its column." in table.notes


def test_a_report_comes_back_as_it_was_written(written, make) -> None:
    begun = written().set(make.words("Own", 2), [True, False]).benchmark(make.questions("Open", "open", ["1"]), "native", [0.5])
    assert read_report(begun.done()) == begun.report()
    (begun.folder / "scores.json").write_text('{"title": "x"}')
    with pytest.raises(DataError, match="Evaluate again"):
        read_report(begun.folder)


def test_other_numbers_of_chorus_tokens_beside_it(written, make) -> None:
    own, other = make.words("Own", 4), make.words("Other", 4)
    hits = [True, True, False, False]
    here = written("run", chorus="16 of 16").set(own, hits)
    here.done()
    written("run-k4", chorus="4 of 16").set(own, [True, False, False, False]).done()
    written("run-k1", chorus="1 of 16").set(own, [False] * 4).done()
    written("run-k2", chorus="2 of 16").set(other, hits).done()  # other questions
    written("run-k8", chorus="8 of 16", checkpoint="another").set(own, hits).done()
    written("run-knew", chorus="8 of 16").set(own, hits).done()
    written("running-k8", chorus="8 of 16").set(own, hits).done()
    found = other_sizes(here.report(), here.folder)
    assert [(point.k, point.source, point.p_at_1) for point in found] == [(1, "run-k1", 0.0), (4, "run-k4", 0.25)]
    points = [chorus_point(here.report(), "this evaluation"), *found]
    rows = chorus_table(points).rows
    assert rows[:3] == [
        ("1 token, run-k1", "0.0", "-", "-", "-"),
        ("4 tokens, run-k4", "25.0", "-", "-", "-"),
        ("16 tokens, this evaluation", "50.0", "-", "-", "-"),
    ]
    assert rows[3] == (f"{MARK}CREM 2B, end-of-sequence pooling", "62.3", "43.4", "-", "100.00")
    (ours,) = [curve for curve in chorus_curves(points) if not curve.published]
    assert (ours.series, ours.points) == ("P@1", {1: 0.0, 4: 0.25, 16: 0.5})
    assert chorus_curves(points[:1]) == []


def test_a_study(tmp_path) -> None:
    mean = {"value": 0.5, "error": 0.01}
    scores = {"p_at_1": mean, "native": mean, "compressed": None, "cache": 0.25}
    arms = [{"name": "elastic", "scores": {"1": scores, "4": scores}}, {"name": "retrieval_only", "scores": {"4": scores}}]
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"arms": arms}))
    assert [tuple(point) for point in study_points(path)] == [(k, "elastic", 0.5, 0.5, None, 0.25) for k in (1, 4)]
    path.write_text("[]")
    with pytest.raises(DataError, match=r"study\.json: found .*expected the study.json"):
        study_points(path)
