"""Central slices of a volume's Fourier transform, and their exact adjoint.

The transform is sampled on a padded grid and read by trilinear interpolation. In real space that interpolation
multiplies the volume by ``sinc^2(x / padded box)`` on every axis, so the volume is divided by it beforehand
(*gridding correction*). Only the half-space ``kx >= 0`` is stored; a frequency on the other side is read as the
conjugate of its opposite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from hoarfrost.fourier.band import Band
from hoarfrost.kernels.insertion import insert_slices
from hoarfrost.kernels.library import compiled_for
from hoarfrost.kernels.read_points import can_read, read_points
from hoarfrost.kernels.threads import in_parts, map_parts

POINTS_AT_ONCE = 60_000
"""Slice points that PyTorch inserts together: their nodes and weights stay in the second-level cache."""

NODES_AT_ONCE = 1_000_000
"""Nodes of a grid that one thread works on: few enough to stay in its cache, and to need little memory."""


@dataclass(frozen=True)
class SliceGrid:
    """Where a volume's transform is sampled: spacing ``1 / padding`` Fourier pixels of ``box``, out to ``limit``.

    Arrays on the grid have shape (z, y, x) with frequencies ``(z - centre, y - centre, x) / padding``.
    """

    box: int
    limit: int
    padding: int = 2

    @property
    def centre(self) -> int:
        """Index of zero frequency on the z and y axes."""
        return self.padding * self.limit + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (z, y, x)."""
        side = 2 * self.centre + 1
        return side, side, self.centre + 1

    @property
    def padded_box(self) -> int:
        """Side of the zero-padded volume."""
        return self.padding * self.box

    @property
    def planes(self) -> list[slice]:
        """The grid along z in parts that are worked on together."""
        depth, height, width = self.shape
        return in_parts(depth, max(1, NODES_AT_ONCE // (height * width)))

    def forward(self, volume: Float[Tensor, "z y x"]) -> Complex[Tensor, "gz gy gx"]:
        """The grid of a volume: corrected for the interpolation, padded, transformed, cropped.

        Values are those of the projections' orthonormal transforms: ``sqrt(D)`` times the volume's own.
        """
        n, rows, phase = self.padded_box, self._rows(volume.device), self._origin_phase(volume)
        # What is dropped on one axis need not be transformed along the next.
        spectrum = torch.fft.rfft(volume / self.gridding_kernel(volume), n=n, dim=2)[:, :, : self.shape[2]]
        spectrum = torch.fft.fft(spectrum, n=n, dim=1)[:, rows]
        spectrum = torch.fft.fft(spectrum, n=n, dim=0)[rows]
        return spectrum * (phase[:, None, None] * phase[:, None] * (phase[self.centre :] / self.box))

    def inverse(self, grid: Complex[Tensor, "gz gy gx"]) -> Float[Tensor, "z y x"]:
        """The volume whose grid this is, up to the limit: transform back, crop, and undo the gridding kernel."""
        n, box, rows = self.padded_box, self.box, self._rows(grid.device)
        phase = self._origin_phase(grid.real).conj()
        _, height, width = self.shape

        def along_z(part: slice) -> Tensor:
            spectrum = grid[:, part] * (phase[:, None, None] * phase[part, None] * (phase[self.centre :] * box))
            padded = spectrum.new_zeros(n, *spectrum.shape[1:]).index_copy_(0, rows, spectrum)
            return torch.fft.ifft(padded, dim=0)[:box]

        def along_y_and_x(part: slice) -> Tensor:
            spectrum = columns[part]
            padded = spectrum.new_zeros(len(spectrum), n, width).index_copy_(1, rows, spectrum)
            spectrum = torch.fft.ifft(padded, dim=1)[:, :box, : n // 2 + 1]
            return torch.fft.irfft(spectrum, n=n, dim=2)[:, :, :box]

        # In parts, whose padding takes little memory, and cropped between the axes.
        size = max(1, NODES_AT_ONCE // (n * width))
        columns = torch.cat(map_parts(along_z, in_parts(height, size), grid.device), dim=1)
        volume = torch.cat(map_parts(along_y_and_x, in_parts(box, size), grid.device))
        return volume / self.gridding_kernel(volume)

    def gridding_kernel(self, like: Tensor) -> Float[Tensor, "z y x"]:
        """What trilinear interpolation multiplies a volume by, ``sinc^2(x / padded box)`` on every axis."""
        position = torch.arange(self.box, device=like.device, dtype=like.dtype) - self.box // 2
        profile = torch.sinc(position / self.padded_box) ** 2
        return profile[:, None, None] * profile[:, None] * profile

    def _origin_phase(self, like: Float[Tensor, "..."]) -> Complex[Tensor, "side"]:
        """Factors that move the origin of a transform from the first voxel to ``floor(D/2)``."""
        k = torch.arange(-self.centre, self.centre + 1, device=like.device, dtype=torch.float64)
        angle = (2 * math.pi * (self.box // 2) / self.padded_box) * k
        return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(like.dtype, torch.complex64))

    def _rows(self, device: torch.device) -> Int[Tensor, "side"]:
        return torch.arange(-self.centre, self.centre + 1, device=device) % self.padded_box

    def points(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Float[Tensor, "n m 3"]:
        """Grid coordinates (x, y, z) of the slice points ``R^T M k``, centred on zero frequency."""
        return band.k.to(rotations) @ self._frames(rotations, frequency_matrix)

    def neighbours(
        self, points: Float[Tensor, "*p 3"]
    ) -> tuple[Int[Tensor, "q 8"], Float[Tensor, "q 8"], Float[Tensor, "q"]]:
        """The eight grid nodes about each point, their trilinear weights, and the sign of its half-space.

        Points are flattened; a sign of -1 marks those read as the conjugate of their opposite.
        """
        x, y, z = points.reshape(-1, 3).unbind(-1)
        sign = torch.where(x < 0, -1.0, 1.0).to(points.dtype)
        x, y, z = x * sign, y * sign, z * sign
        corner = [x.floor(), y.floor(), z.floor()]
        upper = [x - corner[0], y - corner[1], z - corner[2]]
        _, height, width = self.shape
        base = ((corner[2] + self.centre) * height + corner[1] + self.centre).to(torch.int32) * width + corner[0].to(
            torch.int32
        )
        row, plane = width, width * height
        steps = [0, 1, row, row + 1, plane, plane + 1, plane + row, plane + row + 1]
        index = base[:, None] + torch.tensor(steps, dtype=torch.int32, device=points.device)
        # What lies outside the grid, where a magnification pushes the edge of a band, reads as zero.
        inside = (x < self.centre) & (y.abs() < self.centre) & (z.abs() < self.centre)
        index.mul_(inside[:, None])
        (ax, ay, az), (bx, by, bz) = [1 - u for u in upper], upper
        az, bz = az * inside, bz * inside
        low_low, high_low, low_high, high_high = ay * az, by * az, ay * bz, by * bz
        weight = torch.stack(
            [
                low_low * ax, low_low * bx, high_low * ax, high_low * bx,
                low_high * ax, low_high * bx, high_high * ax, high_high * bx,
            ],
            dim=-1,
        )  # fmt: skip
        return index, weight, sign

    def extract(
        self, table: Float[Tensor, "nodes c"], points: Float[Tensor, "n m 3"]
    ) -> Complex[Tensor, "n m channels"]:
        """Values at ``points`` of complex fields stored side by side (re, im, re, im, ...) at the grid's nodes."""
        if can_read(table, points):
            return read_points(table, self.centre, points)
        index, weight, sign = self.neighbours(points)
        values = embedding_bag(index, table, mode="sum", per_sample_weights=weight)
        values = torch.view_as_complex(values.unflatten(-1, (-1, 2)))
        values = torch.complex(values.real, values.imag * sign[:, None])
        return values.unflatten(0, points.shape[:2])

    def insert(
        self,
        sums: Float[Tensor, "nodes 3"],
        points: Float[Tensor, "n m 3"],
        values: Complex[Tensor, "n m"],
        weights: Float[Tensor, "n m"],
    ) -> None:
        """Add values and weights at ``points`` to running sums (re, im, weight) over the nodes: the adjoint of extract."""
        index, weight, sign = self.neighbours(points)
        nodes = index.long().flatten()
        for column, value in enumerate((values.real.flatten(), values.imag.flatten() * sign, weights.flatten())):
            sums[:, column].scatter_add_(0, nodes, (value[:, None] * weight).flatten())

    def insert_slices(
        self,
        sums: Float[Tensor, "nodes 3"],
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        values: Complex[Tensor, "n m"],
        weights: Float[Tensor, "n m"],
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> None:
        """Add values and weights of whole slices to running sums over the nodes."""
        if compiled_for(sums):
            frames = self._frames(rotations, frequency_matrix)
            insert_slices(sums, self.centre, band.limit, band.raster, frames, values, weights)
            return
        for rows in in_parts(len(values), max(1, POINTS_AT_ONCE // len(band))):
            matrix = None if frequency_matrix is None else frequency_matrix[rows]
            self.insert(sums, self.points(rotations[rows], band, matrix), values[rows], weights[rows])

    def insert_images(
        self,
        sums: Float[Tensor, "nodes 3"],
        rotations: Float[Tensor, "n 3 3"],
        shifts: Float[Tensor, "n 2"],
        band: Band,
        vectors: Complex[Tensor, "n m"],
        transfer: Float[Tensor, "n m"],
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> None:
        """Add ``C X exp(2 pi i k.t)`` and ``C^2`` of images X with transfer functions C, particles at t pixels."""
        if compiled_for(sums):
            frames = self._frames(rotations, frequency_matrix)
            insert_slices(sums, self.centre, band.limit, band.raster, frames, vectors, transfer, shifts / band.box)
            return
        for rows in in_parts(len(vectors), max(1, POINTS_AT_ONCE // len(band))):
            matrix = None if frequency_matrix is None else frequency_matrix[rows]
            data = vectors[rows] * transfer[rows] * band.shift_phases(-shifts[rows].to(transfer))
            points = self.points(rotations[rows].to(transfer), band, matrix)
            self.insert(sums, points, data, transfer[rows].square())

    def _frames(
        self, rotations: Float[Tensor, "n 3 3"], frequency_matrix: Float[Tensor, "n 2 2"] | None
    ) -> Float[Tensor, "n 2 3"]:
        """Grid coordinates (x, y, z) of one step along kx and one along ky: the rows of ``M^T R``, padded."""
        frames = rotations[:, :2]
        if frequency_matrix is not None:
            frames = frequency_matrix.to(frames).mT @ frames
        return self.padding * frames

    def fold(self, sums: Float[Tensor, "nodes 3"]) -> tuple[Complex[Tensor, "gz gy gx"], Float[Tensor, "gz gy gx"]]:
        """Sums as a Hermitian grid and its weights: on the plane kx = 0 every node also takes what its opposite got."""
        nodes = sums.unflatten(0, self.shape)
        grid = nodes.new_empty(self.shape, dtype=nodes.dtype.to_complex())
        weight = nodes.new_empty(self.shape)

        def copy(part: slice) -> None:
            torch.view_as_real(grid)[part] = nodes[part, ..., :2]
            weight[part] = nodes[part, ..., 2]

        map_parts(copy, self.planes, sums.device)
        grid[:, :, 0] += grid[:, :, 0].conj().flip(0, 1)
        weight[:, :, 0] += weight[:, :, 0].flip(0, 1)
        return grid, weight


def as_table(*fields: Complex[Tensor, "gz gy gx"]) -> Float[Tensor, "nodes c"]:
    """Complex fields on the grid as one row a node (re, im, re, im, ...), the layout that extraction gathers fastest."""
    return torch.view_as_real(torch.stack(fields, dim=-1)).flatten(-2).flatten(0, 2)
