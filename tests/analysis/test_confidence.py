"""What confidences claim and how far it holds, on gaps and outcomes drawn from known laws."""

import math

import pytest
import torch

from hoarfrost.analysis.confidence import LARGEST_GAP, Calibration, likelihood_gap, reliability


def drawn(probability, generator):
    return torch.rand(len(probability), generator=generator) < probability


def test_a_gap_is_the_log_odds_of_the_posterior(generator):
    scores = 5 * torch.randn(200, 4, generator=generator, dtype=torch.float64)
    chosen = torch.randint(4, (200,), generator=generator)
    posterior = torch.softmax(scores, 1)[torch.arange(200), chosen]
    torch.testing.assert_close(torch.sigmoid(likelihood_gap(scores, chosen)), posterior)
    # Only differences count, and the order of the rivals does not.
    moved = scores + torch.randn(200, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(likelihood_gap(moved, chosen), likelihood_gap(scores, chosen))
    torch.testing.assert_close(likelihood_gap(scores.flip(1), 3 - chosen), likelihood_gap(scores, chosen))


def test_a_pose_without_a_rival_has_the_largest_gap():
    scores = torch.tensor([[3.0, -torch.inf, -torch.inf], [3.0, -torch.inf, 2.0]])
    torch.testing.assert_close(likelihood_gap(scores, torch.tensor([0, 0])), torch.tensor([LARGEST_GAP, 1.0]))


@pytest.mark.parametrize(("ceiling", "slope", "middle"), [(0.95, 0.4, 2.0), (0.8, 1.0, 0.0), (0.99, 0.3, -3.0)])
def test_a_calibration_finds_the_law_that_outcomes_were_drawn_from(ceiling, slope, middle, generator):
    law = Calibration(ceiling, slope, middle)
    gap = 8 * torch.randn(20_000, generator=generator, dtype=torch.float64) + 4
    found = Calibration.of(gap, drawn(law.probability(gap), generator))
    anywhere = torch.linspace(-20, 25, 46, dtype=torch.float64)
    assert (found.probability(anywhere) - law.probability(anywhere)).abs().max() < 0.02


def test_an_overconfident_gap_is_brought_down(generator):
    """Gaps five times the true log-odds: the posterior that they give is wrong by much, the calibrated one is not."""
    odds = 2 * torch.randn(8000, generator=generator)
    right = drawn(torch.sigmoid(odds), generator)
    gap = (5 * odds).clamp(-LARGEST_GAP, LARGEST_GAP)
    half = torch.arange(8000) < 4000
    calibration = Calibration.of(gap[half], right[half])
    assert calibration.slope == pytest.approx(0.2, rel=0.1)
    assert reliability(torch.sigmoid(gap)[~half], right[~half]).largest_difference(100) > 0.15
    assert reliability(calibration.probability(gap)[~half], right[~half], by="rank").largest_difference(100) < 0.05


def test_a_larger_gap_never_gives_less(generator):
    gap = 10 * torch.randn(500, generator=generator)
    for right in (torch.rand(500, generator=generator) < 0.5, gap < 0, gap > 0):
        found = Calibration.of(gap, right)
        stated = found.probability(gap.sort().values)
        assert (stated.diff() >= 0).all()
        assert ((stated >= 0) & (stated <= 1)).all()


@pytest.mark.parametrize("right", [True, False])
def test_images_that_all_end_alike_leave_a_finite_calibration(right):
    found = Calibration.of(torch.full((2048,), 20.0), torch.full((2048,), right))
    assert all(math.isfinite(number) for number in (found.ceiling, found.slope, found.middle))
    stated = found.probability(torch.tensor([-LARGEST_GAP, 20.0]))
    if right:
        # What no image showed stays at its face value.
        assert stated[1] > 0.99
        assert stated[0] < 0.01
    else:
        assert stated[1] < 0.01


def test_true_probabilities_are_reliable_and_exaggerated_ones_are_not(generator):
    truth = torch.rand(20_000, generator=generator)
    right = drawn(truth, generator)
    exaggerated = torch.sigmoid(3 * torch.logit(truth))
    for by in ("range", "rank"):
        assert reliability(truth, right, by=by).largest_difference() < 0.03
        assert reliability(exaggerated, right, by=by).largest_difference() > 0.15


def test_a_curve_holds_all_particles_in_the_right_tenths():
    confidence = torch.tensor([0.0, 0.05, 0.95, 1.0, 0.95])
    right = torch.tensor([False, True, True, True, False])
    curve = reliability(confidence, right)
    assert curve.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert curve.stated[0] == pytest.approx(0.025)
    assert curve.right[-1] == pytest.approx(2 / 3)
    assert curve.right[1:-1].isnan().all()
    assert curve.largest_difference() == pytest.approx(0.475)
    assert curve.largest_difference(3) == pytest.approx(2.9 / 3 - 2 / 3)
    assert math.isnan(curve.largest_difference(4))
    by_rank = reliability(confidence, right, 5, by="rank")
    assert by_rank.count.tolist() == [1, 1, 1, 1, 1]
    assert by_rank.stated.tolist() == confidence.double().sort().values.tolist()
    # The order of the particles is of no account.
    order = torch.tensor([4, 2, 0, 1, 3])
    assert reliability(confidence[order], right[order]).count.tolist() == curve.count.tolist()
