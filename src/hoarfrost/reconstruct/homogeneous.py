"""Half-maps and a validated map of particles whose poses are known, by any method that fits a density to their sums.

One reading of the images makes the sums of their back-projection; a method (:mod:`hoarfrost.reconstruct.fits`) makes a
density of those of each half. Where poses or contrast are to be improved, that is done against the density of a
particle's own half, and the images are read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.verdict import Evidence, Verdict, judge
from hoarfrost.analysis.views import unseen_share
from hoarfrost.data.dataset import CPU
from hoarfrost.optimise.events import Listener, Message, listeners, silent
from hoarfrost.optimise.loop import CheckpointStore, State, run_stages
from hoarfrost.reconstruct.final_maps import FinalMaps, validated_maps
from hoarfrost.reconstruct.half_fits import ALL, setting_of, state_of
from hoarfrost.reconstruct.homogeneous_plan import Plan, first_state, make_plan
from hoarfrost.reconstruct.prologue import StageTimes, poses_of, say_what_is_missing, working_folder
from hoarfrost.reconstruct.refined_optics import refined_optics
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.representations.base import Density
from hoarfrost.types import HalfMaps, Particles, Volume


@dataclass(frozen=True)
class ReconstructResult:
    """Everything that a reconstruction found."""

    particles: Particles
    maps: FinalMaps
    noise: Float[Tensor, "groups shells"]
    diameter: float
    symmetry: str
    method: str
    epochs: int
    contrast: Float[Tensor, "n"] | None  # of each particle, 1 on average; None where it was not measured
    density: Density | None  # of all images, by methods whose density is more than the map
    timings: dict[str, float]

    @cached_property
    def evidence(self) -> Evidence:
        """What the verdict rests on."""
        poses = self.particles.poses
        return Evidence(
            particles=len(self.particles),
            diameter=self.diameter,
            fsc=self.maps.fsc,
            unseen=None if poses is None else unseen_share(poses.rotations, self.symmetry),
        )

    @property
    def verdict(self) -> Verdict:
        """What the figures of this result mean in plain words."""
        return judge(self.evidence)


def reconstruct(
    particles: Particles,
    config: ReconstructConfig | None = None,
    *,
    mask: Volume | None = None,
    workspace: Path | None = None,
    device: torch.device = CPU,
    store: CheckpointStore | None = None,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> ReconstructResult:
    """Reconstruct from the poses that the particles have; halves that they have are kept.

    Parameters
    ----------
    particles : Particles
        Images, optics and poses.
    config : ReconstructConfig, optional
        Settings.
    mask : Volume, optional
        Values in [0, 1] on the grid of the images: where density is sought, and where the half-maps are compared.
    workspace, device, store, listener, should_stop
        As for :func:`hoarfrost.reconstruct.ab_initio.ab_initio`.

    Raises
    ------
    InputError
        If the particles have no poses.
    """
    config = config or ReconstructConfig()
    times = StageTimes()
    say_what_is_missing(listener, device)
    with working_folder(workspace) as folder:
        plan = make_plan(particles, config, folder, mask, device)
        listen = listeners(times, listener)
        state = run_stages(plan.stages, first_state(plan), store=store, listener=listen, should_stop=should_stop)
    began = time.perf_counter()
    maps = finish(plan, state)
    times.seconds["validation"] = time.perf_counter() - began
    # Poses that were not touched stay as the table has them, with their confidence.
    poses = poses_of(state, particles) if config.poses == "refine" else particles.poses
    result = ReconstructResult(
        particles=particles.replace(optics=refined_optics(particles.optics, state), poses=poses, half=state["half"]),
        maps=maps,
        noise=plan.stack.noise,
        diameter=2 * plan.setting.radius,
        symmetry=config.symmetry,
        method=config.method,
        epochs=config.readings,
        contrast=state.get("contrast"),
        density=density_of(plan, state),
        timings=times.seconds,
    )
    for warning in result.verdict.warnings:
        listener(Message(warning, "warning"))
    return result


def density_of(plan: Plan, state: State) -> Density | None:
    """The density that a method fitted to all images; None for one that makes its map of the sums."""
    last = plan.fit.joined()
    return None if last is None else last.density(state_of(state, ALL), setting_of(plan.setting, state))


def finish(plan: Plan, state: State) -> FinalMaps:
    """Half-maps, mask, FSC and filtered map of the last sums and fits."""
    sums = plan.sums.of(state, 1), plan.sums.of(state, 2)
    setting = setting_of(plan.setting, state)
    half_maps = HalfMaps(*(plan.fit.half_map(own, setting, state_of(state, half)) for half, own in enumerate(sums, 1)))
    last = plan.fit.joined() or plan.fit
    return validated_maps(
        half_maps,
        lambda fsc: last.final_map(sums, setting, state_of(state, ALL), fsc).data,
        radius=plan.setting.radius,
        seed=plan.config.seed,
        mask=plan.setting.mask,
        limit=plan.sums.grid.limit,
    )
