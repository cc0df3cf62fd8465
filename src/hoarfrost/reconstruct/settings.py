"""The settings of runs, and the presets that most users need to know."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hoarfrost.errors import InputError

Preset = Literal["fast", "default", "careful"]


class RunConfig(BaseModel):
    """What every run on images may be told. Lengths in Å."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symmetry: str = "C1"
    diameter: float | None = Field(default=None, gt=0, description="particle diameter in Å; estimated where not given")
    max_resolution: float | None = Field(default=None, gt=0, description="Å; poses and maps go no further")
    invert: bool = False
    seed: int = 0


class AbInitioConfig(RunConfig):
    """Settings of an ab initio run. Lengths in Å, the band in Fourier pixels of the image."""

    preset: Preset = "default"
    classes: int = Field(1, ge=1, le=8, description="maps among which the particles are divided")
    divisions: int = Field(3, ge=1, description="divisions into classes from random weights, of which the best is kept")
    starts: int = Field(3, ge=1, description="maps from random poses, all but two of them made only if need be")
    settled: float = Field(0.95, ge=0, le=1, description="agreement of the first two starts that needs no third")
    further_starts: int = Field(2, ge=0, description="made only if no two of the first agree")
    start_steps: int = Field(40, ge=4)
    further_slower: int = Field(
        16, ge=2, description="how many times as many steps further starts take, of half as many images"
    )
    start_batch: int = Field(500, ge=10)
    start_limit: int = Field(14, ge=6)
    half_steps: int = Field(12, ge=2, description="steps in which each half grows its own map from the common one")
    shift_extent: float = Field(0.075, ge=0, lt=0.5, description="largest shift searched, share of the box")
    shift_count: int = Field(7, ge=1)
    levels: tuple[int, ...] = (12, 16, 24, 32)
    iterations: int = Field(2, ge=1)
    rivals: int = Field(3, ge=0, description="other optima tried for every particle; 0 leaves out the second search")
    junk: bool = Field(True, description="look for images without a particle")
    map_limit: int | None = Field(None, ge=6, description="last shell of the maps; that of the images where not given")

    @classmethod
    def from_preset(cls, preset: Preset = "default", **changes: object) -> AbInitioConfig:
        """The settings of a preset, some of them changed."""
        return cls.model_validate({"preset": preset} | _PRESETS[preset] | changes)


_PRESETS: dict[Preset, dict[str, object]] = {
    "fast": {
        "starts": 2,
        "start_steps": 30,
        "start_limit": 12,
        "half_steps": 8,
        "levels": (12, 16),
        "rivals": 0,
        "junk": False,
        "map_limit": 32,
    },
    "default": {},
    "careful": {
        "starts": 6,
        "settled": 1.0,
        "further_starts": 4,
        "start_steps": 60,
        "levels": (12, 16, 24, 32, 48),
        "iterations": 3,
        "rivals": 5,
    },
}


class RefineConfig(RunConfig):
    """Settings of a refinement. Lengths in Å, angles in degrees."""

    preset: Preset = "default"
    low_pass: float = Field(40.0, gt=0, description="Å; the part of the given map that both halves begin with")
    search: Literal["auto", "global", "local"] = "auto"
    defocus: Literal["none", "group", "particle"] = Field("none", description="whose defocus is refined")
    contrast: bool = Field(False, description="measure how strongly each particle shows")
    b_factor: float | None = Field(None, description="Å^2; of the sharpened map, estimated where not given")
    shift_extent: float = Field(0.075, ge=0, lt=0.5, description="largest shift searched, share of the box")
    shift_count: int = Field(7, ge=1)
    spacings: tuple[float, ...] = (7.5, 7.5, 3.75, 3.75, 1.9, 1.9)
    soft_below: int = Field(5000, ge=0, description="stacks of fewer particles are assigned softly")
    rounds: int = Field(8, ge=1, description="rounds of refinement at most")
    iterations: int = Field(3, ge=1)
    rivals: int = Field(3, ge=0, description="other optima tried for every particle of a global search")

    @classmethod
    def from_preset(cls, preset: Preset = "default", **changes: object) -> RefineConfig:
        """The settings of a preset, some of them changed."""
        return cls.model_validate({"preset": preset} | _REFINE_PRESETS[preset] | changes)


_REFINE_PRESETS: dict[Preset, dict[str, object]] = {
    "fast": {"rounds": 4, "spacings": (7.5, 3.75, 1.9)},
    "default": {},
    "careful": {
        "rounds": 14,
        "iterations": 4,
        "rivals": 5,
        "soft_below": 20000,
        "spacings": (7.5, 7.5, 3.75, 3.75, 1.9, 1.9, 0.95),
    },
}


Method = Literal["backprojection", "gaussians", "neural"]


class ReconstructConfig(RunConfig):
    """Settings of a reconstruction from known poses."""

    method: Method = "backprojection"
    poses: Literal["fixed", "refine"] = "fixed"
    contrast: bool = Field(default=False, description="measure how strongly each particle shows")
    epochs: int | None = Field(
        default=None,
        ge=1,
        description="readings of the images into maps; where not given as many as the rest calls for",
    )
    iterations: int = Field(default=3, ge=1, description="Gauss-Newton steps of a pose between two readings")
    gaussians: int | None = Field(
        default=None, ge=8, description="Gaussians of a mixture; by the particle's volume where not given"
    )
    anisotropic: bool = Field(default=True, description="Gaussians have axes of their own")
    start: Literal["density", "random"] = Field(
        default="density", description="Gaussians are drawn from each half's own density, or know only its size"
    )
    preset: Literal["default", "images", "published"] = Field(
        default="default", description="Gaussians are fitted to sums, or trained on images, in batches or one by one"
    )
    passes: float = Field(
        default=5.0, gt=0, description="how often a network is shown every node of the sums, on average"
    )

    @property
    def readings(self) -> int:
        """How often the images are read: into sums, or in training."""
        if self.epochs is not None:
            return self.epochs
        return 5 if self.poses == "refine" or self.preset != "default" else 2 if self.contrast else 1

    @property
    def stored(self) -> bool:
        """Whether the transformed images are stored: for training, and for what is measured between readings."""
        return self.preset != "default" or ((self.poses == "refine" or self.contrast) and self.readings > 1)

    @model_validator(mode="after")
    def _on_images_alone(self) -> ReconstructConfig:
        alone = self.method == "gaussians" and self.poses == "fixed" and not self.contrast
        if self.preset != "default" and not alone:
            raise InputError(
                f"--preset {self.preset} trains Gaussians on images at the poses that they have: "
                "it goes with --method gaussians, and without --contrast or --poses refine"
            )
        return self
