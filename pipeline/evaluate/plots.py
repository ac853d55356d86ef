"""The report's numbers as pictures: retrieval by meta-task, retrieval by set, answers native against compressed.

Invariants: every bar has its guessing level marked where there is one, axes start at 0 and are in percent; colours are
from Okabe and Ito's palette for colour-blind readers, and no meaning rests on colour alone. Figures are drawn without
pyplot, hence without global state or a display.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from pipeline.evaluate.metrics import AVERAGES, META_TASKS, SetScore, average, coverage
from pipeline.evaluate.report import AnswerScore, Report, RetrievalScore, set_scores

META_COLOURS = {"CLS": "#0072B2", "VQA": "#E69F00", "RET": "#009E73", "GD": "#CC79A7", None: "#7F7F7F"}
MODE_STYLE = {"native": ("#0072B2", ""), "compressed": ("#E69F00", "//")}
OVERALL_COLOUR = "#56B4E9"
CHANCE = {
    "color": "#000000",
    "lw": 2.5,
    "zorder": 5,
    "clip_on": False,
    "path_effects": [withStroke(linewidth=4.5, foreground="white")],
}
_DPI = 150


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw every picture the report has numbers for; returns the PNG files written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    if report.retrieval:
        figures["retrieval_by_meta.png"] = by_meta(report.retrieval, report.title)
        figures["retrieval_by_set.png"] = by_set(report.retrieval, report.title)
    if scored := [answer for answer in report.answers if answer.score is not None]:
        figures["answers.png"] = by_mode(scored, report.title)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=_DPI)
    return [folder / name for name in figures]


def by_meta(scores: Sequence[RetrievalScore], title: str) -> Figure:
    """Bars of Precision@1 by meta-task, split and overall; averages without a set are left out."""
    sets = set_scores(scores)
    means, counts = average(sets), coverage(sets)
    chances = average(SetScore(score.meta, score.split, score.chance) for score in scores)
    names = [name for name in AVERAGES if counts[name]]
    figure, axes = new_figure(max(5.5, 1.15 * len(names) + 1.6), 4.2)
    for x, name in enumerate(names):
        colour = META_COLOURS.get(name, OVERALL_COLOUR)
        axes.bar(x, 100 * means[name], width=0.7, color=colour, edgecolor="black", lw=0.6)
        write_value(axes, x, means[name])
        axes.hlines(100 * chances[name], x - 0.42, x + 0.42, **CHANCE)
    labels = [f"{name}\n{counts[name]} set{'s' * (counts[name] > 1)}\nguessing {100 * chances[name]:.1f}" for name in names]
    axes.set_xticks(range(len(names)), labels)
    dress(axes, f"Retrieval: {title}", "Precision@1, mean over sets (%)", len(names))
    figure.legend(handles=[chance_key()], loc="outside lower center", frameon=False)
    return figure


def by_set(scores: Sequence[RetrievalScore], title: str) -> Figure:
    """Horizontal bars of Precision@1 by set, grouped by meta-task; the label names the split."""
    order = {meta: number for number, meta in enumerate(META_TASKS)}
    scores = sorted(scores, key=lambda score: order.get(score.meta, len(order)))
    figure, axes = new_figure(8.0, 0.27 * len(scores) + 1.9)
    for y, score in enumerate(scores):
        axes.barh(y, 100 * score.p_at_1, height=0.72, color=META_COLOURS[score.meta], edgecolor="black", lw=0.5)
        axes.text(100 * score.p_at_1 + 1, y, f"{100 * score.p_at_1:.1f}", va="center", fontsize=8)
        axes.vlines(100 * score.chance, y - 0.45, y + 0.45, **CHANCE)
    axes.set_yticks(range(len(scores)), [_set_label(score) for score in scores], fontsize=8)
    axes.set_xlim(0, 108)
    axes.set_ylim(len(scores) - 0.3, -0.7)
    axes.set_xlabel("Precision@1 (%)")
    axes.set_title(literal(f"Retrieval by set: {title}"), fontsize=11)
    axes.grid(axis="x", color="#DDDDDD", lw=0.7)
    metas = list(dict.fromkeys(score.meta for score in scores))
    keys = [Patch(facecolor=META_COLOURS[meta], edgecolor="black", label=meta or "other") for meta in metas]
    figure.legend(handles=[*keys, chance_key()], loc="outside lower center", ncols=len(keys) + 1, frameon=False)
    return figure


def by_mode(scores: Sequence[AnswerScore], title: str) -> Figure:
    """Bars of each benchmark's score, native beside compressed, with the share of the KV cache kept under its name."""
    groups: dict[tuple[str, str], dict[str, AnswerScore]] = {}
    for score in scores:
        groups.setdefault((score.name, score.kind), {})[score.mode] = score
    figure, axes = new_figure(max(5.5, 1.55 * len(groups) + 1.6), 4.6)
    for x, group in enumerate(groups.values()):
        for offset, mode in ((-0.2, "native"), (0.2, "compressed")):
            if mode in group:
                _mode_bar(axes, x + offset, group[mode])
    axes.set_xticks(range(len(groups)), [_group_label(*key, group) for key, group in groups.items()], fontsize=8)
    dress(axes, f"Answers: {title}", "score (%)", len(groups))
    keys = [Patch(facecolor=c, hatch=hatch, edgecolor="black", label=mode) for mode, (c, hatch) in MODE_STYLE.items()]
    figure.legend(handles=[*keys, chance_key()], loc="outside lower center", ncols=3, frameon=False)
    return figure


def _mode_bar(axes: Axes, x: float, score: AnswerScore) -> None:
    colour, hatch = MODE_STYLE[score.mode]
    axes.bar(x, 100 * score.score, width=0.36, color=colour, hatch=hatch, edgecolor="black", lw=0.6)
    write_value(axes, x, score.score)
    if score.chance is not None:
        axes.hlines(100 * score.chance, x - 0.19, x + 0.19, **CHANCE)


def _group_label(name: str, kind: str, group: dict[str, AnswerScore]) -> str:
    compressed = group.get("compressed")
    known = compressed is not None and compressed.cache_share is not None
    kept = f"\ncache kept {100 * compressed.cache_share:.3g}%" if known else ""
    return literal(f"{_short(name, 20)}\n{_short(kind, 26)}{kept}")


def _set_label(score: RetrievalScore) -> str:
    return literal(f"{_short(score.name, 36)}  {score.split or ''}".rstrip())


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def literal(text: str) -> str:
    """Text as it is: matplotlib would read what stands between two dollars as mathematics."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).replace("$", r"\$")


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture of width x height inches, without display or global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def dress(axes: Axes, title: str, ylabel: str, groups: int) -> None:
    """Percent axis from 0, title, grid, and room for `groups` places side by side."""
    spare = max(0, 4 - groups) / 2
    axes.set_xlim(-0.6 - spare, groups - 0.4 + spare)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(ylabel)
    axes.set_title(literal(title), fontsize=11)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)


def write_value(axes: Axes, x: float, share: float) -> None:
    """Write a share in percent over its bar."""
    axes.text(x, 100 * share + 1.2, f"{100 * share:.1f}", ha="center", fontsize=8)


def chance_key() -> Line2D:
    """What the mark of CHANCE means, for a legend."""
    return Line2D([], [], color=CHANCE["color"], lw=CHANCE["lw"], label="guessing")
