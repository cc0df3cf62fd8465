"""``hoarfrost downsample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hoarfrost.cli.options import Force, Root
from hoarfrost.data.downsample import downsample_file


def command(
    source: Annotated[Path, typer.Argument(help="A particle table (.star, .cs), image stack (.mrcs, .txt) or map.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A map (.mrc), a stack (.mrcs) or a table (.star, .cs); a stack and its table are written together.",
        ),
    ],
    box: Annotated[int, typer.Option(min=4, help="The new side in pixels, even or odd.")],
    root: Root = None,
    force: Force = False,
) -> None:
    """Make images or a map smaller by Fourier cropping, and keep the table in step.

    Pixel size, image size, image names and origins in pixels follow; a constant image keeps its value.
    """
    written = downsample_file(source, output, box, root=root, replace=force)
    Console().print("wrote " + escape(", ".join(map(str, written))), soft_wrap=True)
