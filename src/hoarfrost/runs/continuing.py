"""How to go on with a run's files in ChimeraX, RELION and cryoSPARC."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from hoarfrost.runs import page


def next_steps(folder: Path, symmetry: str, diameter: float | None, resolution: float | None) -> Iterator[str]:
    """A section with commands to copy; it names only files that are in ``folder``."""
    folder = folder.resolve()

    def there(name: str) -> bool:
        return (folder / name).exists()

    if not there("map.mrc"):
        return
    yield page.heading("Going on")
    yield page.heading("ChimeraX", 3)
    yield page.code("chimerax view.cxc" if there("view.cxc") else "chimerax map.mrc")
    yield page.paragraph(
        "The images cannot tell a map from its mirror image. If helices turn to the left, or a known structure does "
        "not fit, mirror map and poses together:"
    )
    yield page.code(f"hoarfrost flip {shlex.quote(folder.name)} -o {shlex.quote(folder.name + '-flipped')}")
    start = _starting_resolution(resolution)
    if there("particles.star"):
        yield page.heading("RELION", 3)
        yield page.paragraph("From the folder that the image paths in particles.star start at:")
        yield page.code(_relion(folder, symmetry, diameter, start))
    if there("particles.star") or there("particles.cs"):
        table = "particles.cs" if there("particles.cs") else "particles.star"
        yield page.heading("cryoSPARC", 3)
        yield page.paragraph(
            f"Import {table} (Import Particle Stack; the particle data path is the folder of the stacks) and map.mrc "
            f"(Import 3D Volumes), then run Homogeneous Refinement with an initial low-pass of {start:.0f} Å, or Local "
            "Refinement to keep these poses."
        )


def _starting_resolution(resolution: float | None) -> float:
    """Low-pass of the first reference in Å: well below what was reached, so that it cannot bias what follows."""
    return max(15.0, 5.0 * round(2 * (resolution or 10.0) / 5))


def _relion(folder: Path, symmetry: str, diameter: float | None, start: float) -> str:
    table, reference, output = (shlex.quote(str(folder / name)) for name in ("particles.star", "map.mrc", "relion_"))
    lines = [
        f"mpirun -n 3 relion_refine_mpi --i {table} --ref {reference} --o {output}",
        "    --auto_refine --split_random_halves --firstiter_cc --ctf --flatten_solvent --zero_mask --pad 2",
        "    --healpix_order 3 --auto_local_healpix_order 4 --offset_range 4 --offset_step 2",
        f"    --ini_high {start:.0f} --sym {symmetry}",
    ]
    if diameter is not None:
        lines[-1] += f" --particle_diameter {1.2 * diameter:.0f}"
    return " \\\n".join(lines)
