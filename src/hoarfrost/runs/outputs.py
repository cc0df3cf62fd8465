"""What every run on images leaves: maps, poses, the figures that people ask for first, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hoarfrost.analysis.verdict import Evidence, judge
from hoarfrost.io.chimerax import contour_level, write_session_commands
from hoarfrost.io.mrc import write_map
from hoarfrost.io.particles import write_particles
from hoarfrost.reconstruct.final_maps import FinalMaps
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.shown import ReportData
from hoarfrost.types import Particles


def write_outputs(folder: RunFolder, particles: Particles, maps: Mapping[str, FinalMaps], diameter: float) -> None:
    """Maps, masks, FSC, poses and a ChimeraX script.

    Parameters
    ----------
    maps : by the place in the folder that they go to: ``""``, or ``"class1/"``, ...
    diameter : of the particle, Å.
    """
    for place, one in maps.items():
        write_map(folder.output(f"{place}map.mrc"), one.map)
        write_map(folder.output(f"{place}half1.mrc"), one.half_maps.first)
        write_map(folder.output(f"{place}half2.mrc"), one.half_maps.second)
        write_map(folder.output(f"{place}mask.mrc"), one.mask)
        one.fsc.write_csv(folder.output(f"{place}fsc.csv"))
    write_particles(particles, folder.output("particles.star"))
    source = getattr(particles.source, "path", None)
    if source is not None and source.suffix == ".cs":
        write_particles(particles, folder.output("particles.cs"))
    first = next(iter(maps.values()))
    shown = [f"{place}map.mrc" for place in maps] if len(maps) > 1 else ["map.mrc", "half1.mrc", "half2.mrc"]
    write_session_commands(
        folder.output("view.cxc"),
        [folder.path / name for name in shown],
        level=contour_level(first.map, first.mask),
        half_level=contour_level(first.half_maps.first, first.mask),
        diameter=diameter,
    )


def key_figures(particles: Particles, maps: FinalMaps, evidence: Evidence, symmetry: str) -> dict[str, Any]:
    """The figures that people ask for first, of any method; lengths in Å."""
    verdict = judge(evidence)
    confidence = None if particles.poses is None else particles.poses.confidence
    return {
        "particles": len(particles),
        "resolution": maps.fsc.resolution(0.143),
        "resolution_0.5": maps.fsc.resolution(0.5),
        "resolution_unmasked": maps.fsc.resolution(0.143, "unmasked"),
        "diameter": evidence.diameter,
        "symmetry": symmetry,
        "voxel_size": maps.map.voxel_size,
        "median_confidence": None if confidence is None else float(confidence.median()),
        "verdict": {"level": verdict.level, "headline": verdict.headline},
    }


def finish(folder: RunFolder, results: Mapping[str, Any], data: ReportData) -> None:
    """Write the report, and close the record with these results.

    The stages and warnings of earlier attempts are in the record, and are added to those of ``data``; warnings that the
    verdict says anyway are left out.
    """
    earlier = folder.manifest.timings
    said = judge(data.evidence).warnings if data.evidence is not None else ()
    # Drawing is slow to load; :mod:`hoarfrost.runs.running` has begun with it.
    from hoarfrost.runs.report import write_report

    data = replace(
        data,
        timings=earlier | {name: seconds for name, seconds in data.timings.items() if name not in earlier},
        warnings=tuple(text for text in folder.manifest.warnings if text not in said),
    )
    manifest = folder.manifest.model_dump(mode="json") | {"results": dict(results), "status": "finished"}
    folder.output("report.html")
    write_report(folder.path, data, manifest)
    for picture in sorted(folder.path.glob("figures/*.png")):
        folder.output(f"figures/{picture.name}")
    folder.finish(results)
