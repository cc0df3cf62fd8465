"""Projections of isotropic Gaussians as matrix products: nothing is cut off, and the work is one product an image.

A projected isotropic Gaussian is a function of x times one of y, so that an image is ``X diag(A) Y^T`` with a column of
``X`` and of ``Y`` for each Gaussian. Two such functions are of use:

* in Fourier space (:class:`Harmonics`), where ``exp(-2 pi^2 s^2 k^2 / D^2)`` times cosines and sines of ``2 pi k m / D``
  give the four sums of which the coefficients at ``(kx, ky)`` and ``(kx, -ky)`` consist, in one real product with half
  the work of a complex one;
* in real space, integrated over pixels (:class:`PixelIntegrals`), which keeps the mass of the narrowest Gaussians.

The product is taken over as many Gaussians at a time as the caches hold columns of. Backwards there are two more, of
each factor with the gradient; the columns are made anew rather than kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.kernels.harmonics import harmonic_rows, harmonic_sums
from hoarfrost.kernels.library import compiled_for
from hoarfrost.kernels.threads import in_parts, map_parts

NUMBERS_AT_ONCE = 1 << 17
"""Numbers of one factor that are worked on together on the CPU."""

NUMBERS_AT_ONCE_ELSEWHERE = 1 << 25


def fourier_projections(
    positions: Float[Tensor, "b 2 n"], masses: Float[Tensor, "n"], variances: Float[Tensor, "n"], band: Band
) -> Complex[Tensor, "b m"]:
    """Band vectors of the images of Gaussians, as orthonormal transforms; differentiable in all three.

    Parameters
    ----------
    positions : of the centres in each image, (x, y) in pixels about the origin.
    masses : sums over the image.
    variances : in squared pixels.
    band : coefficients, and the box of the images.
    """
    harmonics = Harmonics(band.box, band.limit)
    products = row_products(positions, masses / band.box, variances, harmonics)
    size, kept = harmonics.harmonics, band.limit + 1
    cc, cs = products[:, :kept, :kept], products[:, :kept, size : size + kept]
    sc, ss = products[:, size : size + kept, :kept], products[:, size : size + kept, size : size + kept]
    # exp(-i a) exp(-i b) and exp(-i a) exp(i b) in cosines and sines of a = kx x and b = ky y.
    above, below = torch.complex(cc - ss, -(sc + cs)), torch.complex(cc + ss, cs - sc)
    rectangle = torch.cat([below[..., 1:].flip(-1), above], dim=-1)
    return rectangle.flatten(1)[:, _places(band).to(positions.device)]


def pixel_projections(
    positions: Float[Tensor, "b 2 n"], masses: Float[Tensor, "n"], variances: Float[Tensor, "n"], box: int
) -> Float[Tensor, "b y x"]:
    """Images of Gaussians integrated over each pixel; arguments as for :func:`fourier_projections`."""
    return row_products(positions, masses, variances, PixelIntegrals(box)).mT


def _places(band: Band) -> Int[Tensor, "m"]:
    """Where the band's coefficients are among those with 0 <= kx <= limit and -limit <= ky <= limit."""
    kx, ky = band.k.unbind(-1)
    return kx * (2 * band.limit + 1) + ky + band.limit


@runtime_checkable
class Rows(Protocol):
    """Points on one axis, and a function there of a Gaussian's position and variance."""

    @property
    def count(self) -> int:
        """Number of points."""
        ...

    def widths(self, variances: Float[Tensor, "n"]) -> Float[Tensor, "w n"]:
        """What depends on the variances alone."""
        ...

    def values(self, positions: Float[Tensor, "b n"], widths: Float[Tensor, "w n"]) -> Float[Tensor, "b rows n"]:
        """The function at every point."""
        ...

    def derivatives(
        self,
        positions: Float[Tensor, "b n"],
        widths: Float[Tensor, "w n"],
        values: Float[Tensor, "b rows n"],
        gradient: Float[Tensor, "b rows n"],
    ) -> Float[Tensor, "b 3 n"]:
        """Sums over the points of a gradient times the function, times its derivatives by position and by variance."""
        ...


@dataclass(frozen=True)
class Harmonics:
    """Cosines, then sines, of the frequencies 0 ... limit of a box, under the envelope of the Gaussian's width.

    They follow from a few by addition of angles, for which there may be some more than the limit asks for.
    """

    box: int
    limit: int

    @property
    def step(self) -> int:
        """Harmonics that are shifted together by addition of angles."""
        return min(range(4, 13), key=lambda step: (-(self.limit + 1) % step, abs(step - 8)))

    @property
    def harmonics(self) -> int:
        """Number of frequencies."""
        return -(-(self.limit + 1) // self.step) * self.step

    @property
    def count(self) -> int:
        """Cosines and sines."""
        return 2 * self.harmonics

    def widths(self, variances: Float[Tensor, "n"]) -> Float[Tensor, "w n"]:
        """The envelope."""
        square = torch.arange(self.harmonics, device=variances.device).to(variances).square()
        return torch.exp(square[:, None] * (variances * (-2 * math.pi**2 / self.box**2)))

    def values(self, positions: Float[Tensor, "b n"], widths: Float[Tensor, "w n"]) -> Float[Tensor, "b rows n"]:
        """Cosines and sines."""
        angle, step = positions * (2 * math.pi / self.box), self.step
        if compiled_for(angle, widths):
            return harmonic_rows(angle.cos(), angle.sin(), widths)
        fine = torch.arange(step, device=positions.device).to(positions)[:, None, None] * angle
        coarse = torch.arange(0, self.harmonics, step, device=positions.device).to(positions)[:, None, None] * angle
        cosine, sine = (one.transpose(0, 1)[:, None] for one in (fine.cos(), fine.sin()))
        far_cosine, far_sine = (one.transpose(0, 1)[:, :, None] for one in (coarse.cos(), coarse.sin()))
        result = positions.new_empty(len(positions), 2, len(coarse), step, positions.shape[1])
        torch.mul(far_cosine, cosine, out=result[:, 0]).addcmul_(far_sine, sine, value=-1)
        torch.mul(far_sine, cosine, out=result[:, 1]).addcmul_(far_cosine, sine)
        return result.flatten(2, 3).mul_(widths).flatten(1, 2)

    def derivatives(
        self,
        positions: Float[Tensor, "b n"],
        widths: Float[Tensor, "w n"],
        values: Float[Tensor, "b rows n"],
        gradient: Float[Tensor, "b rows n"],
    ) -> Float[Tensor, "b 3 n"]:
        """Weighted sums over the harmonics: those of variance with ``k^2``, those of position with ``k``, turned."""
        if compiled_for(values, gradient):
            factors = values.new_tensor([1.0, 2 * math.pi / self.box, -2 * math.pi**2 / self.box**2])
            return harmonic_sums(values, gradient).mul_(factors[:, None])
        k = torch.arange(self.harmonics, device=values.device).to(values).repeat(2)
        unweighted = torch.stack([torch.ones_like(k), (-2 * math.pi**2 / self.box**2) * k.square()])
        cosine, sine = values.chunk(2, dim=1)
        turned = torch.cat([-sine, cosine], dim=1).mul_(gradient)
        by_position = ((2 * math.pi / self.box) * k) @ turned
        by_mass, by_variance = (unweighted @ gradient.mul_(values)).unbind(1)
        return torch.stack([by_mass, by_position, by_variance], dim=1)


@dataclass(frozen=True)
class PixelIntegrals:
    """Integrals of a Gaussian over the pixels of an axis."""

    box: int

    @property
    def count(self) -> int:
        """Pixels."""
        return self.box

    def widths(self, variances: Float[Tensor, "n"]) -> Float[Tensor, "w n"]:
        """The inverse standard deviation."""
        return variances.rsqrt()[None]

    def values(self, positions: Float[Tensor, "b n"], widths: Float[Tensor, "w n"]) -> Float[Tensor, "b rows n"]:
        """Differences of the error function between the edges of pixels."""
        return torch.erf(self._edges(positions, widths) * math.sqrt(0.5)).diff(dim=1).mul_(0.5)

    def derivatives(
        self,
        positions: Float[Tensor, "b n"],
        widths: Float[Tensor, "w n"],
        values: Float[Tensor, "b rows n"],
        gradient: Float[Tensor, "b rows n"],
    ) -> Float[Tensor, "b 3 n"]:
        """From the Gaussian and its first moment at the edges of pixels."""
        edges = self._edges(positions, widths)
        profile = (-0.5 * edges.square()).exp() * (widths / math.sqrt(2 * math.pi))
        by_position = -(gradient * profile.diff(dim=1)).sum(1)
        by_variance = (gradient * (profile * edges).diff(dim=1)).sum(1) * (-0.5 * widths)
        return torch.stack([(gradient * values).sum(1), by_position, by_variance], dim=1)

    def _edges(self, positions: Tensor, widths: Tensor) -> Tensor:
        """Edges of pixels relative to each Gaussian, in its standard deviations."""
        edge = torch.arange(self.box + 1, device=positions.device).to(positions) - (self.box // 2 + 0.5)
        return (edge[:, None] - positions[:, None]) * widths


def row_products(
    positions: Float[Tensor, "b 2 n"], masses: Float[Tensor, "n"], variances: Float[Tensor, "n"], rows: Rows
) -> Float[Tensor, "b rows columns"]:
    """Sums over Gaussians of mass times the function of x (down) times that of y (across)."""
    result = _RowProducts.apply(positions, masses, variances, rows)
    assert isinstance(result, Tensor)
    return result


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, masses: Tensor, variances: Tensor, rows: Rows) -> Tensor:
        ctx.save_for_backward(positions, masses, variances)
        ctx.rows = rows
        positions, masses, variances = positions.detach(), masses.detach(), variances.detach()
        widths = rows.widths(variances)
        images, gaussians = _parts(positions, rows)

        def multiply(part: slice) -> Tensor:
            result = positions.new_zeros(part.stop - part.start, rows.count, rows.count)
            for some in gaussians:
                along_x, along_y = (rows.values(positions[part, axis, some], widths[:, some]) for axis in (0, 1))
                result.baddbmm_(along_x.mul_(masses[some]), along_y.mT)
            return result

        return torch.cat(map_parts(multiply, images, positions.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        positions, masses, variances = (one.detach() for one in ctx.saved_tensors)
        rows, gradient = ctx.rows, gradients[0].detach()
        widths = rows.widths(variances)
        images, gaussians = _parts(positions, rows)
        by_position = torch.empty_like(positions)

        def differentiate(part: slice) -> Tensor:
            """Writes what belongs to the images; returns what they share, by mass and by variance."""
            shared, down = masses.new_empty(2, len(masses)), gradient[part]
            for some in gaussians:
                places = positions[part, :, some].unbind(1)
                along_x, along_y = (rows.values(place, widths[:, some]) for place in places)
                by_x, by_y = down @ along_y, down.mT @ along_x
                by_x = rows.derivatives(places[0], widths[:, some], along_x, by_x)
                by_y = rows.derivatives(places[1], widths[:, some], along_y, by_y)
                by_position[part, 0, some] = by_x[:, 1] * masses[some]
                by_position[part, 1, some] = by_y[:, 1] * masses[some]
                shared[0, some] = by_x[:, 0].sum(0)
                shared[1, some] = (by_x[:, 2] + by_y[:, 2]).sum(0) * masses[some]
            return shared

        by_mass, by_variance = torch.stack(map_parts(differentiate, images, positions.device)).sum(0)
        return by_position, by_mass, by_variance, None


def _parts(positions: Tensor, rows: Rows) -> tuple[list[slice], list[slice]]:
    """Images and Gaussians that are worked on together."""
    at_once = NUMBERS_AT_ONCE if positions.device.type == "cpu" else NUMBERS_AT_ONCE_ELSEWHERE
    images, _, count = positions.shape
    gaussians = max(64, min(count, at_once // rows.count))
    return in_parts(images, max(1, at_once // (rows.count * gaussians))), in_parts(count, gaussians)
