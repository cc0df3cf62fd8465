"""A mixture of Gaussians fitted to the sums of a half.

Gaussians start at random, drawn from the half's own density or from a normal cloud that knows nothing but the
particle's size. They are fitted level by level: coarse levels see few shells, on coarse grids that cost next to
nothing, and few Gaussians. Between levels they are split and recycled. The gradient is that of all images at once, so
that some dozens of steps a level do what takes stochastic descent image by image some hundred thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC, first_crossing, shell_frequency
from hoarfrost.analysis.postprocess import filter_by_fsc
from hoarfrost.optimise.adam import Adam, cosine_decay, warm_up
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import mask_from_map
from hoarfrost.reconstruct.backprojection import FoldedSums
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.gaussian_moves import Move, Recycle, Split, Surroundings
from hoarfrost.reconstruct.half_maps import inside, inverse_signal_power, support
from hoarfrost.reconstruct.misfit import Misfit
from hoarfrost.representations.gaussian_parameters import GaussianParameters
from hoarfrost.representations.gaussian_seeds import random_gaussians, seed_from_map
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.types import Volume

ITERATIONS_A_STEP = 10

LEVELS = {"density": (0.5, 1.0), "random": (0.125, 0.25, 0.5, 1.0)}
"""Limits of the levels as shares of that of the sums, by what the Gaussians are drawn from."""

VOXELS_A_GAUSSIAN = 5.0
"""Voxels, of half the finest period, of the particle's volume for which one Gaussian is made by default."""

FIRST_SCALE, LEAST_SCALE = 0.5, 0.45
"""Deviations at first, in mean distances of the Gaussians; and the floor, in half periods of the finest frequency."""

OVERSAMPLING = 1.25
"""Voxels to half a period of the finest frequency of a level: what aliases is far beyond, where Gaussians end."""

LEAST_WIDTH = 0.8
"""Deviation in voxels of its grid with which the narrowest Gaussian is drawn."""

EDGE = 4.0
"""Pixels about the support that the grid of a fit holds as well."""

RATES = {"centres": 0.2, "raw_masses": 0.1, "raw_scales": 0.18, "raw_quaternions": 0.09}
"""Of Adam; that of the centres in half periods of the finest frequency, others as relative changes."""

REMEMBERED = 0.95
"""Squares of gradients fall fast at first: a longer memory of them slows a fit of few iterations down."""

WARM_UP = 10
"""Iterations in which the rates come up: full steps at once would throw a level's Gaussians off where they were."""

LAST_RATE = 0.2
"""Share of the rates that is left at the end of a fit."""


@dataclass(frozen=True)
class GaussianFit:
    """Fits isotropic Gaussians, or ones with axes of their own; a :class:`~hoarfrost.reconstruct.fits.DensityFit`."""

    count: int | None = None  # by the particle's volume where None
    anisotropic: bool = True
    start: Literal["density", "random"] = "density"
    levels: tuple[float, ...] = LEVELS["density"]  # limits, as shares of that of the sums
    iterations: int = 60  # at every level
    name: str = "gaussians"

    @property
    def steps(self) -> int:
        """All levels."""
        return len(self.levels) * self._steps_a_level

    def begin(self, sums: FoldedSums, setting: FitSetting, previous: State | None) -> State:
        """Draw the Gaussians, or go on from those of the last reading at the finest level alone."""
        frame = _Frame(sums, setting)
        if previous:
            return previous | {"begun": torch.tensor(1)}
        count = self.count or frame.default_count
        generator = setting.generator(-1)
        if self.start == "density":
            density = self._drawn(frame, count, generator)
        else:
            # Coarser levels do with fewer, each level doubling them.
            first = max(1, count >> (len(self.levels) - 1))
            mass = float(frame.own_map.data.clamp(min=0).sum())
            density = random_gaussians(
                first,
                setting.radius,
                mass,
                sums.grid.box,
                setting.voxel_size,
                generator,
                isotropic=not self.anisotropic,
            )
        floor = min(LEAST_SCALE * frame.half_period(sums.grid.limit), 0.9 * float(density.scales.min()))
        parameters = GaussianParameters.of(density, floor)
        return as_state(parameters) | {"count": torch.tensor(count), "begun": torch.tensor(0)}

    def _drawn(self, frame: _Frame, count: int, generator: torch.Generator) -> GaussianDensity:
        """Gaussians in proportion to the half's own map."""
        within = Volume(frame.own_map.data * frame.support.data, frame.own_map.voxel_size)
        scale = FIRST_SCALE * frame.mean_distance(count)
        return seed_from_map(within, count, generator, scale=scale, isotropic=not self.anisotropic)

    def run(self, sums: FoldedSums, setting: FitSetting, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Some iterations at one level; what has been fitted before is only fitted at the finest."""
        level, part = divmod(step, self._steps_a_level)
        shares = self.levels
        if bool(state["begun"]) and level + 1 < len(shares):
            return state, {}
        frame = _Frame(sums, setting)
        parameters = parameters_of(state, setting)
        limit = math.ceil(shares[level] * sums.grid.limit)
        misfit = frame.misfit(limit, parameters.least_scale)
        period = frame.half_period(limit)
        adam = Adam(RATES | {"centres": RATES["centres"] * period}, second=REMEMBERED)
        if part == 0:
            if level > 0:
                around = Surroundings(frame.missing(misfit, parameters), frame.support, setting.generator(step))
                wanted = int(state["count"]) >> (len(shares) - 1 - level)
                parameters = moved(parameters, (Recycle(), Split(max(1, wanted))), around)
            state = as_state(parameters, state) | adam.begin(parameters.tensors())
        moments = moments_of(state)
        loss = float("nan")
        for i in range(ITERATIONS_A_STEP):
            count = part * ITERATIONS_A_STEP + i
            # Only the last level settles: the others are starts of the next.
            last = level + 1 == len(shares)
            scale = warm_up(count, WARM_UP) * cosine_decay(count / self.iterations, LAST_RATE if last else 0.3)
            gradients, loss = raw_gradients(parameters, lambda density: misfit(_drawn_for(misfit, density)))
            tensors, moments = adam.step(parameters.tensors(), gradients, moments, count, scale)
            parameters = parameters.with_tensors(tensors)
        figures = {"misfit": loss, "band": float(limit), "gaussians": float(len(parameters.raw_masses))}
        return as_state(parameters, state) | moments, figures

    def density(self, state: State, setting: FitSetting) -> GaussianDensity:
        """The mixture; its running mean where a state has one."""
        parameters = parameters_of(state, setting)
        mean = {name: state.get(f"mean.{name}", value) for name, value in parameters.tensors().items()}
        return parameters.with_tensors(mean).density()

    def joined(self) -> DensityFit:
        """All images are fitted as a half is, from the Gaussians of the first, which are nearly there."""
        return replace(self, iterations=max(1, self.iterations // 2))

    def half_map(self, sums: FoldedSums, setting: FitSetting, state: State) -> Volume:
        """The mixture as a map."""
        return self.density(state, setting).to_volume(sums.grid.box)

    def final_map(
        self, halves: tuple[FoldedSums, FoldedSums], setting: FitSetting, state: State, fsc: HalfMapFSC
    ) -> Volume:
        """The mixture of all images, each shell weighted by what the halves agree on."""
        return filter_by_fsc(self.half_map(halves[0], setting, state), fsc)

    @property
    def _steps_a_level(self) -> int:
        return max(1, self.iterations // ITERATIONS_A_STEP)


@dataclass(frozen=True)
class _Frame:
    """Lengths of a fit, and what the half's plain map says of where its density is."""

    sums: FoldedSums
    setting: FitSetting

    @cached_property
    def own_map(self) -> Volume:
        """The half's map, regularised, inside the support."""
        volume = self.sums.volume(inverse_signal_power(self.setting.fsc, self.sums.weight_per_shell)).cpu()
        sphere = support(self.sums.grid.box, self.extent, self.setting.radius, self.setting.mask)
        return Volume(inside(volume, sphere), self.setting.voxel_size)

    @cached_property
    def support(self) -> Volume:
        """The given mask, or one from the half's own map."""
        if self.setting.mask is not None:
            return self.setting.mask
        box, fsc = self.sums.grid.box, self.setting.fsc
        frequency = shell_frequency(box, self.setting.voxel_size)[: len(fsc)]
        blur = max(15.0, 3 * first_crossing(frequency, fsc.double(), 0.143))
        return mask_from_map(
            self.own_map, threshold=None, extend_px=3.0, edge_px=6.0, lowpass_angstrom=blur, largest_piece=False
        )

    @property
    def extent(self) -> float:
        return self.sums.grid.box * self.setting.voxel_size

    @cached_property
    def half_width(self) -> float:
        """Of the grid on which Gaussians are drawn, in pixels: it holds the support and what blurs its edge."""
        places = (self.support.data > 0.01).nonzero() - self.sums.grid.box // 2
        return min(0.5 * self.sums.grid.box, float(places.abs().max()) + EDGE)

    def half_period(self, limit: int) -> float:
        """Half a period of the frequency of a shell, in Å."""
        return self.extent / (2 * limit)

    @property
    def default_count(self) -> int:
        volume = float(self.support.data.sum()) * self.setting.voxel_size**3
        return max(200, round(volume / self.half_period(self.sums.grid.limit) ** 3 / VOXELS_A_GAUSSIAN))

    def mean_distance(self, count: int) -> float:
        """Å between Gaussians that share the support evenly."""
        return (float(self.support.data.sum()) * self.setting.voxel_size**3 / count) ** (1 / 3)

    def misfit(self, limit: int, least_scale: float) -> Misfit:
        """Of the shells up to a limit; Gaussians that their grid could not hold are drawn wider."""
        voxel_size = self.half_period(limit) / OVERSAMPLING
        blur = max(0.0, LEAST_WIDTH**2 - (least_scale / voxel_size) ** 2)
        return Misfit.of(self.sums, limit, self.half_width, OVERSAMPLING, blur)

    def missing(self, misfit: Misfit, parameters: GaussianParameters) -> Volume:
        """Where density is missing within the support, on the grid of the fit."""
        transform, box = misfit.transform, self.sums.grid.box
        voxel_size = transform.spacing * self.setting.voxel_size
        lacking = misfit.missing(_drawn_for(misfit, parameters.density())).cpu()
        nearest = ((torch.arange(transform.side) - transform.side // 2) * transform.spacing).round().long() + box // 2
        within = nearest.clamp(0, box - 1)
        return Volume(lacking * self.support.data[within][:, within][:, :, within], voxel_size)


def moved(parameters: GaussianParameters, moves: Sequence[Move], around: Surroundings) -> GaussianParameters:
    """Gaussians after some moves, one after the other."""
    density = parameters.density()
    for move in moves:
        density = move(density, around)
    least, most = parameters.least_scale, parameters.most_scale
    scales = density.scales.clamp(1.01 * least, 0.99 * most)
    return GaussianParameters.of(replace(density, masses=density.masses.clamp(min=1e-12), scales=scales), least, most)


def _drawn_for(misfit: Misfit, density: GaussianDensity) -> Tensor:
    """A mixture on the grid of a misfit."""
    transform = misfit.transform
    voxel_size = transform.spacing * density.voxel_size
    return density.widened(transform.blur * voxel_size**2).on_grid(transform.side, voxel_size)


def raw_gradients(
    parameters: GaussianParameters, loss_of: Callable[[GaussianDensity], Tensor]
) -> tuple[dict[str, Tensor], float]:
    """The gradient of a loss by the raw numbers of Gaussians, and the loss."""
    tensors = {name: value.detach().requires_grad_() for name, value in parameters.tensors().items()}
    loss = loss_of(parameters.with_tensors(tensors).density())
    gradients = dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))
    return gradients, float(loss.detach())


def moments_of(state: State) -> dict[str, Tensor]:
    """What Adam remembers in a state."""
    return {name: value for name, value in state.items() if name[:2] in ("m.", "v.")}


def as_state(parameters: GaussianParameters, state: State | None = None) -> State:
    """A state with these numbers in place of its own."""
    fixed = {
        "mass_unit": torch.tensor(parameters.mass_unit, dtype=torch.float64),
        "least_scale": torch.tensor(parameters.least_scale, dtype=torch.float64),
        "most_scale": torch.tensor(parameters.most_scale, dtype=torch.float64),
        "box": torch.tensor(parameters.box),
    }
    return (state or {}) | {f"raw.{name}": value for name, value in parameters.tensors().items()} | fixed


def parameters_of(state: State, setting: FitSetting) -> GaussianParameters:
    """The numbers of a state."""
    return GaussianParameters(
        centres=state["raw.centres"],
        raw_masses=state["raw.raw_masses"],
        raw_scales=state["raw.raw_scales"],
        raw_quaternions=state.get("raw.raw_quaternions"),
        mass_unit=float(state["mass_unit"]),
        least_scale=float(state["least_scale"]),
        most_scale=float(state["most_scale"]),
        box=int(state["box"]),
        voxel_size=setting.voxel_size,
    )
