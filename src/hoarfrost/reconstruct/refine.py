"""Gold-standard refinement: particles and a map become better poses, half-maps and a validated map.

The given map is low-passed to where it cannot bias the Fourier shell correlation, and from there each half of the
particles goes its own way. Poses that the table has are refined, others are searched. Small stacks are assigned softly
on ever finer grids before Gauss-Newton takes over; its rounds go on, in a band that grows with the agreement of the
half-maps, until neither the resolution nor the poses move.
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
from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.errors import InputError
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.optimise.events import Listener, Message, listeners, silent
from hoarfrost.optimise.loop import CheckpointStore, Stage, State, run_stages
from hoarfrost.physics.masks import estimate_diameter, lowpass
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.final_maps import FinalMaps, SumHalfMaps, finish_maps
from hoarfrost.reconstruct.frames import JoinFrames
from hoarfrost.reconstruct.half_maps import small_box
from hoarfrost.reconstruct.prepare import Prepare
from hoarfrost.reconstruct.prologue import (
    StageTimes,
    first_and_last_stage,
    furthest_shell,
    halves,
    poses_of,
    say_what_is_missing,
    working_folder,
)
from hoarfrost.reconstruct.refinement import HalfMapStage, RefinePoses, SearchAgain
from hoarfrost.reconstruct.rounds import GivenMap, Round, TrustSoft
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.reconstruct.soft_rounds import SearchModes, SoftMaps, SpreadPoses, further
from hoarfrost.reconstruct.starts import MARGIN
from hoarfrost.types import Particles, Poses, Volume

FEWEST_SHELLS = 6
"""The low-passed map keeps at least so many shells: with fewer there is nothing that orients a particle."""


@dataclass(frozen=True)
class RefineResult:
    """Everything that a refinement found."""

    particles: Particles
    maps: FinalMaps
    noise: Float[Tensor, "groups shells"]
    diameter: float
    symmetry: str
    common: float  # Å; resolution of the map that both halves began with
    search: str  # "global" or "local"
    rounds: int
    settled: bool
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
        )

    @property
    def verdict(self) -> Verdict:
        """What the figures of this result mean in plain words."""
        return judge(self.evidence)


@dataclass(frozen=True)
class Plan:
    """A refinement made ready: the stages, and what they share."""

    particles: Particles
    config: RefineConfig
    prepare: Prepare
    start: GivenMap
    mask: Volume | None
    radius: float
    maps: SumHalfMaps

    @property
    def stack(self) -> BandStack:
        """The transformed images."""
        return self.prepare.stack

    @property
    def search(self) -> str:
        """ "global" or "local"."""
        return search_of(self.particles, self.config)

    @property
    def furthest(self) -> int:
        """The last shell that is used."""
        return self.stack.band.limit

    @property
    def stages(self) -> list[Stage]:
        """Everything from reading the images to the final sums."""
        config, stack, symmetry = self.config, self.stack, self.config.symmetry
        coarse = small_box(stack.band.box, min(16, self.furthest))
        model = CoarseModel(
            coarse,
            stack.band.box * stack.pixel_size / coarse,
            self.radius,
            symmetry,
            OrientationGrid(2),
            shift_grid(config.shift_extent * stack.band.box, config.shift_count),
        )
        stages: list[Stage] = [self.prepare]
        soft = len(self.particles) < config.soft_below
        given = HalfMapStage(stack, self.start.limit, symmetry, self.mask, self.start)
        if self.search == "global":
            stages.append(SearchModes(given, model, config.seed))
            spacings = config.spacings if soft else config.spacings[:1]
        else:
            stages.append(RefinePoses(given, config.iterations, "start"))
            # Poses that a table has are no further off than the first spacings would put them.
            spacings = tuple(spacing for spacing in config.spacings if spacing < 5) if soft else ()
        first = HalfMapStage(stack, min(self.furthest, further(self.start.limit, self.furthest)), symmetry, self.mask)
        spread_maps = HalfMapStage(stack, self.furthest, symmetry, self.mask, SoftMaps(stack, symmetry, self.mask))
        for number, spacing in enumerate(spacings, 1):
            maps = first if number == 1 and self.search == "local" else spread_maps
            stages.append(SpreadPoses(maps, self.furthest, spacing, config.seed + 100 * number, number))
        stages.append(TrustSoft(self.start.limit))
        rounds = [
            Round(stack, number, self.furthest, symmetry, self.mask, config.iterations)
            for number in range(1, config.rounds + 1)
        ]
        again = HalfMapStage(stack, min(16, self.furthest), symmetry, self.mask)
        rivals = self.search == "global" and config.rivals > 0
        stages += [*rounds[:1], *([SearchAgain(again, model, config.rivals, 3, config.seed)] if rivals else [])]
        return [*stages, *rounds[1:], JoinFrames(stack, min(32, self.furthest), symmetry), self.maps]


def search_of(particles: Particles, config: RefineConfig) -> str:
    """Whether poses are searched ("global") or refined ("local").

    Raises
    ------
    InputError
        A local search of particles without poses.
    """
    if config.search == "auto":
        return "global" if particles.poses is None else "local"
    if config.search == "local" and particles.poses is None:
        raise InputError("--search local: these particles have no poses; use --search global, or a table with poses")
    return config.search


def make_plan(
    particles: Particles,
    reference: Volume,
    config: RefineConfig,
    workspace: Path,
    mask: Volume | None = None,
    device: torch.device = CPU,
) -> Plan:
    """Everything that is fixed before the first stage: bands, noise, scale, radii."""
    extent = particles.box * particles.pixel_size
    furthest = furthest_shell(particles, config.max_resolution)
    if config.diameter is not None:
        radius = 0.5 * config.diameter * MARGIN
    else:
        # A map that fills its box, or noise, must not ask for more than the box holds.
        blurred = lowpass(reference, max(20.0, 4 * particles.pixel_size))
        radius = 0.5 * estimate_diameter(blurred) * MARGIN
    radius = min(radius, 0.46 * extent)
    prepare, maps = first_and_last_stage(
        particles,
        radius=radius,
        furthest=furthest,
        stored=furthest,
        invert=config.invert,
        workspace=workspace,
        device=device,
    )
    limit = min(furthest, max(FEWEST_SHELLS, int(extent / config.low_pass)))
    start = GivenMap(prepare.stack, reference, limit, mask, config.seed)
    return Plan(particles, config, prepare, start, mask, radius, maps)


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
        A map of the images' box and pixel size (:func:`hoarfrost.runs.refine.fitted` brings others onto it), on any scale.
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
        particles=particles.replace(poses=poses_of(state, particles), half=state["half"]),
        maps=maps,
        noise=plan.stack.noise,
        diameter=2 * plan.radius,
        symmetry=config.symmetry,
        common=particles.box * particles.pixel_size / plan.start.limit,
        search=plan.search,
        rounds=int(state["rounds"]),
        settled=bool(state["settled"]),
        timings=times.seconds,
    )
    for warning in result.verdict.warnings:
        listener(Message(warning, "warning"))
    return result


def first_state(plan: Plan) -> State:
    """Halves, and the poses that the table has, in pixels."""
    particles, count = plan.particles, len(plan.particles)
    poses = particles.poses
    if poses is None or plan.search == "global":
        poses = Poses(torch.eye(3, dtype=torch.float64).repeat(count, 1, 1), torch.zeros(count, 2).double())
    return {
        "half": halves(particles, plan.config.seed),
        "radius": torch.tensor(plan.radius),
        "rotations": poses.rotations.double(),
        "shifts": poses.shifts.double() / particles.optics.pixel_size[:, None],
        "score": torch.zeros(count),
        "confidence": torch.ones(count),
    }
