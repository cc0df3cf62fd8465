"""The run behind ``hoarfrost refine``: a particle table and a map become a folder with better poses, maps and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from hoarfrost.analysis.local_resolution import local_resolution
from hoarfrost.analysis.postprocess import filter_by_fsc, guinier_b_factor, sharpen
from hoarfrost.data.dataset import CPU
from hoarfrost.errors import InputError
from hoarfrost.io.mrc import write_map
from hoarfrost.reconstruct.final_maps import FinalMaps
from hoarfrost.reconstruct.half_maps import inside
from hoarfrost.reconstruct.refine import RefineResult, refine
from hoarfrost.reconstruct.refine_plan import search_of
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.runs.examples import example_pairs
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.given import fitted, fitted_mask, read_sized, require_sound_poses
from hoarfrost.runs.manifest import stacks_record
from hoarfrost.runs.outputs import finish, key_figures, write_outputs
from hoarfrost.runs.ready import look_over
from hoarfrost.runs.running import Session, run_in
from hoarfrost.runs.shown import ReportData
from hoarfrost.types import Volume

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
    if search == "local":
        require_sound_poses(particles, table, "or use --search global")
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
        "defocus_change": None if result.defocus is None else float(result.defocus.change.abs().median()),
        "defocus_error": None if result.defocus is None else float(result.defocus.deviation.median()),
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
