"""Charts as inline SVG, drawn for the width of a phone and scaled up from there.

Invariants: colours and line weights are classes of the style sheet, so that one drawing serves light and dark; no meaning rests on colour
alone (hatching, marks and dashes repeat it); axes start at 0 and are in percent; all text is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from pipeline.evaluate.page.clean import clean

WIDTH, LABEL, VALUE = 380, 122, 40
"""User units: of the whole, of the labels on the left, of the figures on the right."""
BAR, GAP, AXIS = 15, 9, 20
MARKS = {"P@1": "circle", "native": "square", "compressed": "diamond"}


class Bar(NamedTuple):
    """`series` is a class of the style sheet: retrieval, native or compressed. Shares are fractions."""

    series: str
    value: float
    chance: float | None = None


def bars(groups: Sequence[tuple[str, Sequence[Bar]]], title: str) -> Markup:
    """Horizontal bars under one label per group; a tick marks what guessing scores."""
    out, y = [], 4.0
    for label, group in groups:
        tall = len(group) * BAR
        out.append(_text(LABEL - 7, y + tall / 2 + 4, label, "label", limit=20))
        for bar in group:
            out.append(_bar(bar, y))
            y += BAR
        y += GAP
    return _svg(y + AXIS, title, [_grid(y), *out])


def _bar(bar: Bar, y: float) -> Markup:
    long = _x(bar.value) - LABEL
    parts = [_rect(LABEL, y, long, f"bar {bar.series}")]
    if bar.series == "compressed":
        parts.append(_rect(LABEL, y, long, "hatched"))
    if bar.chance is not None:
        at = _x(bar.chance)
        parts.append(Markup('<path class="chance" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(at, y - 1, y + BAR))
    end = LABEL + long
    if bar.chance is not None and end < _x(bar.chance) < end + VALUE:  # the tick would cross the figure
        end = _x(bar.chance)
    parts.append(_text(end + 4, y + BAR / 2 + 3, f"{100 * bar.value:.1f}", "value", limit=8))
    return Markup("").join(parts)


def _rect(x: float, y: float, width: float, style: str) -> Markup:
    return Markup('<rect class="{0}" x="{1:.1f}" y="{2:.1f}" width="{3:.1f}" height="{4:.1f}"/>').format(style, x, y, width, BAR - 2)


def _x(share: float) -> float:
    return LABEL + share * (WIDTH - LABEL - VALUE)


def _grid(bottom: float) -> Markup:
    out = []
    for percent in (0, 25, 50, 75, 100):
        x = _x(percent / 100)
        out.append(Markup('<path class="grid" d="M{0:.1f} 0V{1:.1f}"/>').format(x, bottom))
        out.append(_text(x, bottom + 13, f"{percent}", "tick"))
    return Markup("").join(out)


class Curve(NamedTuple):
    """Score (a fraction) by number of chorus tokens. `series`: P@1, native or compressed; `published`: drawn thin and dotted."""

    series: str
    points: Mapping[int, float]
    published: bool = False


def curves(shown: Sequence[Curve], title: str) -> Markup:
    """Lines over the number of chorus tokens, on a scale of doublings."""
    left, right, top, bottom = 30.0, WIDTH - 12.0, 8.0, 212.0
    sizes = sorted({k for curve in shown for k in curve.points})
    first, span = math.log2(sizes[0]), max(1.0, math.log2(sizes[-1] / sizes[0]))

    def place(k: int, share: float) -> tuple[float, float]:
        return left + (math.log2(k) - first) / span * (right - left), bottom - share * (bottom - top)

    out = []
    for percent in (0, 25, 50, 75, 100):
        y = place(sizes[0], percent / 100)[1]
        out.append(Markup('<path class="grid" d="M{0:.1f} {1:.1f}H{2:.1f}"/>').format(left, y, right))
        out.append(_text(left - 5, y + 4, f"{percent}", "label"))
    out += [_text(place(k, 0)[0], bottom + 15, str(k), "tick") for k in sizes]
    out.append(_text((left + right) / 2, bottom + 31, "chorus tokens", "tick"))
    for curve in shown:
        at = [place(k, share) for k, share in sorted(curve.points.items())]
        kind = f"{curve.series.replace('@', '')} {'published' if curve.published else 'ours'}"
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        out.append(Markup('<path class="curve {0}" d="{1}"/>').format(kind, path))
        out += [mark(curve.series, x, y, kind) for x, y in at]
    return _svg(bottom + 40, title, out)


def mark(series: str, x: float, y: float, style: str) -> Markup:
    """A series' own shape, so that it is known without its colour."""
    shape = MARKS[series]
    if shape == "circle":
        return Markup('<circle class="mark {2}" cx="{0:.1f}" cy="{1:.1f}" r="4"/>').format(x, y, style)
    turn = Markup(' transform="rotate(45 {0:.1f} {1:.1f})"').format(x, y) if shape == "diamond" else Markup("")
    return Markup('<rect class="mark {2}" x="{0:.1f}" y="{1:.1f}" width="7" height="7"{3}/>').format(x - 3.5, y - 3.5, style, turn)


class Gap(NamedTuple):
    """A difference with its interval, as fractions, and what it says: better, worse or within noise."""

    label: str
    low: float
    value: float
    high: float
    verdict: str


def gaps(rows: Sequence[Gap], title: str) -> Markup:
    """Differences around a zero line: filled marks where they are beyond noise, hollow ones within."""
    reach = max(0.01, *(abs(end) for row in rows for end in (row.low, row.high)))
    left, right = LABEL + 36.0, WIDTH - 18.0
    middle, half = (left + right) / 2, (right - left) / 2
    bottom = 6.0 + 22 * len(rows)

    def at(share: float) -> float:
        return middle + half * share / reach

    out = []
    for share in (-reach, -reach / 2, 0.0, reach / 2, reach):
        line = Markup('<path class="{2}" d="M{0:.1f} 0V{1:.1f}"/>').format(at(share), bottom, "grid" if share else "zero")
        out += [line, _text(at(share), bottom + 13, f"{100 * share:+.1f}" if share else "0", "tick")]
    for number, row in enumerate(rows):
        y, style = 17.0 + 22 * number, row.verdict.replace(" ", "-")
        out.append(_text(left - 8, y + 4, row.label, "label small", limit=26))
        out.append(Markup('<path class="span {3}" d="M{0:.1f} {1:.1f}H{2:.1f}"/>').format(at(row.low), y, at(row.high), style))
        out.append(Markup('<circle class="mark {2}" cx="{0:.1f}" cy="{1:.1f}" r="4.5"/>').format(at(row.value), y, style))
    return _svg(bottom + AXIS, title, out)


def _text(x: float, y: float, text: str, style: str, limit: int = 60) -> Markup:
    text = clean(text)
    if len(text) <= limit:
        return Markup('<text class="{0}" x="{1:.1f}" y="{2:.1f}">{3}</text>').format(style, x, y, text)
    short = text[: limit - 1] + "…"
    return Markup('<text class="{0}" x="{1:.1f}" y="{2:.1f}">{3}<title>{4}</title></text>').format(style, x, y, short, text)


def _svg(height: float, title: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {0} {1:.0f}" role="img" aria-label="{2}">').format(WIDTH, height, escape(clean(title)))
    return head + Markup("").join(parts) + Markup("</svg>")
