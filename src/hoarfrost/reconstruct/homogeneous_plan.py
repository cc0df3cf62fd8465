"""A reconstruction made ready: the stages that read the images, fit densities to their sums and improve poses or contrast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.errors import InputError
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.optimise.loop import Stage, State
from hoarfrost.reconstruct.final_maps import SumHalfMaps
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.frames import JoinFrames
from hoarfrost.reconstruct.gaussian_fit import LEVELS, GaussianFit
from hoarfrost.reconstruct.gaussian_images import ImageRecipe, TrainOnImages, published
from hoarfrost.reconstruct.half_fits import ALL, CompareHalves, FitHalf, HalfSums
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.neural_fit import NeuralFit
from hoarfrost.reconstruct.prepare import Prepare
from hoarfrost.reconstruct.prologue import first_and_last_stage, furthest_shell, halves
from hoarfrost.reconstruct.refine_poses import RefinePoses
from hoarfrost.reconstruct.refined_optics import WithOptics
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.reconstruct.updates import FittedMaps, MeasureContrast
from hoarfrost.reconstruct.wiener import WienerFit
from hoarfrost.types import Optics, Particles, Volume

MARGIN = 1.05
"""The sphere that holds the density is larger than the particle by this factor."""


@dataclass(frozen=True)
class Plan:
    """A reconstruction made ready: the stages, and what they share."""

    particles: Particles
    config: ReconstructConfig
    fit: DensityFit
    setting: FitSetting
    prepare: Prepare
    maps: SumHalfMaps
    sums: HalfSums

    @property
    def stack(self) -> BandStack:
        """The transformed images, on which poses and contrast are measured."""
        return self.prepare.stack

    @property
    def stages(self) -> list[Stage]:
        """Everything from reading the images to the last fit."""
        if self.recipe is not None:
            compare = CompareHalves(self.sums, self.setting, 1)
            return [self.prepare, self._reading(1), compare, *(self._training(half) for half in (1, 2, ALL))]
        joined, epochs = self.fit.joined(), self.config.readings
        stages: list[Stage] = [self.prepare] if self.config.stored else []
        for epoch in range(1, epochs + 1):
            if epoch > 1:
                stages += self._updates(epoch - 1)
            stages.append(self._reading(epoch))
            # The last maps of some methods are made of the sums themselves.
            if epoch < epochs or joined is not None:
                stages += [
                    CompareHalves(self.sums, self.setting, epoch),
                    *(FitHalf(self.fit, self.sums, self.setting, half, epoch) for half in (1, 2)),
                ]
        if joined is not None:
            stages.append(FitHalf(joined, self.sums, self.setting, ALL, epochs))
        return stages

    @property
    def recipe(self) -> ImageRecipe | None:
        """How Gaussians are trained on images; None for fits to sums."""
        if self.config.preset == "default":
            return None
        recipe = published(self.particles.box) if self.config.preset == "published" else ImageRecipe()
        return replace(recipe, epochs=self.config.readings)

    def _training(self, half: int) -> Stage:
        recipe = self.recipe
        assert recipe is not None
        assert isinstance(self.fit, GaussianFit)
        return TrainOnImages(self.fit, recipe, self.stack, self.sums, self.setting, half)

    def _reading(self, epoch: int) -> Stage:
        maps = replace(self.maps, name=f"maps-{epoch}", title="Back-projecting the images")

        def seen(optics: Optics) -> SumHalfMaps:
            stack = replace(self.stack, optics=optics) if self.config.stored else None
            return replace(maps, particles=self.particles.replace(optics=optics), stack=stack)

        return WithOptics(self.particles.optics, seen)

    def _updates(self, epoch: int) -> list[Stage]:
        """What is measured against the densities of an epoch."""
        config, limit, symmetry = self.config, self.sums.grid.limit, self.config.symmetry
        source = FittedMaps(self.fit, self.setting)

        def maps(stack: BandStack) -> HalfMapStage:
            return HalfMapStage(stack, limit, symmetry, self.setting.mask, source)

        stages: list[Stage] = []
        if config.poses == "refine":
            stages += [
                self._seen(lambda stack: RefinePoses(maps(stack), config.iterations, f"poses-{epoch}")),
                self._seen(lambda stack: JoinFrames(stack, symmetry, name=f"join-{epoch}")),
            ]
        if config.contrast:
            stages.append(self._seen(lambda stack: MeasureContrast(maps(stack), epoch)))
        return stages

    def _seen(self, make: Callable[[BandStack], Stage]) -> Stage:
        """A stage that sees the images with the contrast found so far."""
        return WithOptics(self.stack.optics, lambda optics: make(replace(self.stack, optics=optics)))


def make_plan(
    particles: Particles,
    config: ReconstructConfig,
    workspace: Path,
    mask: Volume | None = None,
    device: torch.device = CPU,
) -> Plan:
    """Everything that is fixed before the first stage: band, noise, radii.

    Raises
    ------
    InputError
        If the particles have no poses.
    """
    if particles.poses is None:
        raise InputError("these particles have no poses: find them with 'hoarfrost abinit' or give a table with them")
    box, pixel_size = particles.box, particles.pixel_size
    limit = furthest_shell(particles, config.max_resolution)
    radius = 0.5 * config.diameter * MARGIN if config.diameter is not None else 0.46 * box * pixel_size
    prepare, maps = first_and_last_stage(
        particles,
        radius=radius,
        furthest=limit,
        stored=limit,
        invert=config.invert,
        workspace=workspace,
        device=device,
    )
    setting = FitSetting(
        box=box,
        voxel_size=pixel_size,
        radius=min(radius, 0.5 * box * pixel_size),
        seed=config.seed,
        fsc=torch.ones(limit + 1),
        mask=mask,
    )
    sums = HalfSums(maps.grid, config.symmetry, device)
    return Plan(particles, config, fit_of(config, maps.grid), setting, prepare, maps, sums)


def fit_of(config: ReconstructConfig, grid: SliceGrid) -> DensityFit:
    """The method asked for, with its settings."""
    if config.method == "gaussians":
        # On images there is one level, whose band grows by itself.
        levels = LEVELS[config.start] if config.preset == "default" else (1.0,)
        return GaussianFit(config.gaussians, config.anisotropic, config.start, levels)
    if config.method == "neural":
        return NeuralFit.showing(grid, config.passes)
    return WienerFit()


def first_state(plan: Plan) -> State:
    """Halves, and the poses of the table, in pixels."""
    particles, poses = plan.particles, plan.particles.poses
    assert poses is not None
    return {
        "half": halves(particles, plan.config.seed),
        "radius": torch.tensor(plan.setting.radius),
        "rotations": poses.rotations,
        "shifts": poses.shifts / particles.optics.pixel_size[:, None],
        "score": torch.zeros(len(particles)),
    }
