"""``hoarfrost convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hoarfrost.cli.options import Force, Root
from hoarfrost.cli.outputs import require_new, require_place
from hoarfrost.io.particles import read_particles, write_particles


def command(
    source: Annotated[Path, typer.Argument(help="The table to read: .star, .cs, or a bare stack (.mrcs, .txt).")],
    output: Annotated[Path, typer.Argument(help="The table to write: .star (RELION 3.1+) or .cs (cryoSPARC).")],
    passthrough: Annotated[
        list[Path] | None, typer.Option(help="A passthrough .cs file of the same job; may be given several times.")
    ] = None,
    root: Root = None,
    force: Force = False,
) -> None:
    """Turn a particle table into another kind: RELION's STAR and cryoSPARC's .cs, with poses, halves and CTF.

    Images are neither read nor copied; the new table names them as the old one did.
    """
    require_new([output], force)
    require_place([output])
    particles = read_particles(source, root=root, passthrough=passthrough or (), require_images=False)
    write_particles(particles, output)
    poses = "with poses" if particles.poses is not None else "without poses"
    Console().print(f"{escape(str(output))}: {len(particles)} particles {poses}", soft_wrap=True)
