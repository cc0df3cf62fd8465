"""Gaussians trained image by image, by stochastic descent: slower than on sums, and as the field does it.

CryoSplat's recipe (arXiv 2508.04929) is one of the two here: one image a step, mean squared differences, one rate that
falls tenfold every epoch. The other takes small batches, whitened, with the contrast of every particle in closed form,
a band that grows, and averages the Gaussians of the last steps. On sums (:mod:`hoarfrost.reconstruct.gaussian_fit`) the
same likelihood is climbed with the gradient of all images at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages, BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.adam import Adam, Named, cosine_decay, warm_up
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.fits import FitSetting
from hoarfrost.reconstruct.gaussian_fit import (
    RATES,
    REMEMBERED,
    WARM_UP,
    GaussianFit,
    as_state,
    moments_of,
    parameters_of,
    raw_gradients,
)
from hoarfrost.reconstruct.half_fits import ALL, HalfSums, put_state, setting_of, state_of
from hoarfrost.representations.gaussian_parameters import GaussianParameters
from hoarfrost.representations.gaussians import GaussianDensity

IMAGES_A_STEP = 256

LAST_RATE = 0.1
"""Share of the rates that is left at the end of a training with small batches."""


@dataclass(frozen=True)
class ImageRecipe:
    """How Gaussians are trained on images."""

    batch: int = 32
    epochs: int = 5
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)  # as of fits to sums; centres in pixels
    remembered: float = REMEMBERED
    warm_up: int = WARM_UP  # steps
    decade_an_epoch: bool = False  # rates fall tenfold every epoch, or as a cosine
    whitened: bool = True  # differences weigh by the noise of their frequency, or all alike
    scaled: bool = True  # each particle has the contrast that fits best
    first_band: float = 0.5  # share of the band at the start; it is whole from the middle on
    averaging: float = 0.9  # what the running mean of the Gaussians keeps of itself in a step


def published(box: int) -> ImageRecipe:
    """The recipe of CryoSplat: a thousandth of the box a step for the centres, of one for everything else."""
    return ImageRecipe(
        batch=1,
        rates=dict.fromkeys(RATES, 1e-3) | {"centres": 1e-3 * box},
        remembered=0.99,
        warm_up=1,
        decade_an_epoch=True,
        whitened=False,
        scaled=False,
        first_band=1.0,
        averaging=0.0,
    )


@dataclass(frozen=True)
class TrainOnImages:
    """Train the Gaussians of one half (or of all images) on its images, in an order drawn anew every epoch."""

    fit: GaussianFit
    recipe: ImageRecipe
    stack: BandStack
    sums: HalfSums
    setting: FitSetting
    half: int

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return "train-all" if self.half == ALL else f"train-{self.half}"

    @property
    def title(self) -> str:
        """What people read."""
        return "Training Gaussians on " + ("all images" if self.half == ALL else f"the images of half {self.half}")

    @property
    def steps(self) -> int:
        """As many in every epoch for a half as for all images, with half as many images each."""
        return self.recipe.epochs * self._chunks

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Train on one chunk."""
        sums, setting = self.sums.of(state, self.half), setting_of(self.setting, state)
        own = self.fit.begin(sums, setting, None) if step == 0 else state_of(state, self.half)
        epoch, part = divmod(step, self._chunks)
        members = (state["half"] == self.half).nonzero()[:, 0] if self.half != ALL else torch.arange(len(self.stack))
        order = torch.Generator().manual_seed(1000 * (setting.seed + 1) + 10 * epoch + self.half)
        rows = members[torch.randperm(len(members), generator=order)][part :: self._chunks]
        own, figures = self._train(own, state, rows, step / self.steps, epoch)
        return put_state(state, self.half, own), figures

    def _train(
        self, own: State, state: State, rows: Int[Tensor, "n"], progress: float, epoch: int
    ) -> tuple[State, Mapping[str, float]]:
        recipe, parameters = self.recipe, parameters_of(own, self.setting)
        limit = self.stack.band.limit
        share = recipe.first_band + (1 - recipe.first_band) * min(1.0, 2 * progress)
        band = Band(self.stack.band.box, max(min(limit, 4), round(share * limit)))
        centres = {"centres": recipe.rates["centres"] * self.setting.voxel_size}
        adam = Adam({**recipe.rates} | centres, second=recipe.remembered)
        moments = moments_of(own) or adam.begin(parameters.tensors())
        mean = {key: own.get(f"mean.{key}", value) for key, value in parameters.tensors().items()}
        count, loss = int(own.get("moved", torch.tensor(0))), float("nan")
        scale = 0.1**epoch if recipe.decade_an_epoch else cosine_decay(progress, LAST_RATE)
        for batch in rows.split(recipe.batch):
            gradients, loss = self._gradients(parameters, state, batch, band)
            rate = scale * warm_up(count, recipe.warm_up)
            tensors, moments = adam.step(parameters.tensors(), gradients, moments, count, rate)
            parameters, count = parameters.with_tensors(tensors), count + 1
            mean = {key: value.lerp(mean[key], recipe.averaging) for key, value in tensors.items()}
        own = as_state(parameters, own) | moments | {f"mean.{key}": value for key, value in mean.items()}
        return own | {"moved": torch.tensor(count)}, {"loss": loss, "band": float(band.limit)}

    def _gradients(
        self, parameters: GaussianParameters, state: State, rows: Int[Tensor, "b"], band: Band
    ) -> tuple[Named, float]:
        images = self.stack.images(rows, band).centred(state["shifts"][rows])
        rotations = state["rotations"][rows].float()

        def loss(density: GaussianDensity) -> Tensor:
            model = images.transfer * density.project(rotations, band, images.frequency_matrix)
            return self._loss(images, model, rows)

        return raw_gradients(parameters, loss)

    def _loss(self, images: BandImages, model: Tensor, rows: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        """Mean squared difference of a coefficient, in units of its noise or of the image."""
        if self.recipe.scaled:
            fixed = model.detach()
            power = fixed.abs().square().sum(-1)
            cross = (fixed.real * images.vectors.real + fixed.imag * images.vectors.imag).sum(-1)
            # At the best scale its derivative is zero, so that none is needed.
            scale = torch.where(power > 0, cross / power.clamp(min=1e-30), torch.ones_like(power)).clamp(0.2, 5.0)
            model = model * scale[:, None]
        difference = (images.vectors - model).abs().square()
        if not self.recipe.whitened:
            noise = self.stack.noise if len(self.stack.noise) == 1 else self.stack.noise[self.stack.optics.group[rows]]
            difference = difference * images.band.at_shells(noise.to(difference))
        return difference.mean()

    @property
    def _chunks(self) -> int:
        return math.ceil(len(self.stack) / IMAGES_A_STEP)
