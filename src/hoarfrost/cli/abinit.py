"""``hoarfrost abinit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoarfrost.reconstruct.ab_initio import Preset
from hoarfrost.runs.abinit import look_over, run_abinit
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.machine import compute_device
from hoarfrost.runs.presets import ab_initio_settings
from hoarfrost.runs.progress import duration


def command(
    particles: Annotated[Path, typer.Argument(help="A particle table (.star, .cs) or stack (.mrcs, .txt list).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; made if it is not there.")],
    symmetry: Annotated[str, typer.Option(help="Point group: C1, C3, D7, T, O, I, ...")] = "C1",
    classes: Annotated[int, typer.Option(min=1, max=8, help="Maps among which the particles are divided.")] = 1,
    preset: Annotated[Preset, typer.Option(help="How much work to put in.")] = "default",
    max_resolution: Annotated[
        float | None, typer.Option(help="Go no further than this, in Å.", show_default="where the half-maps end")
    ] = None,
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of the particle in Å.", show_default="estimated")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
    root: Annotated[Path | None, typer.Option(help="A folder where the images are looked for as well.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; GPUs are untested so far.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace another run that stands in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look the stack over, and say what to expect.")
    ] = False,
) -> None:
    """Find poses and a map of particles that have none.

    Writes map.mrc, half1.mrc, half2.mrc, mask.mrc, particles.star, fsc.csv, report.html and run.json into a folder; with
    several classes the maps of each go into class1, class2, ..., the largest first.
    The same command goes on after an interruption, and never overwrites another run without --force.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    config = ab_initio_settings(
        preset, symmetry=symmetry, classes=classes, max_resolution=max_resolution, diameter=diameter, seed=seed
    )
    if dry_run:
        ready = look_over(particles, config, root=root, workspace=output)
        for note in ready.notes:
            print(f"warning: {note}")
        for finding in ready.preflight.findings:
            print(f"{finding.level}: {finding.line}")
        print(ready.forecast)
        return
    folder = run_abinit(
        particles,
        output,
        config,
        console=Console(stderr=True),
        root=root,
        device=compute_device(device),
        force=force,
        command=("hoarfrost", *sys.argv[1:]),
    )
    show_summary(folder, Console())


_COLOURS = {"good": "green", "caution": "yellow", "bad": "bold red"}


def show_summary(folder: RunFolder, console: Console) -> None:
    """Print what a finished run found, and where it is; a refinement has no starts, classes or search rate."""
    manifest, results = folder.manifest, folder.manifest.results
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(results):
        table.add_row(f"[dim]{name}[/]", escape(value))
    table.add_row("[dim]time, memory[/]", f"{duration(manifest.seconds)}, {manifest.peak_memory_bytes / 1e9:.1f} GB")
    table.add_row("[dim]report[/]", escape(str(folder.path / "report.html")))
    verdict = results["verdict"]
    console.print(
        f"[bold]{escape(str(folder.path))}[/] is finished. [{_COLOURS[verdict['level']]}]{verdict['headline']}[/]"
    )
    for warning in manifest.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    console.print(table, soft_wrap=True)


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("particles", f"{results['particles']:,}"),
        (
            "resolution",
            f"{results['resolution']:.2f} Å at FSC 0.143, {results['resolution_0.5']:.2f} Å at 0.5 "
            f"({results['resolution_unmasked']:.2f} Å without a mask)",
        ),
        ("diameter", f"{results['diameter']:.0f} Å"),
    ]
    if len(results.get("classes", ())) > 1:
        facts += [
            (f"class {one['number']}", f"{one['particles']:,} particles, {one['resolution']:.2f} Å")
            for one in results["classes"]
        ]
    if results.get("junk"):
        facts.append(("junk", f"{100 * results['junk']:.1f} % of the images show no particle"))
    if results.get("agreement_of_starts") is not None:
        facts.append(("starts", f"best two maps correlate by {results['agreement_of_starts']:.2f}"))
    if results["median_confidence"] is not None:
        facts.append(("confidence", f"{results['median_confidence']:.2f} (median)"))
    if "search_tera_operations" in (reached := results.get("throughput", {})):
        share = f"{100 * reached['search_fraction_of_peak']:.0f} % of the peak of its products on this machine"
        facts.append(("search", f"{reached['search_tera_operations']:.2f}e12 operations/s, {share}"))
    return facts
