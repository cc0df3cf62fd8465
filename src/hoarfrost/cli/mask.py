"""``hoarfrost mask``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hoarfrost.cli.options import Force
from hoarfrost.cli.outputs import require_new, require_place
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.physics.masks import automatic_threshold, lowpass, mask_from_map, soft_sphere
from hoarfrost.types import Volume


def command(
    source: Annotated[Path, typer.Argument(metavar="MAP", help="The map (.mrc) to make a mask for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The mask to write (.mrc).")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Density above which the low-passed map counts as particle.", show_default="automatic"),
    ] = None,
    extend: Annotated[float, typer.Option(min=0, help="Voxels by which the contour is moved outwards.")] = 3.0,
    edge: Annotated[float, typer.Option(min=0, help="Voxels over which the mask falls to zero.")] = 6.0,
    lowpass_angstrom: Annotated[
        float, typer.Option("--lowpass", min=0, help="Resolution in Å to which the map is filtered first; 0 for none.")
    ] = 15.0,
    largest_piece: Annotated[
        bool, typer.Option("--largest-piece", help="Leave out all but the largest connected piece.")
    ] = False,
    radius: Annotated[
        float | None, typer.Option(min=0, help="Make a sphere of this radius in Å instead.", show_default="off")
    ] = None,
    force: Force = False,
) -> None:
    """Make a soft mask in the shape of a map, or a soft sphere in its box.

    The map is filtered to a low resolution and cut at a threshold; the contour is extended, and its edge softened.
    """
    require_new([output], force)
    require_place([output])
    volume = read_map(source)
    box, voxel = volume.box, volume.voxel_size
    if radius is not None:
        mask, kind = Volume(soft_sphere(box, radius / voxel, edge), voxel), f"sphere of {radius:g} Å"
    else:
        if lowpass_angstrom > 0:
            volume = lowpass(volume, lowpass_angstrom)
        level = automatic_threshold(volume.data) if threshold is None else threshold
        mask = mask_from_map(
            volume,
            threshold=level,
            extend_px=extend,
            edge_px=edge,
            lowpass_angstrom=None,
            largest_piece=largest_piece,
        )
        kind = f"contour at {level:.3g}"
    write_map(output, mask)
    share = 100 * float(mask.data.mean())
    Console().print(f"{escape(str(output))}: {kind}, {share:.1f} % of the box of {box} voxels", soft_wrap=True)
