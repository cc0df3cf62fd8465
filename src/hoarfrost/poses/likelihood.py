"""The likelihood of every image at every shift and orientation, as matrix products.

With whitened images ``X`` (noise of unit power in every half-plane coefficient), transfer functions ``C``, slices ``Y``
and shell weights ``v``, the log-likelihood up to a constant is

    S(image, shift, orientation) = sum over the band of  2 v Re< C X_t, Y > - v C^2 |Y|^2 ,   X_t = X exp(+2 pi i k.t).

The cross term is one matrix product, rows (image, shift) against columns (orientation). A half-turn in the plane
conjugates a slice, so that S at an orientation and at its half-turn are E + O and E - O with E from the real parts and
O from the imaginary parts: half the slices, half the work, exactly. On the CPU the compiled search of
:mod:`hoarfrost.kernels.search` does the same where it was built; this is its twin in PyTorch, for GPUs as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import in_plane
from hoarfrost.kernels.search import PackedSlices
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.representations.base import Density

IMAGES_AT_ONCE = 24
"""Images in one matrix product: large enough for the multiplier, small enough for its result to stay in cache."""


@dataclass(frozen=True)
class SliceBank:
    """Slices of a density at orientations that come in half-turn pairs; only one of each pair is kept.

    Orientation ``i < r`` is ``rotations[i]``; orientation ``r + i`` is the same turned by pi in the plane.
    """

    band: Band
    rotations: Float[Tensor, "q 3 3"]  # all q = 2 r orientations
    slices: Complex[Tensor, "r m"]

    @classmethod
    def of(cls, density: Density, rotations: Float[Tensor, "r 3 3"], band: Band) -> SliceBank:
        """Slices of ``density`` at ``rotations``, which stand for their half-turns as well."""
        half_turn = in_plane(torch.tensor(math.pi, dtype=rotations.dtype, device=rotations.device))
        slices = torch.cat([density.project(part, band) for part in rotations.split(256)])
        return cls(band, torch.cat([rotations, half_turn @ rotations]), slices)

    def __len__(self) -> int:
        return len(self.rotations)

    def at(self, orientations: Int[Tensor, "*n"]) -> Complex[Tensor, "*n m"]:
        """Slices of these orientations, half-turns conjugated."""
        orientations = orientations.to(self.slices.device)
        picked = self.slices[orientations % len(self.slices)]
        return torch.where((orientations >= len(self.slices))[..., None], picked.conj(), picked)

    @cached_property
    def rows(self) -> Float[Tensor, "q w"]:
        """Every orientation's slice as one row of reals (re, im, re, im, ...)."""
        both = torch.cat([self.slices, self.slices.conj()])
        return torch.view_as_real(both.resolve_conj()).flatten(-2)

    @cached_property
    def packed(self) -> PackedSlices:
        """The slices as the compiled search wants them."""
        return PackedSlices.of(self.slices)

    @cached_property
    def power(self) -> Float[Tensor, "r m"]:
        """``|Y|^2``, the same for an orientation and its half-turn."""
        return self.slices.abs().square()


def likelihood_at(
    images: BandImages,
    density: Density,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    weight: Float[Tensor, "m"],
) -> Float[Tensor, "b"]:
    """``sum 2 v Re<C X_t, Y> - v C^2 |Y|^2`` of every image at its pose, differentiable in all of them."""
    model = images.transfer * density.project(rotations, images.band, images.frequency_matrix)
    data = images.centred(shifts).vectors
    cross = data.real * model.real + data.imag * model.imag
    power = model.real.square() + model.imag.square()
    return ((2 * cross - power) * weight.to(images.transfer)).sum(-1)


def weighted_data(
    images: BandImages, weight: Float[Tensor, "m"]
) -> tuple[Complex[Tensor, "b m"], Float[Tensor, "b m"]]:
    """The two sufficient statistics ``v C X`` and ``v C^2`` of a batch."""
    weighted = images.transfer * weight.to(images.transfer)
    return images.vectors * weighted, images.transfer * weighted


def best_over_shifts(
    data: Complex[Tensor, "b m"],
    power: Float[Tensor, "b m"],
    phases: Complex[Tensor, "t m"],
    bank: SliceBank,
) -> Float[Tensor, "b q"]:
    """``max over shifts of S`` for every image and orientation, by the statistics ``v C X`` and ``v C^2``.

    ``phases`` are ``exp(+2 pi i k.t)``. The products run in the machine's fast low precision where it has one
    (bfloat16 inputs, float32 sums), so that the few best must be scored again by :func:`score_candidates`.
    """
    real, imaginary = (2 * bank.slices.real).T.contiguous(), (2 * bank.slices.imag).T.contiguous()
    norms = power @ bank.power.T
    best = torch.empty(len(data), len(bank), device=data.device)
    kept = len(bank.slices)

    def fill(rows: slice) -> None:
        shifted = (data[rows, None] * phases).flatten(0, 1)
        even = (shifted.real @ real).unflatten(0, (-1, len(phases)))
        odd = (shifted.imag @ imaginary).unflatten(0, (-1, len(phases)))
        best[rows, :kept] = even.add_(odd).amax(1).sub_(norms[rows])
        best[rows, kept:] = even.sub_(odd, alpha=2).amax(1).sub_(norms[rows])

    with fast_matrix_products():
        map_parts(fill, in_parts(len(data), IMAGES_AT_ONCE), data.device)
    return best


def coarse_norms(power: Float[Tensor, "b m"], bank: SliceBank) -> Float[Tensor, "b r"]:
    """The sums of ``v C^2 |Y|^2``, as exact as a coarse score needs them."""
    with fast_matrix_products():
        return power @ bank.power.T


def score_candidates(
    data: Complex[Tensor, "b m"],
    power: Float[Tensor, "b m"],
    phases: Complex[Tensor, "t m"],
    bank: SliceBank,
    orientations: Int[Tensor, "b c"],
) -> Float[Tensor, "b t c"]:
    """S at every shift for a few orientations of each image, in full float32."""
    norms = (power @ bank.power.T).gather(1, orientations % len(bank.slices))

    def score(rows: slice) -> Tensor:
        shifted = torch.view_as_real(data[rows, None] * phases).flatten(-2)
        return 2 * (shifted @ bank.rows[orientations[rows]].mT) - norms[rows, None]

    bank.rows  # noqa: B018 - made once here, not by every thread
    return torch.cat(map_parts(score, in_parts(len(data), IMAGES_AT_ONCE), data.device))


@contextmanager
def fast_matrix_products() -> Iterator[None]:
    """Let float32 matrix products multiply in bfloat16 or TF32 where the hardware does so natively."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def search_teraflop(images: int, shifts: int, bank: SliceBank) -> float:
    """Operations, in 10^12, of the matrix products in :func:`best_over_shifts`."""
    return 1e-12 * 2 * images * len(bank.slices) * len(bank.band) * (2 * shifts + 1)
