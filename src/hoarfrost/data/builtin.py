"""A molecule out of nothing: an asymmetric complex of helical domains for demonstrations and tests.

It is no structure of nature and copies none, but it looks like a protein in a microscope: rods of helices, 10 Å
apart, bundled into domains; domains of different size touching one another; an arm that reaches out to one side.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.atoms import Atoms

_HELIX_SPACING = 10.0  # Å between neighbouring axes
_RISE, _TURN, _BACKBONE_RADIUS = 1.5, math.radians(100), 2.3  # of an alpha helix: Å and angle a residue, Å
_PROTEIN_VOLUME = 150.0  # Å^3 a residue takes in a packed domain
_BODY = (250, 210, 230, 170, 190, 150, 200, 160)  # residues of its domains
_ARM = (130, 110)
_CARBON, _NITROGEN, _OXYGEN = 6, 7, 8


def builtin_complex(seed: int = 5) -> Atoms:
    """Eight domains in a heap and two in an arm: some 1,800 residues, 190 kDa, 150 Å long, chiral and asymmetric.

    The same seed always gives the same molecule; the centre of mass is the origin.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = (*_BODY, *_ARM)
    centres = _arrange(torch.tensor([_radius(size) for size in sizes], dtype=torch.float64), generator)
    domains = [centre + _domain(size, generator) for centre, size in zip(centres, sizes, strict=True)]
    coordinates = torch.cat(domains)
    # A residue is five backbone and three side-chain atoms, in the order in which _domain puts them.
    elements = torch.tensor([_NITROGEN, _CARBON, _CARBON, _OXYGEN, _CARBON, _CARBON, _CARBON, _OXYGEN])
    model = Atoms(
        coordinates=coordinates,
        elements=elements.repeat(len(coordinates) // len(elements)),
        b_factors=torch.full((len(coordinates),), 40.0, dtype=torch.float64),
        occupancies=torch.ones(len(coordinates), dtype=torch.float64),
        name="builtin",
    )
    return model.moved(-model.centre_of_mass)


def _arrange(radii: Float[Tensor, "d"], generator: torch.Generator) -> Float[Tensor, "d 3"]:
    """Centres of touching domains: each of the body's finds the place nearest to its middle; the arm leads away."""
    centres = torch.zeros(1, 3, dtype=torch.float64)
    for radius in radii[1 : len(_BODY)]:
        places = _touching(centres, radii, float(radius), generator)
        nearest = torch.linalg.vector_norm(places - centres.mean(0), dim=-1)
        # Not quite the nearest place, so that the heap is no ball.
        chosen = nearest.argsort()[int(torch.randint(0, 6, (1,), generator=generator))]
        centres = torch.cat([centres, places[chosen][None]])
    direction = _unit(torch.randn(1, 3, generator=generator, dtype=torch.float64))[0]
    for radius in radii[len(_BODY) :]:
        places = _touching(centres, radii, float(radius), generator)
        chosen = ((places - centres.mean(0)) @ direction).argmax()
        bend = torch.randn(3, generator=generator, dtype=torch.float64)
        direction = _unit((direction + 0.45 * bend)[None])[0]
        centres = torch.cat([centres, places[chosen][None]])
    return centres


def _touching(centres: Tensor, radii: Tensor, radius: float, generator: torch.Generator) -> Float[Tensor, "p 3"]:
    """Places where a domain touches one that is there and overlaps none."""
    direction = _unit(torch.randn(600, 3, generator=generator, dtype=torch.float64))
    host = torch.arange(600) % len(centres)
    places = centres[host] + direction * (0.95 * (radii[host] + radius))[:, None]
    gap = torch.cdist(places, centres) - 0.9 * (radii[: len(centres)] + radius)
    return places[(gap > 0).all(-1)]


def _domain(residues: int, generator: torch.Generator) -> Float[Tensor, "a 3"]:
    """A bundle of helices through a ball of the right volume, tilted and turned at random."""
    radius = _radius(residues)
    grid = torch.arange(-4, 5, dtype=torch.float64)
    row, column = (axis.flatten() for axis in torch.meshgrid(grid, grid, indexing="ij"))
    hexagonal = torch.stack([column + 0.5 * (row % 2), row * math.sqrt(0.75)], dim=-1) * _HELIX_SPACING
    hexagonal += 2.5 * (torch.rand(2, generator=generator, dtype=torch.float64) - 0.5)
    chord = 2 * (radius**2 - hexagonal.square().sum(-1)).clamp(min=0).sqrt()
    order = chord.argsort(descending=True)
    share = (chord[order] / _RISE).round().long()
    used = int((share.cumsum(0) < residues).sum()) + 1
    helices = []
    left = residues
    for axis, count in zip(hexagonal[order[:used]], share[:used].tolist(), strict=True):
        count = min(count, left)
        left -= count
        helices.append(_helix(axis, count, generator))
    return torch.cat(helices) @ random_rotations(1, generator)[0].T


def _helix(axis: Float[Tensor, "2"], residues: int, generator: torch.Generator) -> Float[Tensor, "a 3"]:
    """Eight atoms a residue of an alpha helix along z through ``axis``, slightly tilted, with random side chains."""
    step = torch.arange(residues, dtype=torch.float64)
    phase, along = _TURN * step, _RISE * (step - 0.5 * (residues - 1))
    # Radius, angle and height of N, CA, C, O and CB relative to CA, in Å and degrees.
    backbone = [(1.5, -28, -0.9), (2.3, 0, 0.0), (1.7, 26, 1.1), (2.0, 23, 2.3), (3.3, -18, -0.4)]
    reach = 4.5 + 1.5 * torch.rand(residues, generator=generator, dtype=torch.float64)
    swing = 25 * torch.randn(residues, generator=generator, dtype=torch.float64)
    columns = [_around(torch.full_like(step, r), phase + math.radians(a), along + h) for r, a, h in backbone]
    for fraction in (0.0, 0.5, 1.0):
        distance = _BACKBONE_RADIUS + 2.0 + fraction * (reach - _BACKBONE_RADIUS)
        columns.append(_around(distance, phase + torch.deg2rad(swing * (0.5 + fraction)) - 0.3, along - 0.5))
    atoms = torch.stack(columns, dim=1).flatten(0, 1)
    tilt = 0.18 * torch.randn(2, generator=generator, dtype=torch.float64)
    slide = 4 * torch.randn(1, generator=generator, dtype=torch.float64)
    sideways = atoms[:, :2] + atoms[:, 2:] * tilt + axis
    return torch.cat([sideways, atoms[:, 2:] + slide], dim=-1)


def _around(radius: Tensor, angle: Tensor, height: Tensor) -> Float[Tensor, "r 3"]:
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)


def _radius(residues: int) -> float:
    """Radius in Å of a ball of packed protein."""
    return (residues * _PROTEIN_VOLUME * 3 / (4 * math.pi)) ** (1 / 3)


def _unit(vectors: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
    return torch.nn.functional.normalize(vectors, dim=-1)
