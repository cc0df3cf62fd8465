"""The run behind ``hoarfrost refine``: a particle table and a map become a folder with better poses, maps and a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hoarfrost.analysis.local_resolution import local_resolution
from hoarfrost.analysis.postprocess import filter_by_fsc, guinier_b_factor, sharpen
from hoarfrost.data.dataset import CPU
from hoarfrost.data.forecast import readable_size
from hoarfrost.data.preflight import Preflight, inspect
from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import crop_or_pad_centred, resample_centred
from hoarfrost.io.mrc import read_header, read_map, write_map
from hoarfrost.io.particles import read_particles
from hoarfrost.reconstruct.half_maps import inside
from hoarfrost.reconstruct.refine import RefineResult, refine, search_of
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.runs.abinit import input_records, write_outputs
from hoarfrost.runs.examples import example_pairs
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.manifest import stacks_record
from hoarfrost.runs.progress import logged_warnings
from hoarfrost.runs.report import ReportData, write_report
from hoarfrost.runs.running import running
from hoarfrost.types import Particles, Volume

GUINIER_FROM = 10.0
"""Å; amplitudes of proteins fall off evenly from here on."""


def run_refine(
    table: Path,
    reference: Path,
    output: Path,
    config: RefineConfig,
    *,
    console: Console,
    mask: Path | None = None,
    root: Path | None = None,
    device: torch.device = CPU,
    force: bool = False,
    command: Sequence[str] = (),
) -> RunFolder:
    """Refine poses and map, and leave everything in the folder ``output``.

    Parameters
    ----------
    table : the particles; poses and halves that they have are used.
    reference : a map to begin with; brought onto the grid of the images where it has another.
    output : the run folder. The same run, once begun there, goes on; once finished, is left as it is.
    mask : values in [0, 1] on the grid of the images.
    console, root, device, force, command : as for :func:`hoarfrost.runs.abinit.run_abinit`.

    Raises
    ------
    InputError
        Whatever is wrong with the stack, the map, the mask, the settings or the folder.
    """
    notes: list[str] = []
    with logged_warnings(notes.append):
        particles = read_particles(table, root=root)
    search = search_of(particles, config)
    require_sound_poses(particles, table, config)
    begin, note = fitted(read_sized(reference), particles, reference)
    within = None if mask is None else fitted_mask(mask, particles)
    preflight = inspect(
        particles,
        diameter=config.diameter,
        symmetry=config.symmetry,
        seed=config.seed,
        resolution=config.max_resolution,
        workspace=output,
    ).sound()
    if preflight.dark_particles:
        config = config.model_copy(update={"invert": True})
    maps = [reference] if mask is None else [reference, mask]
    folder = RunFolder.open(
        output,
        verb="refine",
        config=config.model_dump() | {"search": search},
        inputs=(*input_records(table, particles), stacks_record(maps)),
        command=command,
        seed=config.seed,
        force=force,
    )
    with folder:
        if not folder.finished:
            with running(folder, console, command) as session:
                for text in notes:
                    session.warn(text)
                for finding in preflight.findings:
                    (session.warn if finding.level == "warning" else session.say)(finding.line)
                session.say(_work(particles, preflight, search))
                if note:
                    session.say(note)
                result = refine(
                    particles,
                    begin,
                    config,
                    mask=within,
                    workspace=folder.cache,
                    device=device,
                    store=folder.checkpoint,
                    listener=session.listener,
                    should_stop=session.should_stop,
                )
                session.say("writing maps, poses and report")
                write_outputs(folder, result)
                _finish(folder, result, config)
    return folder


def _work(particles: Particles, preflight: Preflight, search: str) -> str:
    expected = preflight.forecast
    poses = "poses of the table are refined" if search == "local" else "poses are searched"
    return (
        f"{len(particles):,} particles, box {particles.box} at {particles.pixel_size:.4g} Å: {poses}; "
        f"{readable_size(expected.memory)} of memory, and {readable_size(expected.disk)} of disk while it runs"
    )


def require_sound_poses(particles: Particles, table: Path, config: RefineConfig) -> None:
    """Refuse poses that are no numbers, or lie outside their images, where they are to be refined."""
    if search_of(particles, config) == "global" or particles.poses is None:
        return
    poses = particles.poses
    broken = ~(poses.rotations.isfinite().all(-1).all(-1) & poses.shifts.isfinite().all(-1))
    if bool(broken.any()):
        row = int(broken.nonzero()[0]) + 1
        raise InputError(f"{table}: row {row}: the pose is not a number; mend it, or use --search global")
    side = particles.box * particles.optics.pixel_size
    outside = poses.shifts.abs().amax(-1) > side / 2
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"{table}: row {row + 1}: a shift of {float(poses.shifts[row].abs().max()):.0f} Å leaves the image of "
            f"{float(side[row]):.0f} Å; check the units of the origins, or use --search global"
        )


def read_sized(path: Path) -> Volume:
    """A cubic map that says its voxel size.

    Raises
    ------
    InputError
        A map without a voxel size, or one that is no cube.
    """
    header = read_header(path)
    if min(header.voxel_size) <= 0:
        raise InputError(f"{path}: its header has no voxel size; write it again with that of the map")
    if len(set(header.shape)) != 1:
        raise InputError(f"{path}: a cubic map is needed, this one is {header.shape} (sections, rows, columns)")
    volume = read_map(path)
    if float(volume.data.max()) == float(volume.data.min()):
        raise InputError(f"{path}: the map is constant; give one that shows the particle")
    return volume


def fitted(volume: Volume, particles: Particles, path: Path) -> tuple[Volume, str]:
    """The map on the grid of the images, and what was done to it ("" for nothing).

    Its voxel size becomes the images' by Fourier cropping or padding, exact to half a per cent; then the box is cut or
    filled to theirs.

    Raises
    ------
    InputError
        A map that shows less than half of the images' field, or more than four times as much.
    """
    box, pixel_size = particles.box, particles.pixel_size
    side, wanted = volume.box * volume.voxel_size, box * pixel_size
    if not 0.5 * wanted <= side <= 4 * wanted:
        raise InputError(
            f"{path}: the map is {side:.0f} Å wide ({volume.box} voxels of {volume.voxel_size:.4g} Å), the images "
            f"{wanted:.0f} Å; check its voxel size, or give a map of these particles"
        )
    if volume.box == box and math.isclose(volume.voxel_size, pixel_size, rel_tol=5e-3):
        return Volume(volume.data, pixel_size), ""
    resampled = max(2, 2 * round(side / pixel_size / 2)) if not math.isclose(side, wanted, rel_tol=5e-3) else box
    # Cut or fill first where that makes the resampling exact: the solvent is zero after levelling.
    data = volume.data - volume.data[0].mean()
    data = crop_or_pad_centred(resample_centred(data, resampled, (0, 1, 2)), box, (0, 1, 2))
    note = (
        f"{path}: {volume.box} voxels of {volume.voxel_size:.4g} Å are brought to {box} of {pixel_size:.4g} Å, as the "
        "images have"
    )
    return Volume(data, pixel_size), note


def fitted_mask(path: Path, particles: Particles) -> Volume:
    """A mask on the grid of the images.

    Raises
    ------
    InputError
        Another box or voxel size, values outside [0, 1], or nothing inside.
    """
    mask = read_map(path)
    box, pixel_size = particles.box, particles.pixel_size
    if mask.data.shape != (box, box, box) or not math.isclose(mask.voxel_size, pixel_size, rel_tol=1e-2):
        shape = " x ".join(str(length) for length in mask.data.shape)
        raise InputError(
            f"{path}: the mask has {shape} voxels of {mask.voxel_size:.4g} Å, the images {box} of {pixel_size:.4g} Å; "
            "make it from a map of these particles (hoarfrost mask)"
        )
    low, high = float(mask.data.min()), float(mask.data.max())
    if low < -1e-3 or high > 1.001 or high < 0.5:
        raise InputError(f"{path}: a mask has values from 0 to 1, this file has {low:.3g} to {high:.3g}")
    return Volume(mask.data.clamp(0, 1), pixel_size)


def sharpened(result: RefineResult, b_factor: float | None) -> tuple[Volume, float]:
    """The map of both halves, weighted by their correlation and sharpened; and the B factor (Å^2).

    Where no B factor is given, that of a Guinier plot of the half-maps' mean, whose amplitudes are multiplied by
    ``sqrt(2 FSC / (1 + FSC))`` first; 0 where the map does not reach far enough for one.
    """
    halves = result.half_maps
    mean = Volume((halves.first.data + halves.second.data) / 2, halves.first.voxel_size)
    weighted = filter_by_fsc(mean, result.fsc)
    if b_factor is None:
        resolution = result.fsc.resolution()
        masked = Volume(inside(weighted.data, result.mask.data), mean.voxel_size)
        try:
            b_factor = min(0.0, guinier_b_factor(masked, GUINIER_FROM, resolution))
        except InputError:
            b_factor = 0.0
    final = sharpen(weighted, b_factor)
    return Volume(inside(final.data, result.mask.data), mean.voxel_size), b_factor


def _finish(folder: RunFolder, result: RefineResult, config: RefineConfig) -> None:
    """Write the sharpened map, the local resolution and the report, and close the record."""
    sharp, b_factor = sharpened(result, config.b_factor)
    write_map(folder.output("sharpened.mrc"), sharp)
    local = local_resolution(result.half_maps, result.mask)
    write_map(folder.output("local_resolution.mrc"), local)
    values = local.data[result.mask.data > 0.5]
    results = summary(result) | {
        "b_factor": b_factor,
        "local_resolution": {
            name: float(values.quantile(share)) for name, share in (("best", 0.05), ("median", 0.5), ("worst", 0.95))
        },
    }
    # The record knows the stages of all attempts, the result those of the last.
    timings = folder.manifest.timings | {
        name: seconds for name, seconds in result.timings.items() if name not in folder.manifest.timings
    }
    manifest = folder.manifest.model_dump(mode="json") | {"results": results, "status": "finished"}
    folder.output("report.html")
    data = ReportData(
        title="Refinement",
        map=result.map,
        half_maps=result.half_maps,
        mask=result.mask,
        fsc=result.fsc,
        local_resolution=local,
        particles=result.particles,
        diameter=result.diameter,
        symmetry=result.symmetry,
        noise=result.noise,
        examples=example_pairs(
            result.particles, result.map, invert=config.invert, resolution=max(result.fsc.resolution(), 15.0)
        ),
        timings=timings,
        evidence=result.evidence,
        warnings=tuple(text for text in folder.manifest.warnings if text not in result.verdict.warnings),
    )
    write_report(folder.path, data, manifest)
    for picture in sorted(folder.path.glob("figures/*.png")):
        folder.output(f"figures/{picture.name}")
    folder.finish(results)


def summary(result: RefineResult) -> dict[str, Any]:
    """The figures that people ask for first; lengths in Å."""
    poses, verdict = result.particles.poses, result.verdict
    confidence = None if poses is None else poses.confidence
    return {
        "particles": len(result.particles),
        "resolution": result.fsc.resolution(0.143),
        "resolution_0.5": result.fsc.resolution(0.5),
        "resolution_unmasked": result.fsc.resolution(0.143, "unmasked"),
        "diameter": result.diameter,
        "symmetry": result.symmetry,
        "voxel_size": result.map.voxel_size,
        "search": result.search,
        "rounds": result.rounds,
        "settled": result.settled,
        "median_confidence": None if confidence is None else float(confidence.median()),
        "agreement_of_starts": None,
        "throughput": {},
        "verdict": {"level": verdict.level, "headline": verdict.headline},
    }
