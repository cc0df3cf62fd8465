"""What a stack, a table or a map holds, and what looks wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.io.images import MissingImages
from hoarfrost.io.mrc import MrcHeader, holds_map, read_header, read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.types import Particles

_SAMPLE = 100


@dataclass(frozen=True)
class Summary:
    """Facts by name, one row for each optics group, and findings that deserve a look."""

    title: str
    facts: Mapping[str, str]
    groups: tuple[Mapping[str, str], ...] = ()
    findings: tuple[str, ...] = field(default=())


def summarise(path: Path | str, root: Path | str | None = None) -> Summary:
    """Describe a particle table, an image stack or a map; missing images are a finding, not an error.

    Raises
    ------
    InputError
        A file that cannot be understood at all.
    """
    path = Path(path)
    if path.suffix.lower() not in (".star", ".cs", ".txt"):
        header = read_header(path)
        if holds_map(header):
            return _summarise_map(header)
        if header.voxel_size[0] <= 0:
            return _summarise_stack_without_pixel_size(header)
    return _summarise_particles(read_particles(path, root=root, require_images=False))


def _summarise_map(header: MrcHeader) -> Summary:
    facts = {
        "size (z, y, x)": " x ".join(map(str, header.shape)),
        "voxel size": " x ".join(f"{side:.4g}" for side in header.voxel_size) + " Å (x, y, z)",
        "stored as": str(header.dtype),
    }
    findings = []
    if min(header.voxel_size) <= 0:
        findings.append("the header states no voxel size")
    elif max(header.voxel_size) > 1.01 * min(header.voxel_size):
        return Summary("map", facts, (), ("voxels are not cubes; resample it before use",))
    if len(set(header.shape)) != 1:
        findings.append("not a cube; most commands need one")
    data = read_map(header.path, finite=False).data
    findings += _value_findings(data)
    return Summary("map", facts | _value_facts(data), (), tuple(findings))


def _summarise_stack_without_pixel_size(header: MrcHeader) -> Summary:
    count, rows, columns = header.shape
    facts = {"images": str(count), "box": f"{columns} x {rows}", "stored as": str(header.dtype)}
    return Summary("image stack", facts, (), ("the header states no pixel size; a table with it is needed",))


def _summarise_particles(particles: Particles) -> Summary:
    images = particles.images
    facts = {"particles": str(len(particles))}
    findings: list[str] = []
    if isinstance(images, MissingImages):
        findings.append(images.reason)
        facts |= _table_facts(particles)
    else:
        facts["box"] = f"{particles.box} x {particles.box}"
        facts |= _table_facts(particles)
        rows = torch.linspace(0, len(particles) - 1, min(_SAMPLE, len(particles))).long()
        sample = images.read(rows)
        facts |= {f"{name} of {len(rows)} images": text for name, text in _value_facts(sample).items()}
        findings += _value_findings(sample)
        flat = int((sample.flatten(1).amax(1) == sample.flatten(1).amin(1)).sum())
        if flat:
            findings.append(f"{flat} of {len(rows)} sampled images are constant")
    findings += _table_findings(particles)
    return Summary("particles", facts, _groups(particles), tuple(findings))


def _table_facts(particles: Particles) -> dict[str, str]:
    optics, poses = particles.optics, particles.poses
    defocus = torch.cat([optics.defocus_u, optics.defocus_v])
    facts = {
        "pixel size": _range(optics.pixel_size, "Å"),
        "defocus": _range(defocus, "Å"),
        "astigmatism": _range((optics.defocus_u - optics.defocus_v).abs(), "Å"),
    }
    if bool((optics.amplitude_contrast == 1).all()):
        facts["defocus"] = "no CTF"
    if optics.phase_shift.any():
        facts["phase shift"] = _range(optics.phase_shift.rad2deg(), "degrees")
    facts["poses"] = "none" if poses is None else f"all; shifts {_range(poses.shifts.norm(dim=-1), 'Å')}"
    if poses is not None and poses.confidence is not None:
        facts["confidence"] = _range(poses.confidence, "")
    if particles.half is not None:
        counts = torch.bincount(particles.half, minlength=3).tolist()
        facts["halves"] = f"{counts[1]} and {counts[2]}" + (f", {counts[0]} in neither" if counts[0] else "")
    if particles.classes is not None:
        values, counts_of = particles.classes.unique(return_counts=True)
        facts["classes"] = ", ".join(f"{v}: {c}" for v, c in zip(values.tolist(), counts_of.tolist(), strict=True))
    return facts


def _groups(particles: Particles) -> tuple[Mapping[str, str], ...]:
    rows = []
    optics = particles.optics
    for group in optics.group.unique():
        mine = optics[torch.nonzero(optics.group == group)[:, 0]]
        rows.append(
            {
                "group": str(int(group) + 1),
                "particles": str(len(mine)),
                "pixel size (Å)": _range(mine.pixel_size, ""),
                "voltage (kV)": _range(mine.voltage, ""),
                "Cs (mm)": _range(mine.spherical_aberration, ""),
                "amplitude contrast": _range(mine.amplitude_contrast, ""),
                "beam tilt (mrad)": f"{float(mine.beam_tilt[0, 0]):.3g}, {float(mine.beam_tilt[0, 1]):.3g}",
            }
        )
    return tuple(rows)


def _table_findings(particles: Particles) -> list[str]:
    optics, poses, findings = particles.optics, particles.poses, []
    if particles.source is not None:
        names = particles.source.image_names()
        pairs = torch.stack([torch.from_numpy(names.file), torch.from_numpy(names.index)])
        doubled = pairs.shape[1] - pairs.unique(dim=1).shape[1]
        if doubled:
            findings.append(f"{doubled} rows name an image that another row names as well")
    if poses is not None and len(poses) > 1 and bool((poses.rotations == poses.rotations[0]).all()):
        findings.append("all poses are the same; they are probably placeholders")
    if (optics.b_factor < 0).any():
        findings.append("negative CTF B factors: the envelope would grow with frequency")
    spread = float(optics.pixel_size.max() / optics.pixel_size.min())
    if spread > 1.05:
        findings.append(f"pixel sizes differ by {100 * (spread - 1):.0f} % between particles")
    if particles.half is not None:
        first, second = int((particles.half == 1).sum()), int((particles.half == 2).sum())
        if min(first, second) < 0.4 * max(first, second):
            findings.append("the halves are of very different size")
    return findings


def _value_facts(data: Float[Tensor, "..."]) -> dict[str, str]:
    values = data.double()
    return {
        "minimum and maximum": f"{float(values.min()):.4g}, {float(values.max()):.4g}",
        "mean and deviation": f"{float(values.mean()):.4g}, {float(values.std(correction=0)):.4g}",
    }


def _value_findings(data: Float[Tensor, "..."]) -> list[str]:
    if not bool(data.isfinite().all()):
        return ["there are values that are not finite (NaN or infinity)"]
    if float(data.max()) == float(data.min()):
        return ["all values are the same"]
    return []


def _range(values: Float[Tensor, "n"], unit: str) -> str:
    low, high = float(values.min()), float(values.max())
    text = f"{low:.5g}" if math.isclose(low, high, rel_tol=1e-6, abs_tol=1e-12) else f"{low:.5g} to {high:.5g}"
    return f"{text} {unit}".rstrip()
