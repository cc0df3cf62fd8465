"""Every pose estimator against the true map of a known structure: how exact it is, and what an image costs.

The map and the noise are known, so that only the search is judged. Local estimators begin with what the exhaustive
search found; their rates count their own work only. The published cost of hierarchical pose search is that of a decoder
network evaluated at every slice point: 350 GFLOP an image at box 128 (three layers of 256, 0.59 MFLOP a point).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.abinit_accuracy import model
from benchmarks.common import Record, Row, exit_code, no_data, parser, shared_data, show, use_threads
from hoarfrost.data.acquisition import Microscope, Noise
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.dataset import BandImages
from hoarfrost.data.simulate import simulate
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.io.atoms import read_atoms
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.poses.base import PoseEstimator, PosePosterior
from hoarfrost.poses.gauss_newton import GaussNewton, PoseRefinement
from hoarfrost.poses.gradient import GradientRefinement, PoseAdam
from hoarfrost.poses.hierarchical import HierarchicalSearch
from hoarfrost.poses.local_search import LocalSearch, PoseCells
from hoarfrost.poses.search import ExhaustiveSearch
from hoarfrost.representations.voxel import FourierVolume

NAME = "estimators"

BARS = {"hierarchical_median_deg": 1.5, "hierarchical_below_10": 0.95, "from_snr": 0.1}

PUBLISHED_GFLOP = 350.0
"""An image of hierarchical pose search with a decoder network."""

OPERATIONS_A_POINT = 60
"""Reading one slice point between eight nodes, and multiplying it with an image."""

SHIFT_SHARE = 10 / 128
"""Particles lie off centre by up to this share of the box."""

ESTIMATORS = (
    "exhaustive, 15 deg", "hierarchical", "local search", "gradient", "Gauss-Newton",
    "Gauss-Newton after hierarchical", "Gauss-Newton from the truth",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Images of a known structure, whitened, with their true poses and the true map."""

    images: BandImages
    density: FourierVolume
    rotations: Tensor
    shifts: Tensor

    @classmethod
    def of(cls, key: Row, limit: int) -> Scene:
        """Simulate a stack; noise is white and of unit variance."""
        name, box = key["structure"], key["box"]
        atoms = builtin_complex() if name == "builtin" else read_atoms(model(name))
        radius = float(torch.linalg.vector_norm(atoms.coordinates - atoms.centre_of_mass, dim=1).max())
        pixel_size = round(2 * radius / (0.7 * box), 2)
        stack = simulate(
            atoms, count=key["particles"], box=box, pixel_size=pixel_size, shift_px=SHIFT_SHARE * box,
            microscope=Microscope(astigmatism=500.0), noise=Noise(key["snr"]),
            generator=torch.Generator().manual_seed(key["seed"]),
        )  # fmt: skip
        truth, band = stack.truth, Band(box, limit)
        vectors = band.from_images(truth.images.read(torch.arange(len(truth))))
        transfer = contrast_transfer_function(truth.optics, band.frequency)
        density = FourierVolume.from_volume(stack.volumes[0], limit)
        shifts = truth.poses.shifts / truth.optics.pixel_size[:, None]
        return cls(BandImages(band, vectors, transfer.float()), density, truth.poses.rotations.double(), shifts)

    @cached_property
    def coarse(self) -> PosePosterior:
        """Where the local estimators begin."""
        return self.estimator("exhaustive, 15 deg").estimate(self.images.prefix(14), self.density)

    @cached_property
    def fine(self) -> PosePosterior:
        """What the hierarchical search finds."""
        return self.estimator("hierarchical").estimate(self.images, self.density)

    def estimator(self, name: str) -> PoseEstimator:
        """One of :data:`ESTIMATORS` with its defaults."""
        box, weight = self.images.band.box, torch.ones(len(self.images.band))
        made: dict[str, Callable[[], PoseEstimator]] = {
            "exhaustive, 15 deg": lambda: ExhaustiveSearch(
                OrientationGrid(2), self._shifts, weight[: len(self.images.prefix(14).band)], 16, self._frame
            ),
            "hierarchical": lambda: HierarchicalSearch(weight, t_extent=20 * box / 128, frame=self._frame),
            "local search": lambda: LocalSearch(self._cells, weight, (16, 24, 32)),
            "gradient": lambda: GradientRefinement(PoseAdam(weight), *self.coarse.mode),
            "Gauss-Newton": lambda: PoseRefinement(GaussNewton(weight, 6), *self.coarse.mode),
            "Gauss-Newton after hierarchical": lambda: PoseRefinement(GaussNewton(weight, 3), *self.fine.mode),
            "Gauss-Newton from the truth": lambda: PoseRefinement(
                GaussNewton(weight, 3), self.rotations, self.shifts.float()
            ),
        }
        return made[name]()

    @property
    def _shifts(self) -> Tensor:
        return shift_grid(SHIFT_SHARE * self.images.band.box, 7)

    @property
    def _frame(self) -> Tensor:
        return random_rotations(1, torch.Generator().manual_seed(1))[0]

    @property
    def _cells(self) -> PoseCells:
        step = 2 * SHIFT_SHARE * self.images.band.box / 6
        return PoseCells.about(self.coarse.rotations, self.coarse.shifts, 2, step, frame=self._frame)


def measure(scene: Scene, name: str) -> Row:
    """Errors and rate of an estimator."""
    estimator, images = scene.estimator(name), scene.images.prefix(14) if "15 deg" in name else scene.images
    load, start, processor = os.getloadavg()[0], time.perf_counter(), time.process_time()
    posterior = estimator.estimate(images, scene.density)
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    rotation, shift = posterior.mode
    angle = geodesic_distance(rotation.double(), scene.rotations)
    return {
        "median_deg": math.degrees(float(angle.median())),
        "mean_deg": math.degrees(float(angle.mean())),
        "below_10": float((angle < math.radians(10)).double().mean()),
        "frobenius_mean": float((2 * math.sqrt(2) * torch.sin(angle / 2)).mean()),
        "shift_px": float((shift.double() - scene.shifts).norm(dim=-1).mean()),
        "images_s": len(images) / wall,
        "cpu_ms_an_image": 1e3 * processor / len(images),
        "load": load,
    }


def hierarchical_gflop(box: int) -> float:
    """Operations of the hierarchical search of one image, 10^9: matrix products, slices and shifts."""
    search = HierarchicalSearch(torch.ones(1))
    shifts, furthest = search.shift_count**2, (box - 1) // 2
    pairs = len(OrientationGrid(search.base_healpix)) // 2
    total = 2.0 * pairs * len(Band(box, min(search.l_start, furthest))) * (2 * shifts + 1)
    for level in range(1, search.n_iter + 1):
        points = 8 * search.n_kept_poses * len(Band(box, min(search.limit(level), furthest)))
        total += points * (OPERATIONS_A_POINT + 4 * shifts)
    return 1e-9 * total


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=400)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    made.add_argument("--structure", default="1ffk", help="a name in the shared data, or builtin")
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": 12, "box": 48, "snr": [1.0], "structure": "builtin"})
    if shared_data() is None and options.structure != "builtin":
        return no_data(NAME)
    use_threads(options.threads)
    record = Record.open(NAME, options, BARS)
    rows = [row for snr in options.snr for row in measured_rows(record, options, snr)]
    gflop = hierarchical_gflop(options.box)
    record.figures = {"hierarchical_gflop": gflop, "published_gflop": PUBLISHED_GFLOP, "ratio": PUBLISHED_GFLOP / gflop}
    record.write()
    return exit_code(report(record, rows), options)


def measured_rows(record: Record, options: argparse.Namespace, snr: float) -> list[Row]:
    """The rows of one signal-to-noise ratio; the scene is made only if one is missing."""
    shared = {"structure": options.structure, "particles": options.particles, "box": options.box, "snr": snr, "seed": 0}
    keys = [shared | {"threads": options.threads, "estimator": name} for name in ESTIMATORS]
    done = [record.done(key) for key in keys]
    if None in done:
        scene = Scene.of(shared, min(32, (options.box - 1) // 2))
        done = [row or record.add(key, measure(scene, key["estimator"])) for key, row in zip(keys, done, strict=True)]
    return [row for row in done if row is not None]


def report(record: Record, rows: Sequence[Row]) -> bool:
    """Print the table; whether the bars are met."""
    names = ("median_deg", "mean_deg", "below_10", "frobenius_mean", "shift_px", "images_s", "cpu_ms_an_image", "load")
    show(
        NAME,
        [
            {"SNR": row["key"]["snr"], "estimator": row["key"]["estimator"]}
            | {name: row[name] for name in names}
            | {"code": "present" if record.is_current(row) else "older"}
            for row in rows
        ],
    )
    figures = record.figures
    print(
        f"hierarchical search: {figures['hierarchical_gflop']:.2f} GFLOP an image; "
        f"published with a network {figures['published_gflop']:.0f}, {figures['ratio']:.0f} times as much"
    )
    judged = [r for r in rows if r["key"]["estimator"] == "hierarchical" and r["key"]["snr"] >= BARS["from_snr"]]
    passed = all(
        r["median_deg"] <= BARS["hierarchical_median_deg"] and r["below_10"] >= BARS["hierarchical_below_10"]
        for r in judged
    )
    print("PASS" if passed else "short: hierarchical")
    return passed


if __name__ == "__main__":
    sys.exit(main())
