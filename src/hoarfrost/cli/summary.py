"""What a finished run found, in a few lines on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.progress import duration

_COLOURS = {"good": "green", "caution": "yellow", "bad": "bold red"}


def show_summary(folder: RunFolder, console: Console) -> None:
    """Print what a finished run found, and where it is; what a method does not have is left out."""
    manifest, results = folder.manifest, folder.manifest.results
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(results):
        table.add_row(f"[dim]{name}[/]", escape(value))
    table.add_row("[dim]time, memory[/]", f"{duration(manifest.seconds)}, {manifest.peak_memory_bytes / 1e9:.1f} GB")
    table.add_row("[dim]report[/]", escape(str(folder.path / "report.html")))
    verdict = results["verdict"]
    console.print(
        f"[bold]{escape(str(folder.path))}[/] is finished. [{_COLOURS[verdict['level']]}]{verdict['headline']}[/]",
        soft_wrap=True,
    )
    for warning in manifest.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    console.print(table, soft_wrap=True)


def _facts(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "particles", f"{results['particles']:,}"
    yield (
        "resolution",
        f"{results['resolution']:.2f} Å at FSC 0.143, {results['resolution_0.5']:.2f} Å at 0.5 "
        f"({results['resolution_unmasked']:.2f} Å without a mask)",
    )
    yield "diameter", f"{results['diameter']:.0f} Å"
    if len(results.get("classes", ())) > 1:
        for one in results["classes"]:
            yield f"class {one['number']}", f"{one['particles']:,} particles, {one['resolution']:.2f} Å"
    if results.get("junk"):
        yield "junk", f"{100 * results['junk']:.1f} % of the images show no particle"
    if results.get("agreement_of_starts") is not None:
        yield "starts", f"best two maps correlate by {results['agreement_of_starts']:.2f}"
    if results["median_confidence"] is not None:
        yield "confidence", f"{results['median_confidence']:.2f} (median)"
    yield from _of_refinement(results)
    if "search_tera_operations" in (reached := results.get("throughput", {})):
        share = f"{100 * reached['search_fraction_of_peak']:.0f} % of the peak of its products on this machine"
        yield "search", f"{reached['search_tera_operations']:.2f}e12 operations/s, {share}"


def _of_refinement(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "local_resolution" in results:
        local = results["local_resolution"]
        yield (
            "local resolution",
            f"{local['best']:.2f} Å (best), {local['median']:.2f} Å (median), {local['worst']:.2f} Å (worst)",
        )
    if "b_factor" in results:
        unknown = "none found, the map ends too early for a Guinier plot; --b-factor sets one"
        yield "B factor", f"{results['b_factor']:.0f} Å² (sharpened.mrc)" if results["b_factor"] else unknown
    if "rounds" in results:
        ended = "settled" if results["settled"] else "still moving: more rounds (--preset careful) may help"
        yield "poses", f"{results['search']} search, then {results['rounds']} rounds of refinement: {ended}"
    if results.get("defocus_change") is not None:
        moved, error = results["defocus_change"], results["defocus_error"]
        yield "defocus", f"moved by {moved:.0f} Å (median), each known to {error:.0f} Å"
    if results.get("contrast_spread") is not None:
        yield "contrast", f"differs by {100 * results['contrast_spread']:.0f} % between particles (standard deviation)"
