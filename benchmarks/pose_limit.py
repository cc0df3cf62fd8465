"""Errors of blind poses against the information limit: Gauss-Newton from the truth, with the true map, in the same band.

No estimator that knows the map only from the images can do better than one that has the map and starts at the answer.
The images are whitened in the same way for both; the true map is put on their scale by the mean contrast.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.abinit_accuracy import STRUCTURES, model
from benchmarks.common import (
    Record,
    Row,
    exit_code,
    hoarfrost,
    no_data,
    parser,
    read_json,
    shared_data,
    show,
    simulated,
    use_threads,
)
from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.metrics import score_poses
from hoarfrost.data.dataset import Normalisation, estimate_noise, whitened_images
from hoarfrost.fourier.band import Band
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.poses.contrast import contrast
from hoarfrost.poses.gauss_newton import GaussNewton
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Poses, Volume

NAME = "pose_limit"

BARS = {"times_the_limit": 1.10}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=10_000)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument(
        "--structures", nargs="+", default=list(STRUCTURES)[:4], help="names in the shared data, or builtin"
    )
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": 400, "box": 48, "snr": 1.0, "structures": ["builtin"]})
    if shared_data() is None and options.structures != ["builtin"]:
        return no_data(NAME)
    use_threads(options.threads)
    record, rows = Record.open(NAME, options, BARS), []
    for structure in options.structures:
        key = {"structure": structure, "particles": options.particles, "box": options.box, "snr": options.snr}
        rows.append(record.done(key) or record.add(key, measure(key, options.threads)))
    show(
        f"{NAME}: {options.particles} particles of box {options.box}, SNR {options.snr:g}; mean errors",
        [{"structure": row["key"]["structure"]} | {k: row.get(k) for k in COLUMNS} for row in rows],
    )
    passed = all(row.get("times_the_limit", float("inf")) <= BARS["times_the_limit"] for row in rows)
    print(f"bar: {BARS['times_the_limit']:.2f} times the limit: " + ("PASS" if passed else "short"))
    return exit_code(passed, options)


COLUMNS = ("band", "frobenius", "limit_frobenius", "times_the_limit", "shift_px", "limit_shift_px")


def measure(key: Row, threads: int) -> Row:
    """Simulate a stack, find its poses blindly, and from the truth."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack, run = Path(scratch) / "stack", Path(scratch) / "run"
        simulated(stack, model(key["structure"]), n=key["particles"], box=key["box"], snr=key["snr"], seed=0,
                  shift=10 * key["box"] / 128)  # fmt: skip
        done = hoarfrost("abinit", stack / "particles.star", "-o", run, "--threads", threads)
        evaluated = hoarfrost("evaluate", run, "--truth", stack) if done.code == 0 else done
        if evaluated.code != 0:
            return {"failed": evaluated.last_line}
        scores, limit = read_json(run / "scores.json"), from_the_truth(stack)
    frobenius = scores["rotation_frobenius"]["mean"]
    return limit | {
        "frobenius": frobenius,
        "shift_px": scores["shift_px"]["after_origin"],
        "times_the_limit": frobenius / limit["limit_frobenius"],
    }


def from_the_truth(stack: Path) -> Row:
    """Mean errors of Gauss-Newton that starts at the true poses in the true map, in the engine's last band."""
    particles, volume = read_particles(stack / "truth.star"), read_map(stack / "truth.mrc")
    truth, box = particles.poses, particles.box
    if truth is None:
        raise RuntimeError("the truth has no poses")
    band = Band(box, min(max(AbInitioConfig.from_preset().levels), (box - 1) // 2))
    normalisation = Normalisation(0.42 * box)
    noise = estimate_noise(particles, Band.to_nyquist(box), normalisation)
    weight, shifts = torch.ones(len(band)), truth.shifts / particles.optics.pixel_size[:, None]
    density = FourierVolume.from_volume(volume, band.limit)
    scale, found = None, []
    for rows in torch.arange(len(particles)).split(1024):
        images = whitened_images(particles, rows, band, normalisation, noise)
        if scale is None:
            scale = float(contrast(images, density, truth.rotations[rows], shifts[rows], weight).scale.mean())
            density = FourierVolume.from_volume(Volume(scale * volume.data, volume.voxel_size), band.limit)
        found.append(GaussNewton(weight, 6).refine(images, density, truth.rotations[rows], shifts[rows]))
    refined = Poses(
        torch.cat([part.rotations for part in found]),
        torch.cat([part.shifts for part in found]).double() * particles.optics.pixel_size[:, None],
    )
    frame = GlobalAlignment(torch.eye(3, dtype=torch.float64), False, 1.0)
    scores = score_poses(refined, truth, particles.optics.pixel_size, frame=frame)
    return {"band": band.limit, "limit_frobenius": scores.frobenius_mean, "limit_shift_px": scores.shift_after_origin}


if __name__ == "__main__":
    sys.exit(main())
