"""A comparison whose figures can be worked out by hand, and its renderings."""

import json

import pytest

from data_prep.samples import DataError
from pipeline.evaluate.compare import tables
from pipeline.evaluate.compare.comparison import compare
from pipeline.evaluate.compare.evaluations import read_evaluation
from pipeline.evaluate.compare.picture import draw
from pipeline.evaluate.page.compared import write_page
from pipeline.evaluate.report import BASELINE, WIDTH

HOSTILE = "<script>alert(1)</script>|$x$"


@pytest.fixture
def compared(written, make):
    """Set Many: 100 queries, A hits 50, B hits 62 of which 48 are A's (2 lost, 14 won). Set Few: 4 queries, B loses one. Open: recall."""
    many, few = make.words("Many", 100), make.words("Few", 4, "vqa", "OOD")
    asked = make.questions("Open", "open", [str(i) for i in range(40)])
    a = written("a").set(many, [i < 50 for i in range(100)]).set(few, [True] * 4).benchmark(asked, "native", [0.25] * 40).done()
    hits = [2 <= i < 64 for i in range(100)]
    b = written("b").set(many, hits).set(few, [True] * 3 + [False]).benchmark(asked, "native", [0.5, 0.75] * 20).done()
    return compare([read_evaluation(a, "first"), read_evaluation(b, HOSTILE)], seed=1, resamples=4000)


def test_rows_and_figures(compared) -> None:
    lines = {line.name: line for line in compared.lines}
    assert list(lines) == ["mean all", "Many", "Few", "Open"], "no mean over a single set"
    many = lines["Many"]
    assert (many.questions, [one.value for one in many.estimates]) == (100, [0.5, 0.62])
    assert many.estimates[0].low == pytest.approx(0.40, abs=0.015) and many.estimates[0].high == pytest.approx(0.60, abs=0.015)
    (test,) = many.tests
    assert (test.method, test.verdict) == ("McNemar", "better")
    assert test.p == pytest.approx(0.00418090820)  # 2 of 16 coins
    assert test.corrected == pytest.approx(3 * test.p), "the second smallest of four"
    assert test.difference.value == pytest.approx(0.12)
    (test,) = lines["Few"].tests
    assert (test.p, test.corrected, test.verdict) == (1.0, 1.0, "within noise")
    (test,) = lines["Open"].tests
    assert (test.method, test.difference.value, test.verdict) == ("bootstrap", 0.375, "better")
    assert test.p == pytest.approx(2 / 4001)


def test_a_mean_weighs_sets_not_queries(compared) -> None:
    whole = compared.lines[0]
    assert (whole.sets, whole.questions, whole.tests[0].method) == (2, 104, "bootstrap")
    assert [one.value for one in whole.estimates] == pytest.approx([0.75, (0.62 + 0.75) / 2])
    assert whole.tests[0].verdict == "within noise"
    assert whole.estimates[1].high - whole.estimates[1].low > 0.3, "four queries of Few weigh as much as the hundred"


def test_an_evaluation_against_itself(written, make) -> None:
    folder = written().set(make.words("Own", 20), [i % 3 == 0 for i in range(20)]).done()
    (line,) = compare([read_evaluation(folder, label) for label in "AB"], resamples=1000).lines
    assert (line.tests[0].p, line.tests[0].difference.low, line.tests[0].difference.high) == (1.0, 0.0, 0.0)


def test_texts(compared) -> None:
    console, markdown = tables.console(compared), tables.markdown(compared)
    assert max(map(len, console.splitlines())) <= WIDTH
    assert "better in 2, worse in 0, within noise in 2 of 4 rows" in console
    row = next(line for line in markdown.splitlines() if "+12.0" in line)
    cells = [cell.strip() for cell in row.replace(r"\|", "").split("|")]
    assert (cells[4], cells[6], cells[8:12]) == ("62.0", r"\+12.0", ["0.004", "0.013", "McNemar", "better"])
    assert "<script>" not in markdown
    stored = json.loads(tables.as_json(compared))
    assert (stored["unit"], stored["seed"], stored["lines"][1]["tests"][0]["verdict"]) == ("fraction", 1, "better")


def test_pictures_and_page(compared, tmp_path) -> None:
    png, svg = draw(compared, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text() and "<script" not in svg.read_text()
    page = write_page(compared, tmp_path).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert page.count('class="mark better"') == 2 and page.count('class="mark within-noise"') == 2


def test_a_baseline_takes_no_part_in_compressed_answers(written, make, tmp_path) -> None:
    """Two checkpoints with a chorus around one without: of compressed answers only those two are compared, and nothing is lacking."""
    asked = make.questions("Open", "open", [str(i) for i in range(40)])
    folders = []
    for name, points in (("a", 0.25), ("base", None), ("b", 0.75)):
        one = written(name).benchmark(asked, "native", [0.5] * 40)
        if points is None:
            one.facts["pooling"] = BASELINE
        else:
            one.benchmark(asked, "compressed", [points] * 40)
        folders.append(one.done())
    read = [read_evaluation(folder, folder.name) for folder in folders]
    native, compressed = compare(read, resamples=1000).lines
    assert None not in native.estimates + native.tests
    assert [one and one.value for one in compressed.estimates] == [0.25, None, 0.75]
    assert [one and one.difference.value for one in compressed.tests] == [None, 0.5]
    first, *_ = compare([read[1], read[0], read[2]], resamples=1000).lines[1:]
    assert [one and one.value for one in first.estimates] == [None, 0.25, 0.75] and first.tests == (None, None)
    shown = compare(read, resamples=1000)
    rows = [row for row in tables.table(shown).rows if row[2] == "base"]
    assert [row[3:5] for row in rows][1] == ("-", "-") and rows[1][5:] == ("-",) * 6
    assert "base against a: better in 0, worse in 0, within noise in 1 of 1 rows" in tables.console(shown)
    assert json.loads(tables.as_json(shown))["lines"][1]["estimates"][1] is None
    assert write_page(shown, tmp_path).is_file() and len(draw(shown, tmp_path)) == 2
    lacking = written("c").benchmark(asked, "native", [0.5] * 40).done()  # has a chorus, and should have answered from it
    with pytest.raises(DataError, match=r"found Open \(compressed\) only in a; expected the same sets everywhere"):
        compare([read[0], read_evaluation(lacking, "c")])
