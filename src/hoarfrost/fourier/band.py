"""The band: half-plane Fourier coefficients with ``0 < |k| <= L``, the common language of images, CTFs and slices.

Coefficients are sorted by ``|k|``, so that a smaller band is a prefix of a bigger one and raising the resolution is
slicing an array. Each coefficient stands for itself and its complex conjugate at ``-k``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.kernels.images import pick_coefficients
from hoarfrost.kernels.library import compiled_for

CONJUGATE_PAIR = 2.0
"""Weight of a half-plane coefficient in a full-plane sum: it stands for itself and its conjugate."""


@dataclass(frozen=True)
class Band:
    """Half-plane coefficients of a ``box x box`` image up to ``limit`` Fourier pixels, without DC.

    The limit stays below Nyquist (``limit < box / 2``), where every coefficient has a distinct conjugate.
    """

    box: int
    limit: int

    def __post_init__(self) -> None:
        if not 1 <= self.limit < self.box / 2:
            raise ValueError(f"a band of box {self.box} ends between 1 and {(self.box - 1) // 2}, not {self.limit}")

    @classmethod
    def to_nyquist(cls, box: int) -> Band:
        """The largest band of a box."""
        return cls(box, (box - 1) // 2)

    @cached_property
    def k(self) -> Int[Tensor, "m 2"]:
        """Fourier pixels (kx, ky), sorted by length; the half-plane kx > 0, or kx = 0 and ky > 0."""
        kx, ky = torch.meshgrid(
            torch.arange(0, self.limit + 1), torch.arange(-self.limit, self.limit + 1), indexing="ij"
        )
        square = kx**2 + ky**2
        keep = (square > 0) & (square <= self.limit**2) & ((kx > 0) | (ky > 0))
        kx, ky, square = kx[keep], ky[keep], square[keep]
        order = torch.argsort(square, stable=True)
        return torch.stack([kx[order], ky[order]], dim=-1)

    @cached_property
    def raster(self) -> Int[Tensor, "m"]:
        """The coefficients by kx, then ky."""
        kx, ky = self.k.unbind(-1)
        return torch.argsort(kx * (2 * self.limit + 1) + ky)

    @cached_property
    def radius(self) -> Float[Tensor, "m"]:
        """``|k|`` in Fourier pixels, float64."""
        return torch.linalg.vector_norm(self.k.double(), dim=-1)

    @cached_property
    def shell(self) -> Int[Tensor, "m"]:
        """Shell of each coefficient: ``round(|k|)``, so at most ``limit``."""
        return self.radius.round().long()

    @cached_property
    def shell_sizes(self) -> Float[Tensor, "shells"]:
        """Coefficients in each of the shells 0 ... limit."""
        return torch.bincount(self.shell, minlength=self.limit + 1).double()

    @cached_property
    def frequency(self) -> Float[Tensor, "m 2"]:
        """Frequencies (x, y) in cycles per pixel, float64."""
        return self.k.double() / self.box

    def __len__(self) -> int:
        return len(self.k)

    def prefix(self, limit: int) -> Band:
        """The band of the same box that ends earlier; its coefficients are the first ``len`` of this one's."""
        if limit > self.limit:
            raise ValueError(f"a band to {self.limit} holds no coefficients to {limit}")
        return Band(self.box, limit)

    def from_images(self, images: Float[Tensor, "b y x"]) -> Complex[Tensor, "b m"]:
        """Band vectors of real images: orthonormal transform about the pixel ``floor(D/2)``."""
        # Columns that the band leaves out need not be transformed along y.
        rows = torch.fft.rfft(images, norm="ortho")[..., : self.limit + 1]
        spectra = torch.fft.fft(rows, dim=-2, norm="ortho").mT.contiguous().flatten(1)
        # The transform above counts from pixel 0; moving the origin to floor(D/2) is a phase, a sign in even boxes.
        if compiled_for(spectra) and not spectra.requires_grad:
            return pick_coefficients(spectra, self._places, self._origin)
        return spectra[:, self._places.to(images.device)] * self._origin.to(spectra)

    def to_images(self, coefficients: Complex[Tensor, "b m"]) -> Float[Tensor, "b y x"]:
        """Real images of band vectors; the adjoint of :meth:`from_images` counting conjugates, zero outside the band."""
        kx, ky = self.k.to(coefficients.device).unbind(-1)
        width = self.box // 2 + 1
        spectra = coefficients.new_zeros(len(coefficients), self.box * width)
        values = coefficients * self._origin.conj().to(coefficients)
        spectra[:, (ky % self.box) * width + kx] = values
        # The half-plane kx = 0, ky < 0 is stored by the real transform, so that the conjugates have to be put there.
        on_axis = kx == 0
        spectra[:, ((-ky[on_axis]) % self.box) * width] = values[:, on_axis].conj()
        return torch.fft.irfft2(spectra.reshape(-1, self.box, width), s=(self.box, self.box), norm="ortho")

    def shift_phases(self, shifts: Float[Tensor, "*b 2"]) -> Complex[Tensor, "*b m"]:
        """Factors ``exp(-2 pi i k.t)`` that a particle centred at ``t`` pixels carries."""
        frequency = self.frequency.to(shifts)
        angle = (-2 * math.pi) * (shifts @ frequency.mT)
        return torch.polar(torch.ones_like(angle), angle)

    def shell_mean(self, values: Float[Tensor, "*b m"]) -> Float[Tensor, "*b shells"]:
        """Mean over the coefficients of each shell 0 ... limit (0 for the empty shell 0)."""
        shell = self.shell.to(values.device)
        total = values.new_zeros(*values.shape[:-1], self.limit + 1).index_add_(-1, shell, values)
        return total / self.shell_sizes.to(values).clamp(min=1)

    def at_shells(self, spectrum: Float[Tensor, "*b shells"]) -> Float[Tensor, "*b m"]:
        """A radial function, given at shells 0 ... limit or further, at every coefficient."""
        return spectrum[..., self.shell.to(spectrum.device)]

    @cached_property
    def _places(self) -> Int[Tensor, "m"]:
        """Where the coefficients are in a flattened transform with the axes (kx, ky)."""
        kx, ky = self.k.unbind(-1)
        return kx * self.box + ky % self.box

    @cached_property
    def _origin(self) -> Complex[Tensor, "m"]:
        """Factors that move the origin from the first pixel to ``floor(D/2)``."""
        angle = 2 * math.pi * (self.box // 2) * self.frequency.sum(-1)
        return torch.polar(torch.ones_like(angle), angle)
