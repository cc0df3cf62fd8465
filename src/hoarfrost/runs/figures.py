"""Pictures of what a run found: the map, its resolution, where particles looked from, and how far to trust them."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.fourier.transforms import crop_or_pad_centred
from hoarfrost.runs.theme import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    SECOND,
    THIRD,
    legend,
    new_figure,
    panel_title,
    quiet,
)
from hoarfrost.types import Volume

_PLANES = ("seen along z", "seen along y", "seen along x")


def map_views(volume: Volume, diameter: float | None = None) -> Figure:
    """Three central slices of a map and its three projections.

    Parameters
    ----------
    volume : Volume
        A cubic map.
    diameter : float, optional
        Diameter of the particle in Å; the views are cut at one and a half times it.
    """
    side = volume.box
    if diameter is not None:
        side = min(side, max(8, math.ceil(1.5 * diameter / volume.voxel_size)))
    data = crop_or_pad_centred(volume.data.detach().float().cpu(), side, (0, 1, 2))
    slices = [data.select(axis, side // 2).numpy() for axis in range(3)]
    projections = [data.sum(axis).numpy() for axis in range(3)]
    figure = new_figure(8.0, 5.7)
    grid = figure.subplots(2, 3)
    for axes, image, plane in zip(grid[0], slices, _PLANES, strict=True):
        _grey_image(axes, image, slices)
        panel_title(axes, f"Central slice, {plane}")
    for axes, image, plane in zip(grid[1], projections, _PLANES, strict=True):
        _grey_image(axes, image, projections)
        panel_title(axes, f"Projection, {plane}")
    _scale_bar(grid[0, 0], side, volume.voxel_size)
    _scale_bar(grid[1, 0], side, volume.voxel_size)
    return figure


def fsc_curves(fsc: HalfMapFSC) -> Figure:
    """Half-map correlation against frequency, with the first crossings of 0.5 and 0.143 marked."""
    frequency = fsc.frequency.numpy()
    figure = new_figure(8.0, 4.2)
    axes = quiet(figure.subplots())
    axes.plot(frequency, fsc.randomised.numpy(), color=MUTED, linewidth=1.2, linestyle=":", label="phases randomised")
    axes.plot(frequency, fsc.unmasked.numpy(), color=THIRD, linewidth=1.4, label="unmasked")
    axes.plot(frequency, fsc.masked.numpy(), color=SECOND, linewidth=1.4, label="masked")
    axes.plot(frequency, fsc.corrected.numpy(), color=ACCENT, linewidth=2.4, label="masked and corrected")
    for threshold in (0.5, 0.143):
        axes.axhline(threshold, color=MUTED, linewidth=0.8, linestyle="--")
        axes.text(0.994 * frequency[-1], threshold + 0.015, f"{threshold:g}", color=MUTED, fontsize=8.5, ha="right")
        _mark_crossing(axes, fsc, threshold)
    axes.set(xlim=(0, frequency[-1]), ylim=(min(-0.1, float(fsc.corrected.min()) - 0.02), 1.04))
    axes.set_xlabel("spatial frequency (1/Å)")
    axes.set_ylabel("Fourier shell correlation")
    _resolution_axis(axes, float(frequency[-1]))
    legend(axes)
    return figure


def shift_scatter(shifts: Float[Tensor, "n 2"]) -> Figure:
    """Where particles sit in their images, in Å, and how far from the centre."""
    shifts = shifts.detach().double().cpu()
    length = torch.linalg.vector_norm(shifts, dim=-1).numpy()
    reach = max(1.0, 1.1 * float(np.quantile(length, 0.999))) if len(length) else 1.0
    figure = new_figure(8.0, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    quiet(left).set_aspect("equal")
    size = float(np.clip(6000 / max(1, len(shifts)), 0.6, 9))
    left.scatter(*shifts.T.numpy(), s=size, color=ACCENT, alpha=0.45, linewidths=0, rasterized=True)
    left.axhline(0, color=MUTED, linewidth=0.8)
    left.axvline(0, color=MUTED, linewidth=0.8)
    left.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="shift in x (Å)", ylabel="shift in y (Å)")
    _histogram(right, length, "distance from the image's centre (Å)", limits=(0.0, reach))
    _median_line(right, float(np.median(length)) if len(length) else 0.0, "Å")
    return figure


def confidence_histogram(confidence: Float[Tensor, "n"]) -> Figure:
    """How probably each particle's pose is right."""
    values = confidence.detach().double().cpu().numpy()
    figure = new_figure(8.0, 3.0)
    axes = figure.subplots()
    _histogram(axes, values, "confidence in the pose", limits=(0.0, 1.0))
    _median_line(axes, float(np.median(values)), "")
    return figure


def example_particles(images: Float[Tensor, "e y x"], reprojections: Float[Tensor, "e y x"]) -> Figure:
    """Particles above what the map predicts for them, at most eight pairs; noisy images are smoothed for the eye."""
    count = min(8, len(images))
    figure = new_figure(8.0, 2.0 * (8.0 / max(count, 4) + 0.3))
    rows = (
        ("Particles", _smoothed(images[:count].detach().float().cpu())),
        ("The map seen the same way", reprojections[:count].detach().float().cpu()),
    )
    grid = figure.add_gridspec(2, 1)
    for place, (title, pictures) in enumerate(rows):
        part = figure.add_subfigure(grid[place])
        part.set_facecolor("none")
        part.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
        for axes, picture in zip(part.subplots(1, count, squeeze=False)[0], pictures.numpy(), strict=True):
            _grey_image(axes, picture, [picture])
    return figure


def _smoothed(images: Float[Tensor, "e y x"]) -> Float[Tensor, "e y x"]:
    box = images.shape[-1]
    frequency = torch.fft.fftfreq(box)
    square = frequency[:, None] ** 2 + frequency[: box // 2 + 1].abs() ** 2
    kernel = torch.exp(-square / (2 * (4.0 / box + 0.03) ** 2))
    return torch.fft.irfft2(torch.fft.rfft2(images) * kernel, s=(box, box))


def _grey_image(axes: Axes, image: np.ndarray, scale: list[np.ndarray]) -> None:
    low, high = np.percentile(np.stack(scale), (0.5, 99.8))
    axes.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=max(high, low + 1e-12), interpolation="bicubic")
    axes.axis("off")


def _scale_bar(axes: Axes, side: int, voxel_size: float) -> None:
    target = 0.3 * side * voxel_size
    decade = 10.0 ** math.floor(math.log10(target))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= target)
    start, base = 0.05 * side, 0.07 * side
    axes.plot([start, start + length / voxel_size], [base, base], color="white", linewidth=3, solid_capstyle="butt")
    axes.text(start, base + 0.03 * side, f"{length:g} Å", color="white", fontsize=9, va="bottom")


def _mark_crossing(axes: Axes, fsc: HalfMapFSC, threshold: float) -> None:
    resolution = fsc.resolution(threshold)
    if not (fsc.corrected[1:] < threshold).any():
        return
    frequency = 1 / resolution
    axes.plot([frequency], [threshold], marker="o", markersize=6, color=ACCENT, markeredgecolor=PAPER, zorder=4)
    # The curve falls to the right, so that the space above it is free, except next to the frame.
    at_frame = frequency > 0.88 * float(fsc.frequency[-1])
    axes.annotate(
        f"{resolution:.2f} Å",
        (frequency, threshold),
        xytext=(-9, -15) if at_frame else (8, 7),
        textcoords="offset points",
        ha="right" if at_frame else "left",
        fontsize=11,
        fontweight="bold",
        color=ACCENT,
    )


def _resolution_axis(axes: Axes, last: float) -> None:
    candidates = [
        100,
        50,
        30,
        20,
        15,
        12,
        10,
        8,
        7,
        6,
        5,
        4.5,
        4,
        3.5,
        3,
        2.7,
        2.5,
        2.2,
        2,
        1.8,
        1.6,
        1.5,
        1.4,
        1.3,
        1.2,
    ]
    ticks: list[float] = []
    for resolution in candidates:
        if 1 / resolution <= last and (not ticks or 1 / resolution - 1 / ticks[-1] > 0.075 * last):
            ticks.append(resolution)
    top = axes.secondary_xaxis("top")
    top.set_xticks([1 / tick for tick in ticks], [f"{tick:g}" for tick in ticks])
    top.set_xlabel("resolution (Å)", color=INK)
    top.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    top.spines["top"].set_color(MUTED)


def _histogram(axes: Axes, values: np.ndarray, label: str, limits: tuple[float, float]) -> None:
    quiet(axes).grid(False, axis="x")
    bins = int(np.clip(math.sqrt(max(1, len(values))), 12, 60))
    axes.hist(values, bins=bins, range=limits, color=ACCENT, alpha=0.85, rwidth=0.92)
    axes.set(xlim=limits, ylim=(0, 1.15 * axes.get_ylim()[1]), xlabel=label, ylabel="particles")


def _median_line(axes: Axes, median: float, unit: str) -> None:
    axes.axvline(median, color=INK, linewidth=1.2)
    low, high = axes.get_xlim()
    right = median > 0.7 * high + 0.3 * low
    axes.annotate(
        f"median {median:.2f} {unit}".rstrip(),
        (median, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if right else 5, -3),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize=9.5,
        color=INK,
    )
