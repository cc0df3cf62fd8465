import math

import gemmi
import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.atoms import read_atoms
from hoarfrost.representations.gaussian_files import read_gaussians, write_gaussians
from hoarfrost.representations.gaussian_seeds import gaussians_of_atoms, random_gaussians, seed_from_map
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.types import Volume
from phantoms import GaussianPhantom


def mixture(generator, axes, dtype=torch.float32):
    return GaussianDensity(
        centres=20 * torch.randn(40, 3, generator=generator, dtype=dtype),
        masses=torch.rand(40, generator=generator, dtype=dtype),
        scales=1 + torch.rand(40, axes, generator=generator, dtype=dtype),
        quaternions=None
        if axes == 1
        else torch.nn.functional.normalize(torch.randn(40, 4, generator=generator, dtype=dtype), dim=-1),
        box=48,
        voxel_size=1.0700000524520874,
    )


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ply_gives_every_bit_back(axes, dtype, generator, tmp_path):
    density = mixture(generator, axes, dtype)
    write_gaussians(density, tmp_path / "a.ply")
    again = read_gaussians(tmp_path / "a.ply")
    assert (again.box, again.voxel_size) == (density.box, density.voxel_size)
    for name in ("centres", "masses", "scales", "quaternions"):
        one, other = getattr(again, name), getattr(density, name)
        assert one is other is None or torch.equal(one, other)


def test_ply_written_as_text_by_another_program_is_read(tmp_path):
    path = tmp_path / "a.ply"
    names = ("x", "y", "z", "mass", "scale_0")
    header = ["ply", "format ascii 1.0", "comment box 32", "comment voxel_size 1.5", "element vertex 2"]
    header += [*(f"property float {name}" for name in names), "element face 0", "end_header"]
    path.write_text("\n".join([*header, "1 2 3 0.5 1.25", "-1 0 2.5 2 3", ""]))
    density = read_gaussians(path)
    torch.testing.assert_close(density.centres, torch.tensor([[1.0, 2, 3], [-1, 0, 2.5]], dtype=torch.float64))
    torch.testing.assert_close(density.scales[:, 0], torch.tensor([1.25, 3], dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-3], "cut short"),
        (lambda data: data.replace(b"ply\n", b"pl\n", 1), "not a PLY"),
        (lambda data: data.replace(b"property float mass", b"property float mess"), "no 'mass'"),
        (lambda data: data.replace(b"comment box 48", b"comment box big"), "have to be numbers"),
        (lambda data: data.replace(b"comment voxel_size", b"comment pixel"), "no 'voxel_size'"),
        (lambda data: data.replace(b"element vertex", b"element corner"), "vertices are expected"),
        (lambda data: data.replace(b"property float x", b"property list x"), "plain numbers"),
        (lambda data: data.replace(b"binary_little_endian", b"binary_middle_endian"), "a format other"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(change, reason, generator, tmp_path):
    path = tmp_path / "broken.ply"
    write_gaussians(mixture(generator, 1), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=reason) as error:
        read_gaussians(path)
    assert "broken.ply" in str(error.value)


def test_pseudo_atoms_open_in_other_programs(generator, tmp_path):
    density = mixture(generator, 3)
    write_gaussians(density, tmp_path / "a.cif")
    structure = gemmi.read_structure(str(tmp_path / "a.cif"))
    assert sum(1 for _ in structure[0].all()) == len(density)
    assert all(len(residue) == 1 for chain in structure[0] for residue in chain)
    atoms = read_atoms(tmp_path / "a.cif")
    torch.testing.assert_close(atoms.coordinates, density.centres.double(), rtol=0, atol=1e-3)
    variances = density.scales.double().square().mean(-1)
    torch.testing.assert_close(atoms.b_factors, 8 * math.pi**2 * variances, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(atoms.occupancies, (density.masses / density.masses.max()).double(), rtol=0, atol=6e-3)
    with pytest.raises(InputError, match=r"\.cif"):
        write_gaussians(density, tmp_path / "a.pdb")


@pytest.mark.parametrize("isotropic", [True, False])
def test_gaussians_drawn_from_a_map_resemble_it(isotropic, generator):
    phantom = GaussianPhantom.random(10, 25.0, generator, sigma=6.0)
    volume = phantom.volume(33, 3.0)
    noisy = Volume(volume.data - 0.02 * volume.data.max(), 3.0)
    density = seed_from_map(noisy, 4000, generator, isotropic=isotropic)
    assert (density.box, density.voxel_size, density.isotropic) == (33, 3.0, isotropic)
    found = density.to_volume(33).data
    assert float(found.sum()) == pytest.approx(float(noisy.data.clamp(min=0).sum()), rel=1e-3)
    correlation = torch.corrcoef(torch.stack([found.flatten(), volume.data.flatten()]))[0, 1]
    assert correlation > 0.95
    centre = (density.centres.double() * density.masses[:, None]).sum(0) / density.masses.sum()
    expected = (phantom.centres * phantom.masses[:, None]).sum(0) / phantom.masses.sum()
    assert (centre - expected).norm() < 1.0
    with pytest.raises(InputError, match="no positive density"):
        seed_from_map(Volume(-volume.data, 3.0), 10, generator)


def test_random_gaussians_fill_the_particle(generator):
    density = random_gaussians(20_000, 80.0, 500.0, 64, 5.0, generator)
    assert float(density.masses.sum()) == pytest.approx(500.0, rel=1e-4)
    torch.testing.assert_close(density.centres.std(0), torch.full((3,), 24.0), rtol=0.03, atol=0)
    assert (density.centres.norm(dim=-1) < 80).double().mean() > 0.98
    torch.testing.assert_close(density.scales, torch.full((20_000, 3), 2.4))


def test_atoms_become_gaussians_of_their_width_and_number(generator, tmp_path):
    write_gaussians(mixture(generator, 1), tmp_path / "a.cif")
    atoms = read_atoms(tmp_path / "a.cif")
    density = gaussians_of_atoms(atoms, 48, 1.07, least_scale=0.7)
    torch.testing.assert_close(density.centres.double(), atoms.coordinates, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(density.masses.double(), 6 * atoms.occupancies, rtol=1e-6, atol=1e-6)
    expected = 0.49 + atoms.b_factors / (8 * math.pi**2)
    torch.testing.assert_close(density.variances.double(), expected, rtol=1e-5, atol=0)
