"""The page of one evaluation: `write_report` gathers what it shows and fills `templates/report.html`.

The page allows itself nothing: its content security policy permits its own style sheet (by digest) and pictures inside it, no script, no
address of any kind but links that a person follows to the prediction files beside it.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data_prep.samples import ImageRef
from data_prep.shards import atomic_file
from data_prep.sources.benchmarks import Benchmark
from data_prep.sources.mmeb_eval import EvalSet
from pipeline.evaluate import published
from pipeline.evaluate.comprehension import has_columns
from pipeline.evaluate.metrics import AVERAGES, META_TASKS, SetScore, average, coverage
from pipeline.evaluate.page import tables
from pipeline.evaluate.page.charts import Bar, bars, curves
from pipeline.evaluate.page.clean import clean, link
from pipeline.evaluate.page.gallery import answer_gallery, retrieval_gallery
from pipeline.evaluate.page.pictures import BUDGET, Picture, Pictures
from pipeline.evaluate.percent import percent
from pipeline.evaluate.report import Report, counted, set_scores
from pipeline.evaluate.report import tables as text_tables

TEMPLATES = Path(__file__).parent / "templates"
MAP_SIDE = 900
"""Longer side of an attention map, in pixels."""
MAPS = 6


def write_report(
    report: Report,
    folder: Path,
    sets: Sequence[EvalSet] = (),
    benchmarks: Sequence[Benchmark] = (),
    studies: Sequence[Path] = (),
    budget: int = BUDGET,
) -> Path:
    """Write `folder`/report.html from the scores, the predictions and the attention maps in `folder`, whole or not at all.

    Args:
        sets, benchmarks: what was scored, for its pictures; without them the galleries hold text and placeholders.
        studies: study.json files whose scores by number of chorus tokens are shown too.
        budget: bytes of pictures, at most.

    Raises:
        DataError: predictions are missing or of another version.
    """
    pictures = Pictures(budget)
    shown = {
        "report": report,
        "tiles": _tiles(report),
        "tables": _tables(report),
        "charts": _charts(report),
        "maps": _maps(folder / "plots" / "attention", pictures),
        "retrieved_by": retrieval_gallery(report, folder, sets, pictures),
        "answered_by": answer_gallery(report, folder, benchmarks, pictures),
        "files": _files(folder),
        "citation": published.CITATION,
    }
    shown |= _by_chorus(report, folder, studies)
    return write_page("report.html", folder / "report.html", shown)


def write_page(template: str, path: Path, shown: dict[str, Any]) -> Path:
    """Fill a template; `style` and `policy` are every page's own."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    text = _environment().get_template(template).render(shown | {"style": Markup(style), "policy": policy, "mark": tables.MARK})
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return path


@cache
def _environment() -> Environment:
    """Templates that escape all they print, after `clean`, and fail on a name that does not exist."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=clean, trim_blocks=True, lstrip_blocks=True
    )


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """(what, figure, remark) of the headline."""
    out = []
    if report.retrieval:
        sets = set_scores(report.retrieval)
        means, counts = average(sets), coverage(sets)
        guess = average(SetScore(row.meta, row.split, row.chance) for row in report.retrieval)
        out += [
            (f"P@1 {name}", percent(means[name]), f"{counts[name]} set{'s' * (counts[name] > 1)}, guessing {percent(guess[name])}")
            for name in ("all", *META_TASKS)
            if counts[name]
        ]
    for mode in ("native", "compressed"):
        if scores := [row.score for row in counted(report.answers) if row.mode == mode]:
            out.append((f"answers, {mode}", percent(sum(scores) / len(scores)), f"mean of {len(scores)} benchmarks"))
    return out


def _tables(report: Report) -> dict[str, Any]:
    """The tables by place on the page."""
    names = ["meta", "sets"] * bool(report.retrieval) + ["answers"] * bool(report.answers)
    names += ["six"] * has_columns(report.answers) + ["base"] * (report.base is not None)
    out = {"base": None} | dict(zip(names, text_tables(report, every_published_row=True), strict=True))
    return out | ({"vlm": tables.vlm_table(report)} if report.answers else {})


def _charts(report: Report) -> dict[str, Markup]:
    out = {}
    if report.retrieval:
        means = average(set_scores(report.retrieval))
        guess = average(SetScore(row.meta, row.split, row.chance) for row in report.retrieval)
        groups = [(name, [Bar("retrieval", means[name], guess[name])]) for name in AVERAGES if means[name] is not None]
        out["meta"] = bars(groups, "Precision@1 by meta-task and split")
        ordered = sorted(report.retrieval, key=lambda row: META_TASKS.index(row.meta) if row.meta else len(META_TASKS))
        out["sets"] = bars([(row.name, [Bar("retrieval", row.p_at_1, row.chance)]) for row in ordered], "Precision@1 by set")
    groups = {}
    for row in (row for row in report.answers if row.score is not None):
        groups.setdefault((row.name, row.kind), []).append(Bar(row.mode, row.score, row.chance))
    if groups:
        out["answers"] = bars([(name, group) for (name, _), group in groups.items()], "Answers, native and compressed")
    return out


def _by_chorus(report: Report, folder: Path, studies: Sequence[Path]) -> dict[str, Any]:
    own = tables.chorus_point(report, "this evaluation")
    points = ([own] if own else []) + tables.other_sizes(report, folder)
    points += [point for path in studies for point in tables.study_points(path)]
    lines = tables.chorus_curves(points)
    drawn = curves(lines, "Scores by number of chorus tokens") if lines else None
    return {"by_chorus": tables.chorus_table(points) if points else None, "chorus_curves": drawn}


def _maps(folder: Path, pictures: Pictures) -> list[tuple[Picture, dict[str, Any]]]:
    """Attention maps with their figures, in file order."""
    out = []
    for path in sorted(folder.glob("*.png"))[:MAPS] if folder.is_dir() else []:
        figures = path.with_suffix(".json")
        known = json.loads(figures.read_bytes()) if figures.is_file() else {}
        out.append((pictures.show(path.name, ImageRef(path.name, folder), MAP_SIDE), known))
    return out


def _files(folder: Path) -> list[tuple[str, str]]:
    """(name, address) of every prediction file."""
    return [(path.name, link("predictions", path.name)) for path in sorted((folder / "predictions").glob("*.jsonl"))]
