"""Atomic models from mmCIF and PDB files, read through gemmi."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.files import existing_file

logger = logging.getLogger("hoarfrost")

_MODEL_ENDINGS = (".cif", ".mmcif", ".pdb", ".ent", ".pdb1")
# The elements that polymers are made of; anything else there comes from a misread atom name (CA is not calcium).
_POLYMER_ELEMENTS = {"H", "D", "C", "N", "O", "P", "S", "Se"}
_BACKBONES = ({"N", "CA", "C"}, {"P", "O5'"}, {"P", "O5*"})


@dataclass(frozen=True)
class Atoms:
    """An atomic model; float64, coordinates (x, y, z) and B factors in Å and Å²."""

    coordinates: Float[Tensor, "a 3"]
    elements: Int[Tensor, "a"]  # atomic numbers
    b_factors: Float[Tensor, "a"]
    occupancies: Float[Tensor, "a"]
    name: str = ""

    def __len__(self) -> int:
        return len(self.elements)

    @property
    def centre_of_mass(self) -> Float[Tensor, "3"]:
        """Mean position, each atom weighted by its atomic mass and occupancy; Å."""
        mass = torch.tensor([gemmi.Element(int(z)).weight for z in range(119)], dtype=torch.float64)
        weight = mass[self.elements] * self.occupancies
        return (weight[:, None] * self.coordinates).sum(0) / weight.sum()

    def moved(self, offset: Float[Tensor, "3"]) -> Atoms:
        """The same model, displaced by ``offset`` Å."""
        return replace(self, coordinates=self.coordinates + offset)


def is_atomic_model(path: Path | str) -> bool:
    """Whether a file's name is that of an atomic model (mmCIF or PDB, gzipped or not)."""
    name = Path(path).name.lower().removesuffix(".gz")
    return name.endswith(_MODEL_ENDINGS)


def read_atoms(
    path: Path | str,
    *,
    model: int = 1,
    chains: Sequence[str] | None = None,
    assembly: str | None = None,
    keep_waters: bool = False,
) -> Atoms:
    """Read one model of an mmCIF or PDB file, gzipped or not.

    Alternate locations are all kept, weighted by their occupancies (scaled down where these add up to more than one).
    Where a PDB file has no element column, the elements of proteins and nucleic acids follow from the atom names.

    Parameters
    ----------
    path : ``.cif``, ``.mmcif``, ``.pdb`` or ``.ent``, or one of these with ``.gz``.
    model : which model, counted from 1.
    chains : only the chains of these names (author's naming).
    assembly : name of a biological assembly of the file, to be built by its symmetry operators.
    keep_waters : waters are left out unless this is set.

    Raises
    ------
    InputError
        A file that is no atomic model, or lacks the model, chain or assembly asked for.
    """
    structure = _read_structure(path)
    if not 1 <= model <= len(structure):
        raise InputError(f"{path}: no model {model}; it holds {len(structure)}, counted from 1")
    while len(structure) > model:
        del structure[model]
    while len(structure) > 1:
        del structure[0]
    if assembly is not None:
        _build_assembly(structure, assembly, path)
    return _atoms(structure[0], Path(path), chains, keep_waters)


def read_ensemble(path: Path | str, *, keep_waters: bool = False) -> list[Atoms]:
    """All models of a file (an NMR ensemble, frames of a trajectory saved as PDB), each as by :func:`read_atoms`."""
    return [_atoms(model, Path(path), None, keep_waters) for model in _read_structure(path)]


def _read_structure(path: Path | str) -> gemmi.Structure:
    path = existing_file(Path(path))
    if not is_atomic_model(path):
        raise InputError(f"{path}: not an atomic model; expected .cif or .pdb, gzipped or not")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as an atomic model: {reason}") from error
    if not any(len(chain) for model in structure for chain in model):
        raise InputError(f"{path}: holds no atoms; an mmCIF or PDB file with coordinates is expected")
    return structure


def _build_assembly(structure: gemmi.Structure, assembly: str, path: Path | str) -> None:
    known = [each.name for each in structure.assemblies]
    if assembly not in known:
        raise InputError(f"{path}: no assembly {assembly!r}; it defines {', '.join(known) or 'none'}")
    structure.transform_to_assembly(assembly, gemmi.HowToNameCopiedChain.AddNumber)


def _atoms(model: gemmi.Model, path: Path, chains: Sequence[str] | None, keep_waters: bool) -> Atoms:
    if chains is not None:
        known = {chain.name for chain in model}
        missing = [name for name in chains if name not in known]
        if missing:
            raise InputError(f"{path}: no chain {missing[0]!r}; it has {', '.join(sorted(known))}")
    positions, elements, b_factors, occupancies = [], [], [], []
    for residue in _residues(model, chains, keep_waters):
        share = _alternate_share(residue)
        repair = _needs_repair(residue)
        for atom in residue:
            positions.append(atom.pos.tolist())
            elements.append(_element(atom, residue, path) if repair else atom.element.atomic_number)
            b_factors.append(atom.b_iso)
            occupancies.append(atom.occ / share.get(atom.name, 1.0))
    if not positions:
        raise InputError(f"{path}: nothing but waters in this model")
    weights = torch.tensor(occupancies, dtype=torch.float64)
    if not bool((weights > 0).any()):
        logger.warning("%s: all occupancies are zero; they are taken as one", path)
        weights = torch.ones_like(weights)
    return Atoms(
        coordinates=torch.tensor(positions, dtype=torch.float64),
        elements=torch.tensor(elements, dtype=torch.int64),
        b_factors=torch.tensor(b_factors, dtype=torch.float64),
        occupancies=weights,
        name=path.name.split(".")[0],
    )


def _residues(model: gemmi.Model, chains: Sequence[str] | None, keep_waters: bool) -> Iterator[gemmi.Residue]:
    for chain in model:
        if chains is None or chain.name in chains:
            yield from (residue for residue in chain if keep_waters or not residue.is_water())


def _alternate_share(residue: gemmi.Residue) -> dict[str, float]:
    """For atoms with alternate locations, what their occupancies add up to where that is more than one."""
    total: dict[str, float] = defaultdict(float)
    for atom in residue:
        if atom.has_altloc():
            total[atom.name] += atom.occ
    return {name: value for name, value in total.items() if value > 1.0}


def _needs_repair(residue: gemmi.Residue) -> bool:
    """Whether elements are impossible in this residue of a polymer, or unknown."""
    if any(atom.element.atomic_number == 0 for atom in residue):
        return True
    if all(atom.element.name in _POLYMER_ELEMENTS for atom in residue):
        return False
    known = gemmi.find_tabulated_residue(residue.name)
    if known.found():
        return bool(known.is_amino_acid() or known.is_nucleic_acid())
    names = {atom.name for atom in residue}
    return any(backbone <= names for backbone in _BACKBONES)


def _element(atom: gemmi.Atom, residue: gemmi.Residue, path: Path) -> int:
    """Atomic number by the first letter of the atom's name, which in polymers is its element."""
    if atom.element.name in _POLYMER_ELEMENTS:
        return int(atom.element.atomic_number)
    letters = atom.name.lstrip("0123456789'\"*")
    number = int(gemmi.Element(letters[:1]).atomic_number) if letters else 0
    if number == 0:
        raise InputError(
            f"{path}: residue {residue.name} {residue.seqid}: atom {atom.name!r} has no element; fill columns 77-78"
        )
    return number
