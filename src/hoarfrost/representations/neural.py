"""A density whose transform is a network of the frequency, as the homogeneous decoder of cryoDRGN.

A frequency is encoded by the waves ``exp(-2 pi i q.x)`` of random points ``x`` inside the particle, which is what a
density is made of; a residual network of them gives the real and the imaginary part (Zhong et al., Nature Methods 18, 176
(2021), with a Gaussian encoding). It is evaluated on one half of Fourier space; the other holds the conjugates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.types import Volume

POINTS_AT_ONCE = 65_536
"""Frequencies that a map is read at together."""


@dataclass(frozen=True)
class NeuralField:
    """A network and the spectrum that its values are multiples of, a :class:`~hoarfrost.representations.base.Density`."""

    parameters: Mapping[str, Tensor]  # "points", "in", "hidden.1", ..., "out"; "in.bias", ...
    spectrum: Float[Tensor, "shells"]  # root of the signal power in shells 0 ... limit; linear between
    box: int
    voxel_size: float

    @classmethod
    def random(
        cls,
        generator: torch.Generator,
        spectrum: Float[Tensor, "shells"],
        *,
        box: int,
        voxel_size: float,
        radius: float,
        points: int,
        width: int,
        layers: int,
    ) -> NeuralField:
        """A network without training, whose density is zero; ``points`` within ``radius`` Å of the centre."""
        places = torch.randn(points, 3, generator=generator)
        places *= torch.rand(points, 1, generator=generator) ** (1 / 3) / places.norm(dim=1, keepdim=True)
        parameters = {"points": places * (radius / (box * voxel_size))}
        sizes = {"in": (width, 2 * points)} | {f"hidden.{n}": (width, width) for n in range(1, layers + 1)}
        for name, (rows, columns) in sizes.items():
            parameters[name] = (2 * torch.rand(rows, columns, generator=generator) - 1) / math.sqrt(columns)
            parameters[f"{name}.bias"] = (2 * torch.rand(rows, generator=generator) - 1) / math.sqrt(columns)
        parameters |= {"out": torch.zeros(2, width), "out.bias": torch.zeros(2)}
        return cls(parameters, spectrum, box, voxel_size)

    @property
    def limit(self) -> int:
        """The last shell; beyond there is no density."""
        return len(self.spectrum) - 1

    def at(self, frequencies: Float[Tensor, "*p 3"]) -> Complex[Tensor, "*p"]:
        """The transform, ``sqrt(D)`` times the orthonormal one, at frequencies (x, y, z) in Fourier pixels."""
        flat = frequencies.reshape(-1, 3)
        below = flat[:, 0] < 0
        values = (
            self.relative(torch.where(below[:, None], -flat, flat))
            * amplitude_at(self.spectrum, torch.linalg.vector_norm(flat, dim=-1))[:, None]
        )
        values = torch.view_as_complex(torch.stack([values[:, 0], torch.where(below, -1, 1) * values[:, 1]], dim=-1))
        return values.reshape(frequencies.shape[:-1])

    def relative(self, frequencies: Float[Tensor, "p 3"]) -> Float[Tensor, "p 2"]:
        """Real and imaginary part in terms of the spectrum, at frequencies of the half-space ``x >= 0``."""
        given = self.parameters
        phase = (2 * math.pi) * (frequencies @ given["points"].T)
        hidden = torch.cat([phase.cos(), phase.sin()], dim=-1) @ given["in"].T + given["in.bias"]
        for name in (f"hidden.{n}" for n in range(1, len(given))):
            if name not in given:
                break
            hidden = hidden + torch.relu(hidden) @ given[name].T + given[f"{name}.bias"]
        return torch.relu(hidden) @ given["out"].T + given["out.bias"]

    def project(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m"]:
        """Central slices as band vectors; differentiable in the rotations and the parameters."""
        grid = SliceGrid(self.box, band.limit, padding=1)
        return self.at(grid.points(rotations.to(self.spectrum), band, frequency_matrix))

    def to_volume(self, box: int) -> Volume:
        """The map of the network's values on a grid of half Fourier pixels, so that what lies outside stays outside."""
        limit = min(self.limit, (box - 1) // 2)
        grid = SliceGrid(box, limit)
        axes = [torch.arange(length, device=self.spectrum.device) for length in grid.shape]
        z, y, x = torch.meshgrid(axes[0] - grid.centre, axes[1] - grid.centre, axes[2], indexing="ij")
        nodes = torch.stack([x, y, z], dim=-1).reshape(-1, 3).to(self.spectrum) / grid.padding
        inside = (nodes.square().sum(-1) <= limit**2).nonzero()[:, 0]
        found = torch.cat([self.at(nodes[part]) for part in inside.split(POINTS_AT_ONCE)])
        values = torch.zeros(len(nodes), dtype=found.dtype, device=nodes.device).index_copy(0, inside, found)
        # The values are not those of a gridding; slices of a constant on fewer voxels are weaker by their square.
        data = grid.inverse(values.reshape(grid.shape)) * grid.gridding_kernel(self.spectrum) * (box / self.box) ** 2
        return Volume(data, self.voxel_size * self.box / box)


def amplitude_at(spectrum: Float[Tensor, "shells"], radius: Float[Tensor, "p"]) -> Float[Tensor, "p"]:
    """A spectrum between its shells, and up to half a shell beyond the last; zero further out."""
    last = len(spectrum) - 1
    below = radius.detach().floor().clamp(max=last - 1).long()
    value = torch.lerp(spectrum[below], spectrum[below + 1], radius - below).clamp(min=0)
    return torch.where(radius <= last + 0.5, value, 0)
