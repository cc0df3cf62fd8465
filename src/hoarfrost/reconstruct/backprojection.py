"""Maps from known poses: back-projection in Fourier space with Wiener weights.

Every image adds ``C X`` and ``C^2`` at the points of its central slice; the map is the first sum over the second plus
a regulariser, the inverse signal power of each shell. Sums are linear, so that halves, batches and processes add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages, BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.shells import radius_3d
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.kernels.threads import map_parts

POINTS_AT_ONCE = 6_000_000
"""Slice points read and inserted together: the more, the less often the sums go through the caches."""


@dataclass
class BackProjection:
    """Running sums over a slice grid: real part, imaginary part and weight of every node."""

    grid: SliceGrid
    sums: Float[Tensor, "nodes 3"]

    @classmethod
    def empty(cls, grid: SliceGrid, device: torch.device | None = None) -> BackProjection:
        """Sums of no image."""
        depth, height, width = grid.shape
        return cls(grid, torch.zeros(depth * height * width, 3, device=device))

    def add(self, images: BandImages, rotations: Float[Tensor, "b 3 3"], shifts: Float[Tensor, "b 2"]) -> None:
        """Insert a batch at its poses (shifts in pixels)."""
        self.grid.insert_images(
            self.sums,
            rotations.to(images.transfer),
            shifts.to(images.transfer),
            images.band,
            images.vectors,
            images.transfer,
            images.frequency_matrix,
        )

    def __add__(self, other: BackProjection) -> BackProjection:
        return BackProjection(self.grid, self.sums + other.sums)

    def __sub__(self, other: BackProjection) -> BackProjection:
        return BackProjection(self.grid, self.sums - other.sums)

    def folded(self) -> FoldedSums:
        """The sums as maps are made of them; whoever asks for more than one thing had better keep this."""
        return FoldedSums(self.grid, *self.grid.fold(self.sums))

    def weight_per_shell(self) -> Float[Tensor, "shells"]:
        """Mean weight of the nodes of each shell 0 ... limit: the inverse noise power of the map's coefficients."""
        return self.folded().weight_per_shell

    def volume(self, inverse_signal_power: Float[Tensor, "shells"] | float) -> Float[Tensor, "z y x"]:
        """The map (see :meth:`FoldedSums.volume`)."""
        return self.folded().volume(inverse_signal_power)


@dataclass(frozen=True)
class FoldedSums:
    """Sums of which every node has its conjugate's share."""

    grid: SliceGrid
    data: Complex[Tensor, "gz gy gx"]
    weight: Float[Tensor, "gz gy gx"]

    def __add__(self, other: FoldedSums) -> FoldedSums:
        return FoldedSums(self.grid, self.data + other.data, self.weight + other.weight)

    @property
    def shells(self) -> Int[Tensor, "gz gy gx"]:
        """The shell of every node."""
        return node_shells(self.grid, device=self.weight.device)

    @cached_property
    def weight_per_shell(self) -> Float[Tensor, "shells"]:
        """Mean weight of the nodes of each shell 0 ... limit: the inverse noise power of the map's coefficients."""
        return self.shell_average(lambda part: self.weight[part])

    def shell_average(self, values: Callable[[slice], Float[Tensor, "z gy gx"]]) -> Float[Tensor, "shells"]:
        """Mean over the nodes of each shell 0 ... limit of what ``values`` says of a part of the planes."""
        count = self.grid.limit + 2

        def totals(part: slice) -> Tensor:
            shells = node_shells(self.grid, part, device=self.weight.device).clamp_(max=count - 1).flatten()
            of_part = torch.bincount(shells, values(part).flatten().double(), minlength=count)
            return torch.stack([of_part, torch.bincount(shells, minlength=count)])

        parts = map_parts(totals, self.grid.planes, self.weight.device)
        total, size = torch.stack(parts).sum(0)[:, :-1]
        return (total / size.clamp(min=1)).to(self.weight.dtype)

    def volume(self, inverse_signal_power: Float[Tensor, "shells"] | float) -> Float[Tensor, "z y x"]:
        """The map, regularised by the inverse signal power of each shell (in units of the weights).

        A floor of a thousandth of the shell's mean weight keeps nodes that no image reached from being divided by zero.
        """
        limit, device = self.grid.limit, self.weight.device
        regulariser = torch.as_tensor(inverse_signal_power, dtype=self.weight.dtype, device=device)
        # Beyond the limit there is no map.
        added = torch.full((limit + 2,), torch.inf, dtype=self.weight.dtype, device=device)
        added[: limit + 1] = regulariser + 1e-3 * self.weight_per_shell
        transform = torch.empty_like(self.data)

        def divide(part: slice) -> None:
            shells = node_shells(self.grid, part, device=device).clamp_(max=limit + 1)
            total = added[shells].add_(self.weight[part])
            share = torch.where(total > 0, total.clamp_(min=1e-20).reciprocal_(), 0)
            torch.mul(self.data[part], share, out=transform[part])

        map_parts(divide, self.grid.planes, device)
        return self.grid.inverse(transform)


def node_shells(
    grid: SliceGrid, planes: slice = slice(None), *, device: torch.device | None = None
) -> Int[Tensor, "z gy gx"]:
    """Shell, in Fourier pixels of the unpadded box, of every node of a slice grid, or of those of some planes of it."""
    depth, height, width = grid.shape
    first, last, _ = planes.indices(depth)
    centre = grid.centre - first, grid.centre, 0
    return (radius_3d((last - first, height, width), centre, device=device) / grid.padding).round_().long()


def back_project(
    stack: BandStack,
    rows: Int[Tensor, "n"],
    rotations: Float[Tensor, "n 3 3"],
    shifts: Float[Tensor, "n 2"],
    band: Band,
    grid: SliceGrid,
) -> BackProjection:
    """Sums of these particles of a stack at their poses (one pose a row of ``rows``, shifts in pixels)."""
    sums = BackProjection.empty(grid, stack.device)
    position = torch.arange(len(rows))
    for part in position.split(images_at_once(band)):
        sums.add(stack.images(rows[part], band), rotations[part], shifts[part])
    return sums


def images_at_once(band: Band) -> int:
    """Images that are read and inserted together."""
    return max(1, POINTS_AT_ONCE // len(band))


def symmetrise(sums: BackProjection, operators: Float[Tensor, "g 3 3"]) -> BackProjection:
    """Sums averaged over a point group: every node takes the mean of what its images under the group received."""
    if len(operators) == 1:
        return sums
    return _averaged(sums, operators.mT, torch.zeros(3, dtype=operators.dtype))


def turned_sums(sums: BackProjection, rotation: Float[Tensor, "3 3"], centre: Float[Tensor, "3"]) -> BackProjection:
    """The sums of a map seen in another frame, ``x_new = rotation @ (x - centre)``; the centre in voxels."""
    return _averaged(sums, rotation[None], centre)


def _averaged(sums: BackProjection, frames: Float[Tensor, "n 3 3"], centre: Float[Tensor, "3"]) -> BackProjection:
    """The mean of the sums seen in several frames about one centre: ``F_new(k) = F(Q^T k) exp(2 pi i (Q^T k).c)``."""
    grid = sums.grid
    folded, weight = grid.fold(sums.sums)
    table = torch.stack([folded.real, folded.imag, weight, torch.zeros_like(weight)], dim=-1).flatten(0, 2)
    axes = [torch.arange(length, dtype=torch.float32, device=weight.device) for length in grid.shape]
    z, y, x = torch.meshgrid(axes[0] - grid.centre, axes[1] - grid.centre, axes[2], indexing="ij")
    nodes = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    inside = (nodes.square().sum(-1) <= (grid.padding * grid.limit) ** 2).nonzero()[:, 0]
    phase = (2 * math.pi / grid.padded_box) * centre.to(nodes)
    total = torch.zeros_like(sums.sums)
    for part in inside.split(500_000):
        for frame in frames.to(nodes):
            points = nodes[part] @ frame
            values = grid.extract(table, points[None])[0]
            data, weights = values[..., 0] * torch.exp(1j * (points @ phase)), values[..., 1].real
            total[part] += torch.stack([data.real, data.imag, weights], dim=-1) / len(frames)
    # Folding adds opposite nodes of the plane kx = 0, which already hold the folded sums here.
    total.unflatten(0, grid.shape)[:, :, 0] *= 0.5
    return BackProjection(grid, total)
