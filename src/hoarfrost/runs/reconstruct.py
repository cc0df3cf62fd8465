"""The run behind ``hoarfrost reconstruct``: a particle table with poses becomes a folder with maps and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from hoarfrost.data.dataset import CPU
from hoarfrost.errors import InputError
from hoarfrost.reconstruct.homogeneous import ReconstructResult, reconstruct
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.representations.gaussian_files import write_gaussians
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.runs.examples import example_pairs
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.given import fitted_mask, require_sound_poses
from hoarfrost.runs.manifest import stacks_record
from hoarfrost.runs.outputs import finish, key_figures, write_outputs
from hoarfrost.runs.ready import look_over
from hoarfrost.runs.running import Session, run_in
from hoarfrost.runs.shown import ReportData


def run_reconstruct(
    table: Path,
    output: Path,
    config: ReconstructConfig,
    *,
    console: Console,
    mask: Path | None = None,
    root: Path | None = None,
    device: torch.device = CPU,
    force: bool = False,
    command: Sequence[str] = (),
) -> RunFolder:
    """Reconstruct from known poses, and leave everything in the folder ``output``.

    Parameters
    ----------
    table : the particles with their poses; halves that they have are kept.
    output : the run folder. The same run, once begun there, goes on; once finished, is left as it is.
    mask : values in [0, 1] on the grid of the images.
    console, root, device, force, command : as for :func:`hoarfrost.runs.abinit.run_abinit`.

    Raises
    ------
    InputError
        Whatever is wrong with the stack, its poses, the mask, the settings or the folder.
    """
    ready = look_over(table, config, root=root, workspace=output, stored=config.stored)
    particles, config = ready.particles, ready.config
    if particles.poses is None:
        raise InputError(f"{table}: has no poses; find them with 'hoarfrost abinit', or give a table that has them")
    require_sound_poses(particles, table, "or find the poses anew with 'hoarfrost abinit'")
    within = None if mask is None else fitted_mask(mask, particles)

    def work(folder: RunFolder, session: Session) -> None:
        ready.announce(session)
        session.say(ready.forecast(f"maps by {config.method}"))
        result = reconstruct(
            particles,
            config,
            mask=within,
            workspace=folder.cache,
            device=device,
            store=folder.checkpoint,
            listener=session.listener,
            should_stop=session.should_stop,
        )
        session.say("writing maps and report")
        write_outputs(folder, result.particles, {"": result.maps}, result.diameter)
        if isinstance(result.density, GaussianDensity):
            for name in ("gaussians.ply", "gaussians.cif"):
                write_gaussians(result.density, folder.output(name))
        conclude(folder, result, config)

    inputs = ready.inputs if mask is None else (*ready.inputs, stacks_record([mask]))
    return run_in(
        output, "reconstruct", config.model_dump(), inputs, work, console=console, force=force, command=command
    )


def conclude(folder: RunFolder, result: ReconstructResult, config: ReconstructConfig) -> None:
    """Write the report, and close the record."""
    maps = result.maps
    results = key_figures(result.particles, maps, result.evidence, result.symmetry) | {
        "method": result.method,
        "epochs": result.epochs,
        "gaussians": len(result.density) if isinstance(result.density, GaussianDensity) else None,
        "contrast_spread": None if result.contrast is None else float(result.contrast.std()),
    }
    data = ReportData(
        title="Reconstruction",
        map=maps.map,
        half_maps=maps.half_maps,
        mask=maps.mask,
        fsc=maps.fsc,
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
