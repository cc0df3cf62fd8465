"""cryoSPARC particle tables (``.cs``): numpy records whose fields are named ``group/field``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import rotation_vector_to_matrix
from hoarfrost.io.cryosparc_columns import new_records, with_ctf, with_junk, with_poses
from hoarfrost.io.cryosparc_fields import CONFIDENCE, CTF, JUNK, NOT_APPLIED, load_particles
from hoarfrost.io.files import replacing
from hoarfrost.io.records import decimal, join_records, with_fields
from hoarfrost.io.table import ImageNames, check_optics, without_ctf
from hoarfrost.types import Optics, Particles, Poses

logger = logging.getLogger("hoarfrost")

_PASSTHROUGH = "*passthrough_particles*.cs"


@dataclass(frozen=True)
class CryosparcTable:
    """The records of a ``.cs`` file, joined with its passthrough files by ``uid``."""

    path: Path
    data: np.ndarray

    @classmethod
    def read(cls, path: Path, passthrough: Sequence[Path] = ()) -> CryosparcTable:
        """Read a particle table.

        Fields that the file lacks come from ``passthrough``, or, if none is named, from passthrough files next to it
        that hold all its particles.

        Raises
        ------
        InputError
            Not a ``.cs`` file, the compressed layout, no particles, or a passthrough file of other particles.
        """
        data = load_particles(path)
        if len(data) == 0:
            raise InputError(f"{path}: holds no particles (0 rows)")
        found = [] if passthrough else [other for other in sorted(path.parent.glob(_PASSTHROUGH)) if other != path]
        for other in (*passthrough, *found):
            extra = load_particles(other)
            matched = join_records(data, extra)
            if matched is None and other in passthrough:
                raise InputError(f"{other}: lacks some particles (uid) of {path}; give the passthrough of the same job")
            if matched is not None:
                logger.info("%s: more columns from %s", path, other)
                data = matched
        table = cls(path, data)
        table._report()
        return table

    @classmethod
    def from_particles(cls, particles: Particles, names: ImageNames, path: Path) -> CryosparcTable:
        """A new table holding what ``particles`` know, with a ``uid`` made from the image names."""
        return cls(path, new_records(particles, names, path)).updated(particles)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Int[Tensor, "b"]) -> CryosparcTable:
        return replace(self, data=self.data[rows.numpy()])

    def image_names(self) -> ImageNames:
        """Files and places from ``blob/path`` and ``blob/idx``."""
        for field in ("blob/path", "blob/idx"):
            if field not in self._fields:
                raise InputError(
                    f"{self.path}: field {field} is missing; name the passthrough file, or put it next to this"
                )
        unique, file = np.unique(self.data["blob/path"], return_inverse=True)
        files = tuple(_text(name).lstrip(">") for name in unique)
        return ImageNames(files, file.reshape(-1).astype(np.int64), self.data["blob/idx"].astype(np.int64))

    def box(self) -> int | None:
        """``blob/shape``."""
        if "blob/shape" not in self._fields:
            return None
        shapes = np.unique(self.data["blob/shape"])
        if len(shapes) != 1:
            raise InputError(
                f"{self.path}: images of {shapes.min()} and {shapes.max()} pixels; one square box is needed"
            )
        return int(shapes[0])

    def pixel_size(self) -> Float[Tensor, "n"] | None:
        """``blob/psize_A``."""
        return self._number("blob/psize_A") if "blob/psize_A" in self._fields else None

    def optics(self, pixel_size: Float[Tensor, "n"]) -> Optics:
        """Optics of every particle. A table without any CTF field is one without CTF."""
        if not any(name in self._fields for _, name, _ in CTF):
            return check_optics(without_ctf(pixel_size), str(self.path))
        columns: dict[str, Tensor] = {}
        for field, name, default in CTF:
            if name in self._fields:
                columns[field] = self._number(name)
            elif default is None:
                raise InputError(f"{self.path}: field {name} is missing, while other ctf fields are there")
            else:
                columns[field] = torch.full_like(pixel_size, default)
        groups = self.data["ctf/exp_group_id"] if "ctf/exp_group_id" in self._fields else np.zeros(len(self))
        group = torch.from_numpy(np.unique(groups, return_inverse=True)[1].reshape(-1))
        optics = without_ctf(pixel_size).replace(group=group, **columns)
        return check_optics(optics, str(self.path))

    def poses(self, pixel_size: Float[Tensor, "n"]) -> Poses | None:
        """Poses of the refinement, or of the likeliest class of an ab initio job.

        The stored rotation vector is that of the transposed rotation; shifts are in pixels of the alignment and have
        the sign of RELION's origins.
        """
        if "alignments3D/pose" in self._fields:
            vector, shift, size = self._alignment("alignments3D", pixel_size)
        else:
            best = self._best_class()
            if best is None:
                return None
            vector, shift = (
                torch.zeros(len(self), 3, dtype=torch.float64),
                torch.zeros(len(self), 2, dtype=torch.float64),
            )
            size = pixel_size.clone()
            for number, name in enumerate(self._class_groups()):
                rows = best == number
                for target, values in zip((vector, shift, size), self._alignment(name, pixel_size), strict=True):
                    target[rows] = values[rows]
        confidence = self._number(CONFIDENCE) if CONFIDENCE in self._fields else None
        return Poses(rotation_vector_to_matrix(vector).mT.contiguous(), 0.0 - shift * size[:, None], confidence)

    def half(self) -> Int[Tensor, "n"] | None:
        """``alignments3D/split`` plus one; None where no split was ever made (all in one half)."""
        if "alignments3D/split" not in self._fields:
            return None
        split = torch.from_numpy(self.data["alignments3D/split"].astype(np.int64))
        if bool((split == split[0]).all()):
            return None
        if not bool((split <= 1).all()):
            row = int(torch.nonzero(split > 1)[0])
            raise InputError(f"{self.path}: row {row + 1}: alignments3D/split is {int(split[row])}; 0 or 1 is expected")
        return split + 1

    def classes(self) -> Int[Tensor, "n"] | None:
        """Class from 1; cryoSPARC counts from 0."""
        if "alignments3D/class" in self._fields:
            return torch.from_numpy(self.data["alignments3D/class"].astype(np.int64)) + 1
        best = self._best_class()
        return None if best is None else best + 1

    def junk(self) -> Float[Tensor, "n"] | None:
        """``hoarfrost/junk_probability``."""
        return self._number(JUNK) if JUNK in self._fields else None

    def updated(self, particles: Particles) -> CryosparcTable:
        """Poses, halves, classes, junk and CTF values of ``particles``; records that did not change keep every bit.

        Where ``particles`` have no poses, the group ``alignments3D`` is left out.
        """
        pixel_size = self.pixel_size()
        if pixel_size is None:
            pixel_size = particles.optics.pixel_size
        data = with_ctf(self.data, particles.optics, self.optics(pixel_size))
        data = with_junk(data, particles.junk)
        return replace(self, data=with_poses(data, particles, self.poses(pixel_size), pixel_size))

    def moved(self, names: ImageNames, box: int, binning: float) -> CryosparcTable:
        """Paths, shapes and pixel sizes of resampled images; shifts in pixels follow."""
        fields: dict[str, np.ndarray] = {
            "blob/path": np.array([names.files[i] for i in names.file], dtype=np.bytes_),
            "blob/idx": names.index.astype(np.uint32),
            "blob/shape": np.full((len(self), 2), box, np.uint32),
        }
        for name in self._fields:
            if name == "blob/psize_A" or (name.startswith("alignments") and name.endswith("/psize_A")):
                fields[name] = (self.data[name] * binning).astype(self.data[name].dtype)
            elif name.startswith("alignments") and name.endswith("/shift"):
                fields[name] = (self.data[name] / binning).astype(self.data[name].dtype)
        return replace(self, data=with_fields(self.data, fields))

    def write(self, path: Path) -> None:
        """Write the plain numpy layout."""
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, self.data, allow_pickle=False)

    @property
    def _fields(self) -> tuple[str, ...]:
        return self.data.dtype.names or ()

    def _number(self, name: str) -> Tensor:
        values = decimal(self.data[name])
        bad = ~np.isfinite(values.reshape(len(self), -1)).all(axis=1)
        if bad.any():
            raise InputError(f"{self.path}: row {int(np.argmax(bad)) + 1}: field {name} is not a finite number")
        return torch.from_numpy(values)

    def _alignment(self, group: str, pixel_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation vector, shift in pixels, and the size of those pixels."""
        shift = torch.zeros(len(self), 2, dtype=torch.float64)
        if f"{group}/shift" in self._fields:
            shift = self._number(f"{group}/shift")
        size = pixel_size
        if f"{group}/psize_A" in self._fields:
            own = self._number(f"{group}/psize_A")
            size = torch.where(own > 0, own, pixel_size)
        return self._number(f"{group}/pose"), shift, size

    def _class_groups(self) -> list[str]:
        number = 0
        groups = []
        while f"alignments_class_{number}/pose" in self._fields:
            groups.append(f"alignments_class_{number}")
            number += 1
        return groups

    def _best_class(self) -> Tensor | None:
        groups = [name for name in self._class_groups() if f"{name}/class_posterior" in self._fields]
        if not groups:
            return None
        return torch.stack([self._number(f"{name}/class_posterior") for name in groups]).argmax(dim=0)

    def _report(self) -> None:
        if not any(name in self._fields for _, name, _ in CTF):
            logger.warning("%s: no ctf fields: the images are taken as free of a CTF", self.path)
        present = [name for name in NOT_APPLIED if name in self._fields and self.data[name].any()]
        if present:
            logger.warning("%s: %s are kept but not applied to the images", self.path, ", ".join(present))


def _text(name: bytes) -> str:
    return bytes(name).decode("utf-8", "surrogateescape")
