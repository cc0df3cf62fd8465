"""Pictures of how a run went: optics and noise of the data, scores and agreement of the starts, time spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from hoarfrost.analysis.verdict import ALIKE
from hoarfrost.runs.theme import ACCENT, CYCLE, INK, MUTED, legend, new_figure, quiet
from hoarfrost.types import Volume


def defocus_histogram(defocus: Float[Tensor, "n"], group: Int[Tensor, "n"] | None = None) -> Figure:
    """Mean defocus of the particles (given in Å, shown in µm), stacked by optics group where there are few groups."""
    micrometres = defocus.detach().double().cpu().numpy() * 1e-4
    groups = np.zeros(len(micrometres), dtype=int) if group is None else group.cpu().numpy()
    names = np.unique(groups)
    figure = new_figure(8.0, 3.0)
    axes = quiet(figure.subplots())
    axes.grid(False, axis="x")
    low, high = float(micrometres.min()), float(micrometres.max())
    if high - low < 0.02:
        low, high = low - 0.05, high + 0.05
    bins = np.linspace(low, high, int(np.clip(np.sqrt(len(micrometres)), 12, 60)) + 1).tolist()
    if 1 < len(names) <= len(CYCLE):
        # Room for the legend over the bars.
        axes.margins(y=0.25)
        parts = [micrometres[groups == name] for name in names]
        labels = [f"optics group {name + 1}" for name in names]
        axes.hist(parts, bins=bins, stacked=True, color=CYCLE[: len(names)], rwidth=0.92, label=labels)
        legend(axes)
    else:
        axes.hist(micrometres, bins=bins, color=ACCENT, alpha=0.85, rwidth=0.92)
    axes.set(xlabel="defocus (µm)", ylabel="particles")
    return figure


def noise_spectra(noise: Float[Tensor, "groups shells"], box: int, pixel_size: float) -> Figure:
    """Noise power per Fourier coefficient against frequency, one line an optics group; shell 0 is left out."""
    power = noise.detach().double().cpu().numpy()[:, 1:]
    frequency = np.arange(1, power.shape[1] + 1) / (box * pixel_size)
    figure = new_figure(8.0, 3.2)
    axes = quiet(figure.subplots())
    for index, curve in enumerate(power):
        few = len(power) <= len(CYCLE)
        axes.plot(
            frequency,
            curve,
            color=CYCLE[index] if few else ACCENT,
            alpha=1.0 if few else 0.35,
            linewidth=1.8,
            label=f"optics group {index + 1}",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.tick_params(which="minor", labelsize=8, colors=MUTED, labelcolor=MUTED)
    # A flat spectrum should look flat: rounding errors must not fill the frame.
    low, high = float(power.min()), float(power.max())
    axes.set_ylim(min(low / 1.3, 0.3 * high), max(high * 1.3, 3 * low))
    axes.set(xlim=(0, frequency[-1]), xlabel="spatial frequency (1/Å)", ylabel="noise power")
    if 1 < len(power) <= len(CYCLE):
        legend(axes)
    return figure


def start_scores(scores: Mapping[str, Sequence[float]], chosen: str | None = None) -> Figure:
    """Mean score of each start by iteration; the chosen start stands out."""
    figure = new_figure(8.0, 3.4)
    axes = quiet(figure.subplots())
    ordered = sorted(scores, key=lambda label: label == chosen)
    for label in ordered:
        values = scores[label]
        mine = label == chosen
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, color=ACCENT if mine else MUTED, linewidth=2.4 if mine else 1.3)
    _label_ends(axes, {label: scores[label] for label in ordered if len(scores[label])}, chosen)
    axes.set(xlabel="iteration", ylabel="mean score of a particle")
    axes.margins(x=0.02)
    return figure


def start_agreement(agreement: Mapping[str, float], chosen: str | None = None) -> Figure:
    """Mean Fourier shell correlation (0 to 1) of each start's map with the chosen one."""
    figure = new_figure(8.0, 0.9 + 0.36 * len(agreement))
    axes = quiet(figure.subplots())
    axes.grid(False, axis="y")
    for row, (label, value) in enumerate(agreement.items()):
        mine = label == chosen
        axes.barh(row, value, color=MUTED if mine else ACCENT, alpha=0.3 if mine else 0.85, height=0.62)
        note = "chosen" if mine else f"{value:.2f}"
        axes.text(max(value, 0.0) + 0.01, row, note, va="center", fontsize=9.5, color=MUTED if mine else INK)
    axes.axvline(ALIKE, color=MUTED, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(agreement)), list(agreement))
    axes.set(xlim=(0, 1.1), xlabel="mean Fourier shell correlation with the chosen start's map")
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def local_resolution(resolution: Volume, mask: Volume) -> Figure:
    """Central slices of the local resolution (Å) within the mask, and how much of the particle has which."""
    values, inside = resolution.data.cpu().numpy(), mask.data.cpu().numpy() > 0.5
    figure = new_figure(8.0, 2.4)
    places = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.4))
    centre = len(values) // 2
    # The few voxels at the edge of a mask, where there is hardly any density, would take most of the scale.
    low, high = (float(np.quantile(values[inside], share)) for share in (0.02, 0.9))
    colours, scale = matplotlib.colormaps["viridis_r"], Normalize(low, max(high, low + 1e-3))
    for axes, axis, name in zip(places[:3], range(3), "zyx", strict=True):
        shown = np.where(inside, values, np.nan).take(centre, axis=axis)
        axes.imshow(shown, origin="lower", cmap=colours, norm=scale)
        axes.set(title=f"across {name}", xticks=[], yticks=[])
        axes.title.set_fontsize(9)
    axes = quiet(places[3])
    counts, edges = np.histogram(np.clip(values[inside], low, high), bins=24)
    middles = (edges[:-1] + edges[1:]) / 2
    axes.bar(middles, counts, width=0.92 * np.diff(edges), color=colours(scale(middles)))
    axes.set(xlabel="local resolution (Å)", yticks=[])
    return figure


def stage_timings(seconds: Mapping[str, float], peak_fraction: Mapping[str, float] | None = None) -> Figure:
    """Wall time of each stage in order; beside it the share of the peak of its products, where measured."""
    fractions = peak_fraction or {}
    names, times = list(seconds), list(seconds.values())
    figure = new_figure(8.0, 0.8 + 0.34 * len(names))
    axes = quiet(figure.subplots())
    axes.grid(False, axis="y")
    axes.barh(names, times, color=ACCENT, alpha=0.85, height=0.62)
    longest = max(times, default=1.0) or 1.0
    for row, (name, time) in enumerate(zip(names, times, strict=True)):
        note = f"{time:.1f} s"
        if name in fractions:
            note += f"   {100 * fractions[name]:.0f} % of the peak of its products"
        axes.text(time + 0.01 * longest, row, note, va="center", fontsize=9, color=INK)
    axes.invert_yaxis()
    axes.set(xlabel="wall time (s)", xlim=(0, 1.18 * longest if not fractions else 1.5 * longest))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _label_ends(axes: Axes, scores: Mapping[str, Sequence[float]], chosen: str | None) -> None:
    """Name lines at their right ends, moved apart where they would overlap."""
    if not scores:
        return
    low, high = axes.get_ylim()
    gap = 0.065 * (high - low)
    height = -np.inf
    for label in sorted(scores, key=lambda name: scores[name][-1]):
        height = max(float(scores[label][-1]), height + gap)
        mine = label == chosen
        axes.annotate(
            f"{label} (chosen)" if mine else label,
            (len(scores[label]), height),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold" if mine else "normal",
            color=ACCENT if mine else MUTED,
            annotation_clip=False,
        )
