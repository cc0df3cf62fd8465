"""Simulation of particle stacks: molecules, views, optics and noise in; images, a blind table and the truth out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hoarfrost.data.acquisition import Microscope, Noise, Views
from hoarfrost.data.density import density_from_atoms, resample_map
from hoarfrost.data.simulated_images import BLOBS, EMPTY, PARTICLE, SimulatedImages
from hoarfrost.errors import InputError
from hoarfrost.io.atoms import Atoms
from hoarfrost.io.files import all_or_none
from hoarfrost.io.mrc import write_map, write_stack
from hoarfrost.io.particles import write_particles
from hoarfrost.io.relion import RelionTable
from hoarfrost.io.star import number_tokens, write_star
from hoarfrost.io.table import ImageNames, check_optics
from hoarfrost.types import ImageArray, Optics, Particles, Poses, Volume

Model: TypeAlias = Volume | Atoms

JUNK_COLUMN = "hoarfrostJunk"
"""Column of the true table: 0 for a particle, 1 for an image of pure noise, 2 for one of random blobs."""

_CALIBRATION_IMAGES = 256
_CHUNK_PIXELS = 2**24


@dataclass(frozen=True)
class SimulatedStack:
    """A simulated stack: what a user would get, and the truth.

    ``particles`` know neither poses nor classes. ``truth`` are the same images with poses, classes (0 for junk) and
    the full optics. ``volumes`` are what was projected, scaled so that ``X = C · slice(volume)`` plus noise of unit
    variance holds in absolute terms.
    """

    particles: Particles
    truth: Particles
    volumes: tuple[Volume, ...]
    content: Int[Tensor, "n"]  # PARTICLE, EMPTY or BLOBS

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def junk(self) -> Bool[Tensor, "n"]:
        """Which images show no particle."""
        return self.content != PARTICLE

    def in_memory(self) -> SimulatedStack:
        """The same stack with all its images computed."""
        images = ImageArray(self.truth.images.read(torch.arange(len(self))))
        return replace(self, particles=self.particles.replace(images=images), truth=self.truth.replace(images=images))

    def write(self, folder: Path | str, *, progress: Callable[[int], None] = lambda images: None) -> Path:
        """Write ``particles.mrcs``, ``particles.star``, ``truth.star`` and ``truth.mrc``; return the second's path.

        ``particles.star`` is blind: it has no poses, shifts or classes. With several models the maps are
        ``truth_1.mrc``, ``truth_2.mrc``, ... Memory does not grow with the stack. ``progress`` is told after every
        chunk how many images are written.
        """
        stack, blind, truth = (Path(folder) / name for name in ("particles.mrcs", "particles.star", "truth.star"))
        maps = [Path(folder) / name for name in map_names(len(self.volumes))]
        with all_or_none([*maps, stack, blind, truth]):
            for path, volume in zip(maps, self.volumes, strict=True):
                write_map(path, volume)
            box, pixel_size = self.truth.box, self.truth.pixel_size
            write_stack(stack, self._chunks(progress), count=len(self), box=box, pixel_size=pixel_size)
            names = ImageNames((stack.name,), np.zeros(len(self), np.int64), np.arange(len(self)))
            table = RelionTable.from_particles(self.particles, names, blind)
            write_particles(self.particles.replace(source=table), blind)
            optics, particles = RelionTable.from_particles(self.truth, names, truth).blocks
            junk = {JUNK_COLUMN: number_tokens(self.content.numpy())}
            write_star(truth, [optics, particles.with_columns(**junk)])
        return blind

    def _chunks(self, progress: Callable[[int], None]) -> Iterator[Float[Tensor, "b y x"]]:
        done = 0
        for rows in torch.arange(len(self)).split(max(1, _CHUNK_PIXELS // self.truth.box**2)):
            yield self.truth.images.read(rows)
            done += len(rows)
            progress(done)


def map_names(models: int) -> list[str]:
    """File names of the true maps."""
    return ["truth.mrc"] if models == 1 else [f"truth_{number + 1}.mrc" for number in range(models)]


def simulate(
    models: Model | Sequence[Model],
    *,
    count: int,
    box: int,
    pixel_size: float,
    views: Views | None = None,
    microscope: Microscope | None = None,
    noise: Noise | None = None,
    shift_px: float = 10.0,
    weights: Sequence[float] | None = None,
    junk_fraction: float = 0.0,
    like: Particles | None = None,
    invert: bool = False,
    generator: torch.Generator,
) -> SimulatedStack:
    """Simulate a stack of particle images; they are computed when they are read or written.

    Parameters
    ----------
    models : a map or an atomic model, or several (conformations, frames of a trajectory). Maps keep their origin;
        atomic models are moved so that their common centre of mass is the origin.
    count : images.
    box, pixel_size : of the images, pixels and Å.
    views, microscope, noise : what poses, optics and noise are drawn from; uniform views, 300 kV and SNR 0.1 if absent.
    shift_px : particles lie off centre by up to this on either axis, uniformly.
    weights : how frequent the models are; equal if absent.
    junk_fraction : share of images without a particle, half of them pure noise and half random blobs.
    like : a table whose optics, and poses where it has them, are used in its order (over again where it is shorter).
        Its pixel sizes are scaled so that their median becomes ``pixel_size``.
    invert : particles dark on bright.
    generator : source of all randomness.

    Raises
    ------
    InputError
        Settings that are impossible or contradict each other, or a molecule that does not fit into the box.
    """
    listed = [models] if isinstance(models, Volume | Atoms) else list(models)
    views, microscope, noise = views or Views(), microscope or Microscope(), noise or Noise()
    _check(listed, count, weights, junk_fraction, views, noise)
    _check_lengths(pixel_size, shift_px, microscope)
    volumes = _volumes(listed, box, pixel_size)
    classes = _draw_classes(len(volumes), count, weights, generator)
    content = _draw_junk(count, junk_fraction, generator)
    poses = _draw_poses(views, count, shift_px * pixel_size, generator)
    optics = check_optics(microscope.draw(count, pixel_size, generator), "simulation")
    known = optics.replace(b_factor=torch.zeros_like(optics.b_factor))
    if like is not None:
        optics, poses = _taken_from(like, poses, pixel_size)
        known = optics
    images = SimulatedImages(
        volumes=volumes,
        optics=optics,
        poses=poses,
        classes=classes * (content == PARTICLE),
        content=content,
        seed=int(torch.randint(2**32, (1,), generator=generator)),
    )
    wanted = 1.0 if math.isinf(noise.snr) else noise.snr
    amplitude = math.sqrt(wanted / _signal_variance(images))
    images = images.replace(
        amplitude=-amplitude if invert else amplitude, noise=noise.spectrum(box), blob_variance=wanted
    )
    return SimulatedStack(
        particles=Particles(images, known),
        truth=Particles(images, optics, poses, classes=images.classes),
        volumes=tuple(Volume(volume.data * amplitude, volume.voxel_size) for volume in volumes),
        content=content,
    )


def _check(
    models: Sequence[Model],
    count: int,
    weights: Sequence[float] | None,
    junk_fraction: float,
    views: Views,
    noise: Noise,
) -> None:
    if count < 1 or not models:
        raise InputError("a simulation needs at least one model and one image")
    if weights is not None and (len(weights) != len(models) or min(weights) < 0 or sum(weights) <= 0):
        raise InputError(f"{len(weights)} weights for {len(models)} models; one each is needed, none negative")
    if not 0 <= junk_fraction < 1:
        raise InputError(f"a junk fraction of {junk_fraction:g} is impossible; it is at least 0 and below 1")
    if not noise.snr > 0:
        raise InputError(f"a signal-to-noise ratio of {noise.snr:g} is impossible; it is above 0, or inf for no noise")
    if views.concentration < 0 or (views.concentration > 0 and views.tilt != (0.0, math.pi)):
        raise InputError("preferred views have a concentration of at least 0, and then no limits on the tilt")
    if not 0 <= views.tilt[0] <= views.tilt[1] <= math.pi:
        raise InputError("tilts lie between 0 and 180 degrees, the smaller first")


def _check_lengths(pixel_size: float, shift_px: float, microscope: Microscope) -> None:
    lengths = {
        "pixel size": pixel_size,
        "largest shift": shift_px,
        "defocus": math.fsum(microscope.defocus),
        "astigmatism": microscope.astigmatism,
        "B factor": microscope.b_factor,
    }
    for what, value in lengths.items():
        if not math.isfinite(value):
            raise InputError(f"simulation: a {what} of {value:g} is impossible; a finite number is expected")
    if pixel_size <= 0:
        raise InputError(f"simulation: a pixel size of {pixel_size:g} Å is impossible; it is above 0")


def _volumes(models: Sequence[Model], box: int, pixel_size: float) -> tuple[Volume, ...]:
    atomic = [model for model in models if isinstance(model, Atoms)]
    # One displacement for all, so that a moving domain moves against a resting one.
    offset = torch.zeros(3, dtype=torch.float64)
    if atomic:
        offset = -torch.stack([model.centre_of_mass for model in atomic]).mean(0)
    return tuple(
        density_from_atoms(model.moved(offset), box, pixel_size, centre=False)
        if isinstance(model, Atoms)
        else resample_map(model, box, pixel_size)
        for model in models
    )


def _draw_classes(
    models: int, count: int, weights: Sequence[float] | None, generator: torch.Generator
) -> Int[Tensor, "n"]:
    share = torch.tensor([1.0] * models if weights is None else list(weights), dtype=torch.float64)
    return 1 + torch.multinomial(share, count, replacement=True, generator=generator)


def _draw_junk(count: int, fraction: float, generator: torch.Generator) -> Int[Tensor, "n"]:
    """Exactly the share asked for, at random places; half empty, half blobs."""
    rows = torch.randperm(count, generator=generator)[: round(fraction * count)]
    content = torch.full((count,), PARTICLE)
    content[rows[::2]] = EMPTY
    content[rows[1::2]] = BLOBS
    return content


def _draw_poses(views: Views, count: int, reach: float, generator: torch.Generator) -> Poses:
    rotations = views.draw(count, generator)
    shifts = reach * (2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1)
    return Poses(rotations, shifts)


def _taken_from(like: Particles, drawn: Poses, pixel_size: float) -> tuple[Optics, Poses]:
    rows = torch.arange(len(drawn)) % len(like)
    optics = like.optics[rows]
    optics = optics.replace(
        pixel_size=optics.pixel_size * (pixel_size / like.pixel_size),
        premultiplied=torch.zeros(len(rows), dtype=torch.bool),
    )
    return optics, drawn if like.poses is None else Poses(like.poses.rotations[rows], like.poses.shifts[rows])


def _signal_variance(images: SimulatedImages) -> float:
    """Variance of noiseless images over all pixels, mean over evenly spaced particles of the stack."""
    particles = torch.nonzero(images.content == PARTICLE)[:, 0]
    if len(particles) == 0:
        return 1.0
    places = torch.linspace(0, len(particles) - 1, min(_CALIBRATION_IMAGES, len(particles))).round().long()
    signal = images.read(particles[places]).double()
    variance = float(signal.var(dim=(-2, -1), unbiased=False).mean())
    if variance == 0:
        raise InputError("the model has no density inside the box; there is nothing to simulate")
    return variance
