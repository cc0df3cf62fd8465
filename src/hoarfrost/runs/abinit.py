"""The run behind ``hoarfrost abinit``: from a particle table to a folder with maps, poses and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hoarfrost.data.dataset import CPU
from hoarfrost.kernels.library import library
from hoarfrost.reconstruct.ab_initio import ab_initio
from hoarfrost.reconstruct.annealing import WORK
from hoarfrost.reconstruct.result import AbInitioResult
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.examples import example_pairs
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.outputs import finish, key_figures, write_outputs
from hoarfrost.runs.progress import EVENTS_NAME, duration, read_events
from hoarfrost.runs.ready import Ready, look_over
from hoarfrost.runs.running import Session, run_in
from hoarfrost.runs.shown import ClassShown, ReportData, Start

WITHOUT_KERNELS = 5.0
"""How much longer the work takes in PyTorch alone."""


def expected_seconds(config: AbInitioConfig, count: int, box: int, threads: int) -> float:
    """What a run will take, within a factor of two or so; shared or old machines take longer.

    The rates are those of two cores of a server of 2024, with a little added: for every image of a start, for the two
    searches of all images, for every image and squared Fourier pixel of a refinement, for every pixel read and every
    squared Fourier pixel of the maps, and for every voxel of the maps once they are finished.
    """
    last = (box - 1) // 2
    levels = [min(level, last) for level in config.levels]
    likely = config.starts if config.settled == 1 else min(2, config.starts)
    batches = likely * config.start_steps + 2 * config.half_steps
    starts = batches * min(config.start_batch, count) * 1.2e-4
    searches = 0.6e-4 + (1.3e-4 if config.rivals else 0.0)
    refinement = 1.2e-7 * sum(level**2 for level in levels) * config.iterations / 3
    maps = 3e-9 * box**2 + 3.5e-8 * min(last, config.map_limit or last) ** 2
    work = starts + count * (searches + refinement + maps)
    return 10.0 + 1e-6 * box**3 + 2 / threads * work * (1.0 if library() is not None else WITHOUT_KERNELS)


def forecast(ready: Ready[AbInitioConfig]) -> str:
    """Size of the work in one line."""
    particles = ready.particles
    seconds = expected_seconds(ready.config, len(particles), particles.box, torch.get_num_threads())
    return ready.forecast(f"roughly {duration(seconds)}")


def run_abinit(
    table: Path,
    output: Path,
    config: AbInitioConfig,
    *,
    console: Console,
    root: Path | None = None,
    device: torch.device = CPU,
    force: bool = False,
    command: Sequence[str] = (),
) -> RunFolder:
    """Find poses and a map, and leave everything in the folder ``output``.

    Parameters
    ----------
    table : the particles, in any form that :func:`hoarfrost.io.particles.read_particles` knows.
    output : the run folder. The same run, once begun there, goes on; once finished, is left as it is.
    config : the settings; inversion of dark particles is added to them where needed.
    console : where progress goes.
    root : where to look for images as well.
    device : where batches of images are worked on.
    force : replace another run that stands in the folder.
    command : the command line, for the record.

    Returns
    -------
    RunFolder
        The folder with its record; ``resumed and finished`` if there was nothing left to do.

    Raises
    ------
    InputError
        Whatever is wrong with the stack, the settings or the folder.
    StoppedBySignal
        After Ctrl-C or SIGTERM; the same call goes on.
    """
    ready = look_over(table, config, limit=max(config.levels), root=root, workspace=output)

    def work(folder: RunFolder, session: Session) -> None:
        ready.announce(session)
        session.say(forecast(ready))
        conclude(folder, reconstruct_into(folder, ready, session, device), ready.config)

    settings = ready.config.model_dump()
    return run_in(output, "abinit", settings, ready.inputs, work, console=console, force=force, command=command)


def reconstruct_into(
    folder: RunFolder, ready: Ready[AbInitioConfig], session: Session, device: torch.device = CPU
) -> AbInitioResult:
    """Run the method in a folder, from its checkpoint where there is one, and write maps, poses and FSC."""
    result = ab_initio(
        ready.particles,
        ready.config,
        workspace=folder.cache,
        device=device,
        store=folder.checkpoint,
        listener=session.listener,
        should_stop=session.should_stop,
    )
    session.say("writing maps, poses and report")
    several = len(result.classes) > 1
    maps = {f"class{one.number}/" if several else "": one.maps for one in result.classes}
    write_outputs(folder, result.particles, maps, result.diameter)
    return result


def conclude(
    folder: RunFolder, result: AbInitioResult, config: AbInitioConfig, scores: Mapping[str, Any] | None = None
) -> None:
    """Write the report, with scores against a truth where there are any, and close the record."""
    results = summary(result) | ({} if scores is None else {"scores": dict(scores)})
    finish(folder, results, report_data(folder, result, config, scores))


def report_data(
    folder: RunFolder,
    result: AbInitioResult,
    config: AbInitioConfig,
    scores: Mapping[str, Any] | None,
) -> ReportData:
    """What the report shows of a result."""
    starts = tuple(
        Start(f"start {number}", tuple(start.scores.tolist()), start.chosen, start.agreement)
        for number, start in enumerate(result.starts, 1)
    )
    resolution = result.fsc.resolution(0.143)
    return ReportData(
        map=result.map,
        half_maps=result.half_maps,
        mask=result.mask,
        fsc=result.fsc,
        particles=result.particles,
        diameter=result.diameter,
        symmetry=result.symmetry,
        starts=starts,
        classes=tuple(
            ClassShown(
                one.number, one.particles, one.maps.map, one.maps.fsc, one.verdict.headline, one.maps.fsc.resolution()
            )
            for one in result.classes
        ),
        noise=result.noise,
        examples=example_pairs(result.particles, result.map, invert=config.invert, resolution=max(resolution, 15.0)),
        timings=result.timings,
        peak_fraction=fractions_of_peak(folder.path / EVENTS_NAME, result.throughput.get("peak_tera_operations")),
        evidence=result.evidence,
        scores=scores,
    )


def fractions_of_peak(events: Path, peak: float | None) -> dict[str, float]:
    """Share of the peak of its products (10^12 a second) that each searching stage reached, all attempts."""
    if peak is None:
        return {}
    work: dict[str, tuple[float, float]] = {}
    for event in read_events(events):
        done = event.get("values", {}).get(WORK)
        if done is not None:
            operations, seconds = work.get(event["stage"], (0.0, 0.0))
            work[event["stage"]] = operations + done, seconds + event["seconds"]
    return {stage: operations / seconds / peak for stage, (operations, seconds) in work.items() if seconds > 0}


def summary(result: AbInitioResult) -> dict[str, Any]:
    """The figures that people ask for first; lengths in Å."""
    junk = result.particles.junk
    others = [start.agreement for start in result.starts if not start.chosen]
    return key_figures(result.particles, result.classes[0].maps, result.evidence, result.symmetry) | {
        "agreement_of_starts": max(others, default=None),
        "agreement_of_axes": result.evidence.axes,
        "junk": None if junk is None else float((junk > 0.5).double().mean()),
        "classes": [
            {
                "number": one.number,
                "particles": one.particles,
                "resolution": one.maps.fsc.resolution(0.143),
                "verdict": {"level": one.verdict.level, "headline": one.verdict.headline},
            }
            for one in result.classes
        ],
        "agreement_of_divisions": result.evidence.division,
        "throughput": result.throughput,
    }
