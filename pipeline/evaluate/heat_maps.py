"""One picture of where K tokens look: the image, and beside it one heat map per token over the greyed image.

All maps of a figure share one colour scale, from nothing to the highest value of any of them; it is stated in multiples of even
attention, so that 1 means the same for every image size. Maps are drawn as the squares they are: an image token is not smoothed into
its neighbours.

Shapes: K tokens, Y x X the image's token grid.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipeline.evaluate.plots import literal

COLOURS = "viridis"
"""Even steps to the eye, also without colour vision and in grey."""
VEIL = 0.75
"""How much of the pale image a heat map covers."""
PANEL, WIDTH = 1.7, 5.6
"""Inches: width of a heat map, and of a figure, at least."""
GAP, LABEL, HEAD, FOOT = 0.15, 0.42, 0.55, 0.75
"""Inches: between panels, above a panel for its label, above all panels for the title, below them for the colour scale."""


def heat_maps(image: Image.Image, maps_KYX: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """The image, then one panel per token.

    Args:
        image: RGB, as the model sees it.
        maps_KYX: shares of the image's tokens; each map sums to one, or is zero where nothing falls on the image.
        labels: one per token, of at most two lines.
        title: of the whole figure, of at most two lines.
    """
    relative_KYX = maps_KYX * maps_KYX[0].size
    top = max(float(relative_KYX.max()), 1.0)
    figure, first, panels, scale = _sheet(len(maps_KYX), image.height / image.width)
    _panel(first, image, "image")
    pale = Image.blend(image.convert("L"), Image.new("L", image.size, 255), 0.5).convert("RGB")
    extent = (-0.5, image.width - 0.5, image.height - 0.5, -0.5)
    for axes, map_YX, label in zip(panels, relative_KYX, labels, strict=True):
        _panel(axes, pale, label)
        shown = axes.imshow(map_YX, COLOURS, vmin=0, vmax=top, alpha=VEIL, interpolation="nearest", extent=extent)
    figure.text(GAP / figure.get_figwidth(), 1 - 0.1 / figure.get_figheight(), literal(title), fontsize=9, va="top")
    figure.colorbar(shown, cax=scale, orientation="horizontal")
    scale.set_xlabel(f"times even attention over the image; one scale for all, 0 to {top:.3g}", fontsize=8)
    scale.tick_params(labelsize=8)
    return figure


def _sheet(count: int, ratio: float) -> tuple[Figure, Axes, list[Axes], Axes]:
    """A figure with axes for the image, for `count` heat maps in a square, and for the colour scale; `ratio` is height / width.

    Laid out by hand: the constrained layout of the other plots takes seconds with many panels.
    """
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    lead = max(1, across // 2)  # columns that the image itself takes
    columns = lead + across
    wide = max(PANEL, (WIDTH - GAP) / columns - GAP)
    tall = wide * min(max(ratio, 0.2), 2.5)  # the strip of an image still gets a figure that fits a screen
    width, height = GAP + columns * (wide + GAP), HEAD + down * (LABEL + tall + GAP) + FOOT
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def axes(column: int, row: int, right: int, bottom: int) -> Axes:
        """Axes from this column and row to before those, label not included."""
        x, y = GAP + column * (wide + GAP), FOOT + GAP + (down - bottom) * (LABEL + tall + GAP)
        size = (right - column) * (wide + GAP) - GAP, (bottom - row) * (LABEL + tall + GAP) - GAP - LABEL
        return figure.add_axes((x / width, y / height, size[0] / width, size[1] / height), anchor="N")

    first = axes(0, 0, lead, down)
    panels = [axes(lead + x, y, lead + x + 1, y + 1) for y, x in (divmod(i, across) for i in range(count))]
    scale = figure.add_axes((2 * GAP / width, (FOOT - 0.2) / height, 1 - 4 * GAP / width, 0.12 / height))
    return figure, first, panels, scale


def _panel(axes: Axes, image: Image.Image, label: str) -> None:
    axes.imshow(np.asarray(image))
    axes.set_title(literal(label), fontsize=8)
    axes.set_axis_off()
