"""``hoarfrost fsc``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoarfrost.analysis.fsc import Curve, HalfMapFSC, validate_half_maps
from hoarfrost.cli.options import Force
from hoarfrost.cli.outputs import require_new, require_place
from hoarfrost.io.files import all_or_none
from hoarfrost.io.mrc import read_map
from hoarfrost.runs.figures import fsc_curves
from hoarfrost.runs.theme import save_png
from hoarfrost.types import HalfMaps


def command(
    first: Annotated[Path, typer.Argument(metavar="MAP1", help="A half-map, or any map.")],
    second: Annotated[Path, typer.Argument(metavar="MAP2", help="The other one, on the same grid.")],
    mask: Annotated[Path | None, typer.Option(help="A mask with values from 0 to 1.")] = None,
    randomise: Annotated[bool, typer.Option(help="Take out by phase randomisation what the mask itself adds.")] = True,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the curves as a table (.csv).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves (.png).")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the random phases.")] = 0,
    force: Force = False,
) -> None:
    """Fourier shell correlation of two maps, and the resolutions at 0.143 and 0.5.

    With a mask the curve is corrected by phase randomisation; the unmasked one is always given beside it.
    """
    written = [path for path in (output, plot) if path is not None]
    require_new(written, force)
    require_place(written)
    half_maps = HalfMaps(read_map(first), read_map(second))
    shape = None if mask is None else read_map(mask)
    fsc = validate_half_maps(half_maps, shape, seed, randomise=randomise)
    with all_or_none(written):
        if output is not None:
            fsc.write_csv(output)
        if plot is not None:
            save_png(fsc_curves(fsc), plot)
    console = Console()
    console.print(_table(fsc, masked=mask is not None))
    if written:
        console.print("wrote " + escape(", ".join(map(str, written))), soft_wrap=True)


def _table(fsc: HalfMapFSC, *, masked: bool) -> Table:
    table = Table("resolution", "at 0.143", "at 0.5", box=None)
    titles: dict[Curve, str] = {"corrected": "masked and corrected", "masked": "masked", "unmasked": "unmasked"}
    for curve, title in titles.items():
        if masked or curve == "unmasked":
            table.add_row(title, *(f"{fsc.resolution(at, curve):.2f} Å" for at in (0.143, 0.5)))
    return table
