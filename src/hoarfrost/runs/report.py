"""``report.html``: one file that tells whether a run can be trusted, shows why, and says how to go on.

The report takes plain data (:class:`hoarfrost.runs.shown.ReportData`), so that it serves any method; what is None is
left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from hoarfrost.analysis.verdict import Evidence, judge
from hoarfrost.errors import InputError
from hoarfrost.io.files import replacing
from hoarfrost.runs import figures, page, run_figures, theme
from hoarfrost.runs.continuing import next_steps
from hoarfrost.runs.shown import ReportData
from hoarfrost.runs.sphere import orientation_sphere


class Picture(NamedTuple):
    """A figure with the name of its PNG, its heading, and the sentence that says what good looks like."""

    name: str
    title: str
    caption: str
    figure: Figure


def write_report(folder: Path, data: ReportData, manifest: Mapping[str, Any]) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into a run folder.

    Parameters
    ----------
    folder : Path
        The run folder; files of an earlier report are replaced.
    data : ReportData
    manifest : mapping
        ``run.json``: command, version, config, inputs, machine, ...; shown as it is, every text escaped.

    Returns
    -------
    Path
        The report: one file of at most a few megabytes that needs nothing beside it.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    pictures = folder / "figures"
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{pictures}: cannot be made: {error.strerror}; choose another place for it") from error
    body = [
        *_opening(folder, data, manifest),
        *_classes(data, pictures),
        *_section("The map" if len(data.classes) < 2 else "The largest class", _map_pictures(data), pictures),
        *_section("Particles and their poses", _pose_pictures(data), pictures),
        *_section("The starts", _start_pictures(data), pictures),
        *_section("The data", _data_pictures(data), pictures),
        *_truth(data),
        *next_steps(folder, data.symmetry, data.diameter, None if data.fsc is None else data.fsc.resolution()),
        *_section("Time", _time_pictures(data), pictures),
        *_record(manifest),
    ]
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page.document(f"{data.title}: {folder.resolve().name}", body), encoding="utf-8")
    return path


def _opening(folder: Path, data: ReportData, manifest: Mapping[str, Any]) -> Iterator[str]:
    evidence = data.evidence or Evidence(fsc=data.fsc, diameter=data.diameter)
    verdict = judge(evidence)
    yield "<header>" + page.heading(data.title, 1)
    status = manifest.get("status")
    where = f"{folder.resolve().name} · hoarfrost {manifest.get('version', '')}".rstrip()
    yield page.paragraph(where + (f" · {status}" if status else "")) + "</header>"
    yield f'<section class="verdict {verdict.level}">' + page.heading(verdict.headline) + page.bullets(verdict.reasons)
    if data.warnings:
        yield page.heading("Warnings of the run", 3) + page.bullets(data.warnings)
    yield "</section>"
    yield page.tiles(list(_headline_figures(data, evidence)))


def _headline_figures(data: ReportData, evidence: Evidence) -> Iterator[tuple[str, str]]:
    if data.fsc is not None:
        yield f"{data.fsc.resolution():.2f} Å", "resolution (FSC 0.143)"
        yield f"{data.fsc.resolution(0.5):.2f} Å", "resolution (FSC 0.5)"
    if evidence.particles is not None:
        yield f"{evidence.particles:,}", "particles"
    if evidence.agreement is not None:
        yield f"{evidence.agreement:.2f}", "agreement of the starts"
    if evidence.confidence is not None:
        yield f"{evidence.confidence:.2f}", "median confidence"
    if data.timings:
        yield duration(sum(data.timings.values())), "time"


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _section(title: str, pictures: Iterator[Picture], folder: Path) -> Iterator[str]:
    parts = []
    for name, heading, caption, figure in pictures:
        theme.save_png(figure, folder / f"{name}.png")
        parts.append(page.picture(heading, caption, theme.to_svg(figure, heading)))
    if parts:
        yield page.heading(title)
        yield from parts


def _classes(data: ReportData, folder: Path) -> Iterator[str]:
    """A table of several classes, and a picture of each but the first, which has its own section."""
    if len(data.classes) < 2:
        return
    total = sum(one.particles for one in data.classes)
    yield page.heading("The classes")
    yield page.facts(
        {
            f"class {one.number}": f"{one.particles:,} particles ({100 * one.particles / max(1, total):.0f} %), "
            f"{one.resolution:.1f} Å. {one.headline}"
            for one in data.classes
        }
    )
    yield from _section("The other classes", _class_pictures(data), folder)


def _class_pictures(data: ReportData) -> Iterator[Picture]:
    for one in data.classes[1:]:
        yield Picture(
            f"class{one.number}",
            f"Class {one.number}",
            "Good: as sharp as the largest class, and different from it in a place that makes sense; a blob, or rays, is "
            "a class of junk.",
            figures.map_views(one.map, data.diameter),
        )


def _map_pictures(data: ReportData) -> Iterator[Picture]:
    if data.map is not None:
        yield Picture(
            "map",
            "Slices and projections",
            "Good: compact density with structure inside and an even, quiet background; rays, shells or a ball "
            "without features mean wrong poses.",
            figures.map_views(data.map, data.diameter),
        )
    if data.fsc is not None:
        yield Picture(
            "fsc",
            "Resolution by Fourier shell correlation",
            "Good: the curve stays near 1, falls once and then stays near 0; the grey dotted curve is what the mask "
            "alone would give, and the resolution is where the blue curve first crosses 0.143.",
            figures.fsc_curves(data.fsc),
        )
    if data.local_resolution is not None and data.mask is not None:
        yield Picture(
            "local_resolution",
            "Local resolution",
            "Good: finer inside than at the rim, and no part far coarser than the rest; such a part moves, or is not "
            "always there. Å, by the half-maps inside small windows.",
            run_figures.local_resolution(data.local_resolution, data.mask),
        )


def _pose_pictures(data: ReportData) -> Iterator[Picture]:
    poses = None if data.particles is None else data.particles.poses
    if poses is not None and len(poses):
        yield Picture(
            "orientations",
            "Viewing directions",
            "Good: no large empty regions; a few strong spots are preferred views, which are harmless as long as the "
            "rest of the sphere is not blank.",
            orientation_sphere(poses.rotations),
        )
        if poses.confidence is not None:
            yield Picture(
                "confidence",
                "Confidence of the poses",
                "The probability that a pose is within 10 degrees of the truth; their mean is the share of right poses to "
                "expect. Good: most particles to the right; a peak at the left is junk or particles too noisy to place.",
                figures.confidence_histogram(poses.confidence),
            )
        yield Picture(
            "shifts",
            "Shifts",
            "Good: one cloud around the centre; a ring or a square edge means that particles lie beyond the range "
            "searched, an offset cloud that picking was off centre.",
            figures.shift_scatter(poses.shifts),
        )
    if data.examples is not None:
        yield Picture(
            "examples",
            "Particles and the map seen the same way",
            "Good: each particle (smoothed here) shows the outline of the view below it.",
            figures.example_particles(*data.examples),
        )


def _start_pictures(data: ReportData) -> Iterator[Picture]:
    chosen = next((start.label for start in data.starts if start.chosen), None)
    if any(start.scores for start in data.starts):
        yield Picture(
            "starts",
            "Score of each start",
            "Good: every start climbs and levels off, and more than one ends near the top.",
            run_figures.start_scores({start.label: start.scores for start in data.starts if start.scores}, chosen),
        )
    if any(start.agreement is not None for start in data.starts if not start.chosen):
        values = {start.label: start.agreement for start in data.starts if start.agreement is not None}
        yield Picture(
            "agreement",
            "Agreement of the starts",
            "Good: at least one other start beyond the line; starts that know nothing of each other and come to the "
            "same map have found what is in the images.",
            run_figures.start_agreement(values, chosen),
        )


def _data_pictures(data: ReportData) -> Iterator[Picture]:
    if data.particles is not None and len(data.particles):
        optics = data.particles.optics
        mean = (optics.defocus_u + optics.defocus_v) / 2
        if bool((mean != 0).any()):
            yield Picture(
                "defocus",
                "Defocus",
                "Good: a spread of half a micrometre or more, so that the zeros of one CTF are filled by others.",
                run_figures.defocus_histogram(mean, optics.group),
            )
    if data.noise is not None and data.particles is not None:
        yield Picture(
            "noise",
            "Noise spectrum",
            "Good: smooth and falling or flat; spikes point to detector or pre-processing artefacts.",
            run_figures.noise_spectra(data.noise, data.particles.box, data.particles.pixel_size),
        )


def _time_pictures(data: ReportData) -> Iterator[Picture]:
    if data.timings:
        yield Picture(
            "timings",
            "Where the time went",
            "The percentages compare the search's arithmetic with the most of its kind that this machine can do.",
            run_figures.stage_timings(data.timings, data.peak_fraction),
        )


def _truth(data: ReportData) -> Iterator[str]:
    if data.scores is not None:
        yield page.heading("Against the known truth")
        yield page.facts(data.scores)


def _record(manifest: Mapping[str, Any]) -> Iterator[str]:
    if not manifest:
        return
    yield page.heading("Record")
    command = manifest.get("command")
    if command is not None:
        yield page.code(command if isinstance(command, str) else shlex.join(str(part) for part in command))
    shown = {"command", "results", "timings", "warnings"}
    groups = {key: value for key, value in manifest.items() if isinstance(value, Mapping) and key not in shown}
    single = {key: value for key, value in manifest.items() if key not in shown and key not in groups}
    yield page.facts(single)
    for key, values in groups.items():
        if values:
            yield page.heading(str(key).replace("_", " ").capitalize(), 3) + page.facts(values)
