"""``python -m benchmarks``: run them all, or ``python -m benchmarks NAME`` one; ``--list`` says what there is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

NAMES = (
    "simulate_speed",
    "estimators",
    "relion_agreement",
    "refine_against_relion",
    "orientation_limit",
    "hard_cases",
    "classes",
    "symmetric",
    "kernels",
    "homogeneous_noise",
    "homogeneous_speed",
    "homogeneous_snr",
    "homogeneous_training",
    "homogeneous_poses",
    "homogeneous",
    "confidence",
    "abinit_speed",
    "pose_limit",
    "abinit_accuracy",
    "robustness",
)
"""Shortest first."""

FOLDER = Path(__file__).parent


def purpose(name: str) -> str:
    """The first sentence of a benchmark's docstring, without importing it."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def main(arguments: list[str]) -> int:
    """Run what is asked for with the options that follow; 1 if a bar is missed anywhere."""
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in NAMES:
            print(f"there is no benchmark {arguments[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
            return 2
        return run(arguments[0], arguments[1:])
    for name in NAMES:
        print(f"{name:22} {purpose(name)}")
    if "--list" in arguments or "--help" in arguments or "-h" in arguments:
        return 0
    codes = {}
    for name in NAMES:
        print(f"\n=== {name}", flush=True)
        codes[name] = run(name, arguments)
    missed = [name for name, code in codes.items() if code != 0]
    print("\nall bars are met" if not missed else "\nfalls short: " + ", ".join(missed))
    return 1 if missed else 0


def run(name: str, options: list[str]) -> int:
    """One benchmark in a process of its own, so that none measures what another left."""
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options], cwd=FOLDER.parent, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
