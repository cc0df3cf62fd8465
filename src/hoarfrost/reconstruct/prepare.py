"""The first stage of a run: read the stack once, and leave it as whitened band vectors on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hoarfrost.data.dataset import BandStack, Normalisation
from hoarfrost.optimise.loop import State
from hoarfrost.types import Particles

IMAGES_A_STEP = 2048


@dataclass(frozen=True)
class Prepare:
    """Normalise, transform, whiten and store the images; its state is only how far it came."""

    particles: Particles
    stack: BandStack
    normalisation: Normalisation
    name: str = "prepare"
    title: str = "Reading and transforming images"

    @property
    def steps(self) -> int:
        """Chunks of the stack."""
        return -(-len(self.particles) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Store one chunk."""
        if step == 0:
            self.stack.allocate()
        rows = slice(step * IMAGES_A_STEP, min((step + 1) * IMAGES_A_STEP, len(self.particles)))
        self.stack.write(rows, self.particles, self.normalisation)
        return state, {"images": float(rows.stop)}
