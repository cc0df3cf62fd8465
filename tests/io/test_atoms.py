"""Atomic models from mmCIF and PDB."""

import gzip
from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.atoms import is_atomic_model, read_atoms, read_ensemble

PDB = """\
MODEL        1
ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00 12.50           N
ATOM      2  CA AALA A   1      11.639   6.071  -5.147  0.70 13.50           C
ATOM      3  CA BALA A   1      11.700   6.200  -5.100  0.30 14.50           C
ATOM      4  C   ALA A   1      10.500   7.071  -4.147  1.00 15.50           C
HETATM    5 CA    CA B   2       1.000   2.000   3.000  1.00 20.00          CA
HETATM    6  O   HOH B   3       9.000   9.000   9.000  1.00 40.00           O
ENDMDL
MODEL        2
ATOM      1  N   ALA A   1      12.104   6.134  -6.504  1.00 12.50           N
ENDMDL
END
"""

WITHOUT_ELEMENTS = """\
ATOM      1 N    HSD     1       1.000   0.000   0.000  1.00 10.00      4AKE
ATOM      2 CA   HSD     1       2.000   0.000   0.000  1.00 10.00      4AKE
ATOM      3 C    HSD     1       3.000   0.000   0.000  1.00 10.00      4AKE
ATOM      4 ND1  HSD     1       4.000   0.000   0.000  1.00 10.00      4AKE
ATOM      5 HG   CYS     2       5.000   0.000   0.000  1.00 10.00      4AKE
ATOM      6 SG   CYS     2       6.000   0.000   0.000  1.00 10.00      4AKE
ATOM      7 CD   GLU     3       7.000   0.000   0.000  1.00 10.00      4AKE
"""

MMCIF = """\
data_toy
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
ATOM 1 N N  . ALA A 1 11.104 6.134 -6.504 1.00 12.50 1 A 1
ATOM 2 C CA A ALA A 1 11.639 6.071 -5.147 0.70 13.50 1 A 1
ATOM 3 C CA B ALA A 1 11.700 6.200 -5.100 0.30 14.50 1 A 1
ATOM 4 C C  . ALA A 1 10.500 7.071 -4.147 1.00 15.50 1 A 1
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["toy.pdb", "toy.pdb.gz", "toy.ent"])
def test_a_pdb_file_is_read_without_its_waters(tmp_path: Path, name: str) -> None:
    atoms = read_atoms(write(tmp_path, name, PDB))
    assert atoms.elements.tolist() == [7, 6, 6, 6, 20]
    assert atoms.occupancies.tolist() == pytest.approx([1.0, 0.7, 0.3, 1.0, 1.0])
    assert atoms.b_factors.tolist() == pytest.approx([12.5, 13.5, 14.5, 15.5, 20.0])
    assert atoms.coordinates[4].tolist() == [1.0, 2.0, 3.0]
    assert atoms.coordinates.dtype == torch.float64
    assert atoms.name == "toy"


@pytest.mark.parametrize("name", ["toy.cif", "toy.cif.gz", "toy.mmcif"])
def test_mmcif_and_pdb_agree(tmp_path: Path, name: str) -> None:
    from_cif = read_atoms(write(tmp_path, name, MMCIF))
    from_pdb = read_atoms(write(tmp_path, "toy.pdb", PDB), chains=["A"])
    for field in ("coordinates", "elements", "b_factors", "occupancies"):
        torch.testing.assert_close(getattr(from_cif, field), getattr(from_pdb, field))


def test_waters_models_and_chains_are_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "toy.pdb", PDB)
    assert read_atoms(path, keep_waters=True).elements.tolist() == [7, 6, 6, 6, 20, 8]
    assert read_atoms(path, chains=["B"]).elements.tolist() == [20]
    assert read_atoms(path, model=2).coordinates.tolist() == [[12.104, 6.134, -6.504]]
    assert [len(atoms) for atoms in read_ensemble(path)] == [5, 1]


def test_elements_follow_from_names_where_their_column_is_absent(tmp_path: Path) -> None:
    """Left-aligned names would make calcium, neodymium, mercury, seaborgium and cadmium of a protein."""
    atoms = read_atoms(write(tmp_path, "charmm.pdb", WITHOUT_ELEMENTS))
    assert atoms.elements.tolist() == [7, 6, 6, 7, 1, 16, 6]


def test_alternate_locations_of_full_occupancy_share_one_atom(tmp_path: Path) -> None:
    text = PDB.replace("0.70 13.50", "1.00 13.50").replace("0.30 14.50", "1.00 14.50")
    assert read_atoms(write(tmp_path, "toy.pdb", text)).occupancies.tolist() == [1.0, 0.5, 0.5, 1.0, 1.0]


def test_zero_occupancies_are_taken_as_one_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "zero.pdb", WITHOUT_ELEMENTS.replace("  1.00 10.00", "  0.00 10.00"))
    assert read_atoms(path).occupancies.tolist() == [1.0] * 7
    assert "all occupancies are zero" in caplog.text


def test_an_assembly_is_built_from_its_operators(tmp_path: Path) -> None:
    operators = """\
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A, B
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       50.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
"""
    path = write(tmp_path, "dimer.pdb", operators + PDB)
    single, double = read_atoms(path), read_atoms(path, assembly="1")
    assert len(double) == 2 * len(single)
    mates = single.coordinates * torch.tensor([-1.0, -1.0, 1.0]).double() + torch.tensor([50.0, 0, 0]).double()
    assert (torch.cdist(mates, double.coordinates).min(-1).values < 1e-6).all()
    with pytest.raises(InputError, match=r"no assembly '7'; it defines 1$"):
        read_atoms(path, assembly="7")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.pdb", "hello\n", "{path}: holds no atoms; an mmCIF or PDB file with coordinates is expected"),
        ("x.txt", PDB, "{path}: not an atomic model; expected .cif or .pdb, gzipped or not"),
        (
            "wet.pdb",
            "HETATM    6  O   HOH B   3       9.000   9.000   9.000  1.00 40.00           O\n",
            "{path}: nothing but waters in this model",
        ),
        (
            "odd.pdb",
            "HETATM    6  X1  UNL B   3       9.000   9.000   9.000  1.00 40.00           X\n",
            "{path}: residue UNL 3: atom 'X1' has no element; fill columns 77-78",
        ),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(InputError) as caught:
        read_atoms(path)
    assert str(caught.value) == message.format(path=path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "toy.pdb", PDB)
    with pytest.raises(InputError, match=r"no model 3; it holds 2, counted from 1$"):
        read_atoms(path, model=3)
    with pytest.raises(InputError, match=r"no chain 'C'; it has A, B$"):
        read_atoms(path, chains=["A", "C"])
    with pytest.raises(InputError, match="no such file"):
        read_atoms(tmp_path / "absent.cif")
    with pytest.raises(InputError, match="not readable as an atomic model") as caught:
        read_atoms(write(tmp_path, "broken.cif", "data_x\nloop_\n_atom_site.id\n1 2\n_a"))
    assert "\n" not in str(caught.value)


def test_names_of_atomic_models() -> None:
    assert all(is_atomic_model(name) for name in ("a.cif", "a.pdb", "a.ENT.gz", Path("b/a.mmcif.gz")))
    assert not any(is_atomic_model(name) for name in ("a.mrc", "a.gz", "builtin"))


@pytest.mark.data
def test_shared_structures_have_the_atoms_of_their_manifest(shared_data: Path) -> None:
    atoms = read_atoms(shared_data / "structures" / "1wcm_fitted.pdb.gz", keep_waters=True)
    assert len(atoms) == 30945
    assert set(atoms.elements.tolist()) == {6, 7, 8, 12, 16, 30}


@pytest.mark.data
def test_adenylate_kinase_without_elements_is_a_protein(shared_data: Path) -> None:
    for state in ("open", "closed"):
        atoms = read_atoms(shared_data / "ensembles" / "adk" / f"adk_{state}.pdb")
        assert set(atoms.elements.tolist()) == {1, 6, 7, 8, 16}
        assert (atoms.elements == 16).sum() == 7  # six methionines and a cysteine
