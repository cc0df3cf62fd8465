"""How pictures look: one restrained palette, quiet axes, and saving as PNG or as SVG that follows the page's theme.

Figures are made through matplotlib's objects; nothing here or in the figures touches pyplot's global state.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure

from hoarfrost.io.files import replacing

INK = "#1f2933"
MUTED = "#66727f"
RULE = "#d3dae1"
PAPER = "#fdfefe"
ACCENT = "#1f6fb2"
SECOND = "#d9822b"
THIRD = "#3f9a82"
FOURTH = "#8a63b8"
CYCLE = (ACCENT, SECOND, THIRD, FOURTH, MUTED)

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    ACCENT: "--accent",
    SECOND: "--second",
    THIRD: "--third",
    FOURTH: "--fourth",
}

DENSITY_MAP = ListedColormap(
    np.column_stack([np.tile(to_rgb(ACCENT), (256, 1)), np.linspace(0.0, 1.0, 256)]), name="density"
)
"""From transparent to the accent colour, so that emptiness is the colour of the page."""

_DOTS_PER_INCH = 150
_COMPRESSION = 3  # of PNG; beyond that files hardly shrink, and take three times as long


def new_figure(width: float = 8.0, height: float = 3.6) -> Figure:
    """An empty figure of this size in inches with the layout that leaves room for every label."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def quiet(axes: Axes, *, grid: bool = True) -> Axes:
    """Open axes with thin muted lines and ink labels."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9, width=0.8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    if grid:
        axes.grid(True, color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
    return axes


def legend(axes: Axes) -> None:
    """A legend without a frame where there is most room."""
    axes.legend(loc="best", frameon=False, fontsize=9, labelcolor=INK)


def panel_title(axes: Axes, text: str) -> None:
    """A small heading over one panel."""
    axes.set_title(text, fontsize=10, color=INK, loc="left")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; its layout stays as it is from now on."""
    figure.set(dpi=_DOTS_PER_INCH, facecolor=PAPER)
    # ``Figure.savefig`` would draw everything twice.
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, pil_kwargs={"compress_level": _COMPRESSION})
    # Finding the layout takes as long as drawing, and would be done again for every other format.
    figure.set_layout_engine("none")


def to_svg(figure: Figure, label: str) -> str:
    """A figure as an ``<svg>`` element whose palette follows the CSS variables of the page it stands in.

    Parameters
    ----------
    figure : Figure
    label : str
        What the picture shows, for people who do not see it; unique in the page, as ids are made from it.
    """
    buffer = io.StringIO()
    slug = re.sub(r"\W+", "-", label)
    figure.set(dpi=_DOTS_PER_INCH, facecolor="none")
    with matplotlib.rc_context({"svg.hashsalt": slug}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    # Glyphs and group names repeat in every figure; one page may hold an id only once.
    svg = re.sub(r'(id="|xlink:href="#|url\(#)', rf"\g<1>{slug}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{slug.replace("-", " ")}" ', 1)
