"""Fourier shell correlation against an outside library and against statistics that are known in advance."""

import re
from pathlib import Path

import pytest
import torch
from torch_fourier_shell_correlation import fourier_shell_correlation as outside_fsc

from hoarfrost.analysis.fsc import (
    HalfMapFSC,
    first_crossing,
    fourier_shell_correlation,
    full_from_half,
    randomise_phases,
    shell_frequency,
    spectral_snr_weight,
    validate_half_maps,
)
from hoarfrost.errors import InputError
from hoarfrost.fourier.shells import radius_3d
from hoarfrost.types import HalfMaps, Volume
from phantoms import GaussianPhantom


def white(box: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(box, box, box, generator=generator)


def coloured(box: int, shell_power: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gaussian noise with the given power a coefficient in each shell."""
    radius = radius_3d((box,) * 3, (box // 2,) * 3).round().long().clamp(max=len(shell_power) - 1)
    spectrum = torch.fft.fftshift(torch.fft.fftn(white(box, generator), norm="ortho"))
    return torch.fft.ifftn(torch.fft.ifftshift(spectrum * shell_power.sqrt()[radius]), norm="ortho").real


def soft_ball(box: int, radius: float, edge: float) -> torch.Tensor:
    distance = radius_3d((box,) * 3, (box // 2,) * 3)
    return 0.5 + 0.5 * torch.cos(torch.pi * ((distance - radius) / edge).clamp(0, 1))


@pytest.mark.parametrize("box", [31, 32])
def test_agrees_with_torch_fourier_shell_correlation(box: int, generator: torch.Generator) -> None:
    signal = GaussianPhantom.random(20, 20.0, generator).volume(box, 2.0).data
    signal = signal / signal.std()
    first, second = (Volume(signal + white(box, generator), 2.0) for _ in range(2))
    ours = fourier_shell_correlation(first, second)
    outside = outside_fsc(first.data, second.data).double()
    assert ours.shape == outside.shape == (box // 2 + 1,)
    # The other library shares a coefficient between the two nearest shells; it is smoother by that much only.
    assert (ours - outside)[4:].abs().max() < 0.15
    assert (ours - outside)[4:].mean().abs() < 0.02


@pytest.mark.parametrize("box", [24, 25])
def test_equals_the_sum_over_the_full_transform(box: int, generator: torch.Generator) -> None:
    first, second = white(box, generator), white(box, generator)
    second = second + 0.5 * first
    a, b = (torch.fft.fftshift(torch.fft.fftn(v.double())) for v in (first, second))
    axis = torch.arange(box) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    shell = (x**2 + y**2 + z**2).double().sqrt().round().long()
    expected = [
        float((a[shell == s] * b[shell == s].conj()).real.sum())
        / float(a[shell == s].abs().square().sum() * b[shell == s].abs().square().sum()) ** 0.5
        for s in range(box // 2 + 1)
    ]
    actual = fourier_shell_correlation(Volume(first, 1.0), Volume(second, 1.0))
    assert torch.allclose(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-5)


def test_known_snr_gives_the_analytic_curve(generator: torch.Generator) -> None:
    box = 64
    shells = torch.arange(box)
    snr = 20.0 * torch.exp(-shells / 6.0)
    signal = coloured(box, snr, generator)
    halves = HalfMaps(*(Volume(signal + white(box, generator), 1.5) for _ in range(2)))
    expected = (snr / (snr + 1))[: box // 2 + 1].double()
    fsc = validate_half_maps(halves)
    assert (fsc.unmasked - expected)[5:].abs().max() < 0.05
    assert torch.equal(fsc.corrected, fsc.unmasked)
    crossing = -6.0 * torch.log(torch.tensor(0.143 / 0.857 / 20.0))
    assert fsc.resolution() == pytest.approx(float(box * 1.5 / crossing), rel=0.05)


def test_average_of_halves_correlates_with_the_signal_as_predicted(generator: torch.Generator) -> None:
    box = 48
    snr = 10.0 * torch.exp(-torch.arange(box) / 5.0)
    signal = coloured(box, snr, generator)
    first, second = (signal + white(box, generator) for _ in range(2))
    half = fourier_shell_correlation(Volume(first, 1.0), Volume(second, 1.0))
    to_truth = fourier_shell_correlation(Volume(first + second, 1.0), Volume(signal, 1.0))
    assert (spectral_snr_weight(half) - to_truth)[4:18].abs().max() < 0.05
    assert torch.allclose(full_from_half(half)[4:18], to_truth[4:18] ** 2, atol=0.08)
    assert torch.equal(full_from_half(torch.tensor([-0.3, 0.0, 1.0])), torch.tensor([0.0, 0.0, 1.0]))


def test_a_mask_alone_is_recognised_as_such(generator: torch.Generator) -> None:
    box = 64
    mask = Volume(soft_ball(box, 12.0, 2.0), 2.0)
    offset = 1.0  # a common constant, which the mask turns into a common shape
    halves = HalfMaps(*(Volume(white(box, generator) + offset, 2.0) for _ in range(2)))
    fsc = validate_half_maps(halves, mask, seed=3)
    assert fsc.randomised_from == 1
    assert fsc.masked[1:6].mean() > 0.5
    assert fsc.corrected[3:].mean().abs() < 0.05
    assert fsc.corrected[8:].abs().max() < 0.2


def test_correction_keeps_the_signal_and_removes_what_the_mask_adds(generator: torch.Generator) -> None:
    box = 64
    mask = Volume(soft_ball(box, 14.0, 1.0), 2.0)
    shells = torch.arange(box)
    snr = torch.where(shells < 12, 1000.0, 0.0)
    signal = coloured(box, snr, generator) * mask.data
    halves = HalfMaps(*(Volume(signal + white(box, generator), 2.0) for _ in range(2)))
    fsc = validate_half_maps(halves, mask, seed=5)
    assert 11 <= fsc.randomised_from <= 15
    assert fsc.corrected[3:10].min() > 0.95
    assert torch.equal(fsc.corrected[: fsc.randomised_from], fsc.masked[: fsc.randomised_from])
    beyond = slice(fsc.randomised_from + 2, None)
    assert fsc.corrected[beyond].mean().abs() < fsc.masked[beyond].mean().abs() + 1e-6
    assert fsc.resolution(0.5, "unmasked") >= fsc.resolution(0.5, "masked") - 1.0


@pytest.mark.parametrize("box", [20, 21])
def test_random_phases_keep_amplitudes_and_the_inner_shells(box: int, generator: torch.Generator) -> None:
    volume = Volume(white(box, generator), 1.0)
    scrambled = randomise_phases(volume, 5, generator)
    before, after = (torch.fft.fftn(v.data) for v in (volume, scrambled))
    assert torch.allclose(before.abs(), after.abs(), rtol=1e-3, atol=1e-3)
    correlation = fourier_shell_correlation(volume, scrambled)
    assert torch.allclose(correlation[:5], torch.ones(5, dtype=torch.float64), atol=1e-5)
    assert correlation[5:].abs().max() < 0.3


def test_first_crossing_is_the_first_and_interpolated() -> None:
    frequency = shell_frequency(20, 1.0)
    curve = torch.tensor([1.0, 0.9, 0.6, 0.2, 0.7, 0.1, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert first_crossing(frequency, curve, 0.5) == pytest.approx(20 / 2.25)
    assert first_crossing(frequency, torch.ones(11, dtype=torch.float64), 0.5) == pytest.approx(2.0)
    assert first_crossing(frequency, torch.zeros(11, dtype=torch.float64), 0.5) == pytest.approx(20.0)


def test_shells_without_power_do_not_correlate(generator: torch.Generator) -> None:
    empty = Volume(torch.zeros(16, 16, 16), 1.0)
    assert torch.equal(
        fourier_shell_correlation(empty, Volume(white(16, generator), 1.0)),
        torch.zeros(9, dtype=torch.float64),
    )


def test_csv_round_trip(tmp_path: Path, generator: torch.Generator) -> None:
    box = 24
    signal = coloured(box, 10 * torch.exp(-torch.arange(box) / 3.0), generator)
    halves = HalfMaps(*(Volume(signal + white(box, generator), 2.5) for _ in range(2)))
    fsc = validate_half_maps(halves, Volume(soft_ball(box, 8.0, 3.0), 2.5), seed=1)
    path = tmp_path / "fsc.csv"
    fsc.write_csv(path)
    text = path.read_text()
    header = "shell,frequency_1_per_A,resolution_A,unmasked,masked,phase_randomised,corrected"
    assert header in text.splitlines()
    assert f"# first crossing of 0.143, corrected: {fsc.resolution():.3f} A" in text
    back = HalfMapFSC.read_csv(path)
    for name in ("frequency", "unmasked", "masked", "randomised", "corrected"):
        assert torch.equal(getattr(back, name), getattr(fsc, name)), name
    assert back.randomised_from == fsc.randomised_from


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: "a,b\n1,2\n", "not an FSC table of hoarfrost"),
        (lambda t: t.replace("\n0,", "\nzero,"), "a row of the FSC table is damaged"),
        (lambda t: t[: t.index("\n1,")] + "\n", "the FSC table is cut short"),
        (lambda t: t.rstrip("\n").rsplit(",", 1)[0] + "\n", "damaged"),
    ],
)
def test_damaged_csv_is_refused(edit, message: str, tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "fsc.csv"
    validate_half_maps(HalfMaps(*(Volume(white(8, generator), 1.0) for _ in range(2)))).write_csv(path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(InputError, match=message) as error:
        HalfMapFSC.read_csv(path)
    assert "\n" not in str(error.value)


def test_maps_on_different_grids_are_refused() -> None:
    volume = Volume(torch.zeros(16, 16, 16), 1.0)
    cases = [
        (Volume(torch.zeros(18, 18, 18), 1.0), None, "boxes 16 and 18"),
        (Volume(torch.zeros(16, 16, 16), 1.2), None, "voxel sizes 1 and 1.2 A"),
        (volume, torch.zeros(4, 4, 4), "the mask has shape (4, 4, 4)"),
    ]
    for other, mask, message in cases:
        with pytest.raises(InputError, match=re.escape(message)):
            fourier_shell_correlation(volume, other, mask)
    with pytest.raises(InputError, match="cubic"):
        fourier_shell_correlation(Volume(torch.zeros(4, 5, 6), 1.0), volume)


def test_maps_that_end_at_a_shell_are_not_said_to_go_beyond_it(generator):
    # Two noisy copies of a map that hold nothing beyond shell 8; a mask leaks the last shells into those beyond.
    box, last = 32, 8
    axis = torch.arange(box) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = torch.fft.ifftshift((x**2 + y**2 + z**2).sqrt().round() <= last)

    def low(volume):
        return torch.fft.ifftn(torch.fft.fftn(volume) * inside).real

    signal = torch.randn(box, box, box, generator=generator)
    halves = [low(signal + 0.3 * torch.randn(signal.shape, generator=generator)) for _ in range(2)]
    mask = Volume(((x**2 + y**2 + z**2) < 36).float(), 2.0)
    first, second = (Volume(half, 2.0) for half in halves)
    assert float(fourier_shell_correlation(first, second, mask.data)[last + 1 :].max()) > 0.5
    fsc = validate_half_maps(HalfMaps(first, second), mask)
    assert float(fsc.corrected[: last + 1].min()) > 0.5
    assert float(fsc.corrected[last + 1 :].abs().max()) == 0.0
    assert box * 2.0 / (last + 1) <= fsc.resolution() <= box * 2.0 / last
