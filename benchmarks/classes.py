"""Particles of two compositions divided into classes, and images without a particle recognised.

The second composition is the first without some of its chains. Every run is what a user does: ``hoarfrost simulate``,
``hoarfrost abinit`` on the particles only, ``hoarfrost evaluate`` against the truth.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gemmi

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
    simulated,
)

NAME = "classes"

BARS = {"right_class": 0.95, "junk_recognised": 0.90, "particles_lost": 0.05}


@dataclass(frozen=True)
class Case:
    """A stack: a structure, the chains that some of its particles lack, and the share of images without any."""

    name: str
    structure: str
    missing_chains: tuple[str, ...] = ()
    junk: float = 0.0

    @property
    def classes(self) -> int:
        """Compositions in the stack."""
        return 2 if self.missing_chains else 1


CASES = (
    Case("spike with and without ACE2, 70:30", "6cs2", missing_chains=("D",)),
    Case("Pol II with and without Rpb4/7, 70:30", "1wcm_fitted", missing_chains=("D", "G")),
    Case("Pol II, 20 % junk", "1wcm_fitted", junk=0.2),
    Case("spike with and without ACE2, 70:30, 20 % junk", "6cs2", missing_chains=("D",), junk=0.2),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=3_000)
    made.add_argument("--box", type=int, default=64)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--preset", default="default")
    options = made.parse_args(arguments)
    cases: Sequence[Case] = CASES
    if options.quick:
        vars(options).update({"particles": 400, "box": 40, "snr": 1.0})
        cases = (Case("built-in, 20 % junk", "builtin", junk=0.2),)
    elif shared_data() is None:
        return no_data(NAME)
    record, rows = Record.open(NAME, options, BARS), []
    for case in cases:
        settings = {name: getattr(options, name) for name in ("particles", "box", "snr", "preset", "threads")}
        key = asdict(case) | {"missing_chains": list(case.missing_chains)} | settings
        row = record.done(key)
        if row is None:
            print(f"{case.name} ...", flush=True)
            row = record.add(key, measure(case, key))
        rows.append(row)
    record.write()
    return exit_code(report(rows), options)


def measure(case: Case, key: Row) -> Row:
    """Simulate, reconstruct and evaluate one stack in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack, run = Path(scratch) / "stack", Path(scratch) / "run"
        models, options = [model(case.structure)], {}
        if case.missing_chains:
            models.append(without_chains(Path(str(models[0])), case.missing_chains, Path(scratch) / "lacking.cif"))
            options["weights"] = "7,3"
        simulated(
            stack, *models, n=key["particles"], box=key["box"], snr=key["snr"], shift=10 * key["box"] / 128,
            junk=case.junk, seed=0, **options,
        )  # fmt: skip
        done = hoarfrost(
            "abinit", stack / "particles.star", "-o", run, "--classes", case.classes,
            "--seed", 0, "--preset", key["preset"], "--threads", key["threads"],
        )  # fmt: skip
        evaluated = hoarfrost("evaluate", run, "--truth", stack) if done.code == 0 else done
        if evaluated.code != 0:
            return {"failed": evaluated.last_line} | done.cost
        return done.cost | run_figures(run) | {"scores": read_json(run / "scores.json")}


def without_chains(path: Path, chains: Sequence[str], output: Path) -> Path:
    """A copy of a structure that lacks these chains."""
    structure = gemmi.read_structure(str(path))
    for chain in chains:
        structure[0].remove_chain(chain)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(output))
    return output


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether all bars are met."""
    lines, missed = [], []
    for row in rows:
        scores = row.get("scores", {})
        classes = scores.get("classes") or {}
        reached = {
            "right_class": classes.get("right") if row["key"]["missing_chains"] else None,
            "junk_recognised": classes.get("junk_found") if row["key"]["junk"] else None,
            "particles_lost": classes.get("particles_lost"),
        }
        for name, value in reached.items():
            short = value is not None and (value > BARS[name] if name == "particles_lost" else value < BARS[name])
            if short or "failed" in row:
                missed.append(f"{row['key']['name']}: {row.get('failed', f'{name} {value}')}")
        median = scores.get("rotation_deg", {}).get("median")
        lines.append({"stack": row["key"]["name"], **reached, "median deg": median, "wall s": row["wall_s"]})
    show(NAME, lines)
    print("short: " + "; ".join(dict.fromkeys(missed)) if missed else "PASS")
    return not missed


if __name__ == "__main__":
    sys.exit(main())
