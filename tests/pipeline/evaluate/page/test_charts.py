"""Charts: well-formed, in proportion, with labels that are text."""

import re
from xml.etree import ElementTree

import pytest

from pipeline.evaluate.page.charts import LABEL, VALUE, WIDTH, Bar, Curve, Gap, bars, curves, gaps

HOSTILE = '</text><script>alert("x")</script>&\u202e'


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_bars_are_in_proportion() -> None:
    svg = parsed(bars([("one", [Bar("native", 0.5, 0.25), Bar("compressed", 1.0)]), ("two", [Bar("native", 0.0)])], "t"))
    room = WIDTH - LABEL - VALUE
    drawn = [float(rect.get("width")) for rect in svg.iter("rect") if rect.get("class").startswith("bar")]
    assert drawn == pytest.approx([room / 2, room, 0])
    assert [rect.get("class") for rect in svg.iter("rect")].count("hatched") == 1
    (chance,) = [path.get("d") for path in svg.iter("path") if path.get("class") == "chance"]
    assert float(re.match(r"M([\d.]+) ", chance)[1]) == pytest.approx(LABEL + room / 4, abs=0.06)
    values = [text.text for text in svg.iter("text") if text.get("class") == "value"]
    assert values == ["50.0", "100.0", "0.0"]


def test_a_figure_stands_clear_of_the_mark_of_guessing() -> None:
    (text,) = [t for t in parsed(bars([("x", [Bar("native", 0.24, 0.33)])], "t")).iter("text") if t.get("class") == "value"]
    assert float(text.get("x")) > LABEL + 0.33 * (WIDTH - LABEL - VALUE)


def test_curves_are_on_a_scale_of_doublings() -> None:
    svg = parsed(curves([Curve("native", {1: 0.5, 4: 0.75, 16: 1.0}), Curve("native", {64: 0.1}, published=True)], "t"))
    ours = next(path.get("d") for path in svg.iter("path") if path.get("class") == "curve native ours")
    points = [tuple(map(float, pair.split())) for pair in ours[1:].split("L")]
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.11)
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)
    assert [text.text for text in svg.iter("text") if text.get("class") == "tick"] == ["1", "4", "16", "64", "chorus tokens"]


def test_gaps_are_around_zero() -> None:
    svg = parsed(gaps([Gap("a", -0.1, 0.0, 0.1, "within noise"), Gap("b", 0.1, 0.15, 0.2, "better")], "t"))
    zero = next(float(path.get("d")[1:].split()[0]) for path in svg.iter("path") if path.get("class") == "zero")
    marks = {circle.get("class"): float(circle.get("cx")) for circle in svg.iter("circle")}
    assert marks["mark within-noise"] == pytest.approx(zero) and marks["mark better"] > zero


def test_labels_are_text() -> None:
    for svg in (bars([(HOSTILE, [Bar("native", 0.1)])], HOSTILE), gaps([Gap(HOSTILE, 0, 0, 0, "worse")], HOSTILE)):
        root = parsed(svg)
        assert not list(root.iter("script")) and "\u202e" not in svg
        assert root.get("aria-label").startswith("</text><script>")
