"""RELION particle tables, from version 2 to 5: what their columns mean."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import euler_to_matrix
from hoarfrost.io.relion_columns import (
    ANGLES,
    CONFIDENCE,
    JUNK,
    ORIGINS,
    PIXEL_ORIGINS,
    new_blocks,
    resampled,
    with_ctf,
    with_integers,
    with_numbers,
    with_poses,
)
from hoarfrost.io.relion_references import group_rows, parse_names, parse_vector
from hoarfrost.io.star import StarBlock, read_star, text_tokens, write_star
from hoarfrost.io.table import ImageNames, check_optics, without_ctf
from hoarfrost.types import Optics, Particles, Poses

logger = logging.getLogger("hoarfrost")

_CTF_KERNEL = ("rlnVoltage", "rlnSphericalAberration", "rlnDefocusU")


@dataclass(frozen=True)
class RelionTable:
    """A STAR file of particles: all its blocks, and which of them are the particles and the optics groups."""

    path: Path
    blocks: tuple[StarBlock, ...]
    particles: StarBlock
    group_rows: np.ndarray | None  # for each particle its row of the optics block

    @classmethod
    def read(cls, path: Path) -> RelionTable:
        """Read a STAR file and find its particles.

        Raises
        ------
        InputError
            No table with image names, no rows, subtomograms, or an optics group that is not in the optics table.
        """
        blocks = tuple(read_star(path))
        particles = next((b for b in blocks if "rlnImageName" in b and b.name != "optics"), None)
        if particles is None:
            held = ", ".join(f"data_{block.name}" for block in blocks)
            raise InputError(f"{path}: no particle table (a loop_ with column rlnImageName); it holds {held}")
        if len(particles) == 0:
            raise InputError(f"{path}: data_{particles.name} holds no particles")
        optics = next((b for b in blocks if b.name == "optics" and len(b)), None)
        table = cls(path, blocks, particles, None if optics is None else group_rows(particles, optics))
        table._refuse_other_data()
        table._report_defaults()
        return table

    @classmethod
    def from_particles(cls, particles: Particles, names: ImageNames, path: Path) -> RelionTable:
        """A new RELION 3.1 table with an optics block, holding everything that ``particles`` know."""
        blocks = new_blocks(particles, names)
        table = cls(path, blocks, blocks[-1], group_rows(blocks[-1], blocks[0]))
        return table.updated(particles)

    def __len__(self) -> int:
        return len(self.particles)

    def __getitem__(self, rows: Int[Tensor, "b"]) -> RelionTable:
        index = rows.numpy()
        groups = None if self.group_rows is None else self.group_rows[index]
        return replace(self._with_particles(self.particles[index]), group_rows=groups)

    def image_names(self) -> ImageNames:
        """Files and places from ``rlnImageName``."""
        return self._names

    @cached_property
    def _names(self) -> ImageNames:
        return parse_names(self.particles)

    def box(self) -> int | None:
        """``rlnImageSize``; None where it is not stated."""
        sizes = self._lookup("rlnImageSize")
        if sizes is None:
            return None
        if sizes.min() != sizes.max():
            raise InputError(
                f"{self.path}: images of {int(sizes.min())} and {int(sizes.max())} pixels (rlnImageSize); "
                "bring all optics groups to one box first"
            )
        return int(sizes[0])

    def pixel_size(self) -> Float[Tensor, "n"] | None:
        """``rlnImagePixelSize``, else ``rlnPixelSize``, else detector pixel over magnification; Å."""
        for label in ("rlnImagePixelSize", "rlnPixelSize"):
            values = self._lookup(label)
            if values is not None:
                return torch.from_numpy(values)
        detector, magnification = self._lookup("rlnDetectorPixelSize"), self._lookup("rlnMagnification")
        if detector is None:
            return None
        if magnification is None:
            return torch.from_numpy(detector)
        if magnification.min() <= 0:
            row = int(np.argmax(magnification <= 0))
            raise InputError(f"{self.path}: row {row + 1}: rlnMagnification {magnification[row]:g} must be positive")
        return torch.from_numpy(detector * 1e4 / magnification)

    def optics(self, pixel_size: Float[Tensor, "n"]) -> Optics:
        """Optics of every particle; the optics table is asked first, then the particles.

        A table with neither voltage nor Cs nor defocus is one without CTF; one that has only part of them is refused.
        """
        kernel = {label: self._lookup(label) for label in _CTF_KERNEL}
        if all(values is None for values in kernel.values()):
            return check_optics(without_ctf(pixel_size), str(self.path))
        for label, values in kernel.items():
            if values is None:
                raise InputError(
                    f"{self.path}: column {label} is missing (neither with the particles nor in an optics table), "
                    "while other CTF columns are there; add it"
                )
        u = self._number("rlnDefocusU", 0.0)
        v = self._number("rlnDefocusV", u)
        if self._lookup("rlnDefocusAngle") is None and not torch.equal(u, v):
            raise InputError(f"{self.path}: column rlnDefocusAngle is missing, while rlnDefocusU and V differ; add it")
        tilt = torch.stack([self._number("rlnBeamTiltX", 0.0), self._number("rlnBeamTiltY", 0.0)], dim=-1)
        magnification = [self._number(f"rlnMagMat{i}{j}", float(i == j)) for i in (0, 1) for j in (0, 1)]
        optics = Optics(
            pixel_size=pixel_size,
            voltage=self._number("rlnVoltage", 0.0),
            spherical_aberration=self._number("rlnSphericalAberration", 0.0),
            amplitude_contrast=self._number("rlnAmplitudeContrast", 0.0),
            defocus_u=u,
            defocus_v=v,
            defocus_angle=self._number("rlnDefocusAngle", 0.0).deg2rad(),
            phase_shift=self._number("rlnPhaseShift", 0.0).deg2rad(),
            b_factor=self._number("rlnCtfBfactor", 0.0),
            scale=self._number("rlnCtfScalefactor", 1.0),
            beam_tilt=tilt,
            odd_zernike=self._vectors("rlnOddZernike"),
            even_zernike=self._vectors("rlnEvenZernike"),
            magnification=torch.stack(magnification, dim=-1).reshape(-1, 2, 2),
            premultiplied=self._number("rlnCtfDataAreCtfPremultiplied", 0.0) != 0,
            group=self._groups(pixel_size),
        )
        return check_optics(optics, str(self.path))

    def poses(self, pixel_size: Float[Tensor, "n"]) -> Poses | None:
        """Poses where all three angles are there; RELION's origin is minus the shift."""
        if not all(label in self.particles for label in ANGLES):
            return None
        degrees = torch.stack([self._particle_number(label) for label in ANGLES], dim=-1)
        if all(label in self.particles for label in ORIGINS):
            origins = torch.stack([self._particle_number(label) for label in ORIGINS], dim=-1)
        elif all(label in self.particles for label in PIXEL_ORIGINS):
            pixels = torch.stack([self._particle_number(label) for label in PIXEL_ORIGINS], dim=-1)
            origins = pixels * pixel_size[:, None]
        else:
            origins = torch.zeros(len(self), 2, dtype=torch.float64)
        confidence = self._particle_number(CONFIDENCE) if CONFIDENCE in self.particles else None
        return Poses(euler_to_matrix(degrees.deg2rad()), 0.0 - origins, confidence)

    def half(self) -> Int[Tensor, "n"] | None:
        """``rlnRandomSubset``."""
        half = self._integers("rlnRandomSubset")
        if half is not None and not bool(((half >= 0) & (half <= 2)).all()):
            row = int(torch.nonzero((half < 0) | (half > 2))[0])
            raise InputError(f"{self.path}: row {row + 1}: rlnRandomSubset is {int(half[row])}; 1 or 2 is expected")
        return half

    def classes(self) -> Int[Tensor, "n"] | None:
        """``rlnClassNumber``."""
        return self._integers("rlnClassNumber")

    def junk(self) -> Float[Tensor, "n"] | None:
        """``hoarfrostJunkProbability``."""
        return self._particle_number(JUNK) if JUNK in self.particles else None

    def updated(self, particles: Particles) -> RelionTable:
        """Poses, halves, classes, confidence and per-particle CTF columns of ``particles``; all else as it stands.

        A value that is the one the column already gives keeps its text. Columns of what ``particles`` do not have
        (poses, halves, classes, confidence, junk) are left out.
        """
        pixel_size = self.pixel_size()
        if pixel_size is None:
            pixel_size = particles.optics.pixel_size
        block = with_poses(
            self.particles,
            particles.poses,
            self.poses(pixel_size),
            pixel_size,
            angstrom=self.group_rows is not None,
        )
        block = with_integers(block, "rlnRandomSubset", particles.half, self.half())
        block = with_integers(block, "rlnClassNumber", particles.classes, self.classes())
        block = with_numbers(block, JUNK, particles.junk, self.junk())
        block = with_ctf(block, particles.optics, self.optics(pixel_size))
        return self._with_particles(block)

    def moved(self, names: ImageNames, box: int, binning: float) -> RelionTable:
        """Image names, sizes and pixel sizes of resampled images; origins in pixels follow."""
        # Beside an optics table rlnPixelSize is the micrograph's; alone it is the image's.
        own = self._lookup("rlnImagePixelSize") is None
        place = next(i for i, block in enumerate(self.blocks) if block is self.particles)
        blocks = [
            resampled(block, box, binning, image_pixel=own) if i == place or block.name == "optics" else block
            for i, block in enumerate(self.blocks)
        ]
        blocks[place] = blocks[place].with_columns(rlnImageName=text_tokens(names.relion()))
        return replace(self, blocks=tuple(blocks), particles=blocks[place])

    def write(self, path: Path) -> None:
        """Write all blocks."""
        write_star(path, self.blocks)

    def _with_particles(self, block: StarBlock) -> RelionTable:
        blocks = tuple(block if old is self.particles else old for old in self.blocks)
        return replace(self, blocks=blocks, particles=block)

    def _optics_block(self) -> StarBlock | None:
        if self.group_rows is None:
            return None
        return next(block for block in self.blocks if block.name == "optics")

    def _lookup(self, label: str) -> np.ndarray | None:
        optics = self._optics_block()
        if optics is not None and label in optics and self.group_rows is not None:
            return optics.numbers(label)[self.group_rows]
        return self.particles.numbers(label) if label in self.particles else None

    def _number(self, label: str, default: float | Tensor) -> Tensor:
        values = self._lookup(label)
        if values is not None:
            return torch.from_numpy(values)
        if isinstance(default, Tensor):
            return default
        return torch.full((len(self),), default, dtype=torch.float64)

    def _particle_number(self, label: str) -> Tensor:
        return torch.from_numpy(self.particles.numbers(label))

    def _integers(self, label: str) -> Tensor | None:
        return torch.from_numpy(self.particles.whole_numbers(label)) if label in self.particles else None

    def _vectors(self, label: str) -> Tensor:
        """Zernike coefficients written as ``[a,b,...]``; groups with fewer are filled with zeros."""
        optics = self._optics_block()
        if optics is None or label not in optics or self.group_rows is None:
            return torch.zeros(len(self), 0, dtype=torch.float64)
        rows = [parse_vector(text, f"{optics.origin}: column {label}") for text in optics.text(label)]
        table = np.zeros((len(rows), max(map(len, rows))))
        for row, values in zip(table, rows, strict=True):
            row[: len(values)] = values
        return torch.from_numpy(table[self.group_rows])

    def _groups(self, pixel_size: Tensor) -> Tensor:
        if self.group_rows is not None:
            return torch.from_numpy(self.group_rows)
        keys = [pixel_size.numpy()]
        for label in ("rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
            if label in self.particles:
                keys.append(self.particles.numbers(label))
        return torch.from_numpy(np.unique(np.stack(keys, axis=-1), axis=0, return_inverse=True)[1].reshape(-1))

    def _report_defaults(self) -> None:
        """Log what stands in for columns that are not there."""
        if all(self._lookup(label) is None for label in _CTF_KERNEL):
            logger.warning("%s: no voltage, Cs or defocus columns: the images are taken as free of a CTF", self.path)
        elif self._lookup("rlnAmplitudeContrast") is None:
            logger.warning("%s: no rlnAmplitudeContrast; 0 is taken, as RELION does", self.path)
        sizes = ("rlnImagePixelSize", "rlnPixelSize", "rlnMagnification")
        if self._lookup("rlnDetectorPixelSize") is not None and all(self._lookup(label) is None for label in sizes):
            logger.warning("%s: no rlnMagnification; rlnDetectorPixelSize is taken as the pixel size in Å", self.path)

    def _refuse_other_data(self) -> None:
        dimensions = self._lookup("rlnImageDimensionality")
        no_number = b"@" not in self.particles.columns["rlnImageName"][0]
        if (dimensions is not None and (dimensions != 2).any()) or (no_number and "rlnTomoName" in self.particles):
            raise InputError(
                f"{self.path}: holds subtomograms or tilt-series particles; images of single particles are expected"
            )
        flipped = self._lookup("rlnCtfDataArePhaseFlipped")
        if flipped is not None and (flipped != 0).any():
            raise InputError(
                f"{self.path}: the images are phase-flipped (rlnCtfDataArePhaseFlipped), which is not supported; "
                "extract them without phase flipping"
            )
