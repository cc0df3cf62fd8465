"""``hoarfrost info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoarfrost.cli.options import Root
from hoarfrost.data.summary import Summary, summarise


def command(
    file: Annotated[
        Path, typer.Argument(help="A particle table (.star, .cs), image stack (.mrcs, .txt) or map (.mrc).")
    ],
    root: Root = None,
) -> None:
    """Say what a stack, table or map holds, and what looks wrong with it."""
    _show(file, summarise(file, root), Console())


def _show(file: Path, summary: Summary, console: Console) -> None:
    console.print(f"[bold]{escape(str(file))}[/bold]  {summary.title}", soft_wrap=True)
    facts = Table.grid(padding=(0, 2))
    for name, value in summary.facts.items():
        facts.add_row(f"[dim]{name}[/dim]", escape(value))
    console.print(facts)
    if summary.groups:
        groups = Table(*summary.groups[0].keys(), title="optics groups", title_justify="left", box=None)
        for group in summary.groups:
            groups.add_row(*group.values())
        console.print(groups)
    for finding in summary.findings:
        console.print(f"[yellow]look at this:[/yellow] {escape(finding)}", soft_wrap=True)
    if not summary.findings:
        console.print("nothing looks wrong")
