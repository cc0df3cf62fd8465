import math
from pathlib import Path

import pytest
import torch

from hoarfrost.analysis.fsc import fourier_shell_correlation, validate_half_maps
from hoarfrost.errors import InputError, Interrupted
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.io.checkpoint import Checkpoint
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.optimise.loop import run_stages
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.reconstruct.final_maps import finish_maps
from hoarfrost.reconstruct.homogeneous import reconstruct
from hoarfrost.reconstruct.homogeneous_plan import first_state, make_plan
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.types import HalfMaps, ImageArray, Optics, Particles, Poses
from phantoms import GaussianPhantom

BOX, PIXEL, COUNT = 36, 4.0, 600
SMALL = ReconstructConfig(diameter=125.0)


@pytest.fixture(scope="module")
def scene():
    """Particles of two optics groups whose pixel sizes differ by eight per cent."""
    generator = torch.Generator().manual_seed(9)
    phantom = GaussianPhantom.random(20, 45.0, generator, sigma=6.0)
    band = Band.to_nyquist(BOX)
    rotations = random_rotations(COUNT, generator)
    shifts = 10 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 5
    group = torch.arange(COUNT) % 2
    pixel = torch.where(group == 0, PIXEL, 1.08 * PIXEL).double()
    defocus = 8000 + 10000 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(COUNT, pixel_size=PIXEL).replace(
        defocus_u=defocus, defocus_v=defocus, pixel_size=pixel, group=group
    )
    vectors = torch.empty(COUNT, len(band), dtype=torch.complex128)
    for number, size in enumerate((PIXEL, 1.08 * PIXEL)):
        mine = group == number
        vectors[mine] = band.from_images(phantom.project(rotations[mine], shifts[mine], BOX, size)) * size**2
    images = band.to_images(vectors * contrast_transfer_function(optics, band.frequency)).float()
    images = images / images.std() + torch.randn(images.shape, generator=generator) / math.sqrt(2.0)
    return Particles(ImageArray(images), optics, Poses(rotations, shifts)), phantom


def test_known_poses_give_the_map(scene):
    particles, phantom = scene
    maps = reconstruct(particles, SMALL).maps
    fsc = fourier_shell_correlation(maps.map, phantom.volume(BOX, particles.pixel_size))
    assert fsc[1:10].min() > 0.9
    assert maps.fsc.resolution(0.143) < 14


def test_each_particle_counts_at_its_own_pixel_size(scene):
    particles, phantom = scene
    collapsed = particles.replace(optics=particles.optics.replace(pixel_size=torch.full((COUNT,), PIXEL).double()))
    truth = phantom.volume(BOX, particles.pixel_size)
    own = fourier_shell_correlation(reconstruct(particles, SMALL).maps.map, truth)
    same = fourier_shell_correlation(reconstruct(collapsed, SMALL).maps.map, truth)
    assert own[4:11].mean() > same[4:11].mean() + 0.02


def test_particles_without_poses_are_refused(scene):
    particles, _ = scene
    with pytest.raises(InputError, match="no poses"):
        reconstruct(particles.replace(poses=None))


def test_back_projection_gives_the_maps_that_its_sums_give(scene):
    particles, _ = scene
    plan = make_plan(particles, SMALL, Path("nowhere"))
    state = run_stages(plan.stages, first_state(plan))
    setting = {"voxel_size": PIXEL, "radius": plan.setting.radius, "symmetry": "C1", "seed": 0}
    expected = finish_maps((state["sums.1"], state["sums.2"]), plan.sums.grid, **setting)
    found = reconstruct(particles, SMALL).maps
    torch.testing.assert_close(found.map.data, expected.map.data, rtol=0, atol=0)
    torch.testing.assert_close(found.half_maps.second.data, expected.half_maps.second.data, rtol=0, atol=0)


def test_half_maps_hold_nothing_beyond_the_images_used(scene, tmp_path):
    # 15 shells are possible; the gridding would leave traces in the further ones, alike in both halves.
    particles, _ = scene
    maps = reconstruct(particles, SMALL.model_copy(update={"max_resolution": 16.0})).maps
    last = int(BOX * particles.pixel_size / 16.0)
    for name, volume in (("half1", maps.half_maps.first), ("half2", maps.half_maps.second), ("mask", maps.mask)):
        write_map(tmp_path / f"{name}.mrc", volume)
    first, second, mask = (read_map(tmp_path / f"{name}.mrc") for name in ("half1", "half2", "mask"))
    assert float(maps.fsc.corrected[1 : last + 1].min()) > 0.3
    assert float(fourier_shell_correlation(first, second)[last + 1 :].abs().max()) == 0.0
    again = validate_half_maps(HalfMaps(first, second), mask, SMALL.seed)
    torch.testing.assert_close(again.corrected, maps.fsc.corrected, rtol=0, atol=1e-4)


def test_a_half_is_fitted_without_the_other(scene):
    particles, _ = scene
    plan = make_plan(particles, SMALL.model_copy(update={"epochs": 2}), Path("nowhere"))
    stages = {stage.name: stage for stage in plan.stages}
    state = run_stages([stages["maps-1"], stages["compare-1"]], first_state(plan))
    other = state | {"sums.2": state["sums.2"].flip(0)}
    fit, later = stages["fit-1-1"], stages["fit-1-2"]
    one, two = (fit.run(which, 0)[0]["fit.1.volume"] for which in (state, other))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    one, two = (later.run(which, 0)[0]["fit.2.volume"] for which in (state, other))
    assert (one - two).norm() > 0.5 * one.norm()


def test_contrast_is_found_and_sharpens_the_map(scene, generator):
    particles, phantom = scene
    scale = 0.2 + 0.8 * torch.rand(COUNT, generator=generator)
    noise = torch.randn(COUNT, BOX, BOX, generator=generator) / math.sqrt(2.0)
    images = particles.images.data * scale[:, None, None] + (1 - scale.square()).sqrt()[:, None, None] * noise
    uneven = particles.replace(images=ImageArray(images))
    plain = reconstruct(uneven, SMALL)
    found = reconstruct(uneven, SMALL.model_copy(update={"contrast": True}))
    assert found.epochs == 2
    assert found.contrast.mean() == pytest.approx(1.0, abs=1e-3)
    assert torch.corrcoef(torch.stack([found.contrast, scale]))[0, 1] > 0.9
    truth = phantom.volume(BOX, particles.pixel_size)
    better, worse = (fourier_shell_correlation(one.maps.map, truth)[4:14].mean() for one in (found, plain))
    assert better > worse


def test_poses_are_refined_and_a_stopped_run_goes_on_exactly(scene, generator, tmp_path):
    particles, _ = scene
    turns = 0.06 * torch.randn(COUNT, 3, generator=generator, dtype=torch.float64)
    truth = particles.poses
    off = particles.replace(poses=Poses(truth.rotations @ rotation_vector_to_matrix(turns), truth.shifts))
    config = SMALL.model_copy(update={"poses": "refine", "contrast": True, "epochs": 3})
    whole = reconstruct(off, config)
    before, after = (geodesic_distance(one.poses.rotations, truth.rotations).median() for one in (off, whole.particles))
    assert after < 0.6 * before

    store, asked = Checkpoint(tmp_path / "cache", "one"), []

    def stop():
        asked.append(1)
        return len(asked) > 9

    with pytest.raises(Interrupted):
        reconstruct(off, config, workspace=tmp_path, store=store, should_stop=stop)
    resumed = reconstruct(off, config, workspace=tmp_path, store=store)
    torch.testing.assert_close(resumed.particles.poses.rotations, whole.particles.poses.rotations, rtol=0, atol=0)
    torch.testing.assert_close(resumed.contrast, whole.contrast, rtol=0, atol=0)
    torch.testing.assert_close(resumed.maps.map.data, whole.maps.map.data, rtol=0, atol=0)
