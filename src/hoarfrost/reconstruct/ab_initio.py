"""Ab initio reconstruction: a stack of particles without poses becomes poses, half-maps and a validated map.

Several annealed starts from random poses; the best by score, turned onto the axes of its symmetry; one search of all
particles; Gauss-Newton refinement of each half against its own map while the band grows as far as the half-maps agree;
a second search for those that sit in a wrong optimum; the final half-maps and their Fourier shell correlation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from hoarfrost.analysis.verdict import Evidence
from hoarfrost.data.dataset import CPU
from hoarfrost.optimise.events import Event, Listener, Message, StepDone, listeners, silent
from hoarfrost.optimise.loop import CheckpointStore, State, run_stages
from hoarfrost.optimise.machine import matrix_product_rate
from hoarfrost.poses.search import search_peak
from hoarfrost.reconstruct.ab_initio_plan import Plan, make_plan
from hoarfrost.reconstruct.annealing import WORK
from hoarfrost.reconstruct.final_maps import FinalMaps, finish_maps
from hoarfrost.reconstruct.one_class import OneClass, in_class
from hoarfrost.reconstruct.prologue import (
    StageTimes,
    halves,
    poses_of,
    say_what_is_missing,
    working_folder,
)
from hoarfrost.reconstruct.result import AbInitioResult, StartRecord, class_result, second_best
from hoarfrost.reconstruct.settings import AbInitioConfig, Preset
from hoarfrost.types import Particles


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
