"""How a simulated stack is recorded: from where the particles are seen, through which optics, in what noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.geometry.rotations import euler_to_matrix, random_rotations
from hoarfrost.types import Optics


@dataclass(frozen=True)
class Views:
    """From where the particles are seen; in-plane angles are always uniform.

    With ``concentration`` 0 directions are uniform on the sphere, or on the belt of it that ``tilt`` leaves. With a
    positive one they follow a mixture of ``axes`` equally frequent von Mises-Fisher caps, ``exp(concentration cos θ)``
    about axes that are drawn at random: half of a cap lies within 48 degrees of its axis at 2, within 21 at 10.
    """

    concentration: float = 0.0
    axes: int = 3
    tilt: tuple[float, float] = (0.0, math.pi)  # radians

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 3 3"]:
        """Rotations, float64."""
        rot, height, psi = torch.rand(3, count, generator=generator, dtype=torch.float64)
        if self.concentration > 0:
            direction = self._in_caps(rot, height, generator)
            rot, tilt = torch.atan2(direction[:, 1], direction[:, 0]), direction[:, 2].clamp(-1, 1).acos()
        else:
            low, high = math.cos(self.tilt[1]), math.cos(self.tilt[0])
            rot, tilt = 2 * math.pi * rot, (low + (high - low) * height).acos()
        return euler_to_matrix(torch.stack([rot, tilt, 2 * math.pi * psi], dim=-1))

    def _in_caps(self, azimuth: Tensor, height: Tensor, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Directions of the mixture: the height on a cap by inverting its cumulative distribution."""
        frames = random_rotations(self.axes, generator)
        chosen = frames[torch.randint(self.axes, height.shape, generator=generator)]
        cosine = 1 + torch.log(height + (1 - height) * math.exp(-2 * self.concentration)) / self.concentration
        sine, angle = (1 - cosine.square()).clamp(min=0).sqrt(), 2 * math.pi * azimuth
        local = torch.stack([sine * angle.cos(), sine * angle.sin(), cosine], dim=-1)
        return (local[:, None] @ chosen)[:, 0]


@dataclass(frozen=True)
class Microscope:
    """Optics from which every particle draws its own.

    The mean defocus is uniform in ``defocus``, the difference ``defocus_u - defocus_v`` uniform up to
    ``astigmatism``, its direction uniform. ``b_factor`` is the envelope ``exp(-B s²/4)`` of the images; as nobody
    knows it in an experiment, it stands in the true table only.
    """

    voltage: float = 300.0  # kV
    spherical_aberration: float = 2.7  # mm
    amplitude_contrast: float = 0.1
    defocus: tuple[float, float] = (8000.0, 25000.0)  # Å, underfocus
    astigmatism: float = 500.0  # Å
    b_factor: float = 0.0  # Å²
    phase_shift: float = 0.0  # radians

    def draw(self, count: int, pixel_size: float, generator: torch.Generator) -> Optics:
        """Optics of ``count`` particles in one group."""
        mean, difference, angle = torch.rand(3, count, generator=generator, dtype=torch.float64)
        mean = self.defocus[0] + (self.defocus[1] - self.defocus[0]) * mean
        half = 0.5 * self.astigmatism * difference
        uniform = Optics.uniform(
            count,
            pixel_size=pixel_size,
            voltage=self.voltage,
            spherical_aberration=self.spherical_aberration,
            amplitude_contrast=self.amplitude_contrast,
        )
        return uniform.replace(
            defocus_u=mean + half,
            defocus_v=mean - half,
            defocus_angle=math.pi * angle,
            phase_shift=torch.full_like(mean, self.phase_shift),
            b_factor=torch.full_like(mean, self.b_factor),
        )


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of unit variance a pixel; the signal is scaled to it.

    ``snr`` is the variance of the signal (after the CTF, over the whole image, mean over the stack) divided by that
    of the noise; infinite for none. ``"coloured"`` noise has the power
    ``(1 + 4 / (1 + (f / 0.04)²)) sinc²(f)`` at ``f`` cycles per pixel: much at low frequency, as ice and inelastic
    scattering give, and the fall of a detector's transfer at high.
    """

    snr: float = 0.1
    colour: Literal["white", "coloured"] = "white"

    def spectrum(self, box: int) -> Float[Tensor, "shells"] | None:
        """Power per coefficient on shells, out to the corners; its mean over all coefficients is one."""
        if math.isinf(self.snr):
            return None
        shells = torch.arange(math.ceil(box / math.sqrt(2)) + 1)
        if self.colour == "white":
            return torch.ones(len(shells))
        frequency = shells / box
        power = (1 + 4 / (1 + (frequency / 0.04).square())) * torch.sinc(frequency).square()
        axis = torch.fft.fftfreq(box, 1 / box)
        return power / power[torch.hypot(axis[:, None], axis).round().long()].mean()
