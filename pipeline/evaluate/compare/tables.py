"""A comparison as text: console, Markdown, JSON. People read percent, programs fractions."""

import json
from dataclasses import asdict

from pipeline.evaluate.compare.comparison import Comparison, Estimate, Line
from pipeline.evaluate.percent import percent
from pipeline.evaluate.report import Table, footnotes, piped, plain

HEAD = ("questions", "of", "score", "95 % interval", "change", "95 % interval", "p", "corrected", "by", "verdict")


def table(comparison: Comparison) -> Table:
    """A row per set and checkpoint; the first checkpoint's row has no test."""
    rows = []
    for line in comparison.lines:
        for number, (label, estimate) in enumerate(zip(comparison.labels, line.estimates, strict=True)):
            tested = tested_cells(line, number)
            name = (title(line), str(line.questions)) if number == 0 else ("", "")
            rows.append((*name, label, *_scored(estimate), *tested))
    return Table(f"Comparison with {comparison.labels[0]}, in percent", ("set", *HEAD), rows, notes(comparison))


def title(line: Line, brief: bool = False) -> str:
    """A row's name with its mode, where that says more, and the number of sets behind a mean."""
    mode = "" if line.mode == "P@1" else f", {line.mode.replace('compressed', 'comp.') if brief else line.mode}"
    return f"{line.name}{mode}" + (f" ({line.sets})" if line.sets > 1 else "")


def tested_cells(line: Line, number: int) -> tuple[str, ...]:
    """Change, interval, p, corrected p, method and verdict of checkpoint `number`; empty for the first, "-" where there is no test."""
    if number == 0:
        return ("",) * 6
    test = line.tests[number - 1]
    if test is None:
        return ("-",) * 6
    return (_signed(test.difference.value), _range(test.difference, signed=True), _p(test.p), _p(test.corrected), test.method, test.verdict)


def notes(comparison: Comparison) -> tuple[str, ...]:
    """What the figures mean and what was left out."""
    known = "; ".join(f"{label} = {place}" for label, place in zip(comparison.labels, comparison.places, strict=True))
    said = (
        known,
        f"Intervals: percentile bootstrap over the questions, {comparison.resamples:,} resamples, seed {comparison.seed}, paired; means "
        "resample within each set. They hold the luck of the questions, not that of another training seed.",
        "p: McNemar's exact test where single questions are right or wrong, else the paired bootstrap (means, string recall, figure "
        'groups); corrected over all rows of a checkpoint (Holm). "within noise": corrected p of 0.05 or more.',
    )
    return said + tuple(f"not compared: {reason}" for reason in comparison.left_out)


def console(comparison: Comparison) -> str:
    """Plain text for a terminal."""
    shown = table(comparison)
    kept = [0, *(1 + HEAD.index(name) for name in ("of", "score")), 4, 5, 6, *(1 + HEAD.index(name) for name in ("corrected", "verdict"))]
    rows = [tuple(row[i] for i in kept) for row in shown.rows]
    few = Table(shown.title, tuple(("p (Holm)" if i == 8 else ("set", *HEAD)[i]) for i in kept), rows, shown.notes)
    return f"{plain(few)}\n\n{in_words(comparison)}\n"


def in_words(comparison: Comparison) -> str:
    """One sentence per further checkpoint."""
    out = []
    for other, label in enumerate(comparison.labels[1:]):
        verdicts = [line.tests[other].verdict for line in comparison.lines if line.tests[other]]
        counts = ", ".join(f"{word} in {verdicts.count(word)}" for word in ("better", "worse", "within noise"))
        out.append(f"{label} against {comparison.labels[0]}: {counts} of {len(verdicts)} rows")
    return "\n".join(out)


def markdown(comparison: Comparison) -> str:
    """GitHub-flavoured Markdown, every cell escaped."""
    shown = table(comparison)
    said = Table("", (), [], tuple(in_words(comparison).split("\n")))
    return "\n".join(["# Comparison", *footnotes(said), "", *piped(shown), *footnotes(shown)]) + "\n"


def as_json(comparison: Comparison) -> str:
    """Everything, as fractions."""
    payload = asdict(comparison)
    for line, shown in zip(comparison.lines, payload["lines"], strict=True):
        for test, dumped in zip(line.tests, shown["tests"], strict=True):
            if test:
                dumped["verdict"] = test.verdict
    return json.dumps({"unit": "fraction", "level": 0.95} | payload, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _scored(estimate: Estimate | None) -> tuple[str, str]:
    return ("-", "-") if estimate is None else (percent(estimate.value), _range(estimate))


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _range(estimate: Estimate, signed: bool = False) -> str:
    number = _signed if signed else percent
    return f"{number(estimate.low)} to {number(estimate.high)}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
