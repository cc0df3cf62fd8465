"""The recipe of a refinement: which stages follow each other, and what is fixed before the first of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.errors import InputError
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.optimise.loop import Stage, State
from hoarfrost.physics.masks import estimate_diameter, lowpass
from hoarfrost.poses.search import coarse_orientations
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.final_maps import SumHalfMaps
from hoarfrost.reconstruct.frames import JoinFrames
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.half_maps import small_box
from hoarfrost.reconstruct.prepare import Prepare
from hoarfrost.reconstruct.prologue import first_and_last_stage, furthest_shell, halves
from hoarfrost.reconstruct.refine_poses import RefinePoses
from hoarfrost.reconstruct.refined_optics import RefineDefocus, WithOptics
from hoarfrost.reconstruct.rounds import GivenMap, Round, TrustSoft
from hoarfrost.reconstruct.search_again import searches
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.reconstruct.soft_rounds import SearchModes, SoftMaps, SpreadPoses, further
from hoarfrost.reconstruct.starts import MARGIN
from hoarfrost.reconstruct.updates import MeasureContrast
from hoarfrost.types import Particles, Poses, Volume

FEWEST_SHELLS = 6
"""The low-passed map keeps at least so many shells: with fewer there is nothing that orients a particle."""


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
    def apart(self) -> bool:
        """Whether the poses of the table were found in halves already: each goes on in its own map, and the whole band.

        The low-passed map, in which a particle may look the same all around, would only blur them.
        """
        return self.search == "local" and self.particles.half is not None

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
            coarse_orientations(symmetry),
            shift_grid(config.shift_extent * stack.band.box, config.shift_count),
        )
        stages: list[Stage] = [self.prepare]
        soft = len(self.particles) < config.soft_below
        given = HalfMapStage(stack, self.start.limit, symmetry, self.mask, self.start)
        if self.search == "global":
            stages.append(SearchModes(given, model, config.seed))
            spacings = config.spacings if soft else config.spacings[:1]
        else:
            if not self.apart:
                stages.append(RefinePoses(given, config.iterations, "start"))
            # Poses that a table has are no further off than the first spacings would put them.
            spacings = tuple(spacing for spacing in config.spacings if spacing < 5) if soft else ()
        begin = self.furthest if self.apart else self.start.limit
        first = HalfMapStage(stack, further(begin, self.furthest), symmetry, self.mask)
        spread_maps = HalfMapStage(stack, self.furthest, symmetry, self.mask, SoftMaps(stack, symmetry, self.mask))
        for number, spacing in enumerate(spacings, 1):
            maps = first if number == 1 and self.search == "local" else spread_maps
            stages.append(SpreadPoses(maps, self.furthest, spacing, config.seed + 100 * number, number))
        stages.append(TrustSoft(self.start.limit if spacings else begin))
        rounds = [self._round(stack, number) for number in range(1, config.rounds + 1)]
        again = HalfMapStage(stack, self.furthest, symmetry, self.mask, anywhere=True)
        rivals = config.rivals if self.search == "global" else 0
        stages += [rounds[0], *searches(again, model, rivals, config.seed), *rounds[1:]]
        return [*stages, *self._of_optics, *self._last]

    @property
    def _of_optics(self) -> list[Stage]:
        """What is found out about the microscope at settled poses, and rounds with that."""
        stages: list[Stage] = []
        if self.config.defocus != "none":
            stages.append(RefineDefocus(self._half_maps(self.stack), self.config.defocus))
        if self.config.contrast:
            stages.append(self._seen(lambda stack: MeasureContrast(self._half_maps(stack), 1)))
        if stages:
            for number in range(1, self.config.rounds + 1):
                stages.append(self._seen(partial(self._round, number=number, refined_optics=True)))
        return stages

    @property
    def _last(self) -> list[Stage]:
        """The sums of both halves in one frame."""
        return [
            self._seen(lambda stack: JoinFrames(stack, self.config.symmetry)),
            WithOptics(
                self.particles.optics,
                lambda optics: replace(
                    self.maps,
                    particles=self.particles.replace(optics=optics),
                    stack=replace(self.stack, optics=optics),
                ),
            ),
        ]

    def _round(self, stack: BandStack, number: int, refined_optics: bool = False) -> Round:
        config = self.config
        return Round(stack, number, self.furthest, config.symmetry, self.mask, config.iterations, refined_optics)

    def _half_maps(self, stack: BandStack) -> HalfMapStage:
        return HalfMapStage(stack, self.furthest, self.config.symmetry, self.mask)

    def _seen(self, make: Callable[[BandStack], Stage]) -> Stage:
        """A stage that sees the images with the optics found so far."""
        return WithOptics(self.stack.optics, lambda optics: make(replace(self.stack, optics=optics)))


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
    }
