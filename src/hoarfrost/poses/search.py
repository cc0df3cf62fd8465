"""Exhaustive search: every orientation of a grid at every shift of a grid, the best few kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import in_asymmetric_unit, point_group
from hoarfrost.kernels.peak import integer_product_rate
from hoarfrost.kernels.search import best_poses, search_is_compiled
from hoarfrost.optimise.machine import matrix_product_rate
from hoarfrost.poses.base import PosePosterior
from hoarfrost.poses.likelihood import (
    SliceBank,
    best_over_shifts,
    coarse_norms,
    fast_matrix_products,
    score_candidates,
    weighted_data,
)
from hoarfrost.representations.base import Density

FINER_FROM = 6
"""Rotations of a group from which on its asymmetric unit is searched in half the steps."""


@dataclass(frozen=True)
class Candidates:
    """The best orientations of each image, each at its best shift, sorted by score; on the CPU, being few."""

    orientation: Int[Tensor, "b c"]  # index into the bank
    shift: Int[Tensor, "b c"]  # index into the shifts
    log_likelihood: Float[Tensor, "b c"]


def coarse_orientations(symmetry: str) -> OrientationGrid:
    """The grid of a first search: 15 degrees, or half of that where a large group leaves little to be searched.

    Equivalent poses of a symmetric particle lie close to one another, and right between them is a false optimum: in a
    group of order 7 about an axis 26 degrees away, which single nodes in the asymmetric unit 15 degrees apart would
    often be as near to as to the truth.
    """
    return OrientationGrid(3 if len(point_group(symmetry)) >= FINER_FROM else 2)


def search_bank(
    images: BandImages,
    bank: SliceBank,
    shifts: Float[Tensor, "t 2"],
    weight: Float[Tensor, "m"],
    keep: int,
) -> Candidates:
    """The ``keep`` best orientations of a bank for every image, shifts (pixels) maximised over."""
    data, power = weighted_data(images, weight)
    phases = images.band.shift_phases(-shifts.to(data.device))
    if search_is_compiled(data):
        return Candidates(*best_poses(data, power, phases, coarse_norms(power, bank), bank.packed, keep))
    coarse = best_over_shifts(data, power, phases, bank)
    orientations = coarse.topk(min(keep, len(bank)), dim=1).indices
    scores, best_shift = score_candidates(data, power, phases, bank, orientations).max(dim=1)
    scores, order = scores.sort(dim=1, descending=True)
    return Candidates(orientations.gather(1, order).cpu(), best_shift.gather(1, order).cpu(), scores.cpu())


def search_peak(device: torch.device) -> float:
    """Operations per second of the products that :func:`search_bank` is made of, with nothing else to do."""
    if search_is_compiled(torch.empty(0, dtype=torch.complex64, device=device)) and (rate := integer_product_rate()):
        return rate
    return matrix_product_rate(precision=fast_matrix_products(), device=device)


@dataclass(frozen=True)
class ExhaustiveSearch:
    """Projection matching on the whole grid; turn the grid by ``frame`` so that no map learns its directions."""

    grid: OrientationGrid
    shifts: Float[Tensor, "t 2"]  # pixels
    weight: Float[Tensor, "m"]  # inverse noise variance of the whitened coefficients
    keep: int = 64
    frame: Float[Tensor, "3 3"] | None = None
    symmetry: str = "C1"  # only viewing directions of one asymmetric unit are searched

    def bank(self, density: Density, band: Band) -> SliceBank:
        """The slices that images are compared with."""
        return SliceBank.of(density, self.rotations().float(), band)

    def rotations(self) -> Float[Tensor, "r 3 3"]:
        """One orientation of each half-turn pair, in the turned frame."""
        index = torch.arange(len(self.grid)).unflatten(0, (self.grid.direction_count, -1))
        rotations = self.grid.rotations(index[:, : self.grid.in_plane_count // 2].flatten())
        if self.frame is not None:
            rotations = rotations @ self.frame.to(rotations)
        return rotations[in_asymmetric_unit(rotations[:, 2], self.symmetry)]

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The best ``keep`` poses of every image."""
        bank = self.bank(density, images.band)
        found = search_bank(images, bank, self.shifts, self.weight, self.keep)
        return PosePosterior(
            bank.rotations[found.orientation], self.shifts[found.shift], found.log_likelihood, self.symmetry
        )
