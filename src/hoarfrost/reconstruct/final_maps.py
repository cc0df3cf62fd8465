"""The last stage: half-maps from the images themselves, in the whole band, and their validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC, validate_half_maps
from hoarfrost.analysis.postprocess import ending_at
from hoarfrost.data.dataset import CPU, BandImages, BandStack, Normalisation, whitened_images
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.kernels.threads import map_parts
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import mask_from_map, soft_sphere
from hoarfrost.reconstruct.backprojection import BackProjection, FoldedSums, images_at_once, symmetrise
from hoarfrost.reconstruct.half_maps import inside, inverse_signal_power
from hoarfrost.types import HalfMaps, Particles, Volume

IMAGES_A_STEP = 2048


@dataclass(frozen=True)
class SumHalfMaps:
    """Back-project every image, in the whole band, into the sums of its half.

    Images are read and transformed again, unless ``stack`` holds as much of them.
    """

    particles: Particles
    normalisation: Normalisation
    noise: Float[Tensor, "groups shells"]
    limit: int
    device: torch.device = CPU
    stack: BandStack | None = None
    name: str = "maps"
    title: str = "Reconstructing the half-maps"

    @property
    def steps(self) -> int:
        """Chunks of the stack."""
        return -(-len(self.particles) // IMAGES_A_STEP)

    @property
    def grid(self) -> SliceGrid:
        """The slice grid of the sums."""
        return SliceGrid(self.particles.box, self.limit)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Insert one chunk. The sums grow in place: they are too large to copy for every chunk."""
        count = len(self.particles)
        rows = torch.arange(step * IMAGES_A_STEP, min((step + 1) * IMAGES_A_STEP, count))
        band = Band(self.particles.box, self.limit)

        def sums(number: int) -> Tensor:
            mine = rows[state["half"][rows] == number]
            if step == 0:
                sums = BackProjection.empty(self.grid, self.device)
            else:
                sums = BackProjection(self.grid, state[f"sums.{number}"].to(self.device))
            for part in mine.split(images_at_once(band)):
                sums.add(self._images(part, band), state["rotations"][part], state["shifts"][part])
            return sums.sums.cpu()

        first, second = map_parts(sums, (1, 2), self.device)
        state = state | {"sums.1": first, "sums.2": second}
        return state, {"images": float(rows[-1] + 1)}

    def _images(self, rows: Int[Tensor, "b"], band: Band) -> BandImages:
        if self.stack is not None and self.stack.band.limit >= band.limit:
            return self.stack.images(rows, band)
        return whitened_images(self.particles, rows, band, self.normalisation, self.noise).to(self.device)


@dataclass(frozen=True)
class FinalMaps:
    """The maps of a run and what is known of their quality."""

    map: Volume  # both halves, Wiener-filtered by the corrected FSC
    half_maps: HalfMaps  # as they are: unmasked, unfiltered; nothing beyond the last shell of the images used
    mask: Volume
    fsc: HalfMapFSC


def finish_maps(
    sums: tuple[Float[Tensor, "nodes 3"], Float[Tensor, "nodes 3"]],
    grid: SliceGrid,
    *,
    voxel_size: float,
    radius: float,
    symmetry: str,
    seed: int,
    mask: Volume | None = None,
) -> FinalMaps:
    """Half-maps, mask, FSC and filtered map of the sums of two halves; ``voxel_size`` and ``radius`` in Å.

    The mask is made from the map where none is given.
    """
    operators = point_group(symmetry)
    first, second = (symmetrise(BackProjection(grid, one), operators).folded() for one in sums)
    halves = HalfMaps(*(Volume(one.volume(0.0), voxel_size) for one in (first, second)))
    weights = first.weight_per_shell, second.weight_per_shell
    joined = first + second
    # They are large, and have been put to use.
    del first, second
    return validated_maps(
        halves,
        lambda fsc: filtered_map(joined, fsc, weights),
        radius=radius,
        seed=seed,
        mask=mask,
        limit=grid.limit,
    )


def validated_maps(
    halves: HalfMaps,
    filtered: Callable[[HalfMapFSC], Float[Tensor, "z y x"]],
    *,
    radius: float,
    seed: int,
    mask: Volume | None = None,
    limit: int | None = None,
) -> FinalMaps:
    """Mask, FSC and final map of two half-maps; ``filtered`` makes the map of all images by an FSC, ``radius`` in Å.

    The mask is made from the map where none is given. ``limit`` is the last shell of maps that end before Nyquist: what
    the gridding leaves beyond it is taken out, which would correlate in any program that compares the halves.
    """
    box, voxel_size = halves.first.box, halves.first.voxel_size
    last = limit if limit is not None and limit < (box - 1) // 2 else None

    def ended(volume: Volume) -> Volume:
        return volume if last is None else ending_at(volume, last)

    halves = HalfMaps(ended(halves.first), ended(halves.second))
    sphere = soft_sphere(box, radius / voxel_size, 4.0)

    def final(fsc: HalfMapFSC) -> Volume:
        return Volume(inside(ended(Volume(filtered(fsc), voxel_size)).data, sphere), voxel_size)

    if mask is None:
        rough = validate_half_maps(halves, Volume(sphere, voxel_size), seed)
        shape = mask_from_map(
            final(rough),
            threshold=None,
            extend_px=3.0,
            edge_px=6.0,
            lowpass_angstrom=max(15.0, 3 * rough.resolution(0.143)),
        )
        mask = Volume(shape.data * sphere, voxel_size)
    fsc = validate_half_maps(halves, mask, seed)
    return FinalMaps(final(fsc), halves, mask, fsc)


def filtered_map(
    joined: FoldedSums, fsc: HalfMapFSC, weights: tuple[Float[Tensor, "shells"], Float[Tensor, "shells"]]
) -> Float[Tensor, "z y x"]:
    """The map of all images, Wiener-filtered by the FSC of its halves up to where that first falls below 0.143.

    ``weights`` are the mean weights of the shells of each half.
    """
    curve = fsc.corrected.float()[: joined.grid.limit + 1].clone()
    below = (curve[1:] < 0.143).nonzero()
    if len(below):
        curve[int(below[0]) + 1 :] = 0.0
    return joined.volume(sum(inverse_signal_power(curve, weight) for weight in weights) / 2)
