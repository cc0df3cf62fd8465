"""A look at a stack before the work: what would spoil a run, found in seconds, each with its remedy.

Optics and names are looked at for every particle; of the images only a sample is judged, and as many as a few
hundred megabytes hold are searched for blank or damaged ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.contrast import Contrast, contrast_of
from hoarfrost.data.forecast import Forecast, forecast
from hoarfrost.data.plausibility import Finding, Level, of_geometry, of_optics, of_resolution
from hoarfrost.errors import InputError
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.types import Optics, Particles

_SEARCHED_PIXELS = 64_000_000
_CHUNK = 256
_FEWEST_OF_A_GROUP = 30


@dataclass(frozen=True)
class Preflight:
    """What was found; ``background_*`` and ``snr`` are means over the sampled images as stored."""

    findings: tuple[Finding, ...]
    contrast: Contrast
    background_mean: float
    background_std: float
    snr: float  # variance of the signal over the whole image / variance of the noise; a rough estimate
    forecast: Forecast

    @property
    def dark_particles(self) -> bool:
        """Whether the images have to be inverted."""
        return self.contrast.dark

    def sound(self) -> Preflight:
        """This, unless a run would be in vain.

        Raises
        ------
        InputError
            For the first finding of level "error": what, in which file and row, and the remedy, in one line.
        """
        for finding in self.findings:
            if finding.level == "error":
                raise InputError(finding.line)
        return self


def inspect(
    particles: Particles,
    *,
    diameter: float | None,
    symmetry: str,
    seed: int,
    resolution: float | None = None,
    sample: int = 256,
    limit: int | None = None,
    workspace: Path | None = None,
    stored: bool = True,
) -> Preflight:
    """Look a stack over; findings come gravest first.

    Parameters
    ----------
    particles : Particles
    diameter : float or None
        Of the particle in Å, where known.
    symmetry : str
        Point group the run is to assume.
    seed : int
        Chooses the sample.
    resolution : float, optional
        Å; how far the run is to go at most.
    sample : int
        Images judged for contrast and background.
    limit : int, optional
        Band limit of the transformed images, for the forecast; all of the band without it.
    workspace : Path, optional
        Folder that is to hold them.
    stored : bool
        Whether the transformed images are stored at all.

    Raises
    ------
    InputError
        If there is no such point group, or no particle at all.
    """
    point_group(symmetry)
    if len(particles) == 0:
        raise InputError("the stack holds no particles; look at the table, or at what selected from it")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(particles), generator=generator)[:sample].sort().values
    findings = [
        *_damaged(particles, rows),
        *_counted(particles),
        *of_optics(particles.optics),
        *of_geometry(particles, diameter),
        *of_resolution(particles, resolution),
    ]
    images = particles.images.read(rows).nan_to_num(0.0, 0.0, 0.0)
    radius = 0.45 * particles.box
    if diameter is not None:
        radius = min(radius, 0.5 * diameter / particles.pixel_size)
    mean, deviation = background(images, radius)
    ready = _comparable(images, mean, deviation)
    contrast = contrast_of(ready, particles.optics[rows], None if diameter is None else radius)
    findings += [
        *_normalised(mean, deviation),
        *_contrast(contrast, len(rows)),
        *_mixed_contrast(ready, particles.optics[rows]),
    ]
    expected = forecast(particles, limit, workspace, stored=stored)
    findings += expected.concerns
    order: tuple[Level, ...] = ("error", "warning", "info")
    return Preflight(
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.level))),
        contrast=contrast,
        background_mean=float(mean.mean()),
        background_std=float(deviation.mean()),
        snr=max(0.0, float(ready.var(dim=(1, 2)).median()) - 1.0),
        forecast=expected,
    )


def background(images: Float[Tensor, "b y x"], radius: float) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Mean and deviation of each image outside a centred circle of ``radius`` pixels."""
    axis = torch.arange(images.shape[-1]) - images.shape[-1] // 2
    outside = images[:, axis[:, None] ** 2 + axis**2 > radius**2]
    return outside.mean(-1), outside.std(-1)


def _comparable(
    images: Float[Tensor, "b y x"], mean: Float[Tensor, "b"], deviation: Float[Tensor, "b"]
) -> Float[Tensor, "b y x"]:
    """Images on a background of mean 0 and deviation 1; those without any noise on a deviation 1 of their own."""
    whole = images.std(dim=(1, 2))
    scale = torch.where(deviation > 1e-3 * whole, deviation, whole).clamp(min=torch.finfo(images.dtype).tiny)
    return (images - mean[:, None, None]) / scale[:, None, None]


def _damaged(particles: Particles, rows: Int[Tensor, "b"]) -> Iterator[Finding]:
    searched = min(len(particles), max(1, _SEARCHED_PIXELS // particles.box**2))
    rows = torch.cat([rows, torch.linspace(0, len(particles) - 1, searched).long()]).unique()
    faults: dict[str, list[int]] = {"has pixels that are not numbers (NaN or infinity)": [], "is blank": []}
    for part in rows.split(_CHUNK):
        images = particles.images.read(part).flatten(1)
        finite = images.isfinite().all(1)
        blank = finite & (images.amax(1) == images.amin(1))
        for bad, found in zip((~finite, blank), faults.values(), strict=True):
            found += part[bad].tolist()
    for fault, found in faults.items():
        if found:
            others = f", as do {len(found) - 1} more of {len(rows)} looked at" if len(found) > 1 else ""
            yield Finding(
                "error",
                f"{image_name(particles, found[0])} {fault}{others}",
                "leave it out of the table, or extract it again",
            )


def image_name(particles: Particles, row: int) -> str:
    """File and row of a particle as a user would look for it; rows count from 1."""
    if particles.source is None:
        return f"image {row + 1} of the stack"
    names = particles.source.image_names()
    image = f"image {max(0, int(names.index[row])) + 1} of {names.files[names.file[row]]}"
    return f"{particles.source.path}: row {row + 1}: {image}"


def _counted(particles: Particles) -> Iterator[Finding]:
    count = len(particles)
    if count < 20:
        yield Finding("error", f"{count} particles are too few for a reconstruction", "give at least some hundred")
    elif count < 200:
        yield Finding(
            "warning",
            f"only {count} particles: expect a shape at 20 to 40 Å at best, and perhaps the wrong one",
            "some thousands are needed for a map to trust",
        )
    elif count < 1000:
        yield Finding("info", f"{count} particles are few: expect 10 to 20 Å", "add particles for detail")
    if particles.source is not None:
        names = particles.source.image_names()
        pairs = torch.stack([torch.as_tensor(names.file), torch.as_tensor(names.index)], dim=1)
        _, inverse, times = pairs.unique(dim=0, return_inverse=True, return_counts=True)
        doubled = int((times - 1).sum())
        if doubled:
            first = int((times[inverse] > 1).nonzero()[0])
            yield Finding(
                "warning",
                f"{image_name(particles, first)} is listed more than once, {doubled} surplus rows in all: halves "
                "that share images look better than they are",
                "remove duplicates from the table",
            )


def _normalised(mean: Float[Tensor, "b"], deviation: Float[Tensor, "b"]) -> Iterator[Finding]:
    centre = float(deviation.median())
    if centre > 0 and (abs(float(mean.median())) > 0.3 or not 0.5 < centre < 2.0):
        yield Finding(
            "info",
            f"images are not normalised (background {float(mean.median()):.3g} ± {centre:.3g})",
            "each is put on a background of 0 ± 1 when it is read",
        )
    low, high = (float(deviation.quantile(share)) for share in (0.1, 0.9))
    if low > 0 and high > 2 * low:
        yield Finding(
            "warning",
            f"the background's deviation differs by a factor {high / low:.1f} between images",
            "it is evened out, but ask whether the stack mixes exposures or extractions",
        )


def _contrast(contrast: Contrast, count: int) -> Iterator[Finding]:
    figures = f"{contrast.significance:+.1f} standard errors, {100 * contrast.share:.0f} % of {count} images"
    if contrast.dark:
        yield Finding("warning", f"particles are dark ({figures})", "the images are inverted when they are read")
    elif not contrast.decided:
        yield Finding(
            "warning",
            f"whether particles are bright or dark cannot be told ({figures}); they are taken as bright",
            "if they are dark, invert the stack; if there is no signal, check the picking",
        )


def _mixed_contrast(images: Float[Tensor, "b y x"], optics: Optics) -> Iterator[Finding]:
    signs: dict[int, bool] = {}
    for group in optics.group.unique().tolist():
        rows = (optics.group == group).nonzero()[:, 0]
        if len(rows) >= _FEWEST_OF_A_GROUP:
            contrast = contrast_of(images[rows], optics[rows])
            if contrast.decided:
                signs[group] = contrast.dark
    if len(set(signs.values())) > 1:
        dark = ", ".join(str(group + 1) for group, is_dark in signs.items() if is_dark)
        yield Finding(
            "error",
            f"particles are dark in optics group {dark} and bright in others",
            "bring the stacks to one contrast first (particles bright)",
        )
