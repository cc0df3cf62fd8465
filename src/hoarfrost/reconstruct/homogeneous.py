"""Half-maps and a validated map of particles whose poses are known, by any method that fits a density to their sums.

One reading of the images makes the sums of their back-projection; a method (:mod:`hoarfrost.reconstruct.fits`) makes a
density of those of each half. Where poses or contrast are to be improved, that is done against the density of a
particle's own half, and the images are read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.verdict import Evidence, Verdict, judge
from hoarfrost.analysis.views import unseen_share
from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.errors import InputError
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.optimise.events import Listener, Message, listeners, silent
from hoarfrost.optimise.loop import CheckpointStore, Stage, State, run_stages
from hoarfrost.reconstruct.final_maps import FinalMaps, SumHalfMaps, validated_maps
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.frames import JoinFrames
from hoarfrost.reconstruct.gaussian_fit import LEVELS, GaussianFit
from hoarfrost.reconstruct.gaussian_images import ImageRecipe, TrainOnImages, published
from hoarfrost.reconstruct.half_fits import ALL, CompareHalves, FitHalf, HalfSums, setting_of, state_of
from hoarfrost.reconstruct.neural_fit import NeuralFit
from hoarfrost.reconstruct.prepare import Prepare
from hoarfrost.reconstruct.prologue import (
    StageTimes,
    first_and_last_stage,
    furthest_shell,
    halves,
    poses_of,
    say_what_is_missing,
    working_folder,
)
from hoarfrost.reconstruct.refined_optics import WithOptics, refined_optics
from hoarfrost.reconstruct.refinement import HalfMapStage, RefinePoses
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.reconstruct.updates import FittedMaps, MeasureContrast
from hoarfrost.reconstruct.wiener import WienerFit
from hoarfrost.representations.base import Density
from hoarfrost.types import HalfMaps, Optics, Particles, Volume

MARGIN = 1.05
"""The sphere that holds the density is larger than the particle by this factor."""


@dataclass(frozen=True)
class ReconstructResult:
    """Everything that a reconstruction found."""

    particles: Particles
    maps: FinalMaps
    noise: Float[Tensor, "groups shells"]
    diameter: float
    symmetry: str
    method: str
    epochs: int
    contrast: Float[Tensor, "n"] | None  # of each particle, 1 on average; None where it was not measured
    density: Density | None  # of all images, by methods whose density is more than the map
    timings: dict[str, float]

    @cached_property
    def evidence(self) -> Evidence:
        """What the verdict rests on."""
        poses = self.particles.poses
        return Evidence(
            particles=len(self.particles),
            diameter=self.diameter,
            fsc=self.maps.fsc,
            unseen=None if poses is None else unseen_share(poses.rotations, self.symmetry),
        )

    @property
    def verdict(self) -> Verdict:
        """What the figures of this result mean in plain words."""
        return judge(self.evidence)


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
                self._seen(lambda stack: JoinFrames(stack, min(32, limit), symmetry, name=f"join-{epoch}")),
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


def reconstruct(
    particles: Particles,
    config: ReconstructConfig | None = None,
    *,
    mask: Volume | None = None,
    workspace: Path | None = None,
    device: torch.device = CPU,
    store: CheckpointStore | None = None,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> ReconstructResult:
    """Reconstruct from the poses that the particles have; halves that they have are kept.

    Parameters
    ----------
    particles : Particles
        Images, optics and poses.
    config : ReconstructConfig, optional
        Settings.
    mask : Volume, optional
        Values in [0, 1] on the grid of the images: where density is sought, and where the half-maps are compared.
    workspace, device, store, listener, should_stop
        As for :func:`hoarfrost.reconstruct.ab_initio.ab_initio`.

    Raises
    ------
    InputError
        If the particles have no poses.
    """
    config = config or ReconstructConfig()
    times = StageTimes()
    say_what_is_missing(listener, device)
    with working_folder(workspace) as folder:
        plan = make_plan(particles, config, folder, mask, device)
        listen = listeners(times, listener)
        state = run_stages(plan.stages, first_state(plan), store=store, listener=listen, should_stop=should_stop)
    began = time.perf_counter()
    maps = finish(plan, state)
    times.seconds["validation"] = time.perf_counter() - began
    # Poses that were not touched stay as the table has them, with their confidence.
    poses = poses_of(state, particles) if config.poses == "refine" else particles.poses
    result = ReconstructResult(
        particles=particles.replace(optics=refined_optics(particles.optics, state), poses=poses, half=state["half"]),
        maps=maps,
        noise=plan.stack.noise,
        diameter=2 * plan.setting.radius,
        symmetry=config.symmetry,
        method=config.method,
        epochs=config.readings,
        contrast=state.get("contrast"),
        density=density_of(plan, state),
        timings=times.seconds,
    )
    for warning in result.verdict.warnings:
        listener(Message(warning, "warning"))
    return result


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


def density_of(plan: Plan, state: State) -> Density | None:
    """The density that a method fitted to all images; None for one that makes its map of the sums."""
    last = plan.fit.joined()
    return None if last is None else last.density(state_of(state, ALL), setting_of(plan.setting, state))


def finish(plan: Plan, state: State) -> FinalMaps:
    """Half-maps, mask, FSC and filtered map of the last sums and fits."""
    sums = plan.sums.of(state, 1), plan.sums.of(state, 2)
    setting = setting_of(plan.setting, state)
    half_maps = HalfMaps(*(plan.fit.half_map(own, setting, state_of(state, half)) for half, own in enumerate(sums, 1)))
    last = plan.fit.joined() or plan.fit
    return validated_maps(
        half_maps,
        lambda fsc: last.final_map(sums, setting, state_of(state, ALL), fsc).data,
        radius=plan.setting.radius,
        seed=plan.config.seed,
        mask=plan.setting.mask,
        limit=plan.sums.grid.limit,
    )
