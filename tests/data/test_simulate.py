"""Simulated stacks: what they state is what they hold."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hoarfrost.data.acquisition import Microscope, Noise, Views
from hoarfrost.data.simulate import (
    JUNK_COLUMN,
    SimulatedStack,
    simulate,
)
from hoarfrost.data.simulated_images import BLOBS, EMPTY, PARTICLE
from hoarfrost.errors import InputError
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.shells import radius_3d, shell_average
from hoarfrost.fourier.transforms import fourier_transform_3d
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.atoms import read_atoms
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.io.star import read_star
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.types import ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom

BOX, PIXEL = 48, 4.0
CLEAN = Noise(snr=math.inf)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def phantom(seed: int = 5) -> GaussianPhantom:
    return GaussianPhantom.random(25, 45.0, seeded(seed), sigma=7.0)


def stack_of(count: int = 64, seed: int = 1, **settings) -> SimulatedStack:
    settings = {"noise": Noise(0.1), "shift_px": 4.0, "models": phantom().volume(BOX, PIXEL)} | settings
    models = settings.pop("models")
    return simulate(models, count=count, box=BOX, pixel_size=PIXEL, generator=seeded(seed), **settings)


def images_of(stack: SimulatedStack) -> Tensor:
    return stack.truth.images.read(torch.arange(len(stack)))


def expected(stack: SimulatedStack, rows: Tensor, of: GaussianPhantom) -> Tensor:
    """Analytic projections with the true poses and shifts, passed through the true transfer functions."""
    truth = stack.truth[rows]
    assert truth.poses is not None
    band = Band.to_nyquist(BOX)
    images = of.project(truth.poses.rotations, truth.poses.shifts, BOX, PIXEL)
    ctf = contrast_transfer_function(truth.optics, band.frequency)
    at_zero = contrast_transfer_function(truth.optics, torch.zeros(1, 2).double())
    return band.to_images(band.from_images(images) * ctf) + at_zero[:, :, None] * images.mean((-2, -1), keepdim=True)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    first, second = (x.flatten(1) - x.flatten(1).mean(-1, keepdim=True) for x in (first.double(), second.double()))
    return (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))


# --- the image model -----------------------------------------------------------------------------------------------


def test_true_poses_shifts_and_optics_reproduce_the_images() -> None:
    stack = stack_of(40, noise=CLEAN, microscope=Microscope(b_factor=150.0, phase_shift=0.4))
    rows = torch.arange(40)
    images, truth = stack.truth.images.read(rows), expected(stack, rows, phantom())
    assert correlation(images, truth).min() > 0.9998
    # In absolute terms as well: the true map is scaled as the images are.
    scale = stack.volumes[0].data.sum() / phantom().volume(BOX, PIXEL).data.sum()
    torch.testing.assert_close(images.mean(), (truth * scale / PIXEL).mean().float(), rtol=1e-3, atol=0)
    assert ((images - truth * scale / PIXEL).std() / images.std()) < 0.02


def test_particles_lie_where_their_shift_says() -> None:
    """No CTF but a constant: the centre of mass of an image is the shift."""
    like = Particles(
        ImageArray(torch.zeros(2, BOX, BOX)),
        Optics.uniform(2, pixel_size=PIXEL, spherical_aberration=0.0, amplitude_contrast=1.0),
        Poses(torch.eye(3).double().expand(2, 3, 3), torch.tensor([[20.0, 0.0], [0.0, -12.0]]).double()),
    )
    centred = phantom()
    centred = GaussianPhantom(
        centred.centres - (centred.masses[:, None] * centred.centres).sum(0) / centred.masses.sum(),
        centred.sigmas,
        centred.masses,
    )
    stack = stack_of(2, noise=CLEAN, like=like, models=centred.volume(BOX, PIXEL))
    axis = (torch.arange(BOX) - BOX // 2) * PIXEL
    for image, shift in zip(images_of(stack), like.poses.shifts, strict=True):
        x = (image.sum(0) * axis).sum() / image.sum()
        y = (image.sum(1) * axis).sum() / image.sum()
        assert [float(x), float(y)] == pytest.approx(shift.tolist(), abs=0.05)


def test_underfocused_particles_are_bright_and_inverted_ones_dark() -> None:
    bright, dark = (images_of(stack_of(20, noise=CLEAN, shift_px=0.0, invert=flag)) for flag in (False, True))
    torch.testing.assert_close(bright, -dark)
    middle = slice(BOX // 2 - 8, BOX // 2 + 8)
    assert (bright[:, middle, middle].mean((-2, -1)) > bright.mean((-2, -1))).all()


def test_magnification_and_beam_tilt_of_a_table_are_applied() -> None:
    optics = Optics.uniform(1, pixel_size=PIXEL)
    optics = optics.replace(defocus_u=torch.tensor([12000.0]).double(), defocus_v=torch.tensor([12000.0]).double())
    pose = Poses(torch.eye(3)[None].double(), torch.zeros(1, 2).double())

    def image(optics: Optics) -> Tensor:
        like = Particles(ImageArray(torch.zeros(1, BOX, BOX)), optics, pose)
        return images_of(stack_of(1, noise=CLEAN, like=like))

    plain = image(optics)
    stretched = image(optics.replace(magnification=torch.tensor([[[1.03, 0.0], [0.0, 0.97]]]).double()))
    tilted = image(optics.replace(beam_tilt=torch.tensor([[60.0, 0.0]]).double()))
    assert correlation(plain, stretched) < 0.999
    assert correlation(plain, tilted) < 0.999


# --- signal and noise ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [1.0, 0.1, 0.02])
def test_the_signal_to_noise_ratio_is_as_stated(snr: float) -> None:
    noisy = stack_of(200, noise=Noise(snr))
    clean = noisy.truth.images.replace(noise=None)
    signal = clean.read(torch.arange(200)).double()
    noise = images_of(noisy).double() - signal
    assert signal.var(dim=(-2, -1), unbiased=False).mean() == pytest.approx(snr, rel=1e-4)
    assert noise.var() == pytest.approx(1.0, rel=0.01)
    assert noise.mean().abs() < 0.01


def test_a_sample_calibrates_a_large_stack_to_a_few_per_cent() -> None:
    stack = stack_of(2000, noise=Noise(0.1))
    signal = stack.truth.images.replace(noise=None).read(torch.arange(2000))
    assert signal.var(dim=(-2, -1)).mean() == pytest.approx(0.1, rel=0.03)


def test_noise_has_its_spectrum() -> None:
    band = Band.to_nyquist(BOX)
    for colour in ("white", "coloured"):
        noise = Noise(1.0, colour)
        stack = stack_of(200, noise=noise)
        rest = images_of(stack) - stack.truth.images.replace(noise=None).read(torch.arange(200))
        measured = band.shell_mean(band.from_images(rest).abs().square().mean(0))
        stated = noise.spectrum(BOX)
        assert stated is not None
        torch.testing.assert_close(measured[1:], stated[1 : len(measured)], rtol=0.15, atol=0)
        assert rest.var() == pytest.approx(1.0, rel=0.02)
    assert stated[1] > 4 * stated[20]


# --- randomness ----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_stack_and_another_another() -> None:
    first, again, other = stack_of(12, seed=3), stack_of(12, seed=3), stack_of(12, seed=4)
    assert torch.equal(images_of(first), images_of(again))
    assert torch.equal(first.truth.poses.rotations, again.truth.poses.rotations)
    assert correlation(images_of(first), images_of(other)).abs().max() < 0.3


def test_images_do_not_depend_on_how_they_are_asked_for() -> None:
    stack = stack_of(40, junk_fraction=0.2, noise=Noise(0.1, "coloured"))
    whole = images_of(stack)
    order = torch.randperm(40, generator=seeded())
    pieces = torch.cat([stack.truth.images.read(rows) for rows in order.split(7)])
    torch.testing.assert_close(pieces, whole[order], atol=2e-5, rtol=0)


def test_threads_do_not_change_the_images() -> None:
    stack = stack_of(60)
    alone = images_of(stack)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = images_of(stack)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_noise_differs_between_images() -> None:
    stack = stack_of(30)
    noise = (images_of(stack) - stack.truth.images.replace(noise=None).read(torch.arange(30))).flatten(1)
    matrix = torch.corrcoef(noise) - torch.eye(30)
    assert matrix.abs().max() < 5 / BOX


# --- views ---------------------------------------------------------------------------------------------------------


def test_uniform_views_are_uniform() -> None:
    directions = Views().draw(20000, seeded())[:, 2]
    assert directions.mean(0).abs().max() < 0.02
    second = directions.mT @ directions / len(directions)
    assert (second - torch.eye(3) / 3).abs().max() < 0.01


def test_in_plane_angles_are_uniform_for_preferred_views() -> None:
    rotations = Views(concentration=5.0).draw(20000, seeded())
    psi = torch.atan2(rotations[:, 1, 2], -rotations[:, 0, 2])
    assert torch.stack([psi.cos().mean(), psi.sin().mean()]).abs().max() < 0.03


@pytest.mark.parametrize(("concentration", "median"), [(2.0, 48.5), (10.0, 21.5), (200.0, 4.8)])
def test_preferred_views_lie_in_caps(concentration: float, median: float) -> None:
    directions = Views(concentration, axes=1).draw(20000, seeded())[:, 2]
    axis = directions.mean(0) / directions.mean(0).norm()
    degrees = (directions @ axis).clamp(-1, 1).acos().rad2deg()
    assert float(degrees.median()) == pytest.approx(median, rel=0.03)
    # The mean resultant of a von Mises-Fisher distribution.
    resultant = 1 / math.tanh(concentration) - 1 / concentration
    assert directions.mean(0).norm() == pytest.approx(resultant, abs=0.01)


def test_three_caps_share_the_views() -> None:
    directions = Views(200.0, axes=3).draw(3000, seeded(2))[:, 2]
    near = directions @ directions.mT > math.cos(math.radians(25))
    assert ((near.double().mean(-1) - 1 / 3).abs() < 0.05).all()


def test_tilts_stay_within_their_limits() -> None:
    side = Views(tilt=(math.pi / 2, math.pi / 2)).draw(500, seeded())
    assert side[:, 2, 2].abs().max() < 1e-12
    upper = Views(tilt=(0.0, math.pi / 2)).draw(5000, seeded())[:, 2, 2]
    assert upper.min() >= 0
    assert upper.mean() == pytest.approx(0.5, abs=0.02)


# --- optics --------------------------------------------------------------------------------------------------------


def test_optics_lie_in_their_ranges() -> None:
    microscope = Microscope(defocus=(9000.0, 12000.0), astigmatism=400.0, voltage=200.0, b_factor=80.0)
    optics = microscope.draw(5000, 1.5, seeded())
    mean, difference = 0.5 * (optics.defocus_u + optics.defocus_v), optics.defocus_u - optics.defocus_v
    assert 9000 <= mean.min() < 9050
    assert 11950 < mean.max() <= 12000
    assert difference.min() >= 0
    assert 390 < difference.max() <= 400
    assert 0 <= optics.defocus_angle.min() < optics.defocus_angle.max() <= math.pi
    assert (optics.voltage == 200).all()
    assert (optics.pixel_size == 1.5).all()


def test_the_envelope_is_known_to_the_truth_only() -> None:
    stack = stack_of(5, microscope=Microscope(b_factor=120.0))
    assert (stack.truth.optics.b_factor == 120).all()
    assert (stack.particles.optics.b_factor == 0).all()
    assert stack.particles.poses is None
    assert stack.particles.classes is None


# --- several models, junk, tables ------------------------------------------------------------------------------------


def test_several_models_come_with_their_weights_and_classes() -> None:
    phantoms = [phantom(5), phantom(6)]
    models = [each.volume(BOX, PIXEL) for each in phantoms]
    stack = stack_of(400, models=models, weights=[3.0, 1.0], noise=CLEAN)
    assert stack.truth.classes is not None
    share = (stack.truth.classes == 2).double().mean()
    assert share == pytest.approx(0.25, abs=0.07)
    images = images_of(stack)
    for number, each in enumerate(phantoms, start=1):
        rows = torch.nonzero(stack.truth.classes == number)[:10, 0]
        assert correlation(images[rows], expected(stack, rows, each)).min() > 0.999
        assert correlation(images[rows], expected(stack, rows, phantoms[2 - number])).max() < 0.999


def test_a_model_with_weight_zero_never_occurs() -> None:
    models = [phantom(5).volume(BOX, PIXEL), phantom(6).volume(BOX, PIXEL)]
    assert (stack_of(50, models=models, weights=[0.0, 1.0]).truth.classes == 2).all()


def test_many_models_share_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [phantom(seed).volume(BOX, PIXEL) for seed in range(4)]
    free = images_of(stack_of(24, models=models))
    monkeypatch.setattr("hoarfrost.data.simulated_images._TABLE_BYTES", 1.0)
    tight = stack_of(24, models=models)
    torch.testing.assert_close(images_of(tight), free, atol=2e-5, rtol=0)
    assert len(tight.truth.images._projectors) == 1


def test_junk_is_as_frequent_as_stated_and_shows_no_particle() -> None:
    stack = stack_of(100, junk_fraction=0.2, noise=Noise(1.0))
    assert int(stack.junk.sum()) == 20
    assert [int((stack.content == kind).sum()) for kind in (PARTICLE, EMPTY, BLOBS)] == [80, 10, 10]
    assert torch.equal(stack.truth.classes == 0, stack.junk)
    variance = images_of(stack).var(dim=(-2, -1))
    assert variance[stack.content == EMPTY].mean() == pytest.approx(1.0, abs=0.05)
    assert variance[stack.content == BLOBS].mean() == pytest.approx(2.0, abs=0.15)
    assert variance[stack.content == PARTICLE].mean() == pytest.approx(2.0, abs=0.15)
    rows = torch.nonzero(stack.junk)[:, 0]
    clean = stack.truth.images.replace(noise=None).read(rows[stack.content[rows] == BLOBS])
    assert correlation(clean, expected(stack, rows[stack.content[rows] == BLOBS], phantom())).max() < 0.95


def test_a_table_lends_its_poses_and_optics() -> None:
    count = 6
    optics = Microscope(astigmatism=900.0).draw(count, 1.3, seeded(9))
    optics = optics.replace(pixel_size=optics.pixel_size * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.02, 1.02]).double())
    poses = Poses(random_rotations(count, seeded(8)), 10 * torch.randn(count, 2, generator=seeded(7)).double())
    like = Particles(ImageArray(torch.zeros(count, 20, 20)), optics, poses)
    stack = stack_of(9, like=like)
    rows = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2])
    assert torch.equal(stack.truth.poses.rotations, poses.rotations[rows])
    assert torch.equal(stack.truth.poses.shifts, poses.shifts[rows])
    assert torch.equal(stack.truth.optics.defocus_u, optics.defocus_u[rows])
    assert stack.truth.pixel_size == pytest.approx(PIXEL)
    assert stack.truth.optics.pixel_size[4] == pytest.approx(1.02 * PIXEL)
    drawn = stack_of(9, like=like.replace(poses=None))
    assert not torch.equal(drawn.truth.poses.rotations, poses.rotations[rows])
    assert torch.equal(drawn.truth.optics.defocus_u, optics.defocus_u[rows])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1.0, 2.0]}, "2 weights for 1 models; one each is needed, none negative"),
        ({"junk_fraction": 1.0}, "a junk fraction of 1 is impossible; it is at least 0 and below 1"),
        (
            {"noise": Noise(0.0)},
            "a signal-to-noise ratio of 0 is impossible; it is above 0, or inf for no noise",
        ),
        (
            {"views": Views(concentration=2.0, tilt=(1.0, 2.0))},
            "preferred views have a concentration of at least 0, and then no limits on the tilt",
        ),
        ({"views": Views(tilt=(2.0, 1.0))}, "tilts lie between 0 and 180 degrees, the smaller first"),
        (
            {"models": Volume(torch.zeros(BOX, BOX, BOX), PIXEL)},
            "the model has no density inside the box; there is nothing to simulate",
        ),
        (
            {"microscope": Microscope(defocus=(2.5, 2.5), astigmatism=0.0)},
            "simulation: the largest defocus is 2.5 Å; defocus is expected in Å and looks like µm: "
            "multiply it by 10000",
        ),
        ({"models": []}, "a simulation needs at least one model and one image"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        stack_of(4, **settings)
    assert str(caught.value) == message


# --- files ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_was_simulated(tmp_path: Path) -> None:
    stack = stack_of(30, junk_fraction=0.1)
    told: list[int] = []
    table = stack.write(tmp_path / "stack", progress=told.append)
    assert told[-1] == 30
    assert sorted(path.name for path in table.parent.iterdir()) == [
        "particles.mrcs", "particles.star", "truth.mrc", "truth.star",
    ]  # fmt: skip
    blind, truth = read_particles(table), read_particles(table.parent / "truth.star")
    assert blind.poses is None
    assert blind.classes is None
    images = images_of(stack)
    torch.testing.assert_close(blind.images.read(torch.arange(30)), images, atol=2e-5, rtol=0)
    torch.testing.assert_close(truth.images.read(torch.arange(30)), images, atol=2e-5, rtol=0)
    torch.testing.assert_close(truth.poses.rotations, stack.truth.poses.rotations, atol=1e-9, rtol=0)
    torch.testing.assert_close(truth.poses.shifts, stack.truth.poses.shifts)
    assert torch.equal(truth.classes, stack.truth.classes)
    torch.testing.assert_close(truth.optics.defocus_angle, stack.truth.optics.defocus_angle)
    torch.testing.assert_close(blind.optics.defocus_u, stack.truth.optics.defocus_u)
    block = next(block for block in read_star(table.parent / "truth.star") if block.name == "particles")
    assert block.numbers(JUNK_COLUMN).astype(int).tolist() == stack.content.tolist()
    volume = read_map(table.parent / "truth.mrc")
    torch.testing.assert_close(volume.data, stack.volumes[0].data)
    assert volume.voxel_size == pytest.approx(PIXEL)


def test_the_junk_flag_outlives_another_writing(tmp_path: Path) -> None:
    stack_of(20, junk_fraction=0.2).write(tmp_path)
    write_particles(read_particles(tmp_path / "truth.star"), tmp_path / "again.star")
    flags = [read_star(tmp_path / name)[-1].numbers(JUNK_COLUMN).tolist() for name in ("truth.star", "again.star")]
    assert flags[0] == flags[1]
    assert sum(flag > 0 for flag in flags[0]) == 4


def test_several_maps_are_numbered(tmp_path: Path) -> None:
    models = [phantom(5).volume(BOX, PIXEL), phantom(6).volume(BOX, PIXEL)]
    stack_of(6, models=models).write(tmp_path)
    assert [(tmp_path / f"truth_{number}.mrc").exists() for number in (1, 2, 3)] == [True, True, False]
    assert not (tmp_path / "truth.mrc").exists()


def test_a_stack_in_memory_has_the_same_images() -> None:
    stack = stack_of(10)
    held = stack.in_memory()
    assert isinstance(held.particles.images, ImageArray)
    torch.testing.assert_close(held.truth.images.read(torch.arange(10)), images_of(stack), atol=2e-5, rtol=0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be made: File exists"):
        stack_of(2).write(tmp_path / "file")


# --- real tables and models ------------------------------------------------------------------------------------------


@pytest.mark.data
def test_six_optics_groups_are_simulated_with_their_pixel_sizes(shared_data: Path) -> None:
    like = read_particles(shared_data / "metadata" / "cryodrgn" / "relion31.6opticsgroups.star", require_images=False)
    stack = stack_of(139, like=like, noise=CLEAN)
    assert len(stack.truth.optics.pixel_size.unique()) == len(like.optics.pixel_size.unique())
    torch.testing.assert_close(stack.truth.poses.rotations, like.poses.rotations)
    assert images_of(stack).isfinite().all()


@pytest.mark.data
def test_conformations_keep_their_common_frame(shared_data: Path) -> None:
    """Frames are moved together, not each onto its own centre of mass."""
    states = [read_atoms(shared_data / "ensembles" / "adk" / f"adk_{name}.pdb") for name in ("open", "closed")]
    stack = simulate(states, count=4, box=48, pixel_size=2.5, generator=seeded())
    middle = (states[0].centre_of_mass + states[1].centre_of_mass) / 2
    axis = (torch.arange(48) - 24) * 2.5
    for state, volume in zip(states, stack.volumes, strict=True):
        density = volume.data.double() / volume.data.double().sum()
        centre = torch.stack([(density.sum(others) * axis).sum() for others in ((0, 1), (0, 2), (1, 2))])
        torch.testing.assert_close(centre, state.centre_of_mass - middle, atol=0.3, rtol=0)


@pytest.mark.relion
def test_relion_reconstructs_the_true_map_from_the_true_table(tmp_path: Path) -> None:
    """An outside program's word on poses, shifts, astigmatic CTF, their signs, and the absolute scale."""
    program = shutil.which("relion_reconstruct")
    if program is None:
        pytest.skip("RELION is not installed")
    stack = stack_of(1500, noise=Noise(2.0), microscope=Microscope(astigmatism=4000.0))
    stack.write(tmp_path)
    words = [program, "--i", "truth.star", "--ctf", "--o", "relion.mrc"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    theirs, ours = (fourier_transform_3d(read_map(tmp_path / name).data) for name in ("relion.mrc", "truth.mrc"))
    shells = radius_3d((BOX,) * 3, (BOX // 2,) * 3).round().long()
    product, first, second = (
        shell_average(values, shells, BOX // 4)
        for values in ((theirs * ours.conj()).real, theirs.abs().square(), ours.abs().square())
    )
    assert (product / (first * second).sqrt())[1:10].min() > 0.97
    assert (product / second)[1:10].median() == pytest.approx(1.0, abs=0.1)
