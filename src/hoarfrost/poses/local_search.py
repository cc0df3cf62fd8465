"""Search on nested grids: the cells of pose space that are still in question are divided, scored and weeded.

A cell is an orientation of an :class:`OrientationGrid` with a square of shifts about the best shift found in it. Each
level divides every cell into eight orientations of half the spacing and its square, halved, into a new grid of shifts,
all of them scored; the best cells go on. Each image has cells of its own, and all of a batch are scored together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.geometry.shift_grid import shift_cells
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.poses.base import PosePosterior
from hoarfrost.poses.likelihood import weighted_data
from hoarfrost.representations.base import Density, of_images

POINTS_AT_ONCE = 100_000
"""Slice points in one batch: their intermediate arrays stay in the second-level cache."""


@dataclass(frozen=True)
class PoseCells:
    """The cells in question for each image of a batch, best first; on the CPU."""

    grid: OrientationGrid
    frame: Float[Tensor, "3 3"]  # the grid's orientations are turned by it: R = grid rotation @ frame
    orientation: Int[Tensor, "b c"]  # -1 where an image has fewer cells than others
    shifts: Float[Tensor, "b c 2"]  # pixels; the best in each cell
    extent: float  # pixels; half the side of the square about it in which the next level seeks
    log_likelihood: Float[Tensor, "b c"]

    @classmethod
    def about(
        cls,
        rotations: Float[Tensor, "b c 3 3"],
        shifts: Float[Tensor, "b c 2"],
        order: int,
        extent: float,
        *,
        frame: Float[Tensor, "3 3"] | None = None,
        neighbours: bool = False,
    ) -> PoseCells:
        """The cells of order ``order`` in which these poses (best first) lie, each cell once.

        With ``neighbours`` the 26 cells around each are in question too: for poses that are known but not on a grid.
        """
        grid = OrientationGrid(order)
        turn = torch.eye(3, dtype=torch.float64) if frame is None else frame.double().cpu()
        orientation = grid.nearest(rotations.double().cpu() @ turn.T)
        shifts = shifts.float().cpu()
        if neighbours:
            orientation = grid.neighbours(orientation).flatten(1)
            shifts = shifts.repeat_interleave(27, dim=1)
        order_of_cells = orientation.argsort(dim=1, stable=True)
        ordered = orientation.gather(1, order_of_cells)
        repeated = torch.zeros_like(ordered, dtype=torch.bool)
        repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        repeated = torch.zeros_like(repeated).scatter(1, order_of_cells, repeated)
        nothing = torch.full(orientation.shape, -torch.inf)
        return cls(grid, turn, orientation.masked_fill(repeated, -1), shifts, extent, nothing)

    @property
    def rotations(self) -> Float[Tensor, "b c 3 3"]:
        """Rotations at the centres of the cells, float64; of any orientation where there is no cell."""
        return self.grid.rotations(self.orientation.clamp(min=0)) @ self.frame

    def posterior(self, symmetry: str = "C1") -> PosePosterior:
        """The cells as candidate poses."""
        return PosePosterior(self.rotations, self.shifts, self.log_likelihood, symmetry)


def local_search(
    images: BandImages,
    density: Density,
    start: PoseCells,
    weight: Float[Tensor, "m"],
    limits: Sequence[int],
    *,
    keep: int = 32,
    shift_count: int = 4,
    depth: float = 60.0,
    marginal: bool = False,
    symmetry: str = "C1",
) -> PosePosterior:
    """The posterior over poses on a grid that is finer by one order for each of ``limits``, about the given cells.

    From cells of order 2 (15 degrees), three levels reach 1.9 degrees and an eighth of the shifts' spacing.

    Parameters
    ----------
    images : BandImages
        A batch, whitened.
    density : Density
        One for all images, or a :class:`~hoarfrost.representations.base.ParticleDensity`.
    start : PoseCells
        Where to seek: :meth:`PoseCells.about` makes it of candidate poses.
    weight : (m,)
        Inverse noise variance of the whitened coefficients of the images' band.
    limits : sequence of int
        Band limit of each level, no further than the images' own.
    keep, depth
        The most cells of an image that go on from a level, and how far their log-likelihood may lie below the best.
        The likelihood at the centre of a coarse cell is far below the best inside it: hence a generous depth.
    shift_count
        Shifts on each axis of every level's square; the shifts lie ``2 extent / shift_count`` apart.
    marginal
        Whether a cell's likelihood is the mean over its shifts rather than the largest.

    Returns
    -------
    PosePosterior
        Up to ``keep`` cells of an image with their best shifts; ``weights`` is the softmax of the log-likelihoods.
    """
    cells = start
    for limit in limits:
        part = images.prefix(limit)
        cells = divide(
            part, density, cells, weight[: len(part.band)],
            keep=keep, shift_count=shift_count, depth=depth, marginal=marginal,
        )  # fmt: skip
    return cells.posterior(symmetry)


def divide(
    images: BandImages,
    density: Density,
    cells: PoseCells,
    weight: Float[Tensor, "m"],
    *,
    keep: int,
    shift_count: int,
    depth: float = math.inf,
    marginal: bool = False,
) -> PoseCells:
    """One level: the best ``keep`` of all cells of the next order inside the given ones."""
    empty = cells.orientation < 0
    children = cells.grid.children(cells.orientation.clamp(min=0)).masked_fill(empty[..., None], -1).flatten(1)
    finer, centres = OrientationGrid(cells.grid.order + 1), cells.shifts.repeat_interleave(8, dim=1)
    rows, columns = (children >= 0).nonzero(as_tuple=True)
    values, found = pose_scores(
        images, density, rows,
        finer.rotations(children[rows, columns]) @ cells.frame, centres[rows, columns],
        shift_cells(cells.extent, shift_count), weight, marginal=marginal,
    )  # fmt: skip
    scores = torch.full(children.shape, -torch.inf).index_put((rows, columns), values)
    shifts = centres.index_put((rows, columns), found)
    best, picked = scores.topk(min(keep, scores.shape[1]), dim=1)
    dropped = (best < best[:, :1] - depth) | best.isneginf()
    # Columns in which no image has a cell any more go as well.
    best, picked, dropped = (part[:, : int((~dropped).sum(1).max())] for part in (best, picked, dropped))
    return PoseCells(
        finer,
        cells.frame,
        children.gather(1, picked).masked_fill(dropped, -1),
        shifts.take_along_dim(picked[..., None], 1),
        cells.extent / 2,
        best.masked_fill(dropped, -torch.inf),
    )


def pose_scores(
    images: BandImages,
    density: Density,
    rows: Int[Tensor, "p"],
    rotations: Float[Tensor, "p 3 3"],
    shifts: Float[Tensor, "p 2"],
    offsets: Float[Tensor, "t 2"],
    weight: Float[Tensor, "m"],
    *,
    marginal: bool = False,
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p 2"]]:
    """Log-likelihoods of poses, each of the image in ``rows``, and their best shifts among ``shifts + offsets``.

    Slices are taken at the exact rotations and multiplied by the transfer function there, so that astigmatism and
    anisotropic magnification count. The log-likelihood is the largest over the offsets, or that of their mean.
    """
    band, device = images.band, images.vectors.device
    data, power = weighted_data(images, weight)
    offsets = offsets.to(power)
    phases = torch.view_as_real(band.shift_phases(offsets)).flatten(-2).T.contiguous()

    def score(part: slice) -> tuple[Tensor, Tensor]:
        row = rows[part].to(device)
        matrix = None if images.frequency_matrix is None else images.frequency_matrix[row]
        slices = of_images(density, row).project(rotations[part].to(power), band, matrix)
        centre = shifts[part].to(power)
        agreement = data[row] * band.shift_phases(-centre) * slices.conj()
        norm = (power[row] * (slices.real.square() + slices.imag.square())).sum(-1)
        every = 2 * (torch.view_as_real(agreement).flatten(-2) @ phases) - norm[:, None]
        best, index = every.max(1)
        value = torch.logsumexp(every, 1) - math.log(len(offsets)) if marginal else best
        return value.cpu(), (centre + offsets[index]).cpu()

    # The tables of a density are made once here, not by every thread.
    of_images(density, rows[:1].to(device)).project(rotations[:1].to(power), band.prefix(1))
    parts = map_parts(score, in_parts(len(rows), max(1, POINTS_AT_ONCE // len(band))), device)
    return torch.cat([value for value, _ in parts]), torch.cat([shift for _, shift in parts])


@dataclass(frozen=True)
class LocalSearch:
    """:func:`local_search` about given cells, as an estimator."""

    start: PoseCells
    weight: Float[Tensor, "m"]  # inverse noise variance of the whitened coefficients
    limits: Sequence[int]  # band limit of each level
    keep: int = 32
    depth: float = 60.0
    symmetry: str = "C1"

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The best cells of the last level."""
        return local_search(
            images, density, self.start, self.weight, self.limits,
            keep=self.keep, depth=self.depth, symmetry=self.symmetry,
        )  # fmt: skip
