"""What the confidences of a run are worth, found by images simulated from its own maps.

The images go through the same search as the particles, and what share of them is right at which gap is the calibration.
No constant is fitted to any structure: noise, views, transfer functions, band and errors of the maps are the run's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hoarfrost.analysis.confidence import RIGHT_WITHIN, Calibration
from hoarfrost.data.dataset import BandImages, BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.symmetry import symmetric_distance
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.contests import Batch
from hoarfrost.reconstruct.half_maps import HalfMapPair
from hoarfrost.reconstruct.rivals import Contest
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

SIMULATED = 512, 2048
"""Images of known poses by which confidences are calibrated: as many as there are particles, but within these bounds.

By so many, shares come out right to two points in a hundred, or one. Half as many serve to compare strengths before.
"""

LARGEST_AMPLITUDE = 4.0
"""How much stronger at most than the map the images of a shell are taken to be."""


@dataclass(frozen=True)
class Seen:
    """What became of simulated images: gaps, whether the poses found are right, and :func:`strength`."""

    gap: Float[Tensor, "b"]
    right: Bool[Tensor, "b"]
    strength: Float[Tensor, "shells"]

    @classmethod
    def of(cls, parts: Sequence[Seen]) -> Seen:
        """All of several parts together."""
        gap, right = torch.cat([part.gap for part in parts]), torch.cat([part.right for part in parts])
        return cls(gap, right, torch.stack([len(part.gap) * part.strength for part in parts]).sum(0) / len(gap))


@dataclass(frozen=True)
class SelfTest:
    """The second search, made with images of known poses."""

    stack: BandStack
    pair: HalfMapPair
    weight: Float[Tensor, "m"]  # inverse noise variance that the present poses leave
    band: Band
    symmetry: str
    decisive: Callable[[Int[Tensor, "b"]], Iterable[tuple[int, Int[Tensor, "c"], HalfMapPair]]]  # see HalfMapStage
    search: Callable[[Sequence[Batch]], Sequence[tuple[Contest, Float[Tensor, "b"]]]]  # in such maps, with gaps

    def calibration(self, state: State, gaps: Float[Tensor, "n"], generator: torch.Generator) -> Calibration:
        """What a gap is worth for particles at the poses of the state.

        Half-maps are weaker than the truth: filtered by their signal-to-noise ratio, and blurred by wrong poses. The
        simulated images are made as strong, in every shell, as those of the particles are.
        """
        used = (state["half"] > 0).nonzero()[:, 0]
        least, most = SIMULATED
        count = min(most, max(least, len(used)))
        sample = used[torch.randint(len(used), (count // 2,), generator=generator)]
        pilot = self._simulate(state, used, torch.ones(self.band.limit + 1), count // 2, generator)
        amplitude = (self._strength(state, gaps, sample) / pilot.strength).nan_to_num(0.0).clamp(0.0, LARGEST_AMPLITUDE)
        seen = self._simulate(state, used, amplitude, count, generator)
        return Calibration.of(seen.gap, seen.right)

    def _strength(self, state: State, gaps: Float[Tensor, "n"], rows: Int[Tensor, "b"]) -> Float[Tensor, "shells"]:
        total = torch.zeros(self.band.limit + 1)
        for half in (1, 2):
            mine = rows[state["half"][rows] == half]
            images, other = self.stack.images(mine, self.band), self._density(3 - half)
            total += strength(images, other, state["rotations"][mine], state["shifts"][mine], gaps[mine])
        return total / 2

    def _simulate(
        self,
        state: State,
        used: Int[Tensor, "n"],
        amplitude: Float[Tensor, "shells"],
        count: int,
        generator: torch.Generator,
    ) -> Seen:
        """What the search makes of projections of the mean of the half-maps, each shell times an amplitude.

        They have the views of particles, the shifts of others, and the noise that the present poses leave. Each takes
        the place of a particle: it has that one's transfer function, and the map decides on it that decides on that one.
        Nothing is known of its pose when it is searched.
        """
        mean = self.pair.mean
        truth = FourierVolume.from_volume(Volume(mean.data.to(self.stack.device), mean.voxel_size), self.band.limit)
        batches, truths = [], []
        for half, like, decisive in self.decisive(used[torch.randint(len(used), (count,), generator=generator)]):
            views, moves = used[torch.randint(len(used), (2, len(like)), generator=generator)]
            rotations, shifts = state["rotations"][views], state["shifts"][moves]
            images = simulated_images(
                self.stack.images(like, self.band), truth, rotations, shifts, amplitude, 1 / self.weight, generator
            )
            batches.append((half, decisive, images))
            truths.append(rotations)
        seen = []
        for (half, _, images), rotations, (contest, gap) in zip(batches, truths, self.search(batches), strict=True):
            error = symmetric_distance(contest.best[0], rotations, self.symmetry)
            strong = strength(images, self._density(3 - half), *contest.best, gap)
            seen.append(Seen(gap, error < RIGHT_WITHIN, strong))
        return Seen.of(seen)

    def _density(self, half: int) -> FourierVolume:
        return self.pair.density(half, self.band.limit, self.stack.device)


def strength(
    images: BandImages,
    density: FourierVolume,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    gap: Float[Tensor, "b"],
) -> Float[Tensor, "shells"]:
    """``Re<C Y, X_t>`` in each shell, the mean over images that count by how sure their poses are at face value."""
    model = images.transfer * density.project(rotations.to(images.transfer), images.band, images.frequency_matrix)
    data = images.centred(shifts).vectors
    sure = torch.sigmoid(gap).to(images.transfer)
    alike = (data.real * model.real + data.imag * model.imag).mul(sure[:, None]).sum(0) / sure.sum()
    return images.band.shell_mean(alike).cpu()


def simulated_images(
    like: BandImages,
    density: FourierVolume,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    amplitude: Float[Tensor, "shells"],
    noise: Float[Tensor, "m"],
    generator: torch.Generator,
) -> BandImages:
    """Images of a density, each shell times an amplitude, in these poses, with the transfer functions of others and noise
    of this power."""
    slices = density.project(rotations.to(like.transfer), like.band, like.frequency_matrix)
    transfer = like.transfer * like.band.at_shells(amplitude.to(like.transfer))
    model = transfer * slices * like.band.shift_phases(shifts.to(like.transfer))
    drawn = torch.randn(*model.shape, 2, generator=generator) * (0.5 * noise.cpu()).sqrt()[:, None]
    return BandImages(like.band, model + torch.view_as_complex(drawn).to(model), like.transfer, like.frequency_matrix)
