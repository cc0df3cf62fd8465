"""Ab initio reconstruction: a stack of particles without poses becomes poses, half-maps and a validated map.

Several annealed starts from random poses; the best by score, turned onto the axes of its symmetry; one search of all
particles; Gauss-Newton refinement of each half against its own map while the band grows as far as the half-maps agree;
a second search for those that sit in a wrong optimum; the final half-maps and their Fourier shell correlation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hoarfrost.analysis.verdict import Evidence
from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.data.forecast import stored_limit
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.optimise.events import Event, Listener, Message, StepDone, listeners, silent
from hoarfrost.optimise.loop import CheckpointStore, Stage, State, run_stages
from hoarfrost.optimise.machine import matrix_product_rate
from hoarfrost.poses.search import coarse_orientations, search_peak
from hoarfrost.reconstruct.annealing import WORK, AnnealedMap, Annealing, CoarseModel
from hoarfrost.reconstruct.assignment import FullPass
from hoarfrost.reconstruct.classes import AssignClasses, ChooseDivision, DivideMap
from hoarfrost.reconstruct.final_maps import FinalMaps, SumHalfMaps, finish_maps
from hoarfrost.reconstruct.frames import JoinFrames
from hoarfrost.reconstruct.half_maps import small_box
from hoarfrost.reconstruct.junk import FindJunk
from hoarfrost.reconstruct.one_class import OneClass, in_class
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
from hoarfrost.reconstruct.refinement import HalfMapStage, RefinePoses
from hoarfrost.reconstruct.result import AbInitioResult, StartRecord, class_result, second_best
from hoarfrost.reconstruct.search_again import searches
from hoarfrost.reconstruct.settings import AbInitioConfig, Preset
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
        # Faint images need more of them before a map takes shape.
        slower = replace(schedule, steps=config.further_slower * config.start_steps)
        starts = [AnnealedMap.start(i, stack, free, schedule, config.seed) for i in range(config.starts)]
        further = [
            AnnealedMap.start(i, stack, free, slower, config.seed, if_disputed=True) for i in range(config.starts, most)
        ]
        limit = schedule.last_limit
        apart = Annealing(config.half_steps, config.start_batch, min(self.model.common_limit, limit), limit, spread=8.0)
        halves = [AnnealedMap.of_half(half, stack, self.model, apart, config.seed) for half in (1, 2)]
        return [
            self.prepare,
            *starts,
            ChooseStart(stack, free, limit, config.starts, config.diameter, config.seed),
            *further,
            ChooseStart(stack, free, limit, most, config.diameter, config.seed, again=True),
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
        again = HalfMapStage(self.stack, limits[-1], config.symmetry, anywhere=True)
        stages: list[Stage] = [*common, *searches(again, self.model, config.rivals, config.seed)]
        if config.junk:
            stages.append(FindJunk(self._half_maps(turn), config.seed))
        if config.classes > 1:
            stages += [OneClass(stage) for stage in self._division(turn)]
            further = further or [turn]
        for number in range(1, config.classes + 1):
            outlines = [HalfMapStage(self.stack, n, config.symmetry, outline=True) for n in further]
            own: list[Stage] = [RefinePoses(maps, config.iterations) for maps in outlines]
            own.append(SettleLookAlikes(self._half_maps(limits[-1]), self.model, config.iterations))
            own += [JoinFrames(self.stack, limits[-1], config.symmetry), self.maps]
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


def ab_initio(
    particles: Particles,
    config: AbInitioConfig | None = None,
    *,
    preset: Preset = "default",
    workspace: Path | None = None,
    device: torch.device = CPU,
    store: CheckpointStore | None = None,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> AbInitioResult:
    """Reconstruct a map and the poses of its particles from nothing but their images.

    Parameters
    ----------
    particles : Particles
        Images and optics; poses that they may have are not looked at. Halves that they have are kept.
    config : AbInitioConfig, optional
        Settings; those of ``preset`` where not given.
    workspace : Path, optional
        Folder for the transformed images (4 bytes a coefficient); a temporary one where not given.
    device : torch.device
        Where batches of images are worked on; the state stays in the computer's memory.
    store, listener, should_stop
        Where checkpoints go, who hears of progress, and when to stop (see :mod:`hoarfrost.optimise.loop`).
    """
    config = config or AbInitioConfig.from_preset(preset)
    times = StageTimes()
    work: list[tuple[float, float]] = []  # 10^12 operations and seconds of each searching step

    def count_work(event: Event) -> None:
        if isinstance(event, StepDone) and WORK in event.values:
            work.append((event.values[WORK], event.seconds))

    say_what_is_missing(listener, device)
    with working_folder(workspace) as folder:
        plan = make_plan(particles, config, folder, device)
        state: State = {"half": halves(particles, config.seed)}
        stages = [*plan.before_refinement, *plan.refinement]
        listen = listeners(times, count_work, listener)
        state = run_stages(stages, state, store=store, listener=listen, should_stop=should_stop)
    began = time.perf_counter()
    finished = [finish_class(plan, state, number) for number in range(1, config.classes + 1)]
    times.seconds["validation"] = time.perf_counter() - began
    result = _result(plan, state, finished, times.seconds, throughput(work, device))
    for warning in result.verdict.warnings:
        listener(Message(warning, "warning"))
    return result


def finish_class(plan: Plan, state: State, number: int) -> FinalMaps:
    """The maps of a class from its sums."""
    prefix = OneClass(plan.maps, number, plan.config.classes).prefix
    return finish_maps(
        (state[f"{prefix}sums.1"], state[f"{prefix}sums.2"]),
        plan.maps.grid,
        voxel_size=plan.particles.pixel_size,
        radius=float(state["radius"]),
        symmetry=plan.config.symmetry,
        seed=plan.config.seed,
    )


def _result(
    plan: Plan, state: State, finished: list[FinalMaps], timings: dict[str, float], reached: dict[str, float]
) -> AbInitioResult:
    config, particles = plan.config, plan.particles
    chosen = int(state["start.chosen"])
    starts = tuple(
        StartRecord(
            state[f"start-{i + 1}.scores"],
            float(state["start.scores"][i]),
            float(state["start.agreement"][i]),
            i == chosen,
        )
        for i in range(len(state["start.scores"]))
    )
    posed = particles.replace(
        poses=poses_of(state, particles), half=state["half"], classes=state.get("class"), junk=state.get("junk")
    )
    divisions = tuple(state["division.agreement"].tolist()) if config.classes > 1 else ()
    evidence = Evidence(
        diameter=2 * float(state["radius"]),
        agreement=max((start.agreement for start in starts if not start.chosen), default=None),
        division=second_best(divisions, int(state["division.chosen"])) if divisions else None,
        common=particles.box * particles.pixel_size / plan.model.common_limit,
        axes=float(state["axes.agreement"]) if "axes.agreement" in state else None,
    )
    classes = tuple(
        class_result(posed, in_class(state, number), number, maps, evidence, config.symmetry)
        for number, maps in enumerate(finished, 1)
    )
    return AbInitioResult(
        particles=posed,
        classes=classes,
        divisions=divisions,
        starts=starts,
        noise=plan.stack.noise,
        diameter=2 * float(state["radius"]),
        symmetry=config.symmetry,
        timings=timings,
        throughput=reached,
    )


def throughput(work: list[tuple[float, float]], device: torch.device) -> dict[str, float]:
    """Rates of the searching steps and of the products they are made of, measured now; 10^12 operations a second.

    The peak is that of 8-bit integer products where the compiled search runs, else that of lowered float32 ones.
    """
    if not work:
        return {}
    operations, seconds = (sum(column) for column in zip(*work, strict=True))
    return {
        "search_tera_operations": operations / seconds,
        "peak_tera_operations": (peak := search_peak(device) / 1e12),
        "peak_float32_tflops": matrix_product_rate(device=device, seconds=0.05) / 1e12,
        "search_fraction_of_peak": operations / seconds / peak,
    }
