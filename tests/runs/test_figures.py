"""Pictures show the numbers they are given, and fit the page."""

import math
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.analysis.views import sphere_directions, view_density
from hoarfrost.geometry.rotations import euler_to_matrix, random_rotations
from hoarfrost.runs import figures, run_figures, sphere, theme
from hoarfrost.types import Volume
from phantoms import GaussianPhantom


def curve(crossing: float = 0.2) -> HalfMapFSC:
    frequency = torch.arange(65, dtype=torch.float64) / (128 * 1.5)
    corrected = 1 / (1 + torch.exp((frequency - crossing) * 60))
    return HalfMapFSC(frequency, corrected**2, corrected, 0 * corrected, corrected, 10)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_map_views_show_the_planes_through_the_origin() -> None:
    data = torch.zeros(20, 20, 20)
    data[10, :, :] = 1.0  # the plane z = 0
    data[:, 10, :] += 2.0
    data[:, :, 10] += 4.0
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figures.map_views(Volume(data, 2.0)).axes]
    # Each slice lies in its own bright plane, crossed by the two others.
    assert [float(np.median(picture)) for picture in pictures[:3]] == [1.0, 2.0, 4.0]
    np.testing.assert_array_equal(pictures[3], data.sum(0).numpy())
    np.testing.assert_array_equal(pictures[5], data.sum(2).numpy())


@pytest.mark.parametrize(("box", "voxel"), [(64, 1.3), (128, 2.5), (33, 0.6), (256, 10.0)])
def test_scale_bar_has_the_length_it_states(box: int, voxel: float) -> None:
    axes = figures.map_views(Volume(torch.randn(box, box, box), voxel)).axes[0]
    ((start, end),) = (line.get_xdata() for line in axes.lines)
    stated = float(axes.texts[0].get_text().split()[0])
    assert (end - start) * voxel == pytest.approx(stated)
    assert 0.1 * box <= end - start <= 0.31 * box


def test_views_are_cut_around_the_particle() -> None:
    volume = Volume(torch.randn(64, 64, 64), 2.0)
    picture = figures.map_views(volume, diameter=40.0).axes[0].images[0].get_array()
    assert picture.shape == (30, 30)
    np.testing.assert_array_equal(picture, volume.data[32, 17:47, 17:47].numpy())


def test_fsc_states_both_crossings() -> None:
    fsc = curve()
    shown = labels(figures.fsc_curves(fsc))
    assert f"{fsc.resolution(0.5):.2f} Å" in shown
    assert f"{fsc.resolution(0.143):.2f} Å" in shown


def test_fsc_that_never_falls_states_no_crossing() -> None:
    assert not any("Å" in text for text in labels(figures.fsc_curves(curve(crossing=5.0))))


def test_even_views_give_even_density(generator: torch.Generator) -> None:
    density = view_density(random_rotations(200_000, generator))
    assert float(density.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(density.std()) < 0.06


def test_views_are_counted_where_they_look_from() -> None:
    rot, tilt = math.radians(40.0), math.radians(70.0)
    angles = torch.tensor([[rot, tilt, psi] for psi in torch.linspace(0, 6, 500)], dtype=torch.float64)
    density = view_density(euler_to_matrix(angles))
    peak = sphere_directions()[density.argmax()]
    view = torch.tensor(
        [math.sin(tilt) * math.cos(rot), math.sin(tilt) * math.sin(rot), math.cos(tilt)], dtype=torch.float64
    )
    assert math.degrees(math.acos(float(peak @ view))) < 6
    assert float(density.mean()) == pytest.approx(1.0, abs=1e-6)
    # On the map, tilt 70 degrees is above the equator and rot 40 degrees right of the middle.
    figure = sphere.orientation_sphere(euler_to_matrix(angles))
    picture = np.nan_to_num(figure.axes[0].images[0].get_array().filled(0))
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    x, y = 4 * (column + 0.5) / picture.shape[1] - 2, 2 * (row + 0.5) / picture.shape[0] - 1
    auxiliary = math.asin(y)
    latitude = math.degrees(math.asin((2 * auxiliary + math.sin(2 * auxiliary)) / math.pi))
    longitude = math.degrees(math.pi * x / (2 * math.cos(auxiliary)))
    assert latitude == pytest.approx(20, abs=5)
    assert longitude == pytest.approx(40, abs=5)


def test_histograms_count_every_particle(generator: torch.Generator) -> None:
    confidence = torch.rand(777, generator=generator, dtype=torch.float64)
    axes = figures.confidence_histogram(confidence).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 777
    assert f"median {float(np.median(confidence)):.2f}" in [text.get_text() for text in axes.texts]
    group = torch.arange(777) % 3
    axes = run_figures.defocus_histogram(1e4 + 1e4 * confidence, group).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 777
    assert axes.get_xlim()[0] < 1.0 < 2.0 < axes.get_xlim()[1]


def test_one_defocus_for_all_still_makes_a_picture() -> None:
    axes = run_figures.defocus_histogram(torch.full((10,), 15000.0, dtype=torch.float64)).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 10


def test_noise_is_drawn_against_physical_frequency() -> None:
    noise = torch.stack([torch.full((33,), 2.0), torch.full((33,), 3.0)]).double()
    axes = run_figures.noise_spectra(noise, box=64, pixel_size=2.0).axes[0]
    frequency = axes.lines[0].get_xdata()
    assert frequency[-1] == pytest.approx(0.25)
    assert [float(line.get_ydata()[0]) for line in axes.lines[:2]] == [2.0, 3.0]


def test_noise_powers_are_written_as_plain_numbers() -> None:
    figure = run_figures.noise_spectra(torch.full((1, 33), 1.0, dtype=torch.float64), box=64, pixel_size=2.0)
    figure.draw_without_rendering()
    ticks = [tick for minor in (False, True) for tick in figure.axes[0].yaxis.get_ticklabels(minor=minor)]
    assert {tick.get_text() for tick in ticks} >= {"1", "2", "0.5", ""}


def test_chosen_start_stands_out() -> None:
    scores = {"start 1": [1.0, 2.0, 3.0], "start 2": [1.0, 4.0, 5.0]}
    figure = run_figures.start_scores(scores, "start 2")
    assert "start 2 (chosen)" in labels(figure)
    widest = max(figure.axes[0].lines, key=lambda line: line.get_linewidth())
    assert list(widest.get_ydata()) == [1.0, 4.0, 5.0]
    agreement = run_figures.start_agreement({"start 1": 0.42, "start 2": 1.0}, "start 2")
    assert labels(agreement) == ["0.42", "chosen"]


def test_timings_state_seconds_and_share_of_peak() -> None:
    figure = run_figures.stage_timings({"search": 12.34, "maps": 2.0}, {"search": 0.41})
    first, second = labels(figure)
    assert "12.3 s" in first
    assert "41 %" in first
    assert second == "2.0 s"


def test_shifts_and_examples_take_what_they_are_given(generator: torch.Generator) -> None:
    shifts = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    drawn = figures.shift_scatter(shifts).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(drawn, shifts.numpy())
    phantom = GaussianPhantom.random(20, 20.0, generator)
    images = phantom.project(random_rotations(3, generator), torch.zeros(3, 2), 32, 2.0)
    pictures = figures.example_particles(images, 2 * images).axes
    assert len(pictures) == 6
    np.testing.assert_allclose(pictures[3].images[0].get_array(), 2 * images[0].float().numpy())
    # Smoothing keeps what is coarse.
    smooth = pictures[0].images[0].get_array()
    assert np.corrcoef(smooth.ravel(), images[0].numpy().ravel())[0, 1] > 0.8


def test_png_is_wide_enough_to_read(tmp_path: Path) -> None:
    theme.save_png(figures.fsc_curves(curve()), tmp_path / "fsc.png")
    height, width = matplotlib.image.imread(tmp_path / "fsc.png").shape[:2]
    assert width >= 1000
    assert height >= 400
    assert [path.name for path in tmp_path.iterdir()] == ["fsc.png"]


def test_svg_follows_the_page_and_keeps_ids_apart() -> None:
    first = theme.to_svg(figures.fsc_curves(curve()), "The FSC")
    second = theme.to_svg(figures.fsc_curves(curve()), "Another FSC")
    assert "var(--accent)" in first
    assert theme.ACCENT not in first
    ids = re.findall(r'id="([^"]+)"', first)
    assert ids
    assert not set(ids) & set(re.findall(r'id="([^"]+)"', second))
    used = set(re.findall(r'xlink:href="#([^"]+)"', first)) | set(re.findall(r"url\(#([^)]+)\)", first))
    assert used <= set(ids)
    assert 'aria-label="The FSC"' in first
    assert theme.to_svg(figures.fsc_curves(curve()), "The FSC") == first


@pytest.mark.slow
def test_pyplot_is_never_loaded() -> None:
    code = (
        "import sys; from hoarfrost.runs import theme, figures, run_figures, sphere, report; "
        "f = run_figures.stage_timings({'a': 1.0}); theme.to_svg(f, 'x'); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
