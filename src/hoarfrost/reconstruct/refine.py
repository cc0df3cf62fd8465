"""Gold-standard refinement: particles and a map become better poses, half-maps and a validated map.

The given map is low-passed to where it cannot bias the Fourier shell correlation, and from there each half of the
particles goes its own way. Poses that the table has are refined, others are searched; where the table has halves as
well, each begins with the map that its poses give. Small stacks are assigned softly on ever finer grids before
Gauss-Newton takes over; its rounds go on, in a band that grows with the agreement of the half-maps, until neither the
resolution nor the poses move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
from hoarfrost.optimise.loop import CheckpointStore, run_stages
from hoarfrost.physics.aberrations import projection_limit
from hoarfrost.poses.defocus import DefocusChange
from hoarfrost.reconstruct.final_maps import FinalMaps, finish_maps
from hoarfrost.reconstruct.prologue import StageTimes, poses_of, say_what_is_missing, working_folder
from hoarfrost.reconstruct.refine_plan import first_state, make_plan
from hoarfrost.reconstruct.refined_optics import defocus_of, refined_optics
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.types import Particles, Volume


@dataclass(frozen=True)
class RefineResult:
    """Everything that a refinement found."""

    particles: Particles
    maps: FinalMaps
    noise: Float[Tensor, "groups shells"]
    diameter: float
    symmetry: str
    common: float | None  # Å; resolution of the map that both halves began with, None where each began with its own
    search: str  # "global" or "local"
    rounds: int
    settled: bool
    defocus: DefocusChange | None  # what was added to the table's; None where it was not refined
    contrast: Float[Tensor, "n"] | None  # of each particle, 1 on average; None where it was not measured
    timings: dict[str, float]

    @cached_property
    def evidence(self) -> Evidence:
        """What the verdict rests on."""
        poses = self.particles.poses
        confidence = None if poses is None else poses.confidence
        return Evidence(
            particles=len(self.particles),
            diameter=self.diameter,
            fsc=self.maps.fsc,
            confidence=None if confidence is None else float(confidence.double().median()),
            unseen=None if poses is None else unseen_share(poses.rotations, self.symmetry),
            common=self.common,
            near=self.search == "local",
        )

    @property
    def verdict(self) -> Verdict:
        """What the figures of this result mean in plain words."""
        return judge(self.evidence)


def refine(
    particles: Particles,
    reference: Volume,
    config: RefineConfig | None = None,
    *,
    mask: Volume | None = None,
    workspace: Path | None = None,
    device: torch.device = CPU,
    store: CheckpointStore | None = None,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> RefineResult:
    """Refine the poses of particles, from a map, with the two halves of the data kept apart.

    Parameters
    ----------
    particles : Particles
        Images and optics; poses where they are known. Halves that they have are kept.
    reference : Volume
        A map of the images' box and pixel size (:func:`hoarfrost.runs.given.fitted` brings others onto it), on any scale.
    config : RefineConfig, optional
        Settings.
    mask : Volume, optional
        Values in [0, 1] on the grid of the images: density outside takes no part.
    workspace, device, store, listener, should_stop
        As for :func:`hoarfrost.reconstruct.ab_initio.ab_initio`.
    """
    config = config or RefineConfig.from_preset()
    times = StageTimes()
    say_what_is_missing(listener, device)
    with working_folder(workspace) as folder:
        plan = make_plan(particles, reference, config, folder, mask, device)
        listen = listeners(times, listener)
        state = run_stages(plan.stages, first_state(plan), store=store, listener=listen, should_stop=should_stop)
    began = time.perf_counter()
    maps = finish_maps(
        (state["sums.1"], state["sums.2"]),
        plan.maps.grid,
        voxel_size=particles.pixel_size,
        radius=plan.radius,
        symmetry=config.symmetry,
        seed=config.seed,
        mask=mask,
    )
    times.seconds["validation"] = time.perf_counter() - began
    result = RefineResult(
        particles=particles.replace(
            optics=refined_optics(particles.optics, state), poses=poses_of(state, particles), half=state["half"]
        ),
        maps=maps,
        noise=plan.stack.noise,
        diameter=2 * plan.radius,
        symmetry=config.symmetry,
        common=None if plan.apart else particles.box * particles.pixel_size / plan.start.limit,
        search=plan.search,
        rounds=int(state["rounds"]),
        settled=bool(state["settled"]),
        defocus=defocus_of(state),
        contrast=state.get("contrast"),
        timings=times.seconds,
    )
    for warning in (*result.verdict.warnings, *depth_warning(result)):
        listener(Message(warning, "warning"))
    return result


def depth_warning(result: RefineResult) -> Iterator[str]:
    """A line where the particle is too thick for its images to be projections at the resolution that was reached."""
    reached = result.maps.fsc.resolution()
    limit = projection_limit(result.diameter, float(result.particles.optics.voltage.median()))
    if reached < limit:
        yield (
            f"Images of a particle {result.diameter:.0f} Å thick are projections to {limit:.1f} Å (DeRosier 2000), and "
            f"the map reaches {reached:.1f} Å: the curvature of the Ewald sphere, which is not corrected, weakens it "
            "from there on."
        )
