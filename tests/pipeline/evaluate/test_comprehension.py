"""The six columns, the average that is there only whole, the difference to a base, and denominators in words."""

import json
from dataclasses import replace

import pytest

from data_prep.samples import DataError
from pipeline.evaluate.base import read_base
from pipeline.evaluate.comprehension import columns, denominators, difference, paper_average
from pipeline.evaluate.report import AnswerScore, Report, RetrievalScore, console, headline, tables, write

NAMES = ("MMBench_DEV_EN_V11", "MMVet", "AI2D_TEST", "HallusionBench", "MMMU_DEV_VAL", "MMStar")
KINDS = ("multiple choice + judge", "open, graded by a judge", *["multiple choice + judge"] * 4)


def answers(native: list[float | None], compressed: list[float | None]) -> tuple[AnswerScore, ...]:
    return tuple(
        AnswerScore(name, kind, mode, 100, score, None, 0.0, judge="wise")
        for name, kind, *scores in zip(NAMES, KINDS, native, compressed, strict=True)
        for mode, score in zip(("native", "compressed"), scores, strict=True)
    )


# the paper's rows of CREM 2B and of Qwen2-VL-2B, natively
CREM = [0.725, 0.451, 0.728, 0.412, 0.414, 0.455]
BASE = [0.723, 0.457, 0.738, 0.419, 0.411, 0.461]
SIX = answers(CREM, [0.6, 0.3, 0.6, 0.4, 0.35, 0.4])


def test_the_average_is_the_papers() -> None:
    assert list(columns(SIX, "native").values()) == CREM
    assert paper_average(SIX, "native") == pytest.approx(0.531, abs=5e-4)
    assert paper_average(answers(BASE, BASE), "native") == pytest.approx(0.535, abs=5e-4)
    assert headline(Report("six", (), SIX))["eval/native/average of the six"] == pytest.approx(0.531, abs=5e-4)


@pytest.mark.parametrize(
    "some",
    [
        SIX[2:],  # MMBench is missing
        answers([0.7, None, *CREM[2:]], [0.5] * 6),  # MMVet is not scored
        (*SIX, replace(SIX[0], name="MMBench_DEV_EN")),  # two files for one column
    ],
)
def test_there_is_no_average_of_fewer_than_six(some: tuple[AnswerScore, ...]) -> None:
    assert paper_average(some, "native") is None
    assert "eval/native/average of the six" not in headline(Report("some", (), some))


def test_string_recall_is_never_mmvets_column() -> None:
    recall = AnswerScore("MMVet", "open, string recall (no judge)", "native", 218, 0.4, None, 0.0)
    assert columns([recall], "native")["MMVet"] is None
    unscored = AnswerScore("MMVet", "not scored: needs a judge", "native", 218, None, None, 1.0)
    text = console(Report("no judge", (), (unscored, recall)))
    assert [line.split()[:9] for line in text.splitlines() if line.startswith("MMVet")] == [
        ["MMVet", "not", "scored:", "needs", "a", "judge", "218", "-", "-"],
        ["MMVet", "open,", "string", "recall", "(no", "judge)", "218", "40.0", "-"],
    ]
    assert "ours, native" in text and "not scored" in text
    assert "MMVet is scored by a judge only" in " ".join(text.split())


def row(report: Report, title: str, start: str) -> tuple[str, ...]:
    (table,) = [table for table in tables(report) if table.title.startswith(title)]
    (cells,) = [cells for cells in table.rows if cells[0].startswith(start)]
    return cells


def test_six_columns_beside_the_published_ones() -> None:
    report = Report("six", (), SIX)
    assert row(report, "Comprehension", "ours, native") == ("ours, native", "72.5", "45.1", "72.8", "41.2", "41.4", "45.5", "53.1")
    assert row(report, "Comprehension", "ours, compressed")[-1] == "44.2"
    assert row(report, "Comprehension", "[published, native] CREM 2B")[1:] == ("72.5", "45.1", "72.8", "41.2", "41.4", "45.5", "53.1")


def retrieval(p_at_1: float, queries: int = 1000) -> RetrievalScore:
    return RetrievalScore("VOC2007", "CLS", "IND", queries, 20.0, p_at_1, p_at_1, 0.05)


def test_base_from_its_own_scores(tmp_path) -> None:
    """What the command wrote for one checkpoint is what another is compared with: file or folder."""
    untouched = Report("base", (retrieval(0.5),), answers(BASE, [0.1] * 6), {"checkpoint": "base"})
    write(untouched, tmp_path / "base")
    assert read_base(tmp_path / "base") == read_base(tmp_path / "base" / "scores.json") == untouched
    report = Report("ours", (retrieval(0.8),), SIX, base=read_base(tmp_path / "base"))
    title = "Against the base"
    assert row(report, title, "MMVet") == ("MMVet, open, graded by a judge", "45.7", "45.1", "30.0", "-0.6", "-15.7")
    assert row(report, title, "average of the six") == ("average of the six", "53.5", "53.1", "44.2", "-0.4", "-9.3")
    assert row(report, title, "Precision@1, CLS") == ("Precision@1, CLS", "50.0", "80.0", "-", "+30.0", "-")
    assert row(report, title, "Precision@1, all")[0] == "Precision@1, all, 1 sets"
    write(report, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "scores.json").read_text())["base"]["title"] == "base"
    assert "Against the base checkpoint" in (tmp_path / "ours" / "scores.md").read_text()


def test_what_was_not_scored_alike_is_not_compared() -> None:
    other = tuple(replace(answer, judge="another") if answer.name == "MMVet" else answer for answer in answers(BASE, BASE))
    base = Report("base", (retrieval(0.5, queries=900),), other)
    report = Report("ours", (retrieval(0.8),), SIX, base=base)
    assert row(report, "Against", "MMVet") == ("MMVet, open, graded by a judge", "-", "45.1", "30.0", "-", "-")
    (table,) = [table for table in tables(report) if table.title.startswith("Against")]
    assert "not compared: VOC2007, MMVet" in table.notes[-1]
    assert not [cells for cells in table.rows if cells[0].startswith("Precision")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no scores there: No such file"),
        ("{", "found no scores of this project"),
        ("[]", "found no scores of this project"),
        ('{"title": "x", "facts": {}, "retrieval": [{"name": "a"}], "answers": []}', "found no scores of this project"),
        ('{"title": "x", "facts": {}, "answers": []}', "KeyError"),
    ],
)
def test_a_base_that_is_none(tmp_path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    with pytest.raises(DataError, match=rf"--base .*{message}.*Score the base checkpoint by the same command first"):
        read_base(tmp_path)


def test_denominators_in_words() -> None:
    score = AnswerScore("MMMU_DEV_VAL", "multiple choice", "native", 900, 0.4, 0.25, 0.02, cut_share=0.1, left_out={"of split dev": 150})
    assert denominators([score, replace(score, mode="compressed", cut_share=0.0)]) == [
        "MMMU_DEV_VAL: 150 rows of split dev are left out, as VLMEvalKit leaves them out.",
        "MMMU_DEV_VAL, native: 10.0 % of the answers ran into the token limit.",
        "Without a judge (--judge) answers are matched exactly; `unread` is the share that a judge would be asked about.",
    ]
    judged = replace(score, judge="wise", judged_share=0.05, cut_share=0.0, left_out={})
    assert denominators([judged]) == [
        "MMMU_DEV_VAL, native: wise was asked about 45 of 900 answers; 18 of them stay unread and count as wrong."
    ]
    assert denominators([replace(score, unresolved_share=0.0, cut_share=0.0, left_out={})]) == []


@pytest.mark.parametrize(("one", "other", "shown"), [(0.5, 0.4, "+10.0"), (0.4, 0.5, "-10.0"), (None, 0.5, "-"), (0.5, None, "-")])
def test_difference(one: float | None, other: float | None, shown: str) -> None:
    assert difference(one, other) == shown
