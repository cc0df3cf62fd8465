"""The judge of maps that knows nothing of hoarfrost, against hoarfrost's own and against what must come out."""

import numpy as np
import pytest
import torch
from benchmarks.relion_maps import agreement, crossing, levelled, shell_correlation, soft_ball, with_truth

from hoarfrost.analysis.fsc import first_crossing, fourier_shell_correlation, shell_frequency
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.types import Volume


def noise(box, seed):
    return torch.randn(box, box, box, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("box", [24, 25])
def test_two_ways_to_one_shell_correlation(box):
    first, second = noise(box, 1), noise(box, 2)
    second = second + 0.7 * first
    theirs = fourier_shell_correlation(Volume(first.float(), 2.0), Volume(second.float(), 2.0))
    np.testing.assert_allclose(shell_correlation(first.numpy(), second.numpy()), theirs.numpy(), atol=1e-6)


def test_two_ways_to_one_crossing():
    curve = torch.tensor([1.0, 0.9, 0.8, 0.3, 0.6, 0.1], dtype=torch.float64)
    shell = crossing(curve.numpy())
    assert shell == pytest.approx(2.6)
    assert first_crossing(shell_frequency(10, 2.0), curve, 0.5) == pytest.approx(10 * 2.0 / shell)


def test_a_curve_above_the_threshold_crosses_at_its_end():
    assert crossing(np.ones(9)) == 8


def test_one_ball():
    assert np.abs(soft_ball(24, 7.0) - soft_sphere(24, 7.0, 4.0).numpy()).max() < 1e-6


def test_levelled_maps_do_not_float():
    ball, data = soft_ball(20, 6.0), noise(20, 3).numpy()
    np.testing.assert_allclose(levelled(data + 5.0, ball), levelled(data, ball), atol=1e-12)


def test_maps_pass_only_if_they_agree_and_see_equally_far():
    truth = noise(32, 4).numpy()
    alike = agreement(truth, 2.0 * truth + 0.05 * noise(32, 5).numpy())
    assert alike.passed
    assert alike.last_shell == 8
    assert not agreement(truth, truth + 0.5 * noise(32, 5).numpy()).passed
    axis = np.fft.fftfreq(32, 1 / 32) ** 2
    near = axis[:, None, None] + axis[:, None] + axis < 12.5**2
    short = np.fft.ifftn(np.fft.fftn(truth) * near).real
    seen = agreement(truth, short)
    assert seen.passed, "they agree to half Nyquist"
    assert not with_truth(seen, truth, short, truth).passed, "but one ends earlier"
