"""Two maps as flattened Fourier coefficients of a half-ball, and how they agree when one is turned and moved.

Flattened means that every shell of either map has unit power, so that the mean over a shell of ``Re(A* B)`` is its
Fourier shell correlation. The turned map comes from trilinear interpolation of its padded transform, with exact
derivatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import fourier_transform_3d, resample_centred
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

_ROTATIONS_AT_ONCE = 256


@dataclass(frozen=True)
class MapPair:
    """A moving map and a fixed one of the same box, compared out to ``limit`` Fourier pixels.

    Coefficients are sorted by ``|k|``, so that a smaller ball is a prefix. ``weight`` counts those of the plane
    kx = 0, which holds both members of each conjugate pair, once and the others twice.
    """

    moving: FourierVolume
    target: Complex[Tensor, "m"]  # flattened
    flatten: Float[Tensor, "m"]  # what flattens the moving map's coefficients
    k: Float[Tensor, "m 3"]  # Fourier pixels (x, y, z)
    shell: Int[Tensor, "m"]
    weight: Float[Tensor, "m"]
    target_power: Float[Tensor, "m"]

    @classmethod
    def of(cls, moving: Float[Tensor, "z y x"], target: Float[Tensor, "z y x"], limit: int) -> MapPair:
        """Compare masked maps of one grid; frequencies far beyond the limit are dropped at once."""
        limit = min(limit, (len(target) - 1) // 2 - 1)
        box = min(len(target), 2 * (limit + 2))
        moving, target = (resample_centred(volume.float(), box, (0, 1, 2)) for volume in (moving, target))
        k, shell = _half_ball(limit, target.device)
        weight = torch.where(k[:, 0] == 0, 1.0, 2.0)
        x, y, z = (k.long() + box // 2).unbind(-1)
        coefficients = [fourier_transform_3d(volume)[z, y, x] for volume in (moving, target)]
        if not all(bool(values.abs().max() > 0) for values in coefficients):
            raise InputError("a constant map cannot be aligned; check that both files hold a density")
        size = torch.bincount(shell, weight)
        powers = [torch.bincount(shell, weight * v.abs().square()) / size for v in coefficients]
        inverse_roots = [_inverse_root(power).float()[shell] for power in powers]
        return cls(
            moving=FourierVolume.from_volume(Volume(moving, 1.0), limit),
            target=coefficients[1] * inverse_roots[1],
            # Slices carry sqrt(box) times the volume's own coefficients.
            flatten=inverse_roots[0] / math.sqrt(box),
            k=k,
            shell=shell,
            weight=weight,
            target_power=powers[1].float()[shell],
        )

    @property
    def box(self) -> int:
        """Side of the working box; shifts are in its voxels."""
        return self.moving.grid.box

    @property
    def limit(self) -> int:
        """The last shell."""
        return int(self.shell[-1])

    def count(self, limit: int) -> int:
        """Coefficients with ``|k| <= limit``."""
        return int((self.k.square().sum(-1) <= limit**2).sum())

    def best_shifts(
        self, rotations: Float[Tensor, "r 3 3"], limit: int
    ) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r"]]:
        """The shift at which each turned map agrees best by the shells to ``limit``, and the agreement.

        All shifts of a grid that resolves these shells are tried at once by a Fourier transform. The agreement is the
        mean of the shell correlations.
        """
        count, side = self.count(limit), 2 * (limit + 2)
        x, y, z = (self.k[:count].long() % side).unbind(-1)
        size = torch.bincount(self.shell[:count], self.weight[:count])
        fixed = self.target[:count] / (limit * size[self.shell[:count]]).float()
        shifts, scores = [], []
        for turn in rotations.split(_ROTATIONS_AT_ONCE):
            spectrum = self.target.new_zeros(len(turn), side, side, side // 2 + 1)
            spectrum[:, z, y, x] = fixed * self._turned(turn, count).conj()
            agreement = torch.fft.irfftn(spectrum, s=(side, side, side), dim=(1, 2, 3), norm="forward")
            score, place = agreement.flatten(1).max(dim=1)
            place = torch.stack([place % side, place // side % side, place // side**2], dim=-1)
            shifts.append(((place + side // 2) % side - side // 2).double() * (self.box / side))
            scores.append(score.double())
        return torch.cat(shifts), torch.cat(scores)

    def moved(
        self, rotations: Float[Tensor, "r 3 3"], shifts: Float[Tensor, "r 3"], count: int
    ) -> tuple[Complex[Tensor, "r m"], Complex[Tensor, "r m 6"]]:
        """Flattened coefficients of the moved maps and their derivatives by a small rotation vector and the shift.

        Rotations grow by ``exp(w) R``; ``exp(-2 pi i k.s) M(R^T k)`` then changes by ``-(k x R grad M) . w``.
        """
        grid = self.moving.grid
        points = (self.k[:count] * grid.padding) @ rotations.to(self.k)
        fields = grid.extract(self.moving.values_and_moments, points) * self.flatten[:count, None]
        angle = (-2 * math.pi / self.box) * (shifts.to(self.k) @ self.k[:count].mT)
        fields = fields * torch.polar(torch.ones_like(angle), angle)[..., None]
        values = fields[..., 0]
        gradient = torch.einsum("rij,rmj->rmi", rotations.to(values), fields[..., 1:] * -1j)
        k = self.k[:count].to(values).expand_as(gradient)
        by_rotation = -torch.linalg.cross(k, gradient)
        by_shift = (-2j * math.pi / self.box) * k * values[..., None]
        return values, torch.cat([by_rotation, by_shift], dim=-1)

    def shell_correlation(self, values: Complex[Tensor, "r m"]) -> Float[Tensor, "r shells"]:
        """Fourier shell correlation of moved maps with the target in the shells 1, 2, ... of this prefix."""
        count = values.shape[-1]
        shell, weight = self.shell[:count] - 1, self.weight[:count]
        products = weight * (self.target[:count].conj() * values).real
        total = products.new_zeros(len(values), int(shell[-1]) + 1).index_add_(1, shell, products)
        return total.double() / self.shell_sizes(count)

    def shell_sizes(self, count: int) -> Float[Tensor, "shells"]:
        """Coefficients of the full ball in the shells 1, 2, ... of this prefix."""
        return torch.bincount(self.shell[:count] - 1, self.weight[:count]).double()

    def correlation(self, values: Complex[Tensor, "m"]) -> float:
        """Correlation coefficient of a moved map and the target as they are, not flattened, without DC."""
        moving_power = _inverse_root(self.flatten.square())
        amplitude = self.weight * moving_power * self.target_power.sqrt()
        covariance = (amplitude * (self.target.conj() * values).real).sum()
        first = (self.weight * moving_power.square() * values.abs().square()).sum()
        second = (self.weight * self.target_power * self.target.abs().square()).sum()
        return float(covariance / (first * second).sqrt())

    def _turned(self, rotations: Float[Tensor, "r 3 3"], count: int) -> Complex[Tensor, "r m"]:
        grid = self.moving.grid
        points = (self.k[:count] * grid.padding) @ rotations.to(self.k)
        return grid.extract(self.moving.values, points)[..., 0] * self.flatten[:count]


def _half_ball(limit: int, device: torch.device) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "m"]]:
    """Fourier pixels (x, y, z) with ``kx >= 0`` and ``0 < |k| <= limit``, sorted by length, and their shells."""
    axis = torch.arange(-limit, limit + 1, device=device)
    x, y, z = torch.meshgrid(axis[limit:], axis, axis, indexing="ij")
    k = torch.stack([x, y, z], dim=-1).flatten(0, 2)
    square = k.square().sum(-1)
    k = k[(square > 0) & (square <= limit**2)]
    k = k[k.square().sum(-1).argsort(stable=True)].float()
    return k, torch.linalg.vector_norm(k, dim=-1).round().long()


def _inverse_root(power: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """``1 / sqrt(power)``, and 0 where there is none."""
    return torch.where(power > 0, power.clamp(min=torch.finfo(power.dtype).tiny).rsqrt(), 0.0)
