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
from benchmarks.true_map import TrueMap
from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.metrics import score_poses
from hoarfrost.poses.gauss_newton import GaussNewton
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.types import Poses

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
    true = TrueMap(stack)
    limit = min(max(AbInitioConfig.from_preset().levels), (true.particles.box - 1) // 2)
    density, pixel_size = true.density(limit), true.particles.optics.pixel_size
    found = []
    for rows in torch.arange(len(true.particles)).split(1024):
        images = true.images(rows, limit)
        start = GaussNewton(torch.ones(len(images.band)), 6)
        found.append(start.refine(images, density, true.poses.rotations[rows], true.shifts[rows]))
    refined = Poses(
        torch.cat([part.rotations for part in found]),
        torch.cat([part.shifts for part in found]).double() * pixel_size[:, None],
    )
    frame = GlobalAlignment(torch.eye(3, dtype=torch.float64), False, 1.0)
    scores = score_poses(refined, true.poses, pixel_size, frame=frame)
    return {"band": limit, "limit_frobenius": scores.frobenius_mean, "limit_shift_px": scores.shift_after_origin}


if __name__ == "__main__":
    sys.exit(main())
