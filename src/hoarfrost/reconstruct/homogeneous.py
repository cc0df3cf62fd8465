"""Half-maps and a validated map of particles whose poses are known, by back-projection."""

from __future__ import annotations

from collections.abc import Callable

from hoarfrost.data.dataset import Normalisation, estimate_noise
from hoarfrost.errors import InputError
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.events import Listener, silent
from hoarfrost.optimise.loop import CheckpointStore, State, run_stages
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.final_maps import FinalMaps, SumHalfMaps, finish_maps
from hoarfrost.types import Particles


def back_project_particles(
    particles: Particles,
    *,
    symmetry: str = "C1",
    diameter: float | None = None,
    max_resolution: float | None = None,
    invert: bool = False,
    seed: int = 0,
    store: CheckpointStore | None = None,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> FinalMaps:
    """Reconstruct from the poses that the particles have; halves that they have are kept.

    Parameters
    ----------
    particles : Particles
        Images, optics and poses.
    diameter : float, optional
        Particle diameter in Å; without it the map fills the box.
    max_resolution : float, optional
        Å; frequencies beyond are left out.

    Raises
    ------
    InputError
        If the particles have no poses.
    """
    if particles.poses is None:
        raise InputError("these particles have no poses: find them with 'hoarfrost abinit' or give a table with them")
    box, pixel_size = particles.box, particles.pixel_size
    limit = (box - 1) // 2
    if max_resolution is not None:
        limit = min(limit, max(4, int(box * pixel_size / max_resolution)))
    radius = 0.5 * diameter * 1.05 if diameter is not None else 0.46 * box * pixel_size
    normalisation = Normalisation(min(radius / pixel_size, 0.46 * box), invert)
    noise = estimate_noise(particles, Band(box, limit), normalisation)
    maps = SumHalfMaps(particles, normalisation, noise, limit)
    half = particles.half if particles.half is not None else split_halves(len(particles), particles.optics.group, seed)
    state: State = {
        "half": half,
        "rotations": particles.poses.rotations,
        "shifts": particles.poses.shifts / particles.optics.pixel_size[:, None],
    }
    state = run_stages([maps], state, store=store, listener=listener, should_stop=should_stop)
    return finish_maps(
        (state["sums.1"], state["sums.2"]),
        maps.grid,
        voxel_size=pixel_size,
        radius=min(radius, 0.5 * box * pixel_size),
        symmetry=symmetry,
        seed=seed,
    )
