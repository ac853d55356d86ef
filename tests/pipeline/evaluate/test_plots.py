"""The pictures hold what the numbers say: bar heights, chance marks, labels; and they are written as PNGs."""

import warnings
from pathlib import Path

from matplotlib.collections import LineCollection

from pipeline.evaluate.plots import by_meta, by_mode, by_set, draw
from pipeline.evaluate.report import AnswerScore, Report, RetrievalScore

SCORES = (
    RetrievalScore("cost $5 or $6", "RET", "IND", 500, 500.0, 0.54, 0.53, 0.002),
    RetrievalScore("VOC2007", "CLS", "OOD", 1000, 20.0, 0.8, 0.8, 0.05),
    RetrievalScore("own set", None, None, 10, 2.0, 0.1, 0.1, 0.5),
)
ANSWERS = (
    AnswerScore("MMStar", "options", "native", 1500, 0.6, 0.25, 0.0, 1.0),
    AnswerScore("MMStar", "options", "compressed", 1500, 0.5, 0.25, 0.0, 0.0112),
    AnswerScore("MMVet", "string recall (no judge)", "native", 218, 0.4, None, 0.0),
)


def _marks(axes) -> list[LineCollection]:
    return [artist for artist in axes.collections if isinstance(artist, LineCollection)]


def test_by_meta_leaves_out_what_has_no_set() -> None:
    (axes,) = by_meta(SCORES, "tiny").axes
    assert [round(bar.get_height(), 6) for bar in axes.patches] == [80.0, 54.0, 54.0, 80.0, 48.0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert [label.splitlines()[0] for label in labels] == ["CLS", "RET", "IND", "OOD", "all"]
    assert labels[-1] == "all\n3 sets\nguessing 18.4"
    assert [round(float(mark.get_segments()[0][0][1]), 6) for mark in _marks(axes)] == [5.0, 0.2, 0.2, 5.0, 18.4]


def test_by_set_is_grouped_by_meta_task() -> None:
    (axes,) = by_set(SCORES, "tiny").axes
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [80.0, 54.0, 10.0]
    assert [round(float(mark.get_segments()[0][0][0]), 6) for mark in _marks(axes)] == [5.0, 0.2, 50.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "VOC2007  OOD",
        r"cost \$5 or \$6  IND",  # otherwise matplotlib would set "5 or " as mathematics
        "own set",
    ]


def test_by_mode_sets_the_modes_side_by_side() -> None:
    (axes,) = by_mode(ANSWERS, "tiny").axes
    assert [round(bar.get_height(), 6) for bar in axes.patches] == [60.0, 50.0, 40.0]
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, True, False]
    assert len(_marks(axes)) == 2  # no guessing level for open answers
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["MMStar\noptions\ncache kept 1.12%", "MMVet\nstring recall (no judge)"]


def test_draw_writes_pngs(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = draw(Report("tiny\x1b[31m", SCORES, ANSWERS), tmp_path / "plots")
    assert [path.name for path in paths] == ["retrieval_by_meta.png", "retrieval_by_set.png", "answers.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in paths)
    assert draw(Report("empty"), tmp_path / "none") == []
