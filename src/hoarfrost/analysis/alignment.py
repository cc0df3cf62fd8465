"""One frame for two sets of poses: the rotation, the hand and the origin that no image can tell.

Poses estimated without a reference are known up to a rotation ``Q`` of the object, its mirror image, and a move ``d``
of its origin. With ``x_true = Q x_est + d`` (after the mirror through ``z = 0`` where the hand differs)

    R_est Q^T = R_true        and        t_est - t_true = (R_true d)_xy ,

and the same ``Q`` and ``d`` lay the estimated map over the true one. An object with symmetry ``V(g x) = V(x)`` looks
the same in the poses ``R`` and ``R g``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import chordal_mean, mirror
from hoarfrost.geometry.symmetry import point_group

CAPTURE = 0.26
"""Width in radians (15 degrees) of the window in which particles vote for a common rotation."""

_CANDIDATES = 256
_VOTERS = 4096


@dataclass(frozen=True)
class GlobalAlignment:
    """How an estimated object lies in the frame of the true one: ``x_true = rotation @ x_est``, mirrored first or not.

    ``agreement`` is the share of particles within 15 degrees of the truth in this frame.
    """

    rotation: Float[Tensor, "3 3"]
    mirrored: bool
    agreement: float

    def apply(self, rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
        """Estimated poses in the true frame."""
        return (mirror(rotations) if self.mirrored else rotations) @ self.rotation.mT.to(rotations)


def align_rotations(
    estimated: Float[Tensor, "n 3 3"], truth: Float[Tensor, "n 3 3"], *, symmetry: str = "C1"
) -> GlobalAlignment:
    """The rotation and hand that bring most estimated poses onto the true ones.

    Every particle proposes ``Q = R_true^T R_est``; the proposal with the most neighbours wins and is refined as the
    chordal mean of its neighbourhood, so that wrong particles have no say. Both hands are tried.

    Parameters
    ----------
    estimated, truth : (n, 3, 3) tensors
        Poses of the same particles.
    symmetry : str
        Point group of the true object; poses count as equal up to its elements.

    Raises
    ------
    InputError
        If there is no particle.
    """
    if len(truth) == 0:
        raise InputError("no poses to compare; both sets are empty")
    group = point_group(symmetry).to(truth)
    alignments = []
    for mirrored in (False, True):
        poses = (mirror(estimated) if mirrored else estimated).to(truth)
        proposals = truth.mT @ poses
        rotation = _densest(proposals, group)
        agreement = (_angles_to(rotation, proposals, group)[0] < CAPTURE).double().mean()
        alignments.append(GlobalAlignment(rotation, mirrored, float(agreement)))
    same, other = alignments
    return other if other.agreement > same.agreement else same


def rotation_errors(
    aligned: Float[Tensor, "n 3 3"], truth: Float[Tensor, "n 3 3"], *, symmetry: str = "C1"
) -> Float[Tensor, "n"]:
    """Angles in radians between poses in one frame, the smallest over the point group of the object."""
    identity = torch.eye(3, dtype=truth.dtype, device=truth.device)
    return _angles_to(identity, truth.mT @ aligned.to(truth), point_group(symmetry).to(truth))[0]


def fit_origin(
    estimated: Float[Tensor, "n 2"], truth: Float[Tensor, "n 2"], rotations: Float[Tensor, "n 3 3"]
) -> Float[Tensor, "3"]:
    """The move ``d`` of the origin that best explains shift errors, ``t_est - t_true = (R_true d)_xy``.

    Least absolute deviations by reweighted least squares, so that outliers have little say; lengths in the unit of
    the shifts. A direction that no view fixes (all views along one axis) gets the smallest ``d``.
    """
    frames = rotations[:, :2].double()
    difference = (estimated - truth).double()
    weight = torch.ones(len(frames), 1, dtype=torch.float64, device=frames.device)
    for _ in range(20):
        normal = torch.einsum("n,nij,nik->jk", weight[:, 0], frames, frames)
        right = torch.einsum("n,nij,ni->j", weight[:, 0], frames, difference)
        origin = torch.linalg.pinv(normal, rtol=1e-9) @ right
        rest = torch.linalg.vector_norm(difference - frames @ origin, dim=-1, keepdim=True)
        weight = 1 / (rest + 1e-3 * rest.median() + 1e-12)
    return origin


def _densest(proposals: Float[Tensor, "n 3 3"], group: Float[Tensor, "g 3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation with the most proposals about it, up to elements of the group on its left."""
    voters = proposals[_spread(len(proposals), _VOTERS)]
    candidates = proposals[_spread(len(proposals), _CANDIDATES)]
    votes = torch.stack([_votes(candidate, voters, group) for candidate in candidates])
    rotation = candidates[votes.argmax()]
    window = CAPTURE
    for _ in range(30):
        angles, nearest = _angles_to(rotation, proposals, group)
        inside = angles < window
        if not inside.any():
            break
        turned = group[nearest[inside]].mT @ proposals[inside]
        rotation = chordal_mean(turned)
        window = min(CAPTURE, max(4 * float(angles[inside].median()), 1e-6))
    return rotation


def _votes(candidate: Float[Tensor, "3 3"], voters: Float[Tensor, "n 3 3"], group: Tensor) -> Float[Tensor, ""]:
    angles, _ = _angles_to(candidate, voters, group)
    return torch.exp(-0.5 * (angles / CAPTURE).square()).sum()


def _angles_to(
    rotation: Float[Tensor, "3 3"], proposals: Float[Tensor, "n 3 3"], group: Float[Tensor, "g 3 3"]
) -> tuple[Float[Tensor, "n"], Tensor]:
    """Smallest angle of each proposal to ``g @ rotation``, and the ``g``."""
    orbit = group @ rotation
    # Traces of all pairs are one matrix product; the angle of the nearest then comes from a chord, which keeps its
    # digits where the arc cosine of a trace loses them.
    nearest = (proposals.flatten(1) @ orbit.flatten(1).mT).argmax(dim=1)
    chord = torch.linalg.matrix_norm(proposals - orbit[nearest])
    return 2 * torch.asin((chord / 8**0.5).clamp(max=1)), nearest


def _spread(count: int, wanted: int) -> Tensor:
    """At most ``wanted`` rows, evenly spread over ``count``."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()
