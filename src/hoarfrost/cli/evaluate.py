"""``hoarfrost evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoarfrost.analysis.metrics import Scores, evaluate
from hoarfrost.cli.options import Force
from hoarfrost.cli.outputs import require_new, require_place
from hoarfrost.errors import InputError
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.io.files import replacing
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.types import HalfMaps, Volume


def command(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a table of particles with poses.")],
    truth: Annotated[Path, typer.Option(help="The true poses: a table, or the folder that simulate wrote.")],
    truth_map: Annotated[
        Path | None, typer.Option(help="The true map; truth.mrc beside the table where left out.")
    ] = None,
    symmetry: Annotated[str, typer.Option(help="Point group of the true object: C1, C3, D7, T, O, I, ...")] = "C1",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the scores go; scores.json in the run's folder.")
    ] = None,
    force: Force = False,
) -> None:
    """Compare a run with a known truth: errors of poses, shifts and map in the best common frame of either hand."""
    target = output or (run / "scores.json" if run.is_dir() else None)
    if target is not None:
        # The scores of a run may be found again and again; only a file that the user names is one to lose.
        require_new([target], force or output is None)
        require_place([target])
    point_group(symmetry)
    table = _first_of(run, "particles.star", "particles.cs")
    truth_table = _first_of(truth, "truth.star", "particles.star")
    maps, truths = _maps(run), _truths(truth_table.parent, truth_map)
    single = len(maps) == 1 and len(truths) == 1
    scores = evaluate(
        read_particles(table, require_images=False),
        read_particles(truth_table, require_images=False),
        map=maps[1] if single else None,
        half_maps=_half_maps(run),
        mask=_map(run, "mask.mrc"),
        truth_map=truths[1] if single else None,
        class_maps=maps if not single else None,
        truth_maps=truths if not single else None,
        symmetry=symmetry,
    )
    console = Console()
    console.print(_table(scores))
    if len(maps) > 1 and len(truths) < 2:
        kept = "there is one true map: every class is compared with it" if truths else "there is no true map"
        console.print(f"{len(maps)} classes, but {kept}.", highlight=False, soft_wrap=True)
    if target is not None:
        with replacing(target) as temporary:
            temporary.write_text(scores.to_json(), encoding="utf-8")
        console.print("wrote " + escape(str(target)), soft_wrap=True)


def _first_of(path: Path, *names: str) -> Path:
    """The file itself, or the first of these in the folder."""
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).exists():
            return path / name
    raise InputError(f"{path}: holds neither {' nor '.join(names)}; give the table itself")


def _maps(run: Path) -> dict[int, Volume]:
    """The maps of a run by class."""
    if (run / "map.mrc").exists():
        return {1: read_map(run / "map.mrc")}
    numbered = {int(path.parent.name.removeprefix("class")): path for path in run.glob("class[1-9]/map.mrc")}
    return {number: read_map(path) for number, path in sorted(numbered.items())}


def _truths(folder: Path, given: Path | None) -> dict[int, Volume]:
    """The map that was given; else those that simulate left: truth.mrc, or truth_1.mrc, truth_2.mrc, ..."""
    if given is not None:
        return {1: read_map(given)}
    if (folder / "truth.mrc").exists():
        return {1: read_map(folder / "truth.mrc")}
    numbered = {int(path.stem.removeprefix("truth_")): path for path in folder.glob("truth_[1-9].mrc")}
    return {number: read_map(path) for number, path in sorted(numbered.items())}


def _map(run: Path, name: str) -> Volume | None:
    path = run / name
    return read_map(path) if path.exists() else None


def _half_maps(run: Path) -> HalfMaps | None:
    first, second = _map(run, "half1.mrc"), _map(run, "half2.mrc")
    return None if first is None or second is None else HalfMaps(first, second)


def _table(scores: Scores) -> Table:
    poses = scores.poses
    rows = {
        "particles compared": f"{poses.particles}" + (f" ({scores.junk} junk left out)" if scores.junk else ""),
        "hand": poses.hand,
        "rotation error, median": f"{poses.median:.2f}°",
        "rotation error, mean": f"{poses.mean:.2f}°",
        "within 10°": f"{poses.below_10:.1%}",
        "beyond 30°": f"{poses.partner_share:.1%}",
        "Frobenius norm, mean (median)": f"{poses.frobenius_mean:.4f} ({poses.frobenius_median:.4f})",
        "shift error, mean": f"{poses.shift_mean:.3f} px",
        "shift error after the origin": f"{poses.shift_after_origin:.3f} px",
    }
    if scores.classes is not None:
        shares = {
            "in the right class": scores.classes.right,
            "junk recognised": scores.classes.junk_found,
            "particles taken for junk": scores.classes.particles_lost,
        }
        rows |= {name: f"{share:.1%}" for name, share in shares.items() if share is not None}
    compared = {f"class {number} to truth {true}": found for number, (true, found) in scores.class_maps.items()}
    if scores.map_to_truth is not None:
        compared["map to truth"] = scores.map_to_truth
    for name, found in compared.items():
        for threshold in (0.5, 0.143):
            unmasked, masked = found.fsc.resolution(threshold, "unmasked"), found.fsc.resolution(threshold)
            rows[f"{name}, FSC {threshold}"] = f"{unmasked:.2f} Å (masked {masked:.2f} Å)"
    if scores.half_maps is not None:
        rows["half-maps, FSC 0.143"] = f"{scores.half_maps.resolution(0.143):.2f} Å"
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, value)
    return table
