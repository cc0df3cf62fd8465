"""A network trained on the sums of a half: nodes are drawn by what they weigh, low frequencies first.

The network of :class:`~hoarfrost.representations.neural.NeuralField` is cryoDRGN's homogeneous decoder; here it is shown
the nodes of the sums, to which all images have contributed, in place of one image after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.analysis.postprocess import filter_by_fsc
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.optimise.adam import Adam, cosine_decay
from hoarfrost.optimise.loop import State
from hoarfrost.poses.likelihood import fast_matrix_products
from hoarfrost.reconstruct.backprojection import FoldedSums
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.representations.neural import NeuralField, amplitude_at
from hoarfrost.types import Volume

NODES_AT_ONCE = 1024
"""Nodes whose gradient is taken by one thread: their hidden layers stay in the second-level cache."""

NEAREST = 0.05
"""Relative error that a network leaves anyway: a node that is known better does not weigh more for it."""

AVERAGED = 0.03
"""Share of the newest parameters in their running mean: parameters far apart have no mean that is a network."""

FEWEST = 600
"""Iterations at least: fewer do not train a network, however small the grid is."""

FIRST_SHELL = 8
"""The frequencies that the training begins with; it takes half of its steps to reach the last."""


@dataclass(frozen=True)
class Nodes:
    """What the sums say of the transform, sorted by frequency."""

    frequencies: Float[Tensor, "k 3"]  # Fourier pixels
    radius: Float[Tensor, "k"]
    values: Float[Tensor, "k 2"]  # real and imaginary part, in terms of the spectrum
    weight: Float[Tensor, "k"]  # root of what a node weighs: half of it decides how often it is drawn, half counts then
    drawn: Float[Tensor, "k"]  # its running sum, float64


@dataclass(frozen=True)
class NeuralFit:
    """Adam on a :class:`~hoarfrost.representations.neural.NeuralField`; maps are of the averaged parameters."""

    iterations: int = 1000
    batch: int = 2048
    rate: float = 6e-3  # falls to zero as a cosine
    points: int = 1024
    width: int = 128
    layers: int = 3
    name: str = "neural"
    at_once: int = 50  # iterations a step
    _kept: dict[str, tuple[FoldedSums, Tensor, Nodes]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def showing(cls, grid: SliceGrid, passes: float) -> NeuralFit:
        """A fit that draws ``passes`` times as many nodes as a grid has within its limit, of a small grid more."""
        nodes = 2 / 3 * math.pi * (grid.padding * grid.limit) ** 3
        return cls(iterations=max(FEWEST, round(passes * nodes / cls.batch)))

    @property
    def steps(self) -> int:
        """Iterations in parts."""
        return -(-self.iterations // self.at_once)

    def begin(self, sums: FoldedSums, setting: FitSetting, previous: State | None) -> State:
        """A network that knows nothing, or the averaged one that went before, with its spectrum."""
        if previous is not None:
            given = entries(previous, "average")
            kept = {key: previous[key] for key in ("points", "spectrum")}
            return kept | {"marching": torch.tensor(False)} | self._at_rest(given)
        field = NeuralField.random(
            setting.generator(-1),
            signal_spectrum(sums, setting.fsc),
            box=setting.box,
            voxel_size=setting.voxel_size,
            # Products of waves reach further out than their points.
            radius=0.8 * setting.radius,
            points=self.points,
            width=self.width,
            layers=self.layers,
        )
        given = {key: value.to(sums.weight) for key, value in field.parameters.items()}
        kept = {"points": given.pop("points"), "spectrum": field.spectrum, "marching": torch.tensor(True)}
        return kept | self._at_rest(given)

    def run(self, sums: FoldedSums, setting: FitSetting, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Some iterations."""
        nodes, generator, loss = self._nodes(sums, state["spectrum"]), setting.generator(step), 0.0
        done = range(step * self.at_once, min((step + 1) * self.at_once, self.iterations))
        for iteration in done:
            progress = iteration / self.iterations
            reached = len(nodes.radius)
            if state["marching"]:
                limit = FIRST_SHELL + 2 * progress * (sums.grid.limit - FIRST_SHELL)
                reached = max(1, int(torch.searchsorted(nodes.radius, limit + 1e-3)))
            draws = torch.rand(self.batch, generator=generator, dtype=torch.float64).to(nodes.drawn.device)
            rows = torch.searchsorted(nodes.drawn, draws * nodes.drawn[reached - 1]).clamp(max=reached - 1)
            value, gradients = self._gradients(state, setting, nodes, rows)
            state = self._moved(state, gradients, iteration, cosine_decay(progress, 0.0))
            loss += value / len(done)
        return state, {"loss": loss}

    def density(self, state: State, setting: FitSetting) -> NeuralField:
        """The network of the averaged parameters."""
        return _field(entries(state, "average"), state, setting)

    def joined(self) -> DensityFit | None:
        """A third of the work, from the first half's network."""
        return replace(self, iterations=max(1, self.iterations // 3), rate=self.rate / 3)

    def half_map(self, sums: FoldedSums, setting: FitSetting, state: State) -> Volume:
        """The network's values as a map."""
        with torch.no_grad():
            volume = self.density(state, setting).to_volume(setting.box)
        return Volume(volume.data.cpu(), volume.voxel_size)

    def final_map(
        self, halves: tuple[FoldedSums, FoldedSums], setting: FitSetting, state: State, fsc: HalfMapFSC
    ) -> Volume:
        """The map of the network of all images, every shell weighted by what the half-maps say of it."""
        return filter_by_fsc(self.half_map(halves[0], setting, state), fsc)

    def _at_rest(self, parameters: dict[str, Tensor]) -> State:
        """Parameters that have not moved yet, their average, and the moments of the optimiser."""
        state = self._optimiser(parameters).begin(parameters)
        for kind in ("parameter", "average"):
            state |= {f"{kind}.{name}": value for name, value in parameters.items()}
        return state

    def _moved(self, state: State, gradients: dict[str, Tensor], count: int, scale: float) -> State:
        parameters = entries(state, "parameter")
        moved, moments = self._optimiser(parameters).step(parameters, gradients, state, count, scale)
        share = max(AVERAGED, 1 / (count + 1))
        average = {f"average.{name}": state[f"average.{name}"].lerp(value, share) for name, value in moved.items()}
        return state | {f"parameter.{name}": value for name, value in moved.items()} | moments | average

    def _optimiser(self, parameters: Mapping[str, Tensor]) -> Adam:
        return Adam(dict.fromkeys(parameters, self.rate))

    def _nodes(self, sums: FoldedSums, spectrum: Float[Tensor, "shells"]) -> Nodes:
        kept = self._kept.get("nodes")
        if kept is None or kept[0] is not sums or not torch.equal(kept[1], spectrum):
            kept = self._kept["nodes"] = sums, spectrum, nodes_of(sums, spectrum)
        return kept[2]

    def _gradients(
        self, state: State, setting: FitSetting, nodes: Nodes, rows: Tensor
    ) -> tuple[float, dict[str, Tensor]]:
        """The mean squared error of a batch and its gradient, summed in the same order on any number of threads."""

        def part(which: slice) -> tuple[Tensor, ...]:
            mine = rows[which]
            given = {name: value.detach().requires_grad_() for name, value in entries(state, "parameter").items()}
            with torch.enable_grad():
                found = _field(given, state, setting).relative(nodes.frequencies[mine])
                error = ((found - nodes.values[mine]).square().sum(-1) * nodes.weight[mine]).sum() / total
            return error.detach(), *torch.autograd.grad(error, list(given.values()))

        device, total = nodes.values.device, nodes.weight[rows].sum()
        with fast_matrix_products():
            parts = map_parts(part, in_parts(len(rows), NODES_AT_ONCE), device)
        error, *gradients = (torch.stack(column).sum(0) for column in zip(*parts, strict=True))
        return float(error), dict(zip(entries(state, "parameter"), gradients, strict=True))


def entries(state: State, kind: str) -> dict[str, Tensor]:
    """The tensors of a state whose names begin with ``kind`` and a dot, by the rest of their names."""
    return {name.removeprefix(f"{kind}."): value for name, value in state.items() if name.startswith(f"{kind}.")}


def _field(parameters: Mapping[str, Tensor], state: State, setting: FitSetting) -> NeuralField:
    return NeuralField({**parameters, "points": state["points"]}, state["spectrum"], setting.box, setting.voxel_size)


def signal_spectrum(sums: FoldedSums, fsc: Float[Tensor, "shells"]) -> Float[Tensor, "shells"]:
    """Root-mean-square amplitude of the map in each shell, without the share of the noise."""
    # Nodes count by their weights: of those that hardly an image reached the values are enormous.
    power = sums.shell_average(lambda part: sums.data[part].abs().square() / sums.weight[part].clamp(min=1e-20))
    mean = power / sums.weight_per_shell.clamp(min=1e-20)
    spectrum = (mean * fsc.to(mean).clamp(1e-3, 1)).sqrt()
    # Images say nothing of the mean.
    spectrum[0] = spectrum[1]
    return spectrum


def nodes_of(sums: FoldedSums, spectrum: Float[Tensor, "shells"]) -> Nodes:
    """The nodes of a half with their values and weights in terms of a spectrum."""
    grid, weight = sums.grid, sums.weight
    known = (
        weight
        > 1e-3
        * torch.cat([sums.weight_per_shell, weight.new_full((1,), torch.inf)])[sums.shells.clamp(max=grid.limit + 1)]
    )
    values = ungridded(torch.where(known, sums.data / weight.clamp(min=1e-20), 0), known)
    z, y, x = known.nonzero().unbind(1)
    frequencies = torch.stack([x, y - grid.centre, z - grid.centre], dim=-1).to(weight) / grid.padding
    radius = torch.linalg.vector_norm(frequencies, dim=-1)
    order = radius.argsort(stable=True)
    radius, frequencies = radius[order], frequencies[order]
    amplitude = amplitude_at(spectrum, radius).clamp(min=1e-20)
    precision = weight[known][order] * amplitude.square()
    weight = (precision / (1 + NEAREST**2 * precision)).sqrt()
    relative = torch.view_as_real(values[known][order] / amplitude)
    return Nodes(frequencies, radius, relative, weight, weight.double().cumsum(0))


def ungridded(values: Complex[Tensor, "gz gy gx"], known: Tensor) -> Complex[Tensor, "gz gy gx"]:
    """Values at the nodes without what trilinear gridding has done to them, where all neighbours are known.

    The mean over a triangle of half-width ``h`` is the value plus ``h^2 / 12`` of its second derivative, on every axis;
    second differences of the nodes themselves take that out, to half a per cent of the density in the inner half of
    the box.
    """
    result, complete = values.clone(), known.clone()
    complete[[0, -1]] = False
    complete[:, [0, -1]] = False
    complete[:, :, -1] = False
    for dim in range(3):
        for step in (-1, 1):
            neighbour, there = values.roll(step, dim), known.roll(step, dim)
            if dim == 2 and step == 1:
                # Beyond the plane kx = 0 lie the conjugates of the opposite nodes.
                neighbour[:, :, 0] = values[:, :, 1].flip(0, 1).conj()
                there[:, :, 0] = known[:, :, 1].flip(0, 1)
            result -= (neighbour - values) / 12
            complete &= there
    return torch.where(complete, result, values)
