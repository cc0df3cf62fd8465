"""The run behind ``hoarfrost refine``: a particle table and a map become a folder with better poses, maps and a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from hoarfrost.analysis.local_resolution import local_resolution
from hoarfrost.analysis.postprocess import filter_by_fsc, guinier_b_factor, sharpen
from hoarfrost.data.dataset import CPU
from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import crop_or_pad_centred, resample_centred
from hoarfrost.io.mrc import read_header, read_map, write_map
from hoarfrost.reconstruct.final_maps import FinalMaps
from hoarfrost.reconstruct.half_maps import inside
from hoarfrost.reconstruct.refine import RefineResult, refine
from hoarfrost.reconstruct.refine_plan import search_of
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.runs.examples import example_pairs
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.manifest import stacks_record
from hoarfrost.runs.outputs import finish, key_figures, write_outputs
from hoarfrost.runs.ready import look_over
from hoarfrost.runs.report import ReportData
from hoarfrost.runs.running import Session, run_in
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
    ready = look_over(table, config, root=root, workspace=output)
    particles, config = ready.particles, ready.config
    search = search_of(particles, config)
    require_sound_poses(particles, table, config)
    begin, note = fitted(read_sized(reference), particles, reference)
    within = None if mask is None else fitted_mask(mask, particles)

    def work(folder: RunFolder, session: Session) -> None:
        ready.announce(session)
        session.say(ready.forecast("poses of the table are refined" if search == "local" else "poses are searched"))
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
        write_outputs(folder, result.particles, {"": result.maps}, result.diameter)
        conclude(folder, result, config)

    settings = config.model_dump() | {"search": search}
    inputs = (*ready.inputs, stacks_record([reference] if mask is None else [reference, mask]))
    return run_in(output, "refine", settings, inputs, work, console=console, force=force, command=command)


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


def sharpened(maps: FinalMaps, b_factor: float | None) -> tuple[Volume, float]:
    """The map of both halves, weighted by their correlation and sharpened; and the B factor (Å^2).

    Where no B factor is given, that of a Guinier plot of the half-maps' mean, whose amplitudes are multiplied by
    ``sqrt(2 FSC / (1 + FSC))`` first; 0 where the map does not reach far enough for one.
    """
    halves, fsc, mask = maps.half_maps, maps.fsc, maps.mask.data
    mean = Volume((halves.first.data + halves.second.data) / 2, halves.first.voxel_size)
    weighted = filter_by_fsc(mean, fsc)
    if b_factor is None:
        masked = Volume(inside(weighted.data, mask), mean.voxel_size)
        try:
            b_factor = min(0.0, guinier_b_factor(masked, GUINIER_FROM, fsc.resolution()))
        except InputError:
            b_factor = 0.0
    final = sharpen(weighted, b_factor)
    return Volume(inside(final.data, mask), mean.voxel_size), b_factor


def conclude(folder: RunFolder, result: RefineResult, config: RefineConfig) -> None:
    """Write the sharpened map, the local resolution and the report, and close the record."""
    maps = result.maps
    sharp, b_factor = sharpened(maps, config.b_factor)
    write_map(folder.output("sharpened.mrc"), sharp)
    local = local_resolution(maps.half_maps, maps.mask)
    write_map(folder.output("local_resolution.mrc"), local)
    values = local.data[maps.mask.data > 0.5]
    results = key_figures(result.particles, maps, result.evidence, result.symmetry) | {
        "search": result.search,
        "rounds": result.rounds,
        "settled": result.settled,
        "defocus_change": None if result.defocus is None else float(result.defocus.abs().median()),
        "contrast_spread": None if result.contrast is None else float(result.contrast.std()),
        "b_factor": b_factor,
        "local_resolution": {
            name: float(values.quantile(share)) for name, share in (("best", 0.05), ("median", 0.5), ("worst", 0.95))
        },
    }
    data = ReportData(
        title="Refinement",
        map=maps.map,
        half_maps=maps.half_maps,
        mask=maps.mask,
        fsc=maps.fsc,
        local_resolution=local,
        particles=result.particles,
        diameter=result.diameter,
        symmetry=result.symmetry,
        noise=result.noise,
        examples=example_pairs(
            result.particles, maps.map, invert=config.invert, resolution=max(maps.fsc.resolution(), 15.0)
        ),
        timings=result.timings,
        evidence=result.evidence,
    )
    finish(folder, results, data)
