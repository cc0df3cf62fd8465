"""The recipe of an ab initio run: which stages follow each other, and what is fixed before the first of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hoarfrost.analysis.junk import junk_probability, shows_no_part
from hoarfrost.analysis.verdict import ALIKE
from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.data.forecast import stored_limit
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.optimise.loop import Stage
from hoarfrost.poses.search import coarse_orientations
from hoarfrost.reconstruct.annealing import AnnealedMap, Annealing, CoarseModel
from hoarfrost.reconstruct.assignment import FullPass
from hoarfrost.reconstruct.astray import SearchAstray
from hoarfrost.reconstruct.classes import AssignClasses, ChooseDivision, DivideMap
from hoarfrost.reconstruct.final_maps import SumHalfMaps
from hoarfrost.reconstruct.frames import JoinFrames
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.half_maps import small_box
from hoarfrost.reconstruct.junk import FindJunk
from hoarfrost.reconstruct.one_class import OneClass
from hoarfrost.reconstruct.prepare import Prepare
from hoarfrost.reconstruct.prologue import first_and_last_stage, furthest_shell
from hoarfrost.reconstruct.refine_poses import RefinePoses
from hoarfrost.reconstruct.search_again import searches
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.reconstruct.settle import SettleLookAlikes
from hoarfrost.reconstruct.starts import ChooseStart, FindAxes
from hoarfrost.types import Particles


@dataclass(frozen=True)
class Plan:
    """A run made ready: the stages, and what they share."""

    particles: Particles
    config: AbInitioConfig
    prepare: Prepare
    model: CoarseModel
    maps: SumHalfMaps

    @property
    def stack(self) -> BandStack:
        """The transformed images."""
        return self.prepare.stack

    @property
    def before_refinement(self) -> list[Stage]:
        """Stages up to a first pose of every particle."""
        config, stack = self.config, self.stack
        schedule = Annealing(config.start_steps, config.start_batch, last_limit=start_limit(config, stack.band))
        most = config.starts + config.further_starts
        free = replace(self.model, symmetry="C1", orientations=coarse_orientations("C1"))
        # In faint images a map takes shape slowly, and only while the noise of small batches keeps it from freezing.
        slower = replace(schedule, steps=config.further_slower * config.start_steps, batch=-(-config.start_batch // 2))
        first = min(2, config.starts)

        def starts(numbers: range, schedule: Annealing, unless: float | None = None) -> list[Stage]:
            return [AnnealedMap.start(i, stack, free, schedule, config.seed, unless=unless) for i in numbers]

        def choose(count: int, images: int = 768, unless: float | None = None) -> ChooseStart:
            return ChooseStart(stack, free, limit, count, config.diameter, config.seed, images, unless)

        limit = schedule.last_limit
        apart = Annealing(config.half_steps, config.start_batch, min(self.model.common_limit, limit), limit, spread=8.0)
        halves = [AnnealedMap.of_half(half, stack, self.model, apart, config.seed) for half in (1, 2)]
        return [
            self.prepare,
            *starts(range(first), schedule),
            choose(first),
            *starts(range(first, config.starts), schedule, config.settled),
            *([choose(config.starts, unless=config.settled)] if config.starts > first else []),
            *starts(range(config.starts, most), slower, ALIKE),
            *([choose(most, images=3072, unless=ALIKE)] if most > config.starts else []),
            *([] if config.symmetry == "C1" else [FindAxes(self.model, limit, stack.pixel_size)]),
            *halves,
            FullPass(stack, self.model, limit, config.seed),
        ]

    @property
    def refinement(self) -> list[Stage]:
        """Stages from first poses to final sums."""
        config = self.config
        limits = sorted({min(level, self.stack.band.limit) for level in config.levels})
        # From a band of 16 shells on poses are good enough to search again, and to divide the map.
        turn = next((limit for limit in limits if limit >= 16), limits[-1])
        # The second search refines the present poses as well.
        until = turn if config.rivals and turn > limits[0] else turn + 1
        common = [RefinePoses(self._half_maps(n), config.iterations + (n == limits[0])) for n in limits if n < until]
        further = [n for n in limits if n > turn]
        compared = HalfMapStage(self.stack, limits[-1], config.symmetry, anywhere=True)
        stages: list[Stage] = [*common, *searches(compared, self.model, config.rivals, config.seed)]
        if config.junk:
            judge = shows_no_part if config.classes > 1 else junk_probability
            astray = SearchAstray(self.model, 3, config.seed)
            stages.append(FindJunk(self._half_maps(turn), judge, astray if config.rivals else None))
        if config.classes > 1:
            stages += [OneClass(stage) for stage in self._division(turn)]
            if config.junk:
                again = FindJunk(self._half_maps(turn), name="junk-in-class")
                stages += [OneClass(again, number, config.classes) for number in range(1, config.classes + 1)]
            further = further or [turn]
        outlines = [HalfMapStage(self.stack, n, config.symmetry, outline=True) for n in further]
        widest = HalfMapStage(self.stack, limits[-1], config.symmetry, outline=True)
        for number in range(1, config.classes + 1):
            own: list[Stage] = [RefinePoses(maps, config.iterations) for maps in outlines]
            own.append(SettleLookAlikes(widest, self.model, config.iterations))
            own += [JoinFrames(self.stack, config.symmetry), self.maps]
            stages += [OneClass(stage, number, config.classes) for stage in own]
        return stages

    def _division(self, limit: int) -> list[Stage]:
        """Stages that divide the map of all particles into classes."""
        config, low = self.config, self.model.common_limit
        divisions = [
            DivideMap(self.stack, low, config.symmetry, config.classes, i + 1, config.seed)
            for i in range(config.divisions)
        ]
        return [
            *divisions,
            ChooseDivision(config.divisions, config.classes),
            AssignClasses(self._half_maps(limit), low, config.classes, config.seed),
        ]

    def _half_maps(self, limit: int) -> HalfMapStage:
        return HalfMapStage(self.stack, limit, self.config.symmetry)


def start_limit(config: AbInitioConfig, band: Band) -> int:
    """Band limit of the starts."""
    return min(config.start_limit, band.limit)


def make_plan(particles: Particles, config: AbInitioConfig, workspace: Path, device: torch.device = CPU) -> Plan:
    """Everything that is fixed before the first stage: bands, noise, search grids, radii."""
    box = particles.box
    extent = box * particles.pixel_size
    furthest = furthest_shell(particles, config.max_resolution)
    if config.map_limit is not None:
        furthest = min(furthest, config.map_limit)
    radius = 0.5 * config.diameter * 1.05 if config.diameter is not None else 0.42 * extent
    prepare, maps = first_and_last_stage(
        particles,
        radius=radius,
        furthest=furthest,
        stored=stored_limit(Band(box, furthest), max(config.levels)),
        invert=config.invert,
        workspace=workspace,
        device=device,
    )
    coarse_box = small_box(box, start_limit(config, prepare.stack.band))
    model = CoarseModel(
        coarse_box,
        extent / coarse_box,
        radius,
        config.symmetry,
        coarse_orientations(config.symmetry),
        shift_grid(config.shift_extent * box, config.shift_count),
    )
    return Plan(particles, config, prepare, model, maps)
