"""Hierarchical pose search: a coarse grid of poses in a low band, then ever finer cells in ever larger bands.

The search of cryoDRGN2 (Zhong et al., ICCV 2021) and DRGN-AI (Levy et al., Nat. Methods 2025), with their names and
defaults: HEALPix directions times in-plane angles, a square grid of shifts, the best few orientations divided in eight
four times over. Unlike there, images count by their noise, and slices meet the transfer function at their exact
orientations, so that none is interpolated in the plane and astigmatism stays where it belongs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import in_plane
from hoarfrost.geometry.shift_grid import shift_cells
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.poses.base import PosePosterior
from hoarfrost.poses.likelihood import SliceBank
from hoarfrost.poses.local_search import PoseCells, divide
from hoarfrost.poses.search import Candidates, ExhaustiveSearch, search_bank
from hoarfrost.representations.base import Density
from hoarfrost.representations.basis import ParticleVolumes, VolumeBasis, with_mean


@dataclass(frozen=True)
class HierarchicalSearch:
    """Coarse-to-fine search with frequency marching; works on any density, a common one or one for each image."""

    weight: Float[Tensor, "m"]  # inverse noise variance of the whitened coefficients
    l_start: int = 12  # band limit of the coarse grid, Fourier pixels
    l_end: int = 32  # band limit of the last level, or the images' own where that is less
    n_iter: int = 4  # levels after the coarse grid
    n_kept_poses: int = 8  # orientations of an image that go on from a level
    base_healpix: int = 2  # order of the coarse grid: 15 degrees
    t_extent: float = 20.0  # pixels; shifts are sought in a square of twice this side
    t_n_grid: int = 7  # shifts on each axis at order 1; 14 at order 2
    frame: Float[Tensor, "3 3"] | None = None  # turns the grid
    symmetry: str = "C1"

    def limit(self, level: int) -> int:
        """Band limit of a level, 0 the coarse grid: 12, 17, 22, 27, 32."""
        return self.l_start + level * (self.l_end - self.l_start) // max(1, self.n_iter)

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The best cells of the last level."""
        cells = self.coarse(images.prefix(self.limit(0)), density)
        for level in range(1, self.n_iter + 1):
            part = images.prefix(self.limit(level))
            weight = self.weight[: len(part.band)]
            cells = divide(part, density, cells, weight, keep=self.n_kept_poses, shift_count=self.shift_count)
        return cells.posterior(self.symmetry)

    @property
    def shift_count(self) -> int:
        """Shifts on each axis of every level's square."""
        return self.t_n_grid * 2 ** (self.base_healpix - 1)

    def coarse(self, images: BandImages, density: Density) -> PoseCells:
        """The best cells of the coarse grid."""
        grid, weight = OrientationGrid(self.base_healpix), self.weight[: len(images.band)]
        shifts = shift_cells(self.t_extent, self.shift_count)
        search = ExhaustiveSearch(grid, shifts, weight, self.n_kept_poses, self.frame, self.symmetry)
        if isinstance(density, ParticleVolumes):
            rotations = search.rotations().float()
            banks = BasisBank.of(density.basis, rotations, images.band)
            found, turned = search_banks(images, banks, density, shifts, weight, self.n_kept_poses), banks.rotations
        else:
            bank = search.bank(density, images.band)
            found, turned = search_bank(images, bank, shifts, weight, self.n_kept_poses), bank.rotations
        cells = PoseCells.about(
            turned[found.orientation.to(turned.device)], shifts[found.shift], self.base_healpix,
            self.t_extent / 2, frame=self.frame,
        )  # fmt: skip
        return replace(cells, log_likelihood=found.log_likelihood)


@dataclass(frozen=True)
class BasisBank:
    """Slices of all the maps of a basis at one orientation of each half-turn pair."""

    band: Band
    rotations: Float[Tensor, "q 3 3"]  # all q = 2 r orientations, as in a SliceBank
    slices: Complex[Tensor, "r m j"]

    @classmethod
    def of(cls, basis: VolumeBasis, rotations: Float[Tensor, "r 3 3"], band: Band) -> BasisBank:
        """Slices of the basis at ``rotations``, which stand for their half-turns as well."""
        slices = torch.cat([basis.slices(part, band) for part in rotations.split(256)])
        half_turn = in_plane(torch.tensor(math.pi, dtype=rotations.dtype, device=rotations.device))
        return cls(band, torch.cat([rotations, half_turn @ rotations]), slices)

    def mixed(self, coefficients: Float[Tensor, "k"]) -> SliceBank:
        """The slices of one particle's density."""
        return SliceBank(self.band, self.rotations, self.slices @ with_mean(coefficients).to(self.slices))


def search_banks(
    images: BandImages,
    banks: BasisBank,
    density: ParticleVolumes,
    shifts: Float[Tensor, "t 2"],
    weight: Float[Tensor, "m"],
    keep: int,
) -> Candidates:
    """:func:`~hoarfrost.poses.search.search_bank` of every image in slices of its own density."""

    def search(row: slice) -> Candidates:
        return search_bank(images[row], banks.mixed(density.coefficients[row.start]), shifts, weight, keep)

    found = map_parts(search, in_parts(len(images), 1), images.vectors.device)
    return Candidates(
        torch.cat([f.orientation for f in found]),
        torch.cat([f.shift for f in found]),
        torch.cat([f.log_likelihood for f in found]),
    )
