"""Tables of the half-maps are made once a stage, and anew where the maps are others."""

import torch

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.reconstruct.refinement import HalfMapStage
from hoarfrost.types import Optics


def test_a_density_is_kept_as_long_as_its_map(tmp_path, generator):
    optics = Optics.uniform(4, pixel_size=2.0)
    stack = BandStack(tmp_path / "bands", Band(24, 8), optics, 2.0, torch.ones(1, 9))
    stage = HalfMapStage(stack, 8, "C1")

    def state():
        maps = {f"a.{name}": torch.randn(20, 20, 20, generator=generator) for name in ("first", "second")}
        return maps | {"a.fsc": torch.ones(9)}

    before, after = state(), state()
    kept = stage.pair(before, "a").density(2, 8, stack.device)
    assert stage.pair(dict(before), "a").density(2, 8, stack.device) is kept
    other = stage.pair(after, "a").density(2, 8, stack.device)
    assert torch.equal(other.volume, after["a.second"])
    assert stage.pair(before, "a").density(1, 6, stack.device).grid.limit == 6
