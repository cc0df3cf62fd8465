"""What every method on images begins with: a folder to work in, an account of the time, and the transformed images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from hoarfrost.data.dataset import CPU, BandStack, Normalisation, estimate_noise
from hoarfrost.fourier.band import Band
from hoarfrost.kernels.library import missing_kernels
from hoarfrost.optimise.events import Event, Listener, Message, StageDone
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.final_maps import SumHalfMaps
from hoarfrost.reconstruct.prepare import Prepare
from hoarfrost.types import Particles, Poses


@contextmanager
def working_folder(workspace: Path | None) -> Iterator[Path]:
    """The folder itself, or a temporary one."""
    if workspace is not None:
        yield workspace
        return
    with tempfile.TemporaryDirectory(prefix="hoarfrost-") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class StageTimes:
    """A listener that adds up the seconds of stages."""

    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Count a stage that is done."""
        if isinstance(event, StageDone):
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + event.seconds


def say_what_is_missing(listener: Listener, device: torch.device) -> None:
    """A line where the work has to do without the compiled kernels."""
    if device.type == "cpu" and (line := missing_kernels()) is not None:
        listener(Message(line))


def furthest_shell(particles: Particles, max_resolution: float | None) -> int:
    """The last shell inside Nyquist, or that of ``max_resolution`` (Å)."""
    last = (particles.box - 1) // 2
    if max_resolution is None:
        return last
    return min(last, max(6, int(particles.box * particles.pixel_size / max_resolution)))


def first_and_last_stage(
    particles: Particles,
    *,
    radius: float,
    furthest: int,
    stored: int,
    invert: bool,
    workspace: Path,
    device: torch.device = CPU,
) -> tuple[Prepare, SumHalfMaps]:
    """The stage that stores the images, and the one that makes maps of them; they agree on their normalisation and noise.

    Parameters
    ----------
    radius : of the particle, Å; what lies outside is background.
    furthest, stored : last shell of the maps, and of the images that are stored between.
    """
    box, pixel_size = particles.box, particles.pixel_size
    normalisation = Normalisation(min(radius / pixel_size, 0.46 * box), invert)
    noise = estimate_noise(particles, Band(box, furthest), normalisation)
    stack = BandStack(workspace / "bands.bin", Band(box, stored), particles.optics, pixel_size, noise, device)
    maps = SumHalfMaps(particles, normalisation, noise, furthest, device, stack)
    return Prepare(particles, stack, normalisation), maps


def halves(particles: Particles, seed: int) -> Int[Tensor, "n"]:
    """The halves that the particles have; where they have none, or only one, at random."""
    half = particles.half
    if half is not None and bool((half == 1).any() and (half == 2).any()):
        return half
    return split_halves(len(particles), particles.optics.group, seed)


def poses_of(state: State, particles: Particles) -> Poses:
    """The poses of a state, whose shifts are in pixels of each image."""
    pixel_size = particles.optics.pixel_size[:, None]
    return Poses(state["rotations"], state["shifts"] * pixel_size, state.get("confidence"))
