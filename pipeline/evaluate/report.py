"""Results as text: one set of tables, rendered for the console, for Markdown and as JSON.

A `Report` holds fractions in [0, 1]; people read percent. Invariants: chance stands beside every score; a figure from
the literature never stands without the words "published, not run here"; text that came from data (names, facts) reaches
the terminal without control characters and Markdown without active ones; no NaN gets in.
"""

import html
import json
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.evaluate import comprehension, published
from pipeline.evaluate.metrics import AVERAGES, SetScore, average, coverage
from pipeline.evaluate.percent import percent

WIDTH = 110
BASELINE = "baseline: no chorus tokens, last-token pooling"
"""What a report says of a checkpoint without a chorus."""
_CONSOLE_MODELS = ("CLIP", "OpenCLIP", "VLM2Vec", "CREM")


@dataclass(frozen=True)
class RetrievalScore:
    """Precision@1 of one retrieval set. Shares are fractions; `chance` is the mean of 1 / candidates."""

    name: str
    meta: Literal["CLS", "VQA", "RET", "GD"] | None
    split: Literal["IND", "OOD"] | None
    queries: int
    candidates_mean: float
    p_at_1: float
    p_at_1_strict: float
    chance: float


@dataclass(frozen=True)
class AnswerScore:
    """One benchmark answered in one mode. `kind` says how it was scored; shares are fractions of `rows`.

    `score`: None where this benchmark has no score without a judge. `unresolved_share`: answers that only a judge could read, or that the
    judge did not make readable (counted as wrong). `cache_share`: share of the KV cache kept, 1.0 for native, None where unknown.
    `detail`: further figures, such as fAcc. `judge`: the model that judged, `judged_share` of the rows; "" without one. `cut_share`:
    answers that ran into the token limit. `left_out`: rows of the file that are not among `rows`, by reason.
    """

    name: str
    kind: str
    mode: Literal["native", "compressed"]
    rows: int
    score: float | None
    chance: float | None
    unresolved_share: float
    cache_share: float | None = None
    detail: dict = field(default_factory=dict)
    judge: str = ""
    judged_share: float = 0.0
    cut_share: float = 0.0
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All results of one evaluation. `facts`: what a reader needs to know of it (model, checkpoint step, limits).

    `attention`: mean figures of the chorus' attention maps (`chorus_maps.ImageMaps.figures`), empty where none were drawn. `base`: the same
    report of the untouched checkpoint, where one is compared with.

    Raises ValueError on two results of one name (and mode), and on a share that is not within [0, 1].
    """

    title: str
    retrieval: tuple[RetrievalScore, ...] = ()
    answers: tuple[AnswerScore, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    attention: dict[str, float] = field(default_factory=dict)
    base: "Report | None" = None

    def __post_init__(self) -> None:
        keys = [(row.name,) for row in self.retrieval] + [(row.name, row.kind, row.mode) for row in self.answers]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{' '.join(twice[0])!r} is reported twice: one of the results would be lost")
        for row in (*self.retrieval, *self.answers):
            for name in ("p_at_1", "p_at_1_strict", "score", "chance", "unresolved_share", "cache_share", "judged_share", "cut_share"):
                share = getattr(row, name, None)
                if share is not None and not 0 <= share <= 1:
                    raise ValueError(f"{row.name}: {name} is {share}, expected a fraction in [0, 1]")


class Table(NamedTuple):
    """Plain cells under a head; the first column is text, the others are right-aligned."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def set_scores(scores: Iterable[RetrievalScore]) -> list[SetScore]:
    """The sets as `metrics.average` takes them."""
    return [SetScore(score.meta, score.split, score.p_at_1) for score in scores]


def counted(answers: Iterable[AnswerScore]) -> list[AnswerScore]:
    """What enters a mean over benchmarks: of each benchmark and mode the first score there is, which is the one that counts."""
    first: dict[tuple[str, str], AnswerScore] = {}
    for answer in answers:
        if answer.score is not None:
            first.setdefault((answer.name, answer.mode), answer)
    return list(first.values())


def headline(report: Report) -> dict[str, float]:
    """The numbers worth logging on the training run, as fractions.

    E.g. {"eval/p_at_1/all": 0.61, "eval/native/MMStar/options": 0.46}. How an answer was scored stays in its name, so
    that string recall is not taken for a judged score.
    """
    means = average(set_scores(report.retrieval))
    out = {f"eval/p_at_1/{name}": value for name, value in means.items() if value is not None}
    out |= {f"attention/{name}": report.attention[name] for name in ("entropy", "overlap", "image_mass") if name in report.attention}
    out |= {f"eval/{answer.mode}/{answer.name}/{answer.kind}": answer.score for answer in report.answers if answer.score is not None}
    six = {mode: comprehension.paper_average(report.answers, mode) for mode in ("native", "compressed")}
    return out | {f"eval/{mode}/average of the six": value for mode, value in six.items() if value is not None}


def tables(report: Report, every_published_row: bool = False) -> list[Table]:
    """Retrieval by meta-task, retrieval by set, answers by mode; those without rows are left out."""
    out = []
    if report.retrieval:
        out += [_by_meta(report, every_published_row), _by_set(report.retrieval)]
    if report.answers:
        out.append(_answers(report.answers))
    if comprehension.has_columns(report.answers):
        out.append(Table(*comprehension.six(report.answers)))
    if report.base is not None:
        out.append(Table(*comprehension.against_base(report, set_scores)))
    return out


def console(report: Report) -> str:
    """Plain text within WIDTH columns."""
    blocks = [_safe(report.title), *(f"{_safe(key)}: {_safe(value)}" for key, value in report.facts.items())]
    return "\n".join(blocks + [f"\n{plain(table)}" for table in tables(report)]) + "\n"


def markdown(report: Report) -> str:
    """GitHub-flavoured Markdown with every published row; names and facts are escaped."""
    lines = [f"# {_escape(report.title)}", ""]
    lines += [f"- {_escape(key)}: {_escape(value)}" for key, value in report.facts.items()]
    for table in tables(report, every_published_row=True):
        lines += ["", f"## {_escape(table.title)}", "", *piped(table)]
        lines += [f"\n{_escape(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    """The whole report with its averages, the sets behind each, and the published rows with their citation."""
    sets = set_scores(report.retrieval)
    payload = asdict(report) | {
        "unit": "fraction",
        "averages": average(sets),
        "sets_behind_averages": coverage(sets),
        "headline": headline(report),
        "six": {mode: comprehension.columns(report.answers, mode) for mode in ("native", "compressed")},
        "published": {
            "label": published.LABEL,
            "unit": "percent",
            "source": published.CITATION,
            "mmeb": [row._asdict() for row in published.MMEB],
            "vlm": [row._asdict() for row in published.VLM],
        },
    }
    return json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(report: Report, folder: Path) -> list[Path]:
    """Write scores.json and scores.md into `folder`, each whole or not at all; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in (("scores.json", as_json(report)), ("scores.md", markdown(report))):
        partial = folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, folder / name)
        paths.append(folder / name)
    return paths


def _by_meta(report: Report, every_published_row: bool) -> Table:
    sets = set_scores(report.retrieval)
    means, counts = average(sets), coverage(sets)
    chances = average(SetScore(score.meta, score.split, score.chance) for score in report.retrieval)
    ours = [
        ("this run", *(percent(means[name]) for name in AVERAGES)),
        ("  guessing", *(percent(chances[name]) for name in AVERAGES)),
        ("  sets averaged", *(str(counts[name]) for name in AVERAGES)),
    ]
    theirs = [("[published] sets averaged", *(str(published.MMEB_SET_COUNTS[name]) for name in AVERAGES))]
    theirs += [
        (f"[published] {row.model} {row.size}", *("-" if value is None else f"{value:.1f}" for value in row[3:]))
        for row in published.MMEB
        if every_published_row or row.model in _CONSOLE_MODELS
    ]
    notes = (f"[published] = {published.LABEL}: {published.CITATION}",)
    if counts != published.MMEB_SET_COUNTS:
        notes += ("This run did not score all of MMEB's 36 sets: its averages do not compare with the published rows.",)
    title = "Retrieval, Precision@1 in percent: mean over data sets"
    return Table(title, ("model", *AVERAGES), ours + theirs, notes)


def _by_set(scores: Sequence[RetrievalScore]) -> Table:
    rows = [
        (
            score.name,
            score.meta or "-",
            score.split or "-",
            str(score.queries),
            f"{score.candidates_mean:.1f}",
            percent(score.p_at_1),
            percent(score.p_at_1_strict),
            percent(score.chance),
        )
        for score in scores
    ]
    head = ("set", "meta", "split", "queries", "candidates", "P@1", "strict", "chance")
    notes = ("strict: a tie with the true candidate counts as wrong. chance: the mean of 1 / candidates.",)
    return Table("Retrieval by set, Precision@1 in percent", head, rows, notes)


def _answers(scores: Sequence[AnswerScore]) -> Table:
    pairs: dict[tuple[str, str], dict[str, AnswerScore]] = {}
    for score in scores:
        pairs.setdefault((score.name, score.kind), {})[score.mode] = score
    rows = [(name, kind, *_pair_cells(pair)) for (name, kind), pair in pairs.items()]
    head = ("benchmark", "scored by", "rows", "native", "comp.", "change", "chance", "cache", "unread")
    notes = (
        "comp.: compressed generation. cache: share of the KV cache that it keeps.",
        "unread: answers that only a judge model could read, native / compressed; they count as wrong.",
        *comprehension.denominators(scores),
    )
    return Table("Answers, score in percent", head, rows, notes)


def _pair_cells(pair: dict[str, AnswerScore]) -> tuple[str, ...]:
    """Cells after the name and kind; where the two modes saw different rows, both counts are shown."""
    native, compressed = pair.get("native"), pair.get("compressed")
    present = [score for score in (native, compressed) if score]
    change = comprehension.difference(compressed.score if compressed else None, native.score if native else None)
    return (
        "/".join(dict.fromkeys(str(score.rows) for score in present)),
        percent(native.score if native else None),
        percent(compressed.score if compressed else None),
        change,
        percent(present[0].chance),
        percent(compressed.cache_share if compressed else None, 2),
        " / ".join(percent(score.unresolved_share) for score in present),
    )


def _safe(text: object) -> str:
    """Text for a terminal: on one line, without control, direction or other unprintable characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def plain(table: Table) -> str:
    """The table as text within WIDTH columns."""
    rows = [tuple(map(_safe, row)) for row in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, 8))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(row, widths) for row in rows]
    notes = [line for note in table.notes for line in textwrap.wrap(_safe(note), WIDTH)]
    return "\n".join([_safe(table.title), rule, lines[0], rule, *lines[1:], rule, *notes])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
    others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join([first.ljust(widths[0]), *others]).rstrip()


def _escape(text: object) -> str:
    """Text for Markdown: HTML-escaped, and every character that Markdown could act on behind a backslash."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", html.escape(_safe(text), quote=False))


def piped(table: Table) -> list[str]:
    """The table as lines of Markdown, every cell escaped."""
    rule = "|" + "|".join([" --- ", *([" ---: "] * (len(table.head) - 1))]) + "|"
    head, *rows = ("| " + " | ".join(map(_escape, row)) + " |" for row in (table.head, *table.rows))
    return [head, rule, *rows]


def footnotes(table: Table) -> list[str]:
    """The table's notes as lines of Markdown, escaped, each a paragraph of its own."""
    return [f"\n{_escape(note)}" for note in table.notes]
