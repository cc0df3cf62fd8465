"""The preflight finds what would spoil a run, and leaves alone what would not."""

import dataclasses
import math
import time
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from hoarfrost.data.contrast import contrast_of
from hoarfrost.data.forecast import forecast, stored_limit
from hoarfrost.data.plausibility import good_box
from hoarfrost.data.preflight import inspect
from hoarfrost.errors import InputError
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.transforms import fourier_transform_2d, inverse_fourier_transform_2d
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.particles import read_particles
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.types import ImageArray, ImageSubset, Optics, Particles
from phantoms import GaussianPhantom

BOX, PIXEL = 64, 3.0


def grid(box: int) -> torch.Tensor:
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1) / box


def stack(
    generator: torch.Generator,
    snr: float,
    *,
    count: int = 256,
    sign: float = 1.0,
    hollow: bool = False,
    coloured: bool = False,
) -> Particles:
    """Shifted projections of a phantom, seen through an underfocused CTF, in noise of unit variance."""
    phantom = GaussianPhantom.random(50, 50.0, generator, sigma=5.0)
    if hollow:
        shell = 50.0 * torch.nn.functional.normalize(phantom.centres, dim=-1)
        phantom = GaussianPhantom(shell, phantom.sigmas, phantom.masses)
    shifts = (2 * torch.rand(count, 2, generator=generator) - 1) * 5 * PIXEL
    images = phantom.project(random_rotations(count, generator), shifts, BOX, PIXEL)
    mean = 8000 + 17000 * torch.rand(count, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(count, pixel_size=PIXEL).replace(defocus_u=mean + 200, defocus_v=mean - 200)
    transfer = contrast_transfer_function(optics, grid(BOX).reshape(-1, 2)).reshape(-1, BOX, BOX)
    images = inverse_fourier_transform_2d(fourier_transform_2d(images) * transfer)
    images = images * (snr / images.var(dim=(1, 2)).mean()).sqrt()
    noise = torch.randn(count, BOX, BOX, generator=generator, dtype=torch.float64)
    if coloured:
        radius = grid(BOX).norm(dim=-1) * BOX
        noise = inverse_fourier_transform_2d(fourier_transform_2d(noise) * (1 + 3 * torch.exp(-radius / 6)))
        noise = noise / noise.std()
    return Particles(ImageArray((sign * images + noise).float()), optics)


def texts(particles: Particles, level: str | None = None, **options: object) -> str:
    settings = {"diameter": None, "symmetry": "C1", "seed": 0} | options
    findings = inspect(particles, **settings).findings
    return "\n".join(finding.line for finding in findings if level in (None, finding.level))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("snr", [0.1, 0.02])
@pytest.mark.parametrize(("hollow", "coloured"), [(False, False), (True, False), (False, True)])
def test_sign_of_contrast_is_told_in_noise(
    generator: torch.Generator, snr: float, sign: float, hollow: bool, coloured: bool
) -> None:
    particles = stack(generator, snr, sign=sign, hollow=hollow, coloured=coloured)
    preflight = inspect(particles, diameter=None, symmetry="C1", seed=0).sound()
    assert preflight.contrast.decided
    assert preflight.dark_particles == (sign < 0)
    assert ("inverted when they are read" in texts(particles)) == (sign < 0)


def test_noise_is_left_undecided(generator: torch.Generator) -> None:
    optics = stack(generator, 0.1).optics
    for _ in range(20):
        images = torch.randn(256, BOX, BOX, generator=generator)
        assert not contrast_of(images, optics).decided
    text = texts(Particles(ImageArray(images), optics))
    assert "cannot be told" in text
    assert "taken as bright" in text


def test_a_few_crystals_do_not_turn_the_sign(generator: torch.Generator) -> None:
    particles = stack(generator, 0.05)
    images = particles.images.read(torch.arange(256))
    axis = torch.arange(BOX) - BOX // 2
    crystal = torch.exp(-(axis[:, None] ** 2 + axis**2) / 200.0)
    images[:6] -= 50 * crystal
    assert contrast_of(images, particles.optics).significance > 5


def test_clean_stack_has_no_findings_but_its_size(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    many = particles[torch.arange(5000) % 256]
    found = inspect(many, diameter=110.0, symmetry="C1", seed=0)
    assert [finding.text for finding in found.findings if finding.level != "info"] == []
    assert found.background_std == pytest.approx(1.0, rel=0.05)
    assert found.snr == pytest.approx(0.1, rel=0.5)


def star(folder: Path, images: np.ndarray, names: list[str]) -> Path:
    """A RELION 3.1 table next to its stack."""
    with mrcfile.new(folder / "stack.mrcs") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # values that are not numbers are meant
        file.set_data(images.astype(np.float32))
        file.set_image_stack()
    rows = "\n".join(f"{name} {9000 + 40 * row} {8800 + 40 * row} 30.0 1" for row, name in enumerate(names))
    text = f"""
data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
_rlnImageSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnImageDimensionality #7
1 3.0 {images.shape[-1]} 300 2.7 0.1 2

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnOpticsGroup #5
{rows}
"""
    path = folder / "particles.star"
    path.write_text(text)
    return path


def refusal(path: Path, **options: object) -> str:
    settings = {"diameter": None, "symmetry": "C1", "seed": 0} | options
    with pytest.raises(InputError) as caught:
        inspect(read_particles(path), **settings).sound()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (0.0, "blank")])
def test_damaged_image_is_named_by_file_and_row(tmp_path: Path, value: float, what: str) -> None:
    images = np.random.default_rng(0).normal(size=(300, 32, 32))
    images[[41, 77]] = value
    path = star(tmp_path, images, [f"{row + 1}@stack.mrcs" for row in range(300)])
    message = refusal(path, sample=16)
    assert str(path) in message
    assert "row 42: image 42 of stack.mrcs" in message
    assert what in message
    assert "1 more" in message


def test_duplicate_rows_are_named(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(300, 32, 32))
    names = [f"{row + 1}@stack.mrcs" for row in range(300)]
    names[250] = names[7]
    text = texts(read_particles(star(tmp_path, images, names)), "warning")
    assert "row 8: image 8 of stack.mrcs is listed more than once, 1 surplus rows" in text


def test_too_few_particles(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    with pytest.raises(InputError, match="12 particles are too few"):
        inspect(particles[torch.arange(12)], diameter=None, symmetry="C1", seed=0).sound()
    assert "only 150 particles" in texts(particles[torch.arange(150)], "warning")
    assert "256 particles are few" in texts(particles, "info")


def test_diameter_against_box(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    with pytest.raises(InputError, match=r"diameter of 200 Å is larger than the box \(64 pixels, 192 Å\)"):
        inspect(particles, diameter=200.0, symmetry="C1", seed=0).sound()
    assert "nearly fills the box" in texts(particles, "warning", diameter=180.0)
    assert "fills" not in texts(particles, diameter=110.0)


def test_unknown_symmetry_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="Q7"):
        inspect(stack(generator, 0.1, count=30), diameter=None, symmetry="Q7", seed=0).sound()


def test_one_defocus_for_all(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    same = torch.full((256,), 15000.0, dtype=torch.float64)
    flat = particles.replace(optics=particles.optics.replace(defocus_u=same, defocus_v=same))
    assert "every particle has the same defocus (15000 Å)" in texts(flat, "warning")
    assert "same defocus" not in texts(particles)


def test_odd_microscope_settings_name_the_row(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    voltage = particles.optics.voltage.clone()
    voltage[5] = 30.0
    odd = particles.replace(optics=particles.optics.replace(voltage=voltage))
    assert "row 6: voltage 30 kV (1 rows in all)" in texts(odd, "warning")


def test_stack_without_ctf_is_told_and_its_contrast_found(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    phantom = GaussianPhantom.random(50, 50.0, generator, sigma=5.0)
    images = phantom.project(random_rotations(256, generator), torch.zeros(256, 2), BOX, PIXEL).float()
    optics = Optics.uniform(256, pixel_size=PIXEL, spherical_aberration=0.0, amplitude_contrast=1.0)
    found = inspect(Particles(ImageArray(-images), optics), diameter=None, symmetry="C1", seed=0)
    assert found.dark_particles
    assert "holds no CTF" in texts(particles.replace(optics=optics), "info")


def test_groups_of_opposite_contrast_are_refused(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    group = torch.arange(256) % 2
    images = particles.images.read(torch.arange(256)) * torch.where(group == 1, -1.0, 1.0)[:, None, None]
    mixed = Particles(ImageArray(images), particles.optics.replace(group=group))
    with pytest.raises(InputError, match="dark in optics group 2 and bright in others"):
        inspect(mixed, diameter=None, symmetry="C1", seed=0).sound()


def test_box_too_small_for_the_defocus(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    fine = torch.full((256,), 1.0, dtype=torch.float64)
    defocus = torch.full((256,), 30000.0, dtype=torch.float64) + torch.arange(256)
    narrow = particles.replace(optics=particles.optics.replace(pixel_size=fine, defocus_u=defocus, defocus_v=defocus))
    text = texts(narrow, "warning")
    wavelength = 12.2643247 / math.sqrt(3e5 + 0.978466e-6 * 9e10)
    # Detail of spacing d is displaced by lambda * defocus / d; it leaves the box of 64 Å at half of it.
    expected = wavelength * 30230 / 32
    stated = float(text.split("detail beyond ")[1].split(" Å")[0])
    assert stated == pytest.approx(expected, rel=0.03)
    assert "leaves the box of 64 pixels" in text


def test_advised_boxes_are_even_and_fast() -> None:
    for wanted in (61.0, 127.3, 131.0, 517.0):
        box = good_box(wanted)
        assert box >= wanted
        assert box % 2 == 0
        assert box <= 1.1 * wanted + 2
        rest = box
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


def test_uneven_and_unnormalised_backgrounds(generator: torch.Generator) -> None:
    particles = stack(generator, 0.1)
    images = particles.images.read(torch.arange(256))
    assert "not normalised (background 300" in texts(particles.replace(images=ImageArray(20 * images + 300)), "info")
    uneven = images * torch.linspace(1.0, 6.0, 256)[:, None, None]
    assert "deviation differs by a factor" in texts(particles.replace(images=ImageArray(uneven)), "warning")


def test_disk_and_memory_are_forecast(generator: torch.Generator, tmp_path: Path) -> None:
    particles = stack(generator, 0.1, count=40)
    expected = forecast(particles, limit=16, workspace=tmp_path / "new" / "run")
    # A small band is stored whole, of a large one only what refinement needs; four bytes a coefficient.
    assert expected.disk == pytest.approx(4 * 40 * math.pi * ((particles.box - 1) // 2) ** 2 / 2, rel=0.03)
    assert stored_limit(Band.to_nyquist(256), 32) == 32
    assert stored_limit(Band(256, 20), 32) == 20
    assert expected.disk_free is not None
    assert list(expected.concerns) == []
    assert forecast(particles, stored=False).disk == 0
    full = dataclasses.replace(expected, disk_free=0.5 * expected.disk, memory_installed=1e8)
    disk, memory = full.concerns
    assert (disk.level, disk.text.split(" need")[0]) == ("error", "transformed images")
    assert (memory.level, memory.text.split(" need")[0]) == ("warning", "maps of this box")
    # A run that goes on may have taken its room already.
    assert next(dataclasses.replace(full, begun=True).concerns).level == "warning"


@pytest.mark.slow
def test_big_stack_takes_seconds(generator: torch.Generator) -> None:
    base = torch.randn(256, 128, 128, generator=generator)
    source = ImageSubset(ImageArray(base), torch.arange(300_000) % 256)
    defocus = torch.linspace(8000, 25000, 300_000, dtype=torch.float64)
    optics = Optics.uniform(300_000, pixel_size=1.5).replace(defocus_u=defocus, defocus_v=defocus)
    began = time.perf_counter()
    inspect(Particles(source, optics), diameter=150.0, symmetry="C1", seed=0).sound()
    assert time.perf_counter() - began < 10


@pytest.mark.data
def test_real_and_simulated_dark_stacks(shared_data: Path) -> None:
    stacks = shared_data / "stacks"
    raw = read_particles(stacks / "cryodrgn" / "empiar_10076_7.star")
    assert inspect(raw, diameter=None, symmetry="C1", seed=0).dark_particles
    simulated = read_particles(stacks / "tomodrgn_10076_sim" / "10076_both_32_sim.star")
    assert inspect(simulated, diameter=None, symmetry="C1", seed=0).sound().dark_particles
