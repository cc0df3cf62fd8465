"""Whether particles are brighter or darker than the ice around them, told from the images alone.

Where the CTF is positive at low frequency (underfocus), positive density is bright. A stack straight from the camera
has dark particles. Single images are too noisy to tell, and the CTF takes away most of the lowest frequencies, so that
a plain mean of the centre says little. Each image is therefore correlated with a centred Gaussian blob seen through
its own CTF, which leaves the mean of the image out, and the sign of the average decides. Its error is measured from
the scatter between images, so that coloured noise or neighbours make the answer less certain rather than wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.fourier.band import CONJUGATE_PAIR, Band
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.types import Optics

DECIDED = 5.0
"""Standard errors from zero at which a sign counts as known: by chance, once in a million stacks."""

_WIDTHS = (0.08, 0.13, 0.2)


@dataclass(frozen=True)
class Contrast:
    """The sign of the particles' contrast.

    ``significance`` is the mean over images in standard errors, positive where particles are bright; ``share`` the
    part of the images that say the same as the mean.
    """

    significance: float
    share: float

    @property
    def decided(self) -> bool:
        """Whether the sign is beyond doubt."""
        return abs(self.significance) > DECIDED

    @property
    def dark(self) -> bool:
        """Particles are certainly darker than their surroundings."""
        return self.decided and self.significance < 0


def contrast_of(images: Float[Tensor, "b y x"], optics: Optics, radius: float | None = None) -> Contrast:
    """The sign of the contrast of these particles.

    Parameters
    ----------
    images : (b, y, x) tensor
        Images of comparable scale (background of deviation one), particles anywhere near the centre.
    optics : Optics
        One row an image.
    radius : float, optional
        Radius of the particle in pixels; three sizes are tried without it.
    """
    box = images.shape[-1]
    widths = [radius / 2] if radius is not None else [share * box for share in _WIDTHS]
    limit = min((box - 1) // 2, max(3, math.ceil(0.5 * box / min(widths))))
    band = Band(box, limit)
    vectors = band.from_images(images)
    transfer = contrast_transfer_function(optics, band.frequency)
    transfer = torch.where(optics.premultiplied[:, None], transfer.square(), transfer)
    seen = vectors.real * transfer
    verdicts = [_judge(CONJUGATE_PAIR * (seen @ _blob(band, width).to(seen))) for width in widths]
    return max(verdicts, key=lambda verdict: abs(verdict.significance))


def _blob(band: Band, width: float) -> Float[Tensor, "m"]:
    """Transform of a centred Gaussian of standard deviation ``width`` pixels."""
    return torch.exp(-2 * (math.pi * width * band.radius / band.box) ** 2)


def _judge(values: Float[Tensor, "b"]) -> Contrast:
    values = values.double()
    median = values.median()
    spread = 1.4826 * (values - median).abs().median()
    # An ice crystal can outweigh a hundred particles; no image counts for more than four deviations.
    kept = values.clamp(median - 4 * spread, median + 4 * spread)
    error = kept.std() / math.sqrt(len(kept)) if len(kept) > 1 else torch.tensor(math.inf)
    mean = float(kept.mean())
    significance = mean / float(error) if float(error) > 0 else 0.0
    share = float((values.sign() == math.copysign(1.0, mean)).double().mean())
    return Contrast(significance, share)
