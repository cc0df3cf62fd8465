"""Points of a density as the atoms of an mmCIF file, which ChimeraX and other programs show and measure."""

from __future__ import annotations

import math
from pathlib import Path

import gemmi
from jaxtyping import Float
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.files import replacing

B_FACTOR_OF_VARIANCE = 8 * math.pi**2
"""B factor over the variance of position along one axis, both in Å²."""


def write_pseudo_atoms(
    path: Path, coordinates: Float[Tensor, "n 3"], variances: Float[Tensor, "n"], masses: Float[Tensor, "n"]
) -> None:
    """One atom for each point: its B factor from the variance, its occupancy the mass relative to the largest.

    Each is a residue ``DUM`` of its own, so that no program draws bonds between them.

    Parameters
    ----------
    path : ``.cif`` or ``.mmcif``.
    coordinates : (x, y, z) in Å.
    variances : along one axis, Å².
    masses : of any unit, not negative.

    Raises
    ------
    InputError
        Another ending, or a file that cannot be written.
    """
    if path.suffix.lower() not in (".cif", ".mmcif"):
        raise InputError(f"{path}: pseudo-atoms are written as .cif")
    count, relative = len(masses), masses.detach().double() / float(masses.max()) if len(masses) else masses
    numbers = [str(number) for number in range(1, count + 1)]
    x, y, z = (_written(axis, 3) for axis in coordinates.detach().unbind(-1))
    columns = {
        "group_PDB": ["HETATM"] * count,
        "id": numbers,
        "type_symbol": ["C"] * count,
        "label_atom_id": ["C"] * count,
        "label_alt_id": ["."] * count,
        "label_comp_id": ["DUM"] * count,
        "label_asym_id": ["A"] * count,
        "label_entity_id": ["1"] * count,
        "label_seq_id": ["."] * count,
        "Cartn_x": x,
        "Cartn_y": y,
        "Cartn_z": z,
        "occupancy": _written(relative, 4),
        "B_iso_or_equiv": _written(B_FACTOR_OF_VARIANCE * variances.detach(), 2),
        "auth_seq_id": numbers,
        "auth_asym_id": ["A"] * count,
        "pdbx_PDB_model_num": ["1"] * count,
    }
    document = gemmi.cif.Document()
    block = document.add_new_block("gaussians")
    block.init_loop("_atom_site.", list(columns)).set_all_values(list(columns.values()))
    with replacing(path) as temporary:
        document.write_file(str(temporary))


def _written(numbers: Float[Tensor, "n"], digits: int) -> list[str]:
    return [f"{number:.{digits}f}" for number in numbers.tolist()]
