"""What a molecule must offer to be reconstructed: projections in a band, and a map."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.types import Volume


@runtime_checkable
class Density(Protocol):
    """A molecule that can be projected; differentiable in its own parameters and in the rotations."""

    def project(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m"]:
        """Central slices ``sqrt(D) V^(R^T M k)`` as band vectors; ``M`` is the identity where not given."""
        ...

    def to_volume(self, box: int) -> Volume:
        """The density as a map of ``box`` voxels a side over the same extent."""
        ...


@runtime_checkable
class ParticleDensity(Density, Protocol):
    """A density of its own for every image of a batch; slice ``i`` of :meth:`project` is that of image ``i``."""

    def of_images(self, rows: Int[Tensor, "p"]) -> ParticleDensity:
        """The densities of these images, which may repeat."""
        ...


def of_images(density: Density, rows: Int[Tensor, "p"]) -> Density:
    """The density or densities of these images of a batch: a common one stays as it is."""
    return density.of_images(rows) if isinstance(density, ParticleDensity) else density
