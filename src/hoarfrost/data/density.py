"""What a simulation projects: density maps of atomic models, and maps brought to a box and a voxel size."""

from __future__ import annotations

import math

import gemmi
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import crop_or_pad_centred, fourier_transform_3d, inverse_fourier_transform_3d
from hoarfrost.io.atoms import Atoms
from hoarfrost.types import Volume

OVERSAMPLING = 1.5
"""Fineness of the grid on which atoms are drawn, relative to the map."""


def density_from_atoms(
    atoms: Atoms, box: int, voxel_size: float, *, b_factor: float | None = None, centre: bool = True
) -> Volume:
    """Electrostatic potential of an atomic model, sampled to its Nyquist frequency.

    Atoms are sums of Gaussians with gemmi's electron form factors (International Tables C, 4.3.2.2). They are drawn
    on a finer grid, all widened by a common B factor that the grid resolves, and that factor is taken out again in
    Fourier space before the transform is cropped to the map.

    Parameters
    ----------
    atoms : the model.
    box : side of the map in voxels.
    voxel_size : Å.
    b_factor : put on every atom in place of its own, Å²; None keeps those of the model.
    centre : bring the centre of mass to voxel ``floor(D/2)``; otherwise the model's origin comes to lie there.

    Raises
    ------
    InputError
        A model that does not fit into the box.
    """
    if centre:
        atoms = atoms.moved(-atoms.centre_of_mass)
    _check_fits(atoms, box, voxel_size)
    b_factors = atoms.b_factors if b_factor is None else torch.full_like(atoms.b_factors, b_factor)
    fine = _even_smooth_length(math.ceil(OVERSAMPLING * box))
    spacing = voxel_size * box / fine
    # Refmac's rule: at this B the transform of an atom is negligible beyond the Nyquist frequency of the grid.
    blur = 8 * math.pi**2 / 1.1 * spacing**2 - float(b_factors.min())
    drawn = _draw(atoms, b_factors, fine, spacing, blur)
    spectrum = crop_or_pad_centred(fourier_transform_3d(drawn), box, (0, 1, 2))
    axis = ((torch.arange(box) - box // 2) / (box * voxel_size)).square()
    square = axis[:, None, None] + axis[:, None] + axis
    spectrum = spectrum * torch.exp(blur * square / 4) * (box / fine) ** 1.5
    return Volume(inverse_fourier_transform_3d(spectrum), voxel_size)


def resample_map(volume: Volume, box: int, voxel_size: float) -> Volume:
    """A map on another grid, its origin (voxel ``floor(D/2)`` of each axis) staying the origin.

    Each axis is resampled by the Fourier series of the map itself, cut at the lower of the two Nyquist frequencies:
    exact for any ratio of voxel sizes, and free of the interpolation's errors. Outside the old map is zero.
    """
    data = volume.data
    for dim in range(3):
        matrix = _resampling_matrix(data.shape[dim], volume.voxel_size, box, voxel_size).to(data)
        data = torch.tensordot(data, matrix, dims=([dim], [1])).movedim(-1, dim)
    return Volume(data.contiguous(), voxel_size)


def extent(atoms: Atoms) -> float:
    """Radius in Å of the sphere about the centre of mass that holds all atoms."""
    return float(torch.linalg.vector_norm(atoms.coordinates - atoms.centre_of_mass, dim=-1).max())


def fitting_pixel_size(model: Volume | Atoms, box: int) -> float:
    """A pixel size at which images of ``box`` pixels suit a model; Å.

    The sphere that holds an atomic model fills two thirds of the box, rounded up to 0.05 Å and not below 1 Å; a map
    fills all of it.
    """
    if isinstance(model, Volume):
        return max(model.data.shape) * model.voxel_size / box
    return max(1.0, math.ceil(2 * extent(model) / (2 / 3 * box) * 20) / 20)


def _draw(atoms: Atoms, b_factors: Tensor, box: int, spacing: float, blur: float) -> Float[Tensor, "z y x"]:
    """The model on a periodic grid (z, y, x) with its origin at voxel ``floor(D/2)``."""
    calculator = gemmi.DensityCalculatorE()
    calculator.blur = blur
    side = box * spacing
    calculator.grid.set_unit_cell(gemmi.UnitCell(side, side, side, 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_size(box, box, box)
    positions = (atoms.coordinates + box // 2 * spacing).tolist()
    elements = {z: gemmi.Element(z) for z in atoms.elements.unique().tolist()}
    columns = zip(positions, atoms.elements.tolist(), b_factors.tolist(), atoms.occupancies.tolist(), strict=True)
    atom = gemmi.Atom()
    for position, element, b_factor, occupancy in columns:
        atom.pos = gemmi.Position(*position)
        atom.element, atom.b_iso, atom.occ = elements[element], b_factor, occupancy
        calculator.add_atom_density_to_grid(atom)
    # gemmi's axes are (x, y, z).
    return torch.from_numpy(np.array(calculator.grid.array)).permute(2, 1, 0).contiguous()


def _check_fits(atoms: Atoms, box: int, voxel_size: float) -> None:
    reach = float(atoms.coordinates.abs().max())
    if reach > 0.5 * box * voxel_size:
        raise InputError(
            f"{atoms.name or 'model'}: reaches {reach:.0f} Å from the centre, but a box of {box} pixels of "
            f"{voxel_size:g} Å ends at {0.5 * box * voxel_size:.0f} Å; take a larger --box or --apix"
        )


def _even_smooth_length(least: int) -> int:
    """The next even length without prime factors above 5, for which transforms are fast."""
    length = least + least % 2
    while _without_small_factors(length) > 1:
        length += 2
    return length


def _without_small_factors(number: int) -> int:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number


def _resampling_matrix(old_box: int, old_size: float, box: int, size: float) -> Float[Tensor, "new old"]:
    """Values at new voxels as sums over the old: the band-limited Fourier series of a period of ``old_box`` voxels."""
    old = torch.arange(old_box, dtype=torch.float64) - old_box // 2
    new = (torch.arange(box, dtype=torch.float64) - box // 2) * (size / old_size)
    # Highest whole frequency, in periods of the old box, that both grids can carry.
    highest = int(min((old_box - 1) // 2, math.floor(0.5 * old_box * old_size / size * (1 - 1e-9))))
    frequency = torch.arange(1, highest + 1, dtype=torch.float64)
    angle = (2 * math.pi / old_box) * (new[:, None] - old)
    matrix = (1 + 2 * torch.cos(angle[..., None] * frequency).sum(-1)) / old_box
    inside = (new >= old[0] - 0.5) & (new <= old[-1] + 0.5)
    return matrix * inside[:, None]
