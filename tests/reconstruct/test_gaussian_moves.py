import pytest
import torch
from torch.nn.functional import normalize

from hoarfrost.reconstruct.gaussian_moves import Recycle, Split, Surroundings, halves_of, value_at
from hoarfrost.representations.gaussian_seeds import drawn_from
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.types import Volume

BOX, PIXEL = 16, 2.0


def mixture(count: int, anisotropic: bool, seed: int = 0) -> GaussianDensity:
    generator = torch.Generator().manual_seed(seed)
    return GaussianDensity(
        centres=4 * torch.randn(count, 3, generator=generator),
        masses=0.5 + torch.rand(count, generator=generator),
        scales=2 + torch.rand(count, 3 if anisotropic else 1, generator=generator),
        quaternions=normalize(torch.randn(count, 4, generator=generator), dim=-1) if anisotropic else None,
        box=BOX,
        voxel_size=PIXEL,
    )


def around(missing: torch.Tensor | None = None) -> Surroundings:
    field = torch.zeros(BOX, BOX, BOX) if missing is None else missing
    return Surroundings(
        Volume(field, PIXEL), Volume(torch.ones(BOX, BOX, BOX), PIXEL), torch.Generator().manual_seed(1)
    )


def moments(density: GaussianDensity) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mass, first and second moment (xx, yy, zz, xy, xz, yz)."""
    x, y, z = density.centres.unbind(-1)
    products = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], dim=-1)
    mass = density.masses[:, None]
    return mass.sum(), (mass * density.centres).sum(0), (mass * (density.covariances + products)).sum(0)


def test_halves_have_the_moments_of_the_whole():
    density = mixture(30, anisotropic=True)
    first, second = halves_of(density, torch.Generator().manual_seed(2))
    whole, pair = moments(density), [a + b for a, b in zip(moments(first), moments(second), strict=True)]
    for one, other in zip(whole, pair, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)
    assert not torch.equal(first.centres, second.centres)


def test_halves_of_balls_keep_mass_mean_and_size():
    density = mixture(30, anisotropic=False)
    first, second = halves_of(density, torch.Generator().manual_seed(2))
    whole, pair = moments(density), [a + b for a, b in zip(moments(first), moments(second), strict=True)]
    torch.testing.assert_close(whole[0], pair[0])
    torch.testing.assert_close(whole[1], pair[1], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(whole[2][:3].sum(), pair[2][:3].sum())


@pytest.mark.parametrize("anisotropic", [True, False])
def test_those_that_blur_the_most_are_split(anisotropic):
    density = mixture(20, anisotropic)
    more = Split(25)(density, around())
    assert len(more) == 25
    blurring = torch.topk(density.masses * density.variances, 5).indices
    kept = torch.tensor([row for row in range(20) if row not in blurring.tolist()])
    assert torch.equal(more.centres[:15], density.centres[kept])
    middles = 0.5 * (more.centres[15:20] + more.centres[20:])
    torch.testing.assert_close(middles, density.centres[blurring])
    torch.testing.assert_close(more.masses[15:], (density.masses[blurring] / 2).repeat(2))
    assert len(Split(100)(density, around())) == 40  # none is split twice


def test_recycled_gaussians_go_where_density_is_missing():
    density = mixture(40, anisotropic=True)
    density.masses[[3, 17]] = 1e-4
    density.centres[9] = torch.tensor([100.0, 0.0, 0.0])
    missing = torch.full((BOX, BOX, BOX), -1.0)
    missing[2, 5, 11] = 1.0
    moved = Recycle()(density, around(missing))
    fresh = [3, 9, 17]
    place = torch.tensor([11 - 8, 5 - 8, 2 - 8]) * PIXEL
    assert float((moved.centres[fresh] - place).abs().max()) <= PIXEL / 2 + 1e-5
    torch.testing.assert_close(moved.masses[fresh], density.masses.median().expand(3))
    others = [row for row in range(40) if row not in fresh]
    assert torch.equal(moved.centres[others], density.centres[others])


def test_points_are_drawn_in_proportion_to_density():
    volume = torch.zeros(BOX, BOX, BOX)
    volume[8, 8, 8], volume[8, 8, 12], volume[0, 0, 0] = 1.0, 3.0, -5.0
    points = drawn_from(Volume(volume, PIXEL), 4000, torch.Generator().manual_seed(3))
    at_first, at_second = (value_at(Volume((volume == v).float(), PIXEL), points).sum() for v in (1.0, 3.0))
    assert at_first + at_second == 4000
    assert float(at_second / 4000) == pytest.approx(0.75, abs=0.03)
    near = points[points[:, 0] < 4]
    assert float(near.mean(0).abs().max()) < 0.1  # even within the voxel
    assert float(near.std(0).min()) > 0.4


def test_points_outside_the_map_have_no_value():
    assert value_at(Volume(torch.ones(BOX, BOX, BOX), PIXEL), torch.tensor([[50.0, 0, 0], [0, 0, 0]])).tolist() == [
        0,
        1,
    ]
