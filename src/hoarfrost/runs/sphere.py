"""The picture of viewing directions: the sphere in Mollweide's equal-area map."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from hoarfrost.analysis.views import sphere_directions, view_density
from hoarfrost.runs.theme import DENSITY_MAP, INK, MUTED, RULE, new_figure


def orientation_sphere(rotations: Float[Tensor, "n 3 3"]) -> Figure:
    """Viewing directions on the whole sphere in Mollweide's equal-area map, relative to even coverage."""
    density = view_density(rotations)
    figure = new_figure(8.0, 4.2)
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.axis("off")
    picture = _mollweide_raster(density)
    top = max(2.0, float(np.nanmax(picture)))
    shown = axes.imshow(picture, extent=(-2, 2, -1, 1), origin="lower", cmap=DENSITY_MAP, norm=PowerNorm(0.6, 0, top))
    outline = Ellipse((0, 0), 4, 2, facecolor="none", edgecolor=MUTED, linewidth=1.0)
    axes.add_patch(outline)
    shown.set_clip_path(outline)
    _graticule(axes)
    axes.set(xlim=(-2.12, 2.12), ylim=(-1.12, 1.12))
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("particles relative to even coverage", color=INK, fontsize=9)
    bar.ax.axhline(1.0, color=INK, linewidth=1.0)
    bar.ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=8.5)
    bar.ax.set_facecolor("none")
    bar.outline.set_edgecolor(RULE)
    return figure


def _mollweide_raster(density: Float[Tensor, "d"], width: int = 240) -> np.ndarray:
    """Density on a raster over x in [-2, 2], y in [-1, 1] of the map; NaN outside the ellipse."""
    x, y = np.meshgrid((np.arange(width) + 0.5) * 4 / width - 2, (np.arange(width // 2) + 0.5) * 4 / width - 1)
    inside = (x / 2) ** 2 + y**2 <= 1.02
    auxiliary = np.arcsin(np.clip(y, -1, 1))[inside]
    latitude = np.arcsin(np.clip((2 * auxiliary + np.sin(2 * auxiliary)) / math.pi, -1, 1))
    longitude = np.clip(math.pi * x[inside] / (2 * np.maximum(np.cos(auxiliary), 1e-9)), -math.pi, math.pi)
    directions = np.column_stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    )
    # A kernel narrower than a pixel joins the values smoothly.
    weight = torch.exp((torch.from_numpy(directions).float() @ sphere_directions().float().T - 1) / 0.06**2)
    raster = np.full(x.shape, np.nan)
    raster[inside] = ((weight @ density.float()) / weight.sum(1)).numpy()
    return raster


def _graticule(axes: Axes) -> None:
    for latitude in (-60, -30, 0, 30, 60):
        auxiliary = _auxiliary_angle(math.radians(latitude))
        reach, height = 2 * math.cos(auxiliary), math.sin(auxiliary)
        axes.plot([-reach, reach], [height, height], color=MUTED, linewidth=0.5, alpha=0.5)
        axes.text(-reach - 0.04, height, f"{90 - latitude}°", ha="right", va="center", fontsize=8, color=MUTED)
    meridian = np.linspace(-math.pi / 2, math.pi / 2, 90)
    for longitude in range(-120, 180, 60):
        x = 2 / math.pi * math.radians(longitude) * np.cos(meridian)
        axes.plot(x, np.sin(meridian), color=MUTED, linewidth=0.5, alpha=0.5)
    axes.text(0, 1.03, "tilt 0°", ha="center", va="bottom", fontsize=8, color=MUTED)
    axes.text(0, -1.03, "tilt 180°; rot from −180° to 180° across", ha="center", va="top", fontsize=8, color=MUTED)


def _auxiliary_angle(latitude: float) -> float:
    angle = latitude
    for _ in range(50):
        slope = 2 + 2 * math.cos(2 * angle)
        angle -= (2 * angle + math.sin(2 * angle) - math.pi * math.sin(latitude)) / max(slope, 1e-9)
    return angle
