"""Gauss-Newton refinement of rotation and shift against a density, with analytic derivatives of the slice.

For a pose (R, t) the model of a whitened image is ``P(k) = C(k) Y(q) exp(-2 pi i k.t)``, ``q = R^T M k``. Turning the
pose by a small rotation vector w in the object's frame, ``R -> R exp([w])``, moves q by ``-w x q``; hence

    dP/dw = -C (q x grad Y) exp(-2 pi i k.t),    dP/dt = -2 pi i (k / D) P,

and the five normal equations of an image follow from one read of the slice and its gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.geometry.rotations import nearest_rotation, rotation_vector_to_matrix
from hoarfrost.kernels.refine_poses import SlicedImages
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.poses.base import PosePosterior
from hoarfrost.poses.likelihood import likelihood_at
from hoarfrost.representations.base import Density
from hoarfrost.representations.voxel import FourierVolume, as_voxels

POINTS_AT_ONCE = 100_000
"""Slice points in one batch: their intermediate arrays stay in the second-level cache."""


@dataclass(frozen=True)
class RefinedPoses:
    """Poses after refinement (shifts in pixels) and their log-likelihoods up to a constant of the image."""

    rotations: Float[Tensor, "b 3 3"]
    shifts: Float[Tensor, "b 2"]
    log_likelihood: Float[Tensor, "b"]

    def cpu(self) -> RefinedPoses:
        """The same in the computer's memory."""
        return RefinedPoses(self.rotations.cpu(), self.shifts.cpu(), self.log_likelihood.cpu())


@dataclass(frozen=True)
class NormalEquations:
    """Curvature and slope of the log-likelihood (halved) in (w, t) at a pose, and its value."""

    curvature: Float[Tensor, "b 5 5"]
    slope: Float[Tensor, "b 5"]
    log_likelihood: Float[Tensor, "b"]


def normal_equations(
    images: BandImages,
    density: FourierVolume,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    weight: Float[Tensor, "m"],
) -> NormalEquations:
    """Gauss-Newton equations of every image: here in PyTorch, in ``kernels/refine_poses`` what is used where it can be."""
    sliced = _sliced(images, density, weight)
    if sliced.fits(rotations, shifts):
        return NormalEquations(*sliced.normal_equations(rotations, shifts))
    band, grid = images.band, density.grid
    root = weight.to(images.transfer).sqrt()
    transfer = images.transfer * root
    data = images.centred(shifts).vectors * root
    points = grid.points(rotations.to(transfer), band, images.frequency_matrix)
    fields = grid.extract(density.values_and_moments, points)
    model = transfer * fields[..., 0]
    residual = data - model

    jacobian = torch.empty(len(images), 5, len(band), dtype=model.dtype, device=model.device)
    # The moments are i times the gradient, hence the factor i of -(q x gradient).
    lever = (1j / grid.padding) * transfer
    (qx, qy, qz), (mx, my, mz) = points.unbind(-1), fields[..., 1:].unbind(-1)
    jacobian[:, 0] = lever * (qy * mz - qz * my)
    jacobian[:, 1] = lever * (qz * mx - qx * mz)
    jacobian[:, 2] = lever * (qx * my - qy * mx)
    ramp = (-2j * math.pi) * band.frequency.to(transfer)
    jacobian[:, 3:] = ramp.T * model[:, None]

    rows = torch.view_as_real(jacobian).flatten(-2)
    slope = (rows @ torch.view_as_real(residual).flatten(-2)[..., None])[..., 0]
    likelihood = data.abs().square().sum(-1) - residual.abs().square().sum(-1)
    return NormalEquations(rows @ rows.mT, slope, likelihood)


def log_likelihood(
    images: BandImages,
    density: FourierVolume,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    weight: Float[Tensor, "m"],
) -> Float[Tensor, "b"]:
    """``sum 2 v Re<C X_t, Y> - v C^2 |Y|^2`` of every image at its pose."""
    sliced = _sliced(images, density, weight)
    if sliced.fits(rotations, shifts):
        return sliced.log_likelihood(rotations, shifts)
    return likelihood_at(images, density, rotations, shifts, weight)


def _sliced(images: BandImages, density: FourierVolume, weight: Float[Tensor, "m"]) -> SlicedImages:
    grid = density.grid
    return SlicedImages(
        density.values_and_moments,
        density.values,
        images.band.k,
        images.vectors,
        images.transfer,
        weight.to(images.transfer).sqrt(),
        images.frequency_matrix,
        images.band.box,
        grid.padding,
        grid.centre,
    )


@dataclass(frozen=True)
class GaussNewton:
    """Levenberg-Marquardt on SO(3) x R^2, every image with its own damping."""

    weight: Float[Tensor, "m"]  # inverse noise variance of the whitened coefficients
    iterations: int = 3
    largest_turn: float = 0.15  # radians a step; the equations are linear only about the pose

    def refine(
        self,
        images: BandImages,
        density: FourierVolume,
        rotations: Float[Tensor, "b 3 3"],
        shifts: Float[Tensor, "b 2"],
    ) -> RefinedPoses:
        """Poses of a batch, improved from the given ones; an image never ends worse than it began."""
        sliced = _sliced(images, density, self.weight)
        if sliced.fits(rotations, shifts):
            return RefinedPoses(*sliced.refined(rotations, shifts, self.iterations, self.largest_turn))
        size = max(1, POINTS_AT_ONCE // len(images.band))

        def refine(rows: slice) -> RefinedPoses:
            return self._refine_part(images[rows], density, rotations[rows], shifts[rows])

        parts = map_parts(refine, in_parts(len(images), size), images.vectors.device)
        return RefinedPoses(
            torch.cat([p.rotations for p in parts]),
            torch.cat([p.shifts for p in parts]),
            torch.cat([p.log_likelihood for p in parts]),
        )

    def _refine_part(
        self, images: BandImages, density: FourierVolume, rotations: Tensor, shifts: Tensor
    ) -> RefinedPoses:
        rotations, shifts = rotations.to(images.vectors.device, copy=True), shifts.to(images.transfer, copy=True)
        equations = normal_equations(images, density, rotations, shifts, self.weight)
        curvature, slope, best = equations.curvature, equations.slope, equations.log_likelihood
        damping = torch.full_like(best, 1e-2)
        for iteration in range(self.iterations):
            turned, moved = self._step(rotations, shifts, curvature, slope, damping)
            if iteration + 1 < self.iterations:
                trial = normal_equations(images, density, turned, moved, self.weight)
                value = trial.log_likelihood
            else:
                value = log_likelihood(images, density, turned, moved, self.weight)
            better = value > best
            rotations = torch.where(better[:, None, None], turned, rotations)
            shifts = torch.where(better[:, None], moved, shifts)
            best = torch.where(better, value, best)
            if iteration + 1 < self.iterations:
                curvature = torch.where(better[:, None, None], trial.curvature, curvature)
                slope = torch.where(better[:, None], trial.slope, slope)
                damping = torch.where(better, damping * 0.2, damping * 10)
        return RefinedPoses(rotations, shifts, best)

    def _step(
        self, rotations: Tensor, shifts: Tensor, curvature: Tensor, slope: Tensor, damping: Tensor
    ) -> tuple[Tensor, Tensor]:
        diagonal = curvature.diagonal(dim1=-2, dim2=-1)
        # A direction without curvature (an empty image) must not make the system singular.
        ridge = damping[:, None] * diagonal + 1e-6 * diagonal.amax(-1, keepdim=True).clamp(min=1e-12)
        step = torch.linalg.solve(curvature + torch.diag_embed(ridge), slope)
        turn = step[:, :3]
        length = torch.linalg.vector_norm(turn, dim=-1, keepdim=True)
        shrink = (self.largest_turn / length.clamp(min=1e-12)).clamp(max=1.0)
        turned = rotations @ rotation_vector_to_matrix((turn * shrink).to(rotations))
        return nearest_rotation(turned), shifts + step[:, 3:] * shrink


@dataclass(frozen=True)
class PoseRefinement:
    """Gauss-Newton from given poses (shifts in pixels), as an estimator."""

    method: GaussNewton
    rotations: Float[Tensor, "b 3 3"]
    shifts: Float[Tensor, "b 2"]

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The refined pose of every image, against the density's voxels."""
        refined = self.method.refine(images, as_voxels(density, images.band), self.rotations, self.shifts)
        return PosePosterior(refined.rotations[:, None], refined.shifts[:, None], refined.log_likelihood[:, None])


def information_limit(equations: NormalEquations) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Root-mean-square errors (radians of rotation, pixels of shift) that the noise alone must cause.

    The Cramer-Rao bound: the inverse of the Fisher information, which for the log-likelihood of
    ``docs/conventions.md`` is twice the curvature.
    """
    covariance = torch.linalg.inv(2 * equations.curvature.double())
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return variance[:, :3].sum(-1).sqrt(), variance[:, 3:].sum(-1).sqrt()
