"""The page of a comparison, in the style of an evaluation's."""

from pathlib import Path

from pipeline.evaluate.compare.comparison import Comparison
from pipeline.evaluate.compare.tables import in_words, table, title
from pipeline.evaluate.page.charts import Gap, gaps
from pipeline.evaluate.page.render import write_page as fill


def write_page(comparison: Comparison, folder: Path) -> Path:
    """Write `folder`/compare.html."""
    drawn = []
    for other, label in enumerate(comparison.labels[1:]):
        rows = []
        for line in comparison.lines:
            if (test := line.tests[other]) is None:
                continue
            rows.append(Gap(title(line, brief=True), test.difference.low, test.difference.value, test.difference.high, test.verdict))
        drawn.append((label, gaps(rows, f"{label} against {comparison.labels[0]}")))
    shown = {"comparison": comparison, "words": in_words(comparison).split("\n"), "table": table(comparison), "drawn": drawn}
    return fill("compare.html", folder / "compare.html", shown)
