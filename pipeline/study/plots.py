"""A study as pictures: bars of the ablation, lines of score against chorus tokens. Ours in colour, the published ones grey and hatched.

The style is `pipeline.evaluate.plots`': percent axes from 0, no meaning in colour alone, no pyplot.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipeline.evaluate import published
from pipeline.evaluate.plots import CHANCE, chance_key, dress, literal, new_figure, write_value
from pipeline.study.arms import Arm
from pipeline.study.findings import MEASURES, Results

COLOURS = {"p_at_1": "#009E73", "native": "#0072B2", "compressed": "#E69F00"}
PUBLISHED_STYLE = {"color": "#BBBBBB", "hatch": "..", "edgecolor": "black", "lw": 0.6}
LINE_STYLE = {"fixed K": ("#0072B2", "s", "--"), "elastic": ("#D55E00", "o", "-"), "published": ("#7F7F7F", "x", ":")}
PUBLISHED_KEY = f"CREM 2B ({published.LABEL})"
_DPI = 150


def draw(arms: Sequence[Arm], results: Results, folder: Path) -> list[Path]:
    """Draw what there are figures for; returns the PNG files written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    parts = [arm for arm in arms if arm.name in results and arm.name != "elastic" and arm.name != f"k{arm.k}"]
    if parts:
        figures |= {f"ablation_{measure}.png": bars(parts, results, measure) for measure in MEASURES}
    if len({k for points in curves(arms, results, "p_at_1").values() for k in points}) > 1:
        figures["by_chorus.png"] = lines(arms, results)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=_DPI)
    return [folder / name for name in figures]


def bars(arms: Sequence[Arm], results: Results, measure: str) -> Figure:
    """One measure by arm, with its standard error, beside the paper's row where there is one."""
    figure, axes = new_figure(max(6.5, 1.25 * len(arms) + 1.6), 4.8)
    for x, arm in enumerate(arms):
        scores = results[arm.name][arm.k]
        if mean := getattr(scores, measure):
            error = 100 * mean.error
            axes.bar(x - 0.2, 100 * mean.value, width=0.36, yerr=error, capsize=2, color=COLOURS[measure], edgecolor="black", lw=0.6)
            axes.text(x - 0.2, 100 * mean.value + error + 1.2, f"{100 * mean.value:.1f}", ha="center", fontsize=8)
            if (guess := scores.guess_p_at_1 if measure == "p_at_1" else scores.guess_answers) is not None:
                axes.hlines(100 * guess, x - 0.4, x, **CHANCE)
        if (paper := _paper(arm, measure)) is not None:
            axes.bar(x + 0.2, paper, width=0.36, **PUBLISHED_STYLE)
            write_value(axes, x + 0.2, paper / 100)
    axes.set_xticks(range(len(arms)), [literal(_wrapped(arm)) for arm in arms], fontsize=7)
    dress(axes, f"Ablation: {MEASURES[measure]}", "%", len(arms))
    keys = [Patch(facecolor=COLOURS[measure], edgecolor="black", label="this study"), chance_key()]
    keys.append(Patch(facecolor=PUBLISHED_STYLE["color"], hatch=PUBLISHED_STYLE["hatch"], edgecolor="black", label=PUBLISHED_KEY))
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    return figure


def curves(arms: Sequence[Arm], results: Results, measure: str) -> dict[str, dict[int, tuple[float, float]]]:
    """{"fixed K" or "elastic": {k: (percent, its standard error)}}."""
    out: dict[str, dict[int, tuple[float, float]]] = {"fixed K": {}, "elastic": {}}
    for arm in arms:
        label = "elastic" if arm.name == "elastic" else "fixed K" if arm.name in ("full", f"k{arm.k}") else None
        for k, scores in results.get(arm.name, {}).items() if label else ():
            if mean := getattr(scores, measure):
                out[label][k] = (100 * mean.value, 100 * mean.error)
    return {label: dict(sorted(points.items())) for label, points in out.items() if points}


def lines(arms: Sequence[Arm], results: Results) -> Figure:
    """Score against the number of chorus tokens, a panel per measure."""
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(MEASURES))
    for axes, (measure, words) in zip(panels, MEASURES.items(), strict=True):
        _panel(axes, curves(arms, results, measure), measure, words)
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _panel(axes: Axes, ours: dict[str, dict[int, tuple[float, float]]], measure: str, words: str) -> None:
    sizes = sorted({k for points in ours.values() for k in points})
    for label, points in ours.items():
        colour, marker, style = LINE_STYLE[label]
        heights, errors = zip(*points.values(), strict=True)
        axes.errorbar(list(points), heights, yerr=errors, color=colour, marker=marker, ls=style, capsize=2, label=label)
    column = "mmeb" if measure == "p_at_1" else measure
    paper = {row.chorus: getattr(row, column) for row in published.CHORUS if row.chorus in sizes}
    if paper:
        colour, marker, style = LINE_STYLE["published"]
        axes.plot(list(paper), list(paper.values()), color=colour, marker=marker, ls=style, label=PUBLISHED_KEY)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(k) for k in sizes])
    axes.set_ylim(0, 100)
    axes.set_xlabel("chorus tokens")
    axes.set_ylabel("%")
    axes.set_title(words, fontsize=11)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _paper(arm: Arm, measure: str) -> float | None:
    return getattr(arm.published, "mmeb" if measure == "p_at_1" else measure) if arm.published else None


def _wrapped(arm: Arm) -> str:
    return arm.name.replace("_", "\n") + f"\nK = {arm.k}"
