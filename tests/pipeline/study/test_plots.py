"""The pictures hold what the numbers say."""

from pipeline.study.arms import Sources, ablation, elastic, selected
from pipeline.study.plots import PUBLISHED_KEY, bars, curves, draw, lines
from pipeline.study.scores import Mean, Scores


def scores(value: float, compressed: float | None = None) -> Scores:
    mean = Mean(value, 0.02)
    return Scores(mean, mean, mean, mean, None if compressed is None else Mean(compressed, 0.01), None, 0.1, 0.2)


PARTS = selected(ablation(Sources((), (), ())), ("retrieval_only", "retrieval_only_chorus", "full"))
PART_RESULTS = {"retrieval_only": {0: scores(0.3)}, "retrieval_only_chorus": {4: scores(0.2, 0.1)}, "full": {4: scores(0.5, 0.4)}}
ELASTIC = elastic((1, 4))
ELASTIC_RESULTS = {"elastic": {4: scores(0.4, 0.3), 1: scores(0.2, 0.1)}, "k1": {1: scores(0.25)}, "k4": {4: scores(0.5, 0.45)}}


def heights(figure) -> list[float]:
    return [round(bar.get_height(), 6) for bar in figure.axes[0].patches if bar.get_height()]


def test_bars_stand_beside_the_papers():
    assert heights(bars(PARTS, PART_RESULTS, "p_at_1")) == [30.0, 62.3, 20.0, 50.0, 66.7]
    assert heights(bars(PARTS, PART_RESULTS, "compressed")) == [10.0, 40.0, 44.2]
    figure = bars(PARTS, PART_RESULTS, "native")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["this study", "guessing", PUBLISHED_KEY]


def test_curves_are_sorted_by_size():
    assert curves(ELASTIC, ELASTIC_RESULTS, "compressed") == {"fixed K": {4: (45.0, 1.0)}, "elastic": {1: (10.0, 1.0), 4: (30.0, 1.0)}}
    assert list(curves(PARTS, PART_RESULTS, "p_at_1")) == ["fixed K"]


def test_lines_show_elastic_fixed_and_published():
    figure = lines(ELASTIC, ELASTIC_RESULTS)
    assert [axes.get_title() for axes in figure.axes] == ["Precision@1", "native answers", "compressed answers"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines if not line.get_label().startswith("_")}
    assert drawn[PUBLISHED_KEY] == [65.6, 66.1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [PUBLISHED_KEY, "fixed K", "elastic"]


def test_draw_writes_what_there_is(tmp_path):
    names = [path.name for path in draw(PARTS, PART_RESULTS, tmp_path / "a")]
    assert names == ["ablation_p_at_1.png", "ablation_native.png", "ablation_compressed.png"]
    paths = draw(ELASTIC, ELASTIC_RESULTS, tmp_path / "b")
    assert [path.name for path in paths] == ["by_chorus.png"] and paths[0].read_bytes().startswith(b"\x89PNG")
