"""One short test for every line of ``docs/conventions.md``, in its order, against phantoms with known transforms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.analysis.alignment import align_rotations, fit_origin
from hoarfrost.analysis.fsc import HalfMapFSC, first_crossing, fourier_shell_correlation, validate_half_maps
from hoarfrost.analysis.postprocess import flip
from hoarfrost.data.acquisition import Noise
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.dataset import Normalisation, whitened_images
from hoarfrost.data.preflight import inspect
from hoarfrost.data.simulate import simulate
from hoarfrost.fourier import transforms
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import euler_to_matrix, mirror, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.io.mrc import read_map, write_map, write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.physics.aberrations import antisymmetric_phase, electron_wavelength, zernike
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import HalfMaps, ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom

BOX, PIXEL = 32, 3.0
S = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def spot(x: float, y: float, z: float, sigma: float = 6.0) -> GaussianPhantom:
    """One Gaussian of mass 1 at a place in Å."""
    return GaussianPhantom(torch.tensor([[x, y, z]]).double(), torch.tensor([sigma]).double(), torch.ones(1).double())


def cloud(generator: torch.Generator) -> GaussianPhantom:
    return GaussianPhantom.random(15, 25.0, generator, sigma=6.0)


def transform_of(phantom: GaussianPhantom, frequency: Tensor) -> Tensor:
    """The continuous transform of a phantom at frequencies (..., 3) in 1/Å."""
    phase = torch.polar(torch.ones(()).double(), -2 * math.pi * frequency @ phantom.centres.T)
    width = torch.exp(-2 * (math.pi * phantom.sigmas) ** 2 * frequency.square().sum(-1, keepdim=True))
    return (phantom.masses * width * phase).sum(-1)


def centre_of_mass(image: Tensor) -> tuple[float, float]:
    """(x, y) in pixels from the pixel floor(D/2)."""
    axis = torch.arange(image.shape[-1]).double() - image.shape[-1] // 2
    return float((image.sum(0) * axis).sum() / image.sum()), float((image.sum(1) * axis).sum() / image.sum())


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().square().sum().sqrt() / expected.abs().square().sum().sqrt())


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(folder: Path, text: str, count: int = 2, header_size: float = 1.0) -> Particles:
    """Particles of a STAR file that lies beside a blank stack ``s.mrcs``."""
    write_stack(folder / "s.mrcs", [torch.zeros(count, 8, 8)], count=count, box=8, pixel_size=header_size)
    (folder / "t.star").write_text(text)
    return read_particles(folder / "t.star")


def posed(folder: Path, poses: Poses, half: Tensor | None = None) -> Particles:
    """Particles with poses whose images lie in a file."""
    stack = folder / "s.mrcs"
    write_stack(stack, [torch.zeros(len(poses), 8, 8)], count=len(poses), box=8, pixel_size=PIXEL)
    return read_particles(stack).replace(poses=poses, half=half, optics=Optics.uniform(len(poses), pixel_size=PIXEL))


def columns_of(path: Path) -> dict[str, list[str]]:
    """The columns of the last table of a STAR file, as text."""
    lines = path.read_text().split("loop_")[-1].splitlines()
    names = [line.split()[0][1:] for line in lines if line.startswith("_")]
    rows = [line.split() for line in lines if line.strip() and not line.startswith("_")]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


# --- arrays and coordinates ------------------------------------------------------------------------------------------


def test_volumes_are_zyx_images_yx_and_coordinates_xyz() -> None:
    phantom = spot(6.0, -9.0, 12.0)
    volume = FourierVolume.from_volume(phantom.volume(BOX, PIXEL), 12)
    peak = np.unravel_index(int(volume.volume.argmax()), (BOX,) * 3)
    assert [int(i) - BOX // 2 for i in peak] == [4, -3, 2]
    band = Band(BOX, 12)
    image = band.to_images(volume.project(torch.eye(3)[None], band))[0]
    assert np.unravel_index(int(image.argmax()), image.shape) == (BOX // 2 - 3, BOX // 2 + 2)


@pytest.mark.parametrize("box", [16, 17])
def test_the_origin_is_pixel_half_the_box_rounded_down(box: int) -> None:
    volume = spot(0, 0, 0).volume(box, PIXEL)
    assert int(volume.data.argmax()) == (box // 2) * (box * box + box + 1)
    assert transforms.fourier_transform_3d(volume.data.double()).imag.abs().max() < 1e-12
    assert torch.equal(flip(volume).data, volume.data)


def test_pixel_sizes_come_from_the_table_and_not_from_the_stack(tmp_path: Path) -> None:
    text = "data_\nloop_\n_rlnImageName\n_rlnImagePixelSize\n1@s.mrcs 2.5\n2@s.mrcs 2.5\n"
    assert table(tmp_path, text, header_size=9.9).pixel_size == 2.5


def test_angles_are_radians_inside_and_degrees_in_files(tmp_path: Path) -> None:
    angles = torch.tensor([[0.1, 0.7, -0.4]], dtype=torch.float64)
    write_particles(posed(tmp_path, Poses(euler_to_matrix(angles), torch.zeros(1, 2).double())), tmp_path / "o.star")
    written = columns_of(tmp_path / "o.star")
    degrees = [float(written[f"rlnAngle{name}"][0]) for name in ("Rot", "Tilt", "Psi")]
    assert degrees == pytest.approx(angles[0].rad2deg().tolist(), abs=1e-9)


def test_a_projection_is_the_sum_of_voxels() -> None:
    volume = spot(3.0, 0.0, -6.0).volume(BOX, PIXEL)
    band = Band.to_nyquist(BOX)
    image = band.to_images(FourierVolume.from_volume(volume, band.limit).project(torch.eye(3)[None], band))[0]
    expected = volume.data.sum(0)
    assert relative(image - image.mean(), expected - expected.mean()) < 0.02


def test_letters_in_shapes_are_checked() -> None:
    with pytest.raises(Exception, match="Type-check error"):
        Poses(torch.eye(3).expand(4, 3, 3), torch.zeros(3, 2))


# --- rotations -------------------------------------------------------------------------------------------------------


def test_a_rotation_takes_object_to_image_coordinates(generator: torch.Generator) -> None:
    place = torch.tensor([12.0, -6.0, 9.0], dtype=torch.float64)
    volume = FourierVolume.from_volume(spot(*place.tolist(), sigma=5.0).volume(BOX, PIXEL), 15)
    band, rotations = Band(BOX, 15), random_rotations(5, generator)
    for image, (x, y, _) in zip(band.to_images(volume.project(rotations, band)), rotations @ place, strict=True):
        bright = (image - image.amin()).double().square().square()
        assert centre_of_mass(bright) == pytest.approx((float(x) / PIXEL, float(y) / PIXEL), abs=0.05)


def test_the_matrix_is_relions() -> None:
    rot, tilt, psi = 0.3, 1.1, -0.7
    (ca, cb, cg), (sa, sb, sg) = ([f(a) for a in (rot, tilt, psi)] for f in (math.cos, math.sin))
    expected = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    matrix = euler_to_matrix(torch.tensor([rot, tilt, psi], dtype=torch.float64))
    torch.testing.assert_close(matrix, torch.tensor(expected, dtype=torch.float64))


def test_a_projection_integrates_the_turned_density_along_z(generator: torch.Generator) -> None:
    phantom, rotation = cloud(generator), random_rotations(1, generator)[0]
    axis = (torch.arange(BOX).double() - BOX // 2) * PIXEL
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    place = torch.stack([x, y, z], dim=-1) @ rotation  # R^T (x, y, z)
    distance = (place[..., None, :] - phantom.centres).square().sum(-1)
    height = phantom.masses / (2 * math.pi * phantom.sigmas**2) ** 1.5
    expected = (height * torch.exp(-0.5 * distance / phantom.sigmas**2)).sum(-1).sum(0)
    band = Band.to_nyquist(BOX)
    volume = FourierVolume.from_volume(phantom.volume(BOX, PIXEL), band.limit)
    image = band.to_images(volume.project(rotation[None], band))[0]
    assert relative(image - image.mean(), expected - expected.mean()) < 0.03


def test_its_transform_is_the_slice_through_the_transform(generator: torch.Generator) -> None:
    phantom, rotations, band = cloud(generator), random_rotations(3, generator), Band(BOX, 12)
    slices = FourierVolume.from_volume(phantom.volume(BOX, PIXEL), 12).project(rotations, band)
    k = torch.cat([band.k.double(), torch.zeros(len(band), 1).double()], dim=-1) / (BOX * PIXEL)
    expected = transform_of(phantom, k @ rotations)  # R^T (kx, ky, 0)
    assert relative(slices, expected / (BOX * PIXEL**3)) < 0.03


def test_cryosparc_stores_the_rotation_vector_of_the_transpose(tmp_path: Path, generator: torch.Generator) -> None:
    rotations = random_rotations(4, generator)
    write_particles(posed(tmp_path, Poses(rotations, torch.zeros(4, 2).double())), tmp_path / "o.cs")
    vectors = torch.tensor(np.load(tmp_path / "o.cs")["alignments3D/pose"].tolist()).double()
    torch.testing.assert_close(rotation_vector_to_matrix(vectors), rotations.mT, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["C3", "D2"])
def test_symmetric_poses_give_the_same_image(name: str, generator: torch.Generator) -> None:
    group, one = point_group(name), cloud(generator)
    copies = GaussianPhantom(
        (one.centres @ group.mT).flatten(0, 1), one.sigmas.repeat(len(group)), one.masses.repeat(len(group))
    )
    rotation, shifts = random_rotations(1, generator)[0], torch.zeros(len(group), 2).double()
    images = copies.project(rotation @ group, shifts, 16, 5.0)
    torch.testing.assert_close(images, images[:1].expand_as(images))
    z = column(0, 0, 1)
    assert ((group @ z - z).norm(dim=-1) < 1e-9).sum() == (3 if name == "C3" else 2)
    if name == "D2":
        assert any(torch.allclose(g, torch.diag(column(1, -1, -1)), atol=1e-9) for g in group)


# --- shifts ----------------------------------------------------------------------------------------------------------


def test_a_shift_is_where_the_particle_sits() -> None:
    band = Band(BOX, 15)
    centred = spot(0, 0, 0).project(torch.eye(3)[None], torch.zeros(1, 2), BOX, PIXEL)
    moved = band.to_images(band.from_images(centred) * band.shift_phases(column(4.0, -2.5)[None]))[0]
    expected = spot(0, 0, 0).project(torch.eye(3)[None], column(12.0, -7.5)[None], BOX, PIXEL)[0]
    assert relative(moved - moved.mean(), expected - expected.mean()) < 1e-3


def test_origins_in_files_have_their_own_sign_and_unit(tmp_path: Path) -> None:
    poses = Poses(torch.eye(3).double()[None], column(6.0, -4.5)[None])
    particles = posed(tmp_path, poses)
    write_particles(particles, tmp_path / "o.star")
    written = columns_of(tmp_path / "o.star")
    assert [float(written[f"rlnOrigin{axis}Angst"][0]) for axis in "XY"] == [-6.0, 4.5]
    write_particles(particles, tmp_path / "o.cs")
    record = np.load(tmp_path / "o.cs")[0]
    assert record["alignments3D/psize_A"] == PIXEL
    assert record["alignments3D/shift"].tolist() == [-2.0, 1.5]
    names = ("ImageName", "ImagePixelSize", "AngleRot", "AngleTilt", "AnglePsi", "OriginX", "OriginY")
    text = "data_\nloop_\n" + "".join(f"_rln{name}\n" for name in names) + "1@s.mrcs 2.0 0 0 0 -3 1.5\n"
    old = table(tmp_path, text, count=1)
    assert old.poses is not None
    assert old.poses.shifts.tolist() == [[6.0, -3.0]]
    write_particles(old.replace(poses=old.poses.replace(shifts=old.poses.shifts + 1)), tmp_path / "again.star")
    assert float(columns_of(tmp_path / "again.star")["rlnOriginX"][0]) == -3.5


# --- Fourier transforms ----------------------------------------------------------------------------------------------


def test_the_forward_transform_has_a_negative_sign_and_keeps_the_power(generator: torch.Generator) -> None:
    image = torch.zeros(1, 16, 16, dtype=torch.float64)
    image[0, 8 - 2, 8 + 3] = 1
    spectrum = transforms.fourier_transform_2d(image)[0]
    assert complex(spectrum[8 + 1, 8 + 2]) == pytest.approx(np.exp(-2j * np.pi * (2 * 3 - 1 * 2) / 16) / 16)
    noise = torch.randn(2, 15, 15, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(transforms.fourier_transform_2d(noise).abs().square().sum(), noise.square().sum())


@pytest.mark.parametrize("box", [16, 17])
def test_zero_frequency_sits_at_half_the_box_rounded_down(box: int) -> None:
    spectrum = transforms.fourier_transform_2d(torch.ones(1, box, box, dtype=torch.float64))[0]
    assert int(spectrum.abs().argmax()) == (box // 2) * (box + 1)


def test_a_band_is_a_sorted_half_plane_whose_coefficients_count_twice(generator: torch.Generator) -> None:
    band = Band(17, 6)
    assert ((band.radius > 0) & (band.radius <= 6)).all()
    assert (band.radius.diff() >= 0).all()
    assert torch.equal(band.prefix(4).k, band.k[: len(band.prefix(4))])
    assert not set(map(tuple, band.k.tolist())) & set(map(tuple, (-band.k).tolist()))
    image = band.to_images(band.from_images(torch.randn(1, 17, 17, generator=generator, dtype=torch.float64)))
    power = 2 * band.from_images(image).abs().square().sum()
    torch.testing.assert_close(power, image.square().sum())


def test_the_shell_of_a_coefficient_is_its_rounded_length() -> None:
    band = Band(32, 9)
    expected = [round(math.hypot(x, y)) for x, y in band.k.tolist()]
    assert band.shell.tolist() == expected


def test_a_slice_is_the_root_of_the_box_times_the_volumes_transform() -> None:
    volume, band = spot(6.0, -3.0, 9.0).volume(BOX, PIXEL), Band(BOX, 12)
    spectrum = transforms.fourier_transform_3d(volume.data.double())[BOX // 2]
    kx, ky = band.k.unbind(-1)
    expected = math.sqrt(BOX) * spectrum[ky + BOX // 2, kx + BOX // 2]
    slices = FourierVolume.from_volume(volume, 12).project(torch.eye(3)[None], band)[0]
    assert relative(slices, expected) < 0.02


def test_a_centred_particle_moved_by_t_carries_a_ramp() -> None:
    band, shift = Band(16, 5), column(1.5, -2.0)
    expected = torch.exp(-2j * math.pi * (band.k.double() @ shift) / 16)
    torch.testing.assert_close(band.shift_phases(shift[None])[0], expected)


# --- contrast transfer function --------------------------------------------------------------------------------------


def microscope(count: int = 1) -> Optics:
    """Everything that a microscope can do to an image, and different for each particle."""
    step = torch.arange(count, dtype=torch.float64)
    matrix = torch.tensor([[1.02, 0.015], [-0.01, 0.97]], dtype=torch.float64)
    return Optics.uniform(count, pixel_size=PIXEL, amplitude_contrast=0.08).replace(
        defocus_u=16000 + 900 * step,
        defocus_v=14500 + 900 * step,
        defocus_angle=0.4 + 0.2 * step,
        phase_shift=0.3 + 0 * step,
        b_factor=80 + 0 * step,
        scale=0.9 + 0 * step,
        beam_tilt=column(1.5, -0.8).expand(count, 2),
        odd_zernike=column(0, 0, 20.0).expand(count, 3),
        even_zernike=column(0, 0.4, -15.0).expand(count, 3),
        magnification=matrix.expand(count, 2, 2),
    )


def test_the_ctf_is_the_formula_at_the_magnified_frequency() -> None:
    optics = microscope()
    frequency = torch.tensor([[0.06, 0.0], [0.11, -0.2], [-0.3, 0.15]], dtype=torch.float64)
    volts = 300e3
    wavelength = 12.2643247 / math.sqrt(volts + 0.978466e-6 * volts**2)
    assert float(electron_wavelength(optics.voltage)[0]) == pytest.approx(wavelength)
    ctf = contrast_transfer_function(optics, frequency, dtype=torch.float64)[0]
    for value, f in zip(ctf.tolist(), frequency, strict=True):
        point = optics.magnification[0] @ f / PIXEL
        s, theta = float(point.norm()), math.atan2(float(point[1]), float(point[0]))
        defocus = 0.5 * (16000 + 14500 + (16000 - 14500) * math.cos(2 * (theta - 0.4)))
        even = 0.4 * float(zernike(2, -2, point[None])[0]) - 15 * float(zernike(2, 0, point[None])[0])
        gamma = math.pi * wavelength * defocus * s**2 - 0.5 * math.pi * 2.7e7 * wavelength**3 * s**4 + 0.3 - even
        wave = math.sqrt(1 - 0.08**2) * math.sin(gamma) + 0.08 * math.cos(gamma)
        assert value == pytest.approx(wave * 0.9 * math.exp(-80 * s**2 / 4), abs=1e-9)


def test_positive_density_is_bright() -> None:
    optics = Optics.uniform(1, pixel_size=PIXEL).replace(defocus_u=column(12000.0), defocus_v=column(12000.0))
    assert float(contrast_transfer_function(optics, torch.zeros(1, 2))[0, 0]) == pytest.approx(0.1)
    band = Band(BOX, 4)
    ctf = contrast_transfer_function(optics, band.frequency)
    assert (ctf > 0.1).all()
    image = band.to_images(band.from_images(spot(9, 0, 0).volume(BOX, PIXEL).data.sum(0)[None]) * ctf)[0]
    assert int(image.argmax()) == (BOX // 2) * BOX + BOX // 2 + 3


def test_dark_particles_are_recognised_and_inverted() -> None:
    stack = simulate(
        builtin_complex(),
        count=120,
        box=48,
        pixel_size=4.5,
        noise=Noise(0.5),
        shift_px=2.0,
        invert=True,
        generator=torch.Generator().manual_seed(4),
    )
    found = inspect(stack.particles, diameter=None, symmetry="C1", seed=0)
    assert found.dark_particles
    assert any("particles are dark" in finding.line and "inverted" in finding.line for finding in found.findings)
    images = stack.particles.images.read(torch.arange(4))
    assert torch.equal(Normalisation(20.0, invert=True).apply(images), -Normalisation(20.0).apply(images))


def test_beam_tilt_and_odd_terms_are_taken_out_of_the_images(generator: torch.Generator) -> None:
    band, optics = Band(BOX, 14), microscope()
    phase = antisymmetric_phase(optics, band.frequency, dtype=torch.float64)
    assert phase is not None
    assert phase.abs().max() > 0.3
    clean = band.from_images(torch.randn(1, BOX, BOX, generator=generator, dtype=torch.float64))
    tilted = band.to_images(clean * torch.polar(torch.ones_like(phase), phase)).float()
    flat = torch.ones(1, band.limit + 1)
    seen = [
        whitened_images(Particles(ImageArray(image), used), torch.arange(1), band, Normalisation(14.0), flat).vectors
        for image, used in (
            (tilted, optics),
            (band.to_images(clean).float(), Optics.uniform(1, pixel_size=PIXEL)),
        )
    ]
    # Each image is put on the deviation of its own background, so that they differ by a factor.
    factor = (seen[0] * seen[1].conj()).sum() / seen[1].abs().square().sum()
    assert relative(seen[0], factor * seen[1]) < 1e-4
    assert abs(complex(factor).imag) < 1e-3


def test_an_image_is_the_image_model(generator: torch.Generator) -> None:
    """The whole formula, with every term in it, against the simulator."""
    phantom, optics, rotations = cloud(generator), microscope(6), random_rotations(6, generator)
    shifts = 6 * torch.rand(6, 2, generator=generator, dtype=torch.float64) - 3
    volume = phantom.volume(BOX, PIXEL)
    like = Particles(ImageArray(torch.zeros(6, BOX, BOX)), optics, Poses(rotations, shifts))
    stack = simulate(volume, count=6, box=BOX, pixel_size=PIXEL, like=like, noise=Noise(math.inf), generator=generator)
    band = Band(BOX, 12)
    images = band.from_images(stack.truth.images.read(torch.arange(6)))
    k = band.k.double() @ optics.magnification[0].mT / (BOX * PIXEL)
    spectrum = transform_of(phantom, torch.cat([k, torch.zeros(len(band), 1).double()], dim=-1) @ rotations)
    amplitude = float(stack.volumes[0].data.sum() / volume.data.sum())
    slices = amplitude * spectrum / (BOX * PIXEL**3)
    phase = antisymmetric_phase(optics, band.frequency, dtype=torch.float64)
    assert phase is not None
    ctf = contrast_transfer_function(optics, band.frequency, dtype=torch.float64)
    expected = ctf * torch.polar(torch.ones_like(phase), phase) * slices * band.shift_phases(shifts / PIXEL)
    assert relative(images, expected) < 0.01


# --- hand and frame --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [32, 33])
def test_the_mirrored_map_goes_with_mirrored_poses(box: int, generator: torch.Generator) -> None:
    phantom, rotations, band = cloud(generator), random_rotations(4, generator), Band(box, 12)
    torch.testing.assert_close(mirror(rotations), S @ rotations @ S)
    mirrored = GaussianPhantom(phantom.centres @ S, phantom.sigmas, phantom.masses)
    torch.testing.assert_close(flip(phantom.volume(box, PIXEL)).data, mirrored.volume(box, PIXEL).data)
    volumes = phantom.volume(box, PIXEL), flip(phantom.volume(box, PIXEL))
    plain, other = (FourierVolume.from_volume(volume, 12) for volume in volumes)
    assert relative(other.project(mirror(rotations), band), plain.project(rotations, band)) < 1e-3


def test_comparisons_try_both_hands_and_undo_the_common_frame(generator: torch.Generator) -> None:
    truth, turn = random_rotations(60, generator), random_rotations(1, generator)[0]
    for mirrored in (False, True):
        seen = truth @ turn
        frame = align_rotations(mirror(seen) if mirrored else seen, truth)
        assert frame.mirrored is mirrored
        torch.testing.assert_close(frame.rotation, turn)
    move = column(4.0, -2.0, 7.0)
    true_shifts = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(fit_origin(true_shifts + (truth @ move)[:, :2], true_shifts, truth), move)


# --- Fourier shell correlation ---------------------------------------------------------------------------------------


def test_shells_are_one_fourier_pixel_wide() -> None:
    axis = torch.arange(24).double() - 12
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")

    def wave(kx: int, ky: int, kz: int) -> Tensor:
        return torch.cos(2 * math.pi * (kx * x + ky * y + kz * z) / 24)

    first = Volume(wave(3, 4, 0) + wave(0, 5, 3), 1.0)  # lengths 5 and 5.83
    second = Volume(wave(3, 4, 0) - wave(0, 5, 3), 1.0)
    fsc = fourier_shell_correlation(first, second)
    assert fsc[5:7].tolist() == pytest.approx([1.0, -1.0])


def test_the_resolution_is_the_first_crossing() -> None:
    frequency = torch.arange(6).double() / 60
    curve = column(1, 0.9, 0.3, 0.1, 0.8, 0.0)
    assert first_crossing(frequency, curve, 0.5) == pytest.approx(60 / (1 + 2 / 3))
    assert first_crossing(frequency, torch.ones(6).double(), 0.143) == pytest.approx(60 / 5)


def test_masked_curves_are_corrected_and_unmasked_ones_kept(tmp_path: Path, generator: torch.Generator) -> None:
    noise = [Volume(torch.randn(BOX, BOX, BOX, generator=generator), PIXEL) for _ in range(2)]
    signal = GaussianPhantom.random(15, 25.0, generator, sigma=4.0).volume(BOX, PIXEL).data
    halves = HalfMaps(*(Volume(20 * signal / signal.std() + one.data, PIXEL) for one in noise))
    fsc = validate_half_maps(halves, Volume(soft_sphere(BOX, 10.0, 3.0), PIXEL))
    assert 1 < fsc.randomised_from < BOX // 2 - 3
    beyond = slice(fsc.randomised_from + 2, None)
    expected = (fsc.masked - fsc.randomised) / (1 - fsc.randomised)
    torch.testing.assert_close(fsc.corrected[beyond], expected[beyond])
    torch.testing.assert_close(fsc.corrected[: beyond.start], fsc.masked[: beyond.start])
    fsc.write_csv(tmp_path / "fsc.csv")
    torch.testing.assert_close(HalfMapFSC.read_csv(tmp_path / "fsc.csv").unmasked, fsc.unmasked)
    assert "unmasked" in (tmp_path / "fsc.csv").read_text().splitlines()[1]


# --- files -----------------------------------------------------------------------------------------------------------


def test_tables_keep_what_they_held(tmp_path: Path) -> None:
    names = ("rlnImageName", "rlnImagePixelSize", "rlnMyOwnColumn", "rlnRandomSubset")
    rows = "2@s.mrcs 2.50 first 2\n1@s.mrcs 2.50 second 1\n"
    text = "data_other\n_key value\n\ndata_particles\nloop_\n" + "".join(f"_{name}\n" for name in names) + rows
    particles = table(tmp_path, text)
    poses = Poses(torch.eye(3).double().expand(2, 3, 3), torch.zeros(2, 2).double(), column(0.25, 1.0))
    write_particles(particles.replace(poses=poses), tmp_path / "o.star")
    written = columns_of(tmp_path / "o.star")
    assert written["rlnImageName"] == ["2@s.mrcs", "1@s.mrcs"]
    assert written["rlnMyOwnColumn"] == ["first", "second"]
    assert written["rlnImagePixelSize"] == ["2.50", "2.50"]
    assert written["rlnRandomSubset"] == ["2", "1"]
    assert written["rlnMaxValueProbDistribution"] == ["0.25", "1.0"]
    assert "data_other" in (tmp_path / "o.star").read_text()


def test_cs_tables_keep_their_uid(tmp_path: Path) -> None:
    poses = Poses(torch.eye(3).double().expand(3, 3, 3), torch.zeros(3, 2).double())
    write_particles(posed(tmp_path, poses, torch.tensor([1, 2, 2])), tmp_path / "a.cs")
    write_particles(read_particles(tmp_path / "a.cs"), tmp_path / "b.cs")
    first, second = (np.load(tmp_path / name) for name in ("a.cs", "b.cs"))
    assert len(set(first["uid"])) == 3
    assert (first["uid"] == second["uid"]).all()
    assert second["alignments3D/split"].tolist() == [0, 1, 1]


def test_maps_keep_their_voxel_size(tmp_path: Path) -> None:
    volume = spot(3, 6, 9).volume(16, 1.37)
    write_map(tmp_path / "m.mrc", volume)
    again = read_map(tmp_path / "m.mrc")
    assert again.voxel_size == pytest.approx(1.37, rel=1e-6)
    assert torch.equal(again.data, volume.data)


def test_an_image_without_a_ctf_has_a_transfer_of_one(tmp_path: Path) -> None:
    particles = table(tmp_path, "data_\nloop_\n_rlnImageName\n_rlnImagePixelSize\n1@s.mrcs 2.5\n2@s.mrcs 2.5\n")
    assert particles.optics.amplitude_contrast.tolist() == [1, 1]
    assert torch.equal(
        contrast_transfer_function(particles.optics, Band(8, 3).frequency), torch.ones(2, len(Band(8, 3)))
    )
