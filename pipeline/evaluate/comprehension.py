"""The paper's six benchmarks side by side, the difference to an untouched checkpoint, denominators in words. Pure: scores in, cells out.

Invariants: the average of the six is there where all six are scored and only there; nothing is compared that was not scored in the same way
over the same rows; published rows are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pipeline.evaluate import published
from pipeline.evaluate.metrics import AVERAGES, OPEN_LABEL, average
from pipeline.evaluate.percent import percent
from pipeline.evaluate.protocols import COLUMNS, protocol_of

if TYPE_CHECKING:
    from pipeline.evaluate.report import AnswerScore, Report, RetrievalScore

PUBLISHED_NATIVE = "[published, native] "
Cells = tuple[str, tuple[str, ...], list[tuple[str, ...]], tuple[str, ...]]
"""A table's title, head, rows and notes."""
MODES = ("native", "compressed")


def columns(answers: Iterable[AnswerScore], mode: str) -> dict[str, float | None]:
    """The paper's columns of one mode, as fractions: a score, or None (not scored, not there, or there twice)."""
    found: dict[str, list[float | None]] = {name: [] for name in COLUMNS}
    for answer in answers:
        column = protocol_of(answer.name).column
        if column and answer.mode == mode and not answer.kind.endswith(OPEN_LABEL):
            found[column].append(answer.score)
    return {name: values[0] if len(values) == 1 else None for name, values in found.items()}


def paper_average(answers: Iterable[AnswerScore], mode: str) -> float | None:
    """The plain mean of the six; None unless each is scored, once."""
    values = list(columns(answers, mode).values())
    return None if None in values else sum(values) / len(values)


def has_columns(answers: Iterable[AnswerScore]) -> bool:
    """Whether any of the six is among the benchmarks."""
    return any(protocol_of(answer.name).column for answer in answers)


def six(answers: Sequence[AnswerScore]) -> Cells:
    """The paper's table of benchmarks: this run natively and compressed, and the published rows."""
    ours = [(f"ours, {mode}", *_row(answers, mode)) for mode in MODES if any(answer.mode == mode for answer in answers)]
    theirs = [(f"{PUBLISHED_NATIVE}{row.model}", *(f"{value:.1f}" for value in row[1:])) for row in published.VLM]
    notes = [f"[published] = {published.LABEL}: {published.CITATION}"]
    empty = [name for name, value in columns(answers, "native").items() if value is None]
    if empty:
        notes.append(
            f"AVG is the mean of all six, and there is none without {', '.join(empty)}. MMVet is scored by a judge only (--judge)."
        )
    for name in COLUMNS:
        files = sorted({answer.name for answer in answers if protocol_of(answer.name).column == name})
        if len(files) > 1:
            notes.append(f"{name}: found {' and '.join(files)}; name one of them, then it has its column.")
    return "Comprehension: the paper's six benchmarks, in percent", ("model", *COLUMNS, "AVG"), ours + theirs, tuple(notes)


def _row(answers: Sequence[AnswerScore], mode: str) -> list[str]:
    scored = {protocol_of(answer.name).column for answer in answers if answer.mode == mode}
    cells = [
        ("not scored" if name in scored else "-") if value is None else percent(value) for name, value in columns(answers, mode).items()
    ]
    return [*cells, percent(paper_average(answers, mode))]


def denominators(answers: Iterable[AnswerScore]) -> list[str]:
    """What a reader must know of the rows behind the scores: left out, cut off, judged, or in need of a judge."""
    notes: dict[str, None] = {}
    for answer in answers:
        for reason, count in answer.left_out.items():
            notes[f"{answer.name}: {count} rows {reason} are left out, as VLMEvalKit leaves them out."] = None
        if answer.cut_share:
            notes[f"{answer.name}, {answer.mode}: {percent(answer.cut_share)} % of the answers ran into the token limit."] = None
        if answer.judge:
            asked, unread = round(answer.judged_share * answer.rows), round(answer.unresolved_share * answer.rows)
            who = f"{answer.name}, {answer.mode}: {answer.judge} was asked about {asked} of {answer.rows} answers"
            notes[f"{who}; {unread} of them stay unread and count as wrong."] = None
    if any(answer.unresolved_share for answer in answers if not answer.judge):
        notes["Without a judge (--judge) answers are matched exactly; `unread` is the share that a judge would be asked about."] = None
    return list(notes)


def against_base(report: Report, set_scores: Callable) -> Cells:
    """Every score beside that of the untouched checkpoint, `report.base`, where both were scored in the same way over the same rows."""
    rows, unlike = _retrieval_rows(report, set_scores)
    natives = {(answer.name, answer.kind): answer for answer in report.base.answers if answer.mode == "native"}
    for (name, kind), pair in _pairs(report.answers).items():
        base, any_mode = natives.get((name, kind)), next(iter(pair.values()))
        if base is not None and (base.rows, base.judge) != (any_mode.rows, any_mode.judge):
            unlike.append(name)
            base = None
        rows.append((f"{name}, {kind}", *_beside(base.score if base else None, *(pair[m].score if m in pair else None for m in MODES))))
    averages = [paper_average(report.answers, mode) for mode in MODES]
    if averages[0] is not None:
        rows.append(("average of the six", *_beside(paper_average(report.base.answers, "native"), *averages)))
    notes = [f"base: {report.base.title}, its native answers."]
    if unlike:
        notes.append(f"Other rows, candidates or another judge there, so not compared: {', '.join(dict.fromkeys(unlike))}.")
    head = ("score", "base", "native", "comp.", "native - base", "comp. - base")
    return "Against the base checkpoint, in percent", head, rows, tuple(notes)


def _retrieval_rows(report: Report, set_scores: Callable) -> tuple[list[tuple[str, ...]], list[str]]:
    theirs = {score.name: score for score in report.base.retrieval}
    both = [score for score in report.retrieval if score.name in theirs and _same_rows(score, theirs[score.name])]
    unlike = [score.name for score in report.retrieval if score.name in theirs and score not in both]
    if not both:
        return [], unlike
    here, there = (average(set_scores(scores)) for scores in (both, [theirs[score.name] for score in both]))
    rows = [(f"Precision@1, {name}, {len(both)} sets" if name == "all" else f"Precision@1, {name}", name) for name in AVERAGES]
    return [(label, *_beside(there[name], here[name], None)) for label, name in rows if here[name] is not None], unlike


def _same_rows(one: RetrievalScore, other: RetrievalScore) -> bool:
    return (one.queries, one.candidates_mean) == (other.queries, other.candidates_mean)


def _pairs(answers: Iterable[AnswerScore]) -> dict[tuple[str, str], dict[str, AnswerScore]]:
    pairs: dict[tuple[str, str], dict[str, AnswerScore]] = {}
    for answer in answers:
        pairs.setdefault((answer.name, answer.kind), {})[answer.mode] = answer
    return pairs


def _beside(base: float | None, native: float | None, compressed: float | None) -> tuple[str, ...]:
    return (percent(base), percent(native), percent(compressed), difference(native, base), difference(compressed, base))


def difference(one: float | None, other: float | None) -> str:
    """one - other in points, with its sign; "-" where either is not there."""
    return "-" if one is None or other is None else f"{100 * (one - other):+.1f}"
