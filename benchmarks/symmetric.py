"""Symmetric particles with the group given, against the same stacks without it: errors modulo the group.

Knowing the group must not make poses worse. The particles are copies of real proteins about the axes of a group. One
stack mixes a C3 particle with another that lacks a domain in each subunit, for ``--classes 2``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.abinit_accuracy import model
from benchmarks.common import (
    Record,
    Row,
    exit_code,
    hoarfrost,
    no_data,
    parser,
    read_json,
    run_figures,
    shared_data,
    show,
)
from benchmarks.hard_cases import symmetric_complex
from benchmarks.symmetric_particles import symmetric_copies
from hoarfrost.data.acquisition import Noise
from hoarfrost.data.density import fitting_pixel_size
from hoarfrost.data.simulate import simulate
from hoarfrost.io.atoms import Atoms, read_atoms

NAME = "symmetric"

BARS = {"errors_over_c1": 1.0, "right_class": 0.95}


@dataclass(frozen=True)
class Particle:
    """A point group, and the file and chains of the part that is copied.

    ``core`` are the first of these chains, where some particles have no others.
    """

    group: str
    what: str
    structure: str
    chains: tuple[str, ...] | None = None
    core: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a row is known by."""
        return f"{self.group}, two compositions" if self.core else self.group


PARTICLES = (
    Particle("C2", "two PI3K with Ras, 190 kDa", "1he8"),
    Particle("C3", "three ACE2 with a receptor-binding domain, 250 kDa", "2ajf"),
    Particle("D7", "fourteen subunits of GroEL, 780 kDa", "1aon", ("A",)),
    Particle("O", "twenty-four receptor-binding domains, 470 kDa", "2ajf", ("B",)),
    Particle("C3", "three ACE2, with the domain 7 : 3 without", "2ajf", core=("A",)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=2_500)
    made.add_argument("--box", type=int, default=96)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds from 0")
    made.add_argument("--preset", default="default")
    options = made.parse_args(arguments)
    particles: Sequence[Particle] = PARTICLES
    if options.quick:
        vars(options).update({"particles": 400, "box": 48, "snr": 1.0, "preset": "fast"})
        particles = (Particle("C3", "of the built-in complex", "builtin"),)
    elif shared_data() is None:
        return no_data(NAME)
    record, rows = Record.open(NAME, options, BARS), []
    for seed in range(options.seeds):
        for particle in particles:
            rows += _rows(record, options, particle, seed)
    return exit_code(report(record, rows), options)


def _rows(record: Record, options: argparse.Namespace, particle: Particle, seed: int) -> list[Row]:
    """A particle's rows: with its group given, and without; of two compositions with the group only."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack = Path(scratch) / "stack"
        for given in dict.fromkeys((particle.group, particle.group if particle.core else "C1")):
            sizes = {name: getattr(options, name) for name in ("particles", "box", "snr", "preset")}
            key = {"particle": particle.name, "given": given, "seed": seed} | sizes
            row = record.done(key)
            if row is None:
                print(f"{particle.name}, --symmetry {given}, seed {seed} ...", flush=True)
                if not stack.exists():
                    make_stack(particle, key, stack)
                row = record.add(key, measure(particle, key, stack, Path(scratch) / given, options.threads))
            rows.append(row)
    return rows


def make_stack(particle: Particle, key: Row, folder: Path) -> None:
    """The stack of a particle and its truth."""
    models = build(particle)
    stack = simulate(
        models,
        count=key["particles"],
        box=key["box"],
        pixel_size=fitting_pixel_size(models[0], key["box"]),
        noise=Noise(snr=key["snr"]),
        shift_px=10 * key["box"] / 128,
        weights=(7.0, 3.0) if particle.core else None,
        generator=torch.Generator().manual_seed(key["seed"]),
    )
    stack.write(folder)


def build(particle: Particle) -> list[Atoms]:
    """The particle, and that of the core alone where there is one, every chain in its place."""
    if particle.structure == "builtin":
        return [symmetric_complex(particle.group)]
    path = Path(str(model(particle.structure)))
    part = read_atoms(path, chains=particle.chains)
    whole = symmetric_copies(part, particle.group)
    if not particle.core:
        return [whole]
    core = torch.arange(len(whole)) % len(part) < len(read_atoms(path, chains=particle.core))
    fields = (whole.coordinates, whole.elements, whole.b_factors, whole.occupancies)
    return [whole, Atoms(*(field[core] for field in fields), name="core")]


def measure(particle: Particle, key: Row, stack: Path, run: Path, threads: int) -> Row:
    """Reconstruct a stack with the group that is given, and evaluate it up to the particle's own."""
    done = hoarfrost(
        "abinit", stack / "particles.star", "-o", run, "--symmetry", key["given"], "--seed", key["seed"],
        "--preset", key["preset"], "--classes", 2 if particle.core else 1, "--threads", threads,
    )  # fmt: skip
    evaluated = hoarfrost("evaluate", run, "--truth", stack, "--symmetry", particle.group) if done.code == 0 else done
    if evaluated.code != 0:
        return {"what": particle.what, "failed": evaluated.last_line} | done.cost
    return {"what": particle.what} | done.cost | run_figures(run) | {"scores": read_json(run / "scores.json")}


def report(record: Record, rows: Sequence[Row]) -> bool:
    """Print the table; whether all bars are met."""
    lines, missed = [], []
    for row in rows:
        key, scores = row["key"], row.get("scores", {})
        without = next((r for r in rows if r["key"] == key | {"given": "C1"} and r is not row), None)
        ratio = None if without is None or "failed" in without | row else mean_frobenius(row) / mean_frobenius(without)
        right_class = scores.get("classes", {}).get("right") if "compositions" in key["particle"] else None
        rotation = scores.get("rotation_deg", {})
        lines.append(
            {
                "particle": key["particle"],
                "given": key["given"],
                "seed": key["seed"],
                "median deg": rotation.get("median"),
                "<10 deg": rotation.get("below_10"),
                "Frobenius": scores.get("rotation_frobenius", {}).get("mean"),
                "over C1": ratio,
                "shift px": scores.get("shift_px", {}).get("after_origin"),
                "FSC 0.5 Å": scores.get("fsc_0.5_angstrom"),
                "right class": right_class,
                "report": row.get("report"),
                "CPU s": row["cpu_s"],
                "code": "present" if record.is_current(row) else "older",
            }
        )
        name = f"{key['particle']} given {key['given']}, seed {key['seed']}"
        if "failed" in row:
            missed.append(f"{name}: {row['failed']}")
        if ratio is not None and ratio > BARS["errors_over_c1"]:
            missed.append(f"{name}: {ratio:.2f} times the error without it")
        if right_class is not None and right_class < BARS["right_class"]:
            missed.append(f"{name}: {right_class:.1%} in the right class")
    show(f"{NAME}: errors modulo the particle's group", lines)
    print("short: " + "; ".join(missed) if missed else "PASS")
    return not missed


def mean_frobenius(row: Row) -> float:
    """Mean error of the rotations of a row, modulo the particle's group."""
    return float(row["scores"]["rotation_frobenius"]["mean"])


if __name__ == "__main__":
    sys.exit(main())
