"""The fields of cryoSPARC's particle tables: which are read, what they hold, and which a new table needs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hoarfrost.errors import InputError
from hoarfrost.io.records import load_records

CONFIDENCE = "hoarfrost/confidence"
JUNK = "hoarfrost/junk_probability"
# Fields whose meaning in our terms is not documented well enough to apply; non-zero values are named in the log.
NOT_APPLIED = ("ctf/tilt_A", "ctf/shift_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag")
# Field of Optics, field of the file, value where the file lacks it. Both sides use the same units.
CTF = (
    ("voltage", "ctf/accel_kv", None),
    ("spherical_aberration", "ctf/cs_mm", None),
    ("amplitude_contrast", "ctf/amp_contrast", None),
    ("defocus_u", "ctf/df1_A", None),
    ("defocus_v", "ctf/df2_A", None),
    ("defocus_angle", "ctf/df_angle_rad", None),
    ("phase_shift", "ctf/phase_shift_rad", 0.0),
    ("b_factor", "ctf/bfactor", 0.0),
    ("scale", "ctf/scale", 1.0),
)
# What the fields that are read hold: kind of value, shape of one row's. All others are only kept.
_HELD: dict[str, tuple[str, tuple[int, ...]]] = {
    "uid": ("integer", ()), "blob/path": ("text", ()), "blob/idx": ("integer", ()), "blob/shape": ("integer", (2,)),
    "blob/psize_A": ("number", ()), "ctf/exp_group_id": ("integer", ()), CONFIDENCE: ("number", ()), JUNK: ("number", ()),
    "alignments3D/pose": ("number", (3,)), "alignments3D/shift": ("number", (2,)),
    "alignments3D/psize_A": ("number", ()), "alignments3D/class_posterior": ("number", ()),
    "alignments3D/split": ("integer", ()), "alignments3D/class": ("integer", ()),
    "alignments2D/shift": ("number", (2,)), "alignments2D/psize_A": ("number", ()),
} | {name: ("number", ()) for _, name, _ in CTF}  # fmt: skip
_KINDS = {"text": "S", "integer": "iu", "number": "iuf"}  # letters of numpy
# What cryoSPARC expects in the group of 3D alignments, beside pose and shift.
ALIGNMENT: tuple[tuple[str, str, float], ...] = (
    ("split", "<u4", 0), ("psize_A", "<f4", 0), ("error", "<f4", 0), ("error_min", "<f4", 0),
    ("resid_pow", "<f4", 0), ("slice_pow", "<f4", 0), ("image_pow", "<f4", 0), ("cross_cor", "<f4", 0),
    ("alpha", "<f4", 1), ("alpha_min", "<f4", 0), ("weight", "<f4", 0), ("pose_ess", "<f4", 0),
    ("shift_ess", "<f4", 0), ("class_posterior", "<f4", 1), ("class", "<u4", 0), ("class_ess", "<f4", 1),
)  # fmt: skip


def load_particles(path: Path) -> np.ndarray:
    """The records of a file, whose fields hold what is expected of them."""
    data = load_records(path)
    for name in data.dtype.names or ():
        known = _HELD.get(re.sub(r"^alignments_class_\d+/", "alignments3D/", name))
        kind, shape = data[name].dtype.kind, data[name].shape[1:]
        if known is not None and (kind not in _KINDS[known[0]] or shape != known[1]):
            wanted = f"{known[1][0]} {known[0]}s a particle" if known[1] else f"one {known[0]} a particle"
            raise InputError(f"{path}: field {name} is of type {data[name].dtype} and shape {shape}; {wanted} expected")
    return data
