"""What the figures share: size, fonts, colours, markers, the line that says what the numbers are, files."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.progress import QUALITY_WORDS

Size = Literal["wide", "narrow"]
"""For a page or a desktop, and for a phone; text has the same size on both."""

WIDTH_IN: dict[Size, float] = {"wide": 8.0, "narrow": 3.75}

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7B2D8E", "#7A5C00")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow (too pale on white),
and two dark tones of our own."""
OTHERS = "#999999"
LOG_FROM = 4.0
MARKERS = "osD^vP*X"

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,  # text stays text, as journals ask
    "svg.hashsalt": "report",  # the same figure has the same bytes
    "savefig.dpi": 200,
}

Draw = Callable[[Size], Figure]


def new_figure(size: Size, height_in: float) -> Figure:
    """An empty figure."""
    return Figure(figsize=(WIDTH_IN[size], height_in), layout="constrained")


def colour(place: int) -> str:
    """The colour of the variant at this place."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """The marker of the variant at this place: with the colour it tells 72 apart."""
    return MARKERS[place % len(MARKERS)]


def wrapped(text: str, size: Size) -> str:
    """Text that is no wider than a figure."""
    return "\n".join(textwrap.wrap(text, 120 if size == "wide" else 62))


def say_quality(figure: Figure, size: Size, quality: str | None, more: str = "") -> None:
    """Write under a figure what its numbers are; a quality of several names is said word by word."""
    words = [QUALITY_WORDS[name] for name in (quality or "").split(" and ") if name in QUALITY_WORDS]
    said = "Joules " + ", and ".join(words) + "." if words else ""
    text = " ".join(part for part in (said, more) if part)
    figure.supxlabel(wrapped(text, size), fontsize=7, color="#444444", x=0.01, ha="left")


def in_lines(label: str, letters: int = 34) -> str:
    """A label in lines short enough for a legend."""
    return "\n".join(textwrap.wrap(label, letters)) or label


def legend_in(labels: Iterable[str]) -> float:
    """How high a legend of one column is, in inches."""
    return sum(0.19 + 0.135 * in_lines(label).count("\n") for label in labels)


def legend_beside(figure: Figure, size: Size, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """The legend: right of a wide figure, above a narrow one."""
    if not handles:
        return
    shown = [in_lines(label) for label in labels]
    if size == "wide":
        figure.legend(handles, shown, loc="outside right upper", frameon=False)
        return
    longest = max(map(len, labels))
    columns = 3 if longest <= 9 else 2 if longest <= 20 else 1
    figure.legend(handles, shown, loc="outside upper left", frameon=False, ncols=columns, columnspacing=1.0)


def label_points(
    axes: Axes, places: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]
) -> None:
    """Write a text beside each point where it covers no point and no other text; far away with a line."""
    figure: Any = axes.figure
    figure.draw_without_rendering()
    per_pt = figure.dpi / 72
    at = [tuple(axes.transData.transform(place)) for place in places]
    taken = [(x - 4 * per_pt, y - 4 * per_pt, x + 4 * per_pt, y + 4 * per_pt) for x, y in at]
    bounds = axes.get_window_extent()
    for (x, y), place, text, tone in zip(at, places, texts, colours, strict=True):
        wide, high = (4.8 * len(text) + 1.5) * per_pt, 8.5 * per_pt
        best, fewest = (0.0, 0.0), None
        for radius, (right, up) in _AROUND:
            middle = (x + right * radius * per_pt, y + up * radius * per_pt)
            box = (middle[0] - wide / 2, middle[1] - high / 2, middle[0] + wide / 2, middle[1] + high / 2)
            inside = (
                bounds.x0 <= box[0] and box[2] <= bounds.x1 and bounds.y0 <= box[1] and box[3] <= bounds.y1
            )
            covered = sum(_overlap(box, other) for other in taken) + (0 if inside else 1000)
            if fewest is None or covered < fewest:
                best, fewest = (right * radius, up * radius), covered
                chosen = box
            if covered == 0:
                break
        taken.append(chosen)
        far = math.hypot(*best) > 16
        axes.annotate(
            text,
            place,
            xytext=best,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=tone,
            zorder=4 if far else 5,  # a line to a text further away goes below the nearer ones
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
            arrowprops={"arrowstyle": "-", "color": tone, "linewidth": 0.5} if far else None,
        )


_AROUND = [
    (radius, (math.cos(math.pi * part / 8), math.sin(math.pi * part / 8)))
    for radius in (11.0, 15.0, 20.0, 27.0, 35.0, 44.0, 54.0, 66.0, 80.0)
    for part in (2, 14, 6, 10, 0, 8, 4, 12, 1, 15, 3, 13, 5, 11, 7, 9)
]
"""Where a label may stand: right and above of its point first, then around it, then further away."""


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def drawn(draw: Draw, size: Size) -> Figure:
    """A figure in the common style."""
    with matplotlib.rc_context(STYLE):
        return draw(size)


def save(draw: Draw, stem: Path) -> list[Path]:
    """Write the wide figure as PNG and PDF; returns both paths."""
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".pdf")]
    with matplotlib.rc_context(STYLE):
        figure = draw("wide")
        for path in paths:
            figure.savefig(path, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return paths


def as_data_uri(draw: Draw, size: Size) -> str:
    """The figure as an SVG that a page holds in itself."""
    text = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        draw(size).savefig(text, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue()).decode()


def spread_bars(row: Any, name: str) -> list[list[float]] | None:
    """Error bars of a row of `statistics.medians`; None where there is no interval to show."""
    low, high, middle = row[f"{name}_low"], row[f"{name}_high"], row[name]
    if not (low <= middle <= high):  # NaN compares false
        return None
    return [[middle - low], [high - middle]]


def scale_axis(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> None:
    """A logarithmic axis where values differ fourfold; a linear one never shows what is below 0."""
    known = [value for value in values if value > 0]
    if known and max(known) > LOG_FROM * min(known):
        axes.set(**{f"{which}scale": "log"})
        axis = axes.xaxis if which == "x" else axes.yaxis
        few_decades = max(known) < 100 * min(known)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
        return
    get, put = (axes.get_xlim, axes.set_xlim) if which == "x" else (axes.get_ylim, axes.set_ylim)
    low, high = get()
    put(max(0.0, low), high)


def joined(texts: Iterable[str | None]) -> str | None:
    """Different qualities as one text."""
    found = dict.fromkeys(text for text in texts if text)
    return " and ".join(found) or None
