"""What the benchmarks share: where the data are, programs whose time and memory are measured, tables, and records."""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hoarfrost.runs.machine import available_cores, describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
METER = ROOT / "benchmarks" / "meter.py"
DATA_VARIABLE = "HOARFROST_TEST_DATA"

_PROGRAM = (sys.executable, "-c", "from hoarfrost.cli.main import main; main()")
_LIBRARIES = ("hoarfrost", "torch", "numpy", "gemmi")

Row = dict[str, Any]


def shared_data() -> Path | None:
    """The folder of structures and stacks that are not part of the repository; None where it is absent."""
    candidates = (os.environ.get(DATA_VARIABLE), ROOT.parent / "shared" / "data")
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


def no_data(name: str) -> int:
    """Say that a benchmark is skipped; its exit code."""
    print(f"{name}: skipped, it needs the shared test data: set {DATA_VARIABLE} to their folder")
    return 0


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a smoke run: tiny sizes, figures without meaning")
    made.add_argument("--again", action="store_true", help="measure anew what the record has already")
    made.add_argument("--threads", type=int, default=available_cores(), help="CPU threads (all cores)")
    made.add_argument("--results", type=Path, help="folder of the record (benchmarks/results, quick ones in quick/)")
    return made


@dataclass(frozen=True)
class Measured:
    """What a program took and said.

    ``peak_mb`` is the most memory it held at once (10^6 bytes), ``load`` how many processes the machine was busy with
    when it began: wall times mean little where that is more than a fraction of one.
    """

    code: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    load: float
    output: str

    @property
    def last_line(self) -> str:
        """Its last words, without paths."""
        lines = [line for line in self.output.splitlines() if line.strip()] or [""]
        return re.sub(r"/\S*/", "", lines[-1])

    @property
    def cost(self) -> Row:
        """The figures for a record."""
        figures = {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_mb": self.peak_mb, "load": self.load}
        return {name: round(value, 2) for name, value in figures.items()}


def measured(command: Sequence[object]) -> Measured:
    """Run a program and measure it alone."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-meter-") as folder, open(f"{folder}/output", "w+") as output:
        figures, load = Path(folder) / "figures.json", os.getloadavg()[0]
        meter = [sys.executable, "-I", METER, figures, *command]
        process = subprocess.Popen([str(part) for part in meter], stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
        output.seek(0)
        return Measured(**read_json(figures), load=load, output=output.read())


def hoarfrost(*arguments: object) -> Measured:
    """Run ``hoarfrost`` as a user does, with these arguments."""
    _compile_once()
    return measured([*_PROGRAM, *arguments])


@cache
def _compile_once() -> None:
    """Compile the package's Python as installing it does, also where the interpreter is told not to keep what it compiled."""
    for place in import_module("hoarfrost").__path__:
        compileall.compile_dir(place, quiet=1)


def simulated(folder: Path, *models: object, **options: object) -> Measured:
    """A blind stack and its truth in ``folder``; options are those of ``hoarfrost simulate``, tuples spread out."""
    arguments: list[object] = [*models, "--output", folder]
    for name, value in options.items():
        arguments += ["--" + name.replace("_", "-"), *(value if isinstance(value, tuple) else (value,))]
    done = hoarfrost("simulate", *arguments)
    if done.code != 0:
        raise RuntimeError(f"hoarfrost simulate failed: {done.output.strip()}")
    return done


def read_json(path: Path) -> Row:
    """A JSON file; empty if there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def run_figures(run: Path) -> Row:
    """What a finished run says of itself in ``run.json``."""
    manifest = read_json(run / "run.json")
    results = manifest.get("results", {})
    return {
        "resolution": results.get("resolution"),
        "pixel_size": results.get("voxel_size"),
        "diameter": results.get("diameter"),
        "agreement_of_starts": results.get("agreement_of_starts"),
        "throughput": results.get("throughput", {}),
        "stages": {name: round(seconds, 2) for name, seconds in manifest.get("timings", {}).items()},
        "warnings": list(manifest.get("warnings", [])),
        "report": results.get("verdict", {}).get("level"),
    }


def source_hash() -> str:
    """One name for the state of the package's code."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.py", "*.h", "*.cpp") for path in (ROOT / "src").rglob(pattern)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def machine_line() -> str:
    """The machine in a few words; rows measured on another one do not count as done."""
    machine = describe_machine()
    words = [machine["processor"], f"{machine['cores']} cores", f"kernels {machine['kernels']}", *machine["gpus"]]
    return ", ".join(words)


@dataclass
class Record:
    """The JSON file of a benchmark: a row a measurement, written anew after each so that nothing is lost."""

    path: Path
    settings: Row
    bars: Row
    again: bool = False
    rows: list[Row] = field(default_factory=list)
    figures: Row = field(default_factory=dict)  # what is no row
    _machine: str = field(default_factory=machine_line)
    _source: str = field(default_factory=source_hash)

    @classmethod
    def open(cls, name: str, options: argparse.Namespace, bars: Row) -> Record:
        """The record of a benchmark, with the rows that it has."""
        folder = options.results or (RESULTS / "quick" if options.quick else RESULTS)
        given = {key: value for key, value in vars(options).items() if key not in ("results", "again")}
        settings = {key: Path(value).name if isinstance(value, str) else value for key, value in given.items()}
        path = folder / f"{name}.json"
        return cls(path, settings, bars, options.again, rows=read_json(path).get("rows", []))

    def done(self, key: Row) -> Row | None:
        """The row of a measurement made before on this machine, unless it failed or all is to be measured again."""
        row = self._row(key)
        return None if row is None or "failed" in row or (self.again and row["source"] != self._source) else row

    def add(self, key: Row, figures: Row) -> Row:
        """Take in a row, in place of an older one of the same measurement, and write the file."""
        row = {"key": key, **figures, "machine": self._machine, "source": self._source, "date": today()}
        self.rows = [other for other in self.rows if other is not self._row(key)] + [row]
        self.write()
        return row

    def is_current(self, row: Row) -> bool:
        """Whether a row was measured with the code as it is now."""
        return bool(row["source"] == self._source)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        content: Row = {
            "benchmark": self.path.stem,
            "date": today(),
            "machine": describe_machine(),
            "versions": {name: version(name) for name in _LIBRARIES},
            "settings": self.settings,
            "bars": self.bars,
            "figures": self.figures,
            "rows": self.rows,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".writing")
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def _row(self, key: Row) -> Row | None:
        return next((row for row in self.rows if row["key"] == key and row["machine"] == self._machine), None)


def today() -> str:
    """The time as it stands in records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table; numbers to the right, columns in the order in which they first appear."""
    print(f"\n{title}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) if cells else len(name) for i, name in enumerate(names)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]

    def line(parts: Sequence[str]) -> str:
        padded = (p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    print(line(names), "  ".join("-" * width for width in widths), *(line(parts) for parts in cells), sep="\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def exit_code(passed: bool, options: argparse.Namespace) -> int:
    """0 where the bars are met; 1 otherwise, but for smoke runs, whose figures mean nothing."""
    return 0 if passed or options.quick else 1


def use_threads(count: int) -> None:
    """Let this process compute with so many threads."""
    torch.set_num_threads(count)
