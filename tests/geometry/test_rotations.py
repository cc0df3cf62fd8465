import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from hoarfrost.geometry import rotations as rot


def written_out(angles):
    """The matrix A(rot, tilt, psi) as docs/conventions.md prints it."""
    a, b, g = angles.tolist()
    ca, sa, cb, sb, cg, sg = math.cos(a), math.sin(a), math.cos(b), math.sin(b), math.cos(g), math.sin(g)
    return torch.tensor(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ],
        dtype=torch.float64,
    )


def test_euler_matrix_is_the_one_in_the_conventions(generator):
    angles = torch.rand(20, 3, generator=generator, dtype=torch.float64) * 6 - 3
    expected = torch.stack([written_out(a) for a in angles])
    torch.testing.assert_close(rot.euler_to_matrix(angles), expected, atol=1e-14, rtol=0)


def test_euler_round_trip_at_random_and_at_the_poles(generator):
    matrices = rot.random_rotations(500, generator)
    torch.testing.assert_close(rot.euler_to_matrix(rot.matrix_to_euler(matrices)), matrices, atol=1e-13, rtol=0)
    for tilt in (0.0, math.pi, 1e-9, 1e-5):
        angles = torch.tensor([[0.7, tilt, -1.1]], dtype=torch.float64)
        matrix = rot.euler_to_matrix(angles)
        torch.testing.assert_close(rot.euler_to_matrix(rot.matrix_to_euler(matrix)), matrix, atol=1e-13, rtol=0)


def rotation_vectors(generator):
    """Of all lengths: none, tiny, general, half a turn and next to it, beyond half a turn."""
    axes = torch.nn.functional.normalize(torch.randn(60, 3, generator=generator, dtype=torch.float64), dim=-1)
    axes[:3] = torch.eye(3, dtype=torch.float64)
    angles = torch.tensor([0.0, 1e-9, 1e-4, 1.0, 2.5, math.pi - 1e-7, math.pi, 4.0], dtype=torch.float64)
    return (axes[:, None] * angles[:, None]).flatten(0, 1)


def test_rotation_vectors_and_quaternions_are_those_of_scipy(generator):
    vectors = rotation_vectors(generator)
    matrices = rot.rotation_vector_to_matrix(vectors)
    reference = Rotation.from_rotvec(vectors.numpy())
    torch.testing.assert_close(matrices, torch.from_numpy(reference.as_matrix()), atol=1e-14, rtol=0)
    quaternions = rot.matrix_to_quaternion(matrices)
    expected = torch.from_numpy(reference.as_quat())
    torch.testing.assert_close((quaternions * expected).sum(-1).abs(), torch.ones(len(vectors), dtype=torch.float64))
    torch.testing.assert_close(rot.quaternion_to_matrix(quaternions), matrices, atol=1e-14, rtol=0)
    again = rot.matrix_to_rotation_vector(matrices)
    assert torch.linalg.vector_norm(again, dim=-1).max() <= math.pi + 1e-12
    torch.testing.assert_close(rot.rotation_vector_to_matrix(again), matrices, atol=1e-14, rtol=0)
    short = torch.linalg.vector_norm(vectors, dim=-1) < 3.1
    torch.testing.assert_close(again[short], vectors[short], atol=1e-13, rtol=1e-12)


def test_rotation_matrix_is_differentiable_at_any_vector(generator):
    for length in (0.0, 1e-6, 1.0, 3.5):
        vector = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0) * length
        assert torch.autograd.gradcheck(rot.rotation_vector_to_matrix, vector.requires_grad_())


def test_nearest_rotation_is_proper_and_nearest(generator):
    matrices = torch.randn(50, 3, 3, generator=generator, dtype=torch.float64)
    nearest = rot.nearest_rotation(matrices)
    torch.testing.assert_close(torch.linalg.det(nearest), torch.ones(50, dtype=torch.float64))
    distance = torch.linalg.matrix_norm(matrices - nearest)
    others = nearest[:, None] @ rot.rotation_vector_to_matrix(
        0.1 * torch.randn(50, 40, 3, generator=generator, dtype=torch.float64)
    )
    assert (torch.linalg.matrix_norm(matrices[:, None] - others) >= distance[:, None]).all()
    torch.testing.assert_close(rot.nearest_rotation(nearest), nearest)


def test_in_plane_adds_psi():
    angles = torch.tensor([0.3, 1.1, 0.4], dtype=torch.float64)
    turned = rot.in_plane(torch.tensor(0.25, dtype=torch.float64)) @ rot.euler_to_matrix(angles)
    expected = rot.euler_to_matrix(angles + torch.tensor([0.0, 0.0, 0.25], dtype=torch.float64))
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("angle", [1e-7, 0.3, 3.1])
def test_geodesic_distance_is_the_angle(angle, generator):
    base = rot.random_rotations(10, generator)
    axis = torch.nn.functional.normalize(torch.randn(10, 3, generator=generator, dtype=torch.float64), dim=-1)
    turned = rot.rotation_vector_to_matrix(axis * angle) @ base
    distance = rot.geodesic_distance(base, turned)
    torch.testing.assert_close(distance, torch.full((10,), angle, dtype=torch.float64), rtol=1e-6, atol=1e-12)


def test_random_rotations_are_uniform(generator):
    matrices = rot.random_rotations(20000, generator)
    assert matrices.mean(0).abs().max() < 0.02
    # The angle of a uniform rotation has density (1 - cos w)/pi, hence the mean pi/2 + 2/pi.
    identity = torch.eye(3, dtype=torch.float64).expand_as(matrices)
    assert abs(rot.geodesic_distance(matrices, identity).mean() - (math.pi / 2 + 2 / math.pi)) < 0.02


def test_chordal_mean_of_a_cloud_is_its_centre(generator):
    centre = rot.random_rotations(1, generator)[0]
    noise = rot.rotation_vector_to_matrix(0.05 * torch.randn(4000, 3, generator=generator, dtype=torch.float64))
    assert rot.geodesic_distance(rot.chordal_mean(noise @ centre), centre) < 0.004


def test_mirror_is_an_involution_of_proper_rotations(generator):
    matrices = rot.random_rotations(10, generator)
    mirrored = rot.mirror(matrices)
    torch.testing.assert_close(torch.linalg.det(mirrored), torch.ones(10, dtype=torch.float64))
    torch.testing.assert_close(rot.mirror(mirrored), matrices)
