"""A projector for simulations that shares nothing with the interpolation of the reconstruction.

A central slice asks for a volume's transform between the points of its Fourier grid. Instead of interpolating between
neighbours, the transform is *expanded* about the nearest grid point ``n``. With ``k = n + u/2`` and ``|u| <= 1`` on
each axis, the kernel of the transform is on each axis a short series in Legendre polynomials,

    exp(-2πi k x / D) = exp(-2πi n x / D) · Σ_p (2p + 1) (-i)^p j_p(π x / D) P_p(u),

so that ``V̂(k) = Σ P_a(u_x) P_b(u_y) P_c(u_z) T_abc(n)``, where ``T_abc`` is the ordinary transform of the volume times
``(2a + 1) j_a(π x / D) (2b + 1) j_b(π y / D) (2c + 1) j_c(π z / D) (-i)^(a + b + c)``: the low-rank non-uniform FFT of
Ruiz-Antolín & Townsend (SIAM J. Sci. Comput. 40, A529, 2018) with the basis that is best in the mean square. There is
no padding, no kernel and nothing to compensate; the error falls with the order and is bounded by the Bessel functions.

Why this and not a wider interpolation kernel: at box 128 a slice has 6,400 coefficients. A kernel of four points on a
side gathers 64 scattered values for each, 0.4 million an image and a hundred images a second on a core; the series
gathers one row of twenty neighbouring values for each. Terms to total order three leave 1e-5 to 1e-4 of the power of
a particle that fills 60 to 85 % of the box (``tests/data/test_projector.py``), at about a millisecond an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.types import Volume

ORDER = 3
"""Total order of the series."""


@dataclass(frozen=True)
class SeriesProjector:
    """Central slices of a cubic map by Legendre series about the points of its own Fourier grid.

    The table holds the grid points of the half-space ``kx >= 0`` inside Nyquist with a complex coefficient a term:
    90 MB at box 128, 0.7 GB at box 256. It is made when first needed, or by :meth:`prepared`.
    """

    volume: Volume
    order: int = ORDER

    @staticmethod
    def table_bytes(box: int, order: int = ORDER) -> float:
        """Memory that the table of a projector takes: half a ball of grid points, 8 bytes a term."""
        terms = math.comb(order + 3, 3)
        return 8 * terms * (math.pi / 12) * (box + 2) ** 3

    def prepared(self) -> SeriesProjector:
        """The same projector with its table made, so that threads may share it."""
        _ = self._coefficients
        _ = self._line_start
        _ = self.total
        return self

    @property
    def box(self) -> int:
        """Side of the map, and of the images, in pixels."""
        return self.volume.box

    @property
    def limit(self) -> int:
        """Highest frequency, in Fourier pixels, at which slices are taken: the last below Nyquist."""
        return (self.box - 1) // 2

    @cached_property
    def total(self) -> float:
        """Sum of the map: every projection's sum."""
        return float(self.volume.data.double().sum())

    def project(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m"]:
        """Band vectors of projections (sums along z of the turned map), as orthonormal transforms; complex64.

        Parameters
        ----------
        rotations : object to image coordinates.
        band : coefficients of images of this map's box.
        frequency_matrix : takes an image's frequency to the map's, per particle; frequencies beyond the map's Nyquist
            are zero.
        """
        frames = rotations[:, :2].float()
        if frequency_matrix is not None:
            frames = frequency_matrix.mT.float() @ frames
        points = band.k.to(frames) @ frames
        # The map is real: a point on the other side is the conjugate of its opposite.
        sign = torch.where(points[..., :1] < 0, -1.0, 1.0)
        points = points * sign
        if frequency_matrix is None:
            return self._series(points, sign)
        inside = torch.linalg.vector_norm(points, dim=-1) <= self.limit
        return self._series(points * inside[..., None], sign) * inside

    def _series(self, points: Float[Tensor, "n m 3"], sign: Float[Tensor, "n m 1"]) -> Complex[Tensor, "n m"]:
        nearest = points.round()
        terms = self._polynomials((2 * (points - nearest)).reshape(-1, 3))
        coefficients = self._coefficients.index_select(0, self._row(nearest.int()).flatten())
        values = torch.bmm(coefficients.unflatten(1, (2, -1)), terms[:, :, None])[..., 0]
        return torch.complex(values[:, 0], values[:, 1] * sign.flatten()).unflatten(0, points.shape[:2])

    @cached_property
    def _orders(self) -> list[tuple[int, int, int]]:
        powers = range(self.order + 1)
        return [(a, b, c) for a, b, c in product(powers, powers, powers) if a + b + c <= self.order]

    @property
    def _reach(self) -> int:
        return self.box // 2

    @cached_property
    def _kept(self) -> Bool[Tensor, "z y x"]:
        """Which points (z, y, x >= 0) of the grid are nearest to some point within the limit."""
        full = torch.arange(-self._reach, self._reach + 1)
        half = torch.arange(0, self._reach + 1)
        square = full[:, None, None] ** 2 + full[:, None] ** 2 + half**2
        return square <= (self.limit + 1) ** 2

    @cached_property
    def _line_start(self) -> Int[Tensor, "lines"]:
        """Row of the first kept point of each line (z, y)."""
        lengths = self._kept.sum(-1).flatten()
        return (lengths.cumsum(0) - lengths).int()

    def _row(self, nearest: Int[Tensor, "n m 3"]) -> Int[Tensor, "n m"]:
        side = 2 * self._reach + 1
        line = nearest[..., 2] * side + nearest[..., 1] + self._reach * (side + 1)
        return self._line_start[line] + nearest[..., 0]

    @cached_property
    def _coefficients(self) -> Float[Tensor, "points terms"]:
        """For each kept point the real parts of all terms, then the imaginary ones."""
        data = self.volume.data.double()
        position = (torch.arange(self.box, dtype=torch.float64) - self.box // 2) * (math.pi / self.box)
        bessel = [(2 * p + 1) * _spherical_bessel(p, position) for p in range(self.order + 1)]
        wrapped = torch.arange(-self._reach, self._reach + 1) % self.box
        table = torch.empty(int(self._kept.sum()), 2, len(self._orders))
        for term, (a, b, c) in enumerate(self._orders):
            weighted = data * bessel[c][:, None, None] * bessel[b][:, None] * bessel[a]
            # ifftshift moves the origin, voxel floor(D/2), to the first place.
            spectrum = torch.fft.rfftn(torch.fft.ifftshift(weighted.float(), (0, 1, 2)))
            kept = spectrum[wrapped][:, wrapped][self._kept]
            value = kept * ((-1j) ** (a + b + c) / self.box)
            table[:, 0, term], table[:, 1, term] = value.real, value.imag
        return table.flatten(1)

    def _polynomials(self, offset: Float[Tensor, "q 3"]) -> Float[Tensor, "q terms"]:
        u = offset.T.contiguous()
        powers = [torch.ones_like(u), u]
        for p in range(1, self.order):
            powers.append(((2 * p + 1) * u * powers[p] - p * powers[p - 1]) / (p + 1))
        return torch.stack([_product(powers, orders) for orders in self._orders], dim=-1)


def _product(legendre: list[Tensor], orders: tuple[int, int, int]) -> Tensor:
    """The product of one Legendre polynomial an axis; factors P_0 = 1 are left out."""
    factors = [legendre[p][axis] for axis, p in enumerate(orders) if p > 0]
    if not factors:
        return legendre[0][0]
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def _spherical_bessel(order: int, argument: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    """``j_n(z)`` by its power series, to rounding for the ``|z| <= π/2`` that occur here."""
    double_factorial = math.prod(range(1, 2 * order + 2, 2))
    term = argument**order / double_factorial
    result = term
    for s in range(1, 15):
        term = term * (-0.5 * argument.square()) / (s * (2 * order + 2 * s + 1))
        result = result + term
    return result
