"""The run behind ``hoarfrost abinit``: from a particle table to a folder with maps, poses and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hoarfrost.data.dataset import CPU
from hoarfrost.data.forecast import readable_size
from hoarfrost.data.preflight import Preflight, inspect
from hoarfrost.io.chimerax import contour_level, write_session_commands
from hoarfrost.io.images import MrcImages
from hoarfrost.io.mrc import write_map
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.kernels.library import library
from hoarfrost.reconstruct.ab_initio import ab_initio
from hoarfrost.reconstruct.annealing import WORK
from hoarfrost.reconstruct.final_maps import FinalMaps
from hoarfrost.reconstruct.refine import RefineResult
from hoarfrost.reconstruct.result import AbInitioResult
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.examples import example_pairs
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.manifest import InputRecord, stacks_record, table_record
from hoarfrost.runs.progress import EVENTS_NAME, duration, logged_warnings, read_events
from hoarfrost.runs.report import ClassShown, ReportData, Start, write_report
from hoarfrost.runs.running import Session, running
from hoarfrost.types import Particles


@dataclass(frozen=True)
class Ready:
    """A stack that was looked over, and the settings that follow from it."""

    particles: Particles
    config: AbInitioConfig
    preflight: Preflight
    inputs: tuple[InputRecord, ...]
    notes: tuple[str, ...] = ()  # what reading the table gave cause to warn of

    @property
    def forecast(self) -> str:
        """Size of the work in one line."""
        particles, expected = self.particles, self.preflight.forecast
        seconds = expected_seconds(self.config, len(particles), particles.box, torch.get_num_threads())
        return (
            f"{len(particles):,} particles, box {particles.box} at {particles.pixel_size:.4g} Å: roughly "
            f"{duration(seconds)}, {readable_size(expected.memory)} of memory, and {readable_size(expected.disk)} of disk "
            "while it runs"
        )


WITHOUT_KERNELS = 5.0
"""How much longer the work takes in PyTorch alone."""


def expected_seconds(config: AbInitioConfig, count: int, box: int, threads: int) -> float:
    """What a run will take, within a factor of two or so; shared or old machines take longer.

    The rates are those of two cores of a server of 2024, with a little added: for every image of a start, for the two
    searches of all images, for every image and squared Fourier pixel of a refinement, and for every pixel of the maps.
    """
    levels = [min(level, (box - 1) // 2) for level in config.levels]
    batches = config.starts * config.start_steps + 2 * config.half_steps
    starts = batches * min(config.start_batch, count) * 1.7e-4
    searches = 1.2e-4 + (2.7e-4 if config.rivals else 0.0)
    refinement = 1.2e-7 * sum(level**2 for level in levels) * config.iterations / 3
    work = starts + count * (searches + refinement + 1.8e-8 * box**2)
    return 12.0 + 2 / threads * work * (1.0 if library() is not None else WITHOUT_KERNELS)


def look_over(table: Path, config: AbInitioConfig, *, root: Path | None = None, workspace: Path | None = None) -> Ready:
    """Read a particle table, and refuse a stack that a run would be in vain on.

    Dark particles are noticed here: the settings returned say that images are to be inverted.
    """
    notes: list[str] = []
    with logged_warnings(notes.append):
        particles = read_particles(table, root=root)
    preflight = inspect(
        particles,
        diameter=config.diameter,
        symmetry=config.symmetry,
        seed=config.seed,
        resolution=config.max_resolution,
        limit=max(config.levels),
        workspace=workspace,
    ).sound()
    if preflight.dark_particles:
        config = config.model_copy(update={"invert": True})
    return Ready(particles, config, preflight, input_records(table, particles), tuple(notes))


def input_records(table: Path, particles: Particles) -> tuple[InputRecord, ...]:
    """What tells this table and its stacks from others."""
    images = particles.images
    stacks = [header.path for header in images.headers] if isinstance(images, MrcImages) else []
    if not stacks or stacks == [table]:
        return (stacks_record([table]),) if stacks else (table_record(table),)
    return table_record(table), stacks_record(stacks)


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
    ready = look_over(table, config, root=root, workspace=output)
    folder = RunFolder.open(
        output,
        verb="abinit",
        config=ready.config.model_dump(),
        inputs=ready.inputs,
        command=command,
        seed=config.seed,
        force=force,
    )
    with folder:
        if not folder.finished:
            with running(folder, console, command) as session:
                for note in ready.notes:
                    session.warn(note)
                for finding in ready.preflight.findings:
                    (session.warn if finding.level == "warning" else session.say)(finding.line)
                session.say(ready.forecast)
                result = reconstruct_into(folder, ready.particles, ready.config, session, device)
                finish(folder, result, ready.config)
    return folder


def reconstruct_into(
    folder: RunFolder, particles: Particles, config: AbInitioConfig, session: Session, device: torch.device = CPU
) -> AbInitioResult:
    """Run the method in a folder, from its checkpoint where there is one, and write maps, poses and FSC."""
    result = ab_initio(
        particles,
        config,
        workspace=folder.cache,
        device=device,
        store=folder.checkpoint,
        listener=session.listener,
        should_stop=session.should_stop,
    )
    session.say("writing maps, poses and report")
    write_outputs(folder, result)
    return result


def write_outputs(folder: RunFolder, result: AbInitioResult | RefineResult) -> None:
    """Maps, masks, FSC, poses and a ChimeraX script; several classes each in a folder of its own."""
    maps = maps_of(result)
    for place, one in maps.items():
        write_map(folder.output(f"{place}map.mrc"), one.map)
        write_map(folder.output(f"{place}half1.mrc"), one.half_maps.first)
        write_map(folder.output(f"{place}half2.mrc"), one.half_maps.second)
        write_map(folder.output(f"{place}mask.mrc"), one.mask)
        one.fsc.write_csv(folder.output(f"{place}fsc.csv"))
    write_particles(result.particles, folder.output("particles.star"))
    source = getattr(result.particles.source, "path", None)
    if source is not None and source.suffix == ".cs":
        write_particles(result.particles, folder.output("particles.cs"))
    shown = [f"{place}map.mrc" for place in maps] if len(maps) > 1 else ["map.mrc", "half1.mrc", "half2.mrc"]
    write_session_commands(
        folder.output("view.cxc"),
        [folder.path / name for name in shown],
        level=contour_level(result.map, result.mask),
        half_level=contour_level(result.half_maps.first, result.mask),
        diameter=result.diameter,
    )


def maps_of(result: AbInitioResult | RefineResult) -> dict[str, FinalMaps | RefineResult]:
    """The maps of a result by the folder they go to."""
    if isinstance(result, RefineResult):
        return {"": result}
    if len(result.classes) == 1:
        return {"": result.classes[0].maps}
    return {f"class{one.number}/": one.maps for one in result.classes}


def finish(
    folder: RunFolder, result: AbInitioResult, config: AbInitioConfig, scores: Mapping[str, Any] | None = None
) -> None:
    """Write the report, and close the record."""
    results = summary(result) | ({} if scores is None else {"scores": dict(scores)})
    # The record knows the stages of all attempts, the result those of the last.
    timings = folder.manifest.timings | {
        name: seconds for name, seconds in result.timings.items() if name not in folder.manifest.timings
    }
    manifest = folder.manifest.model_dump(mode="json") | {"results": results, "status": "finished"}
    folder.output("report.html")
    write_report(folder.path, report_data(folder, result, config, timings, scores), manifest)
    for picture in sorted(folder.path.glob("figures/*.png")):
        folder.output(f"figures/{picture.name}")
    folder.finish(results)


def report_data(
    folder: RunFolder,
    result: AbInitioResult,
    config: AbInitioConfig,
    timings: Mapping[str, float],
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
        timings=timings,
        peak_fraction=fractions_of_peak(folder.path / EVENTS_NAME, result.throughput.get("peak_tera_operations")),
        evidence=result.evidence,
        warnings=tuple(text for text in folder.manifest.warnings if text not in result.verdict.warnings),
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
    poses = result.particles.poses
    confidence = None if poses is None else poses.confidence
    others = [start.agreement for start in result.starts if not start.chosen]
    verdict = result.verdict
    return {
        "particles": len(result.particles),
        "resolution": result.fsc.resolution(0.143),
        "resolution_0.5": result.fsc.resolution(0.5),
        "resolution_unmasked": result.fsc.resolution(0.143, "unmasked"),
        "diameter": result.diameter,
        "symmetry": result.symmetry,
        "voxel_size": result.map.voxel_size,
        "agreement_of_starts": max(others, default=None),
        "agreement_of_axes": result.evidence.axes,
        "junk": None if result.particles.junk is None else float((result.particles.junk > 0.5).double().mean()),
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
        "median_confidence": None if confidence is None else float(confidence.median()),
        "verdict": {"level": verdict.level, "headline": verdict.headline},
        "throughput": result.throughput,
    }
