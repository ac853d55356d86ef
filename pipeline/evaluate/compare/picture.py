"""Differences from the first checkpoint with their intervals, a row per set: what crosses zero is seen at once."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluate.compare.comparison import Comparison
from pipeline.evaluate.compare.tables import title
from pipeline.evaluate.plots import literal, new_figure

STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"))
"""Okabe and Ito's colours, each with a shape of its own; they come again after six checkpoints."""
_DPI = 150


def differences(comparison: Comparison) -> Figure:
    """A filled mark where the difference is beyond noise, an open one where it is within."""
    lines, others = comparison.lines, len(comparison.labels) - 1
    figure, axes = new_figure(8.0, 0.3 * len(lines) * max(1, others * 0.6) + 1.8)
    for y, line in enumerate(lines):
        for number, test in enumerate(line.tests):
            if test is None:
                continue
            colour, marker = STYLES[number % len(STYLES)]
            at = y + 0.7 * ((number + 0.5) / others - 0.5)
            gap = test.difference
            axes.plot([100 * gap.low, 100 * gap.high], [at, at], color=colour, lw=1.6)
            filled = "white" if test.verdict == "within noise" else colour
            axes.plot([100 * gap.value], [at], marker=marker, ms=6, color=colour, markerfacecolor=filled)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(lines)), [literal(title(line)[:44]) for line in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel("difference in percentage points, 95 % interval; filled: beyond noise after correction")
    axes.set_title(literal(f"Against {comparison.labels[0]}"), fontsize=11)
    axes.grid(axis="x", color="#DDDDDD", lw=0.7)
    keys = [
        Line2D([], [], color=STYLES[i % len(STYLES)][0], marker=STYLES[i % len(STYLES)][1], label=literal(label))
        for i, label in enumerate(comparison.labels[1:])
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(3, others), frameon=False)
    return figure


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """differences.png and differences.svg."""
    figure = differences(comparison)
    paths = [folder / "differences.png", folder / "differences.svg"]
    for path in paths:
        figure.savefig(path, dpi=_DPI)
    return paths
