"""What a reader gets to see: the right numbers, chance and provenance beside them, and nothing active from data."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from pipeline.evaluate.report import WIDTH, AnswerScore, Report, RetrievalScore, console, headline, markdown, write

NASTY = "<script>x</script>|[a](javascript:1)\n# h\x1b[31m`$x$`"


def _report(name: str = "emoji") -> Report:
    retrieval = (
        RetrievalScore(name, "RET", "IND", 500, 500.0, 0.54, 0.53, 0.002),
        RetrievalScore("VOC2007", "CLS", "IND", 1000, 20.0, 0.8, 0.8, 0.05),
    )
    answers = (
        AnswerScore("MMStar", "options", "native", 1500, 0.612, 0.25, 0.012, 1.0),
        AnswerScore("MMStar", "options", "compressed", 1500, 0.5, 0.25, 0.03, 0.0112),
        AnswerScore("MMVet", "string recall (no judge)", "native", 218, 0.4, None, 0.0, 1.0, {"exact": 0.1}),
    )
    return Report("tiny", retrieval, answers, {"limit": "none"})


def _line(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.split()


def test_console_shows_scores_with_chance_and_marks_what_is_published() -> None:
    text = console(_report())
    assert _line(text, "this run")[2:] == ["80.0", "-", "54.0", "-", "67.0", "-", "67.0"]
    assert _line(text, "guessing")[1:] == ["5.0", "-", "0.2", "-", "2.6", "-", "2.6"]
    assert _line(text, "sets averaged")[2:] == ["1", "0", "1", "0", "2", "0", "2"]
    assert _line(text, "[published] CREM 2B")[3:] == ["65.8", "60.7", "68.3", "78.9", "70.8", "61.5", "66.7"]
    assert _line(text, "emoji") == ["emoji", "RET", "IND", "500", "500.0", "54.0", "53.0", "0.2"]
    assert _line(text, "MMStar") == [
        "MMStar",
        "options",
        "1500",
        "61.2",
        "50.0",
        "-11.2",
        "25.0",
        "1.12",
        "1.2",
        "/",
        "3.0",
    ]
    assert _line(text, "MMVet") == [
        "MMVet",
        "string",
        "recall",
        "(no",
        "judge)",
        "218",
        "40.0",
        "-",
        "-",
        "-",
        "-",
        "0.0",
    ]
    assert "published, not run here" in text
    assert "do not compare" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_console_fits_whatever_the_names() -> None:
    text = console(_report("x" * 300))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "xxx…" in text


def test_full_mmeb_is_comparable() -> None:
    splits = {"CLS": 5, "VQA": 6, "RET": 8, "GD": 1}
    rows = [
        RetrievalScore(f"{meta}{n}", meta, "IND" if n < ind else "OOD", 1000, 1000.0, 0.5, 0.5, 0.001)
        for (meta, ind), total in zip(splits.items(), (10, 10, 12, 4), strict=True)
        for n in range(total)
    ]
    assert "do not compare" not in console(Report("full", tuple(rows)))


def test_text_from_data_is_inert() -> None:
    report = dataclasses.replace(_report(NASTY), title=NASTY, facts={NASTY: NASTY})
    shown = markdown(report)
    assert "<script>" not in shown
    assert "\x1b" not in shown + console(report)
    assert r"&lt;script&gt;x&lt;/script&gt;\|\[a\]\(javascript:1\) \# h \[31m\`\$x\$\`" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("| &lt;script")]
    assert row.replace(r"\|", "").count("|") == 9  # eight cells, as in the head


def test_written_files_hold_the_same_numbers(tmp_path: Path) -> None:
    paths = write(_report(), tmp_path / "out")
    assert [path.name for path in paths] == ["scores.json", "scores.md"]
    scores = json.loads(paths[0].read_text())
    assert scores["averages"]["all"] == pytest.approx(0.67)
    assert scores["averages"]["GD"] is None
    assert scores["sets_behind_averages"]["CLS"] == 1
    assert scores["retrieval"][0]["p_at_1_strict"] == 0.53
    assert scores["answers"][2]["detail"] == {"exact": 0.1}
    assert scores["published"]["label"] == "published, not run here"
    assert len(scores["published"]["mmeb"]) == 16
    assert "mmE5 11B" in paths[1].read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.json", "scores.md"]


def test_headline() -> None:
    assert headline(_report()) == {
        "eval/p_at_1/CLS": pytest.approx(0.8),
        "eval/p_at_1/RET": pytest.approx(0.54),
        "eval/p_at_1/IND": pytest.approx(0.67),
        "eval/p_at_1/all": pytest.approx(0.67),
        "eval/native/MMStar/options": 0.612,
        "eval/compressed/MMStar/options": 0.5,
        "eval/native/MMVet/string recall (no judge)": 0.4,
    }


@pytest.mark.parametrize("share", [math.nan, -0.1, 1.01, 54.0])
def test_shares_outside_0_to_1_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"expected a fraction in \[0, 1\]"):
        Report("x", (RetrievalScore("a", "RET", "IND", 1, 2.0, share, 0.0, 0.5),))


def test_a_result_reported_twice_is_refused() -> None:
    row = _report().retrieval[0]
    with pytest.raises(ValueError, match="'emoji' is reported twice"):
        Report("x", (row, row))


def test_an_empty_report_is_only_its_title() -> None:
    assert console(Report("nothing scored")) == "nothing scored\n"
