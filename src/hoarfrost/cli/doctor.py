"""``hoarfrost doctor``."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoarfrost import __version__
from hoarfrost.kernels.library import instruction_set, missing_kernels
from hoarfrost.kernels.peak import integer_product_rate, search_rate
from hoarfrost.optimise.machine import matrix_product_rate
from hoarfrost.poses.likelihood import fast_matrix_products
from hoarfrost.runs.machine import available_memory, describe_machine

_LIBRARIES = ("torch", "numpy", "mrcfile", "starfile", "gemmi", "healpix", "safetensors", "pydantic", "matplotlib")
_EXTRAS = {
    "analysis": ("scikit-learn", "umap-learn"),
    "viewer": ("fastapi", "uvicorn"),
    "slurm": ("submitit",),
}
_PROGRAMS = {
    "RELION": ("relion", "relion_refine"),
    "ChimeraX": ("chimerax", "ChimeraX", "chimera"),
    "SLURM": ("sbatch",),
}


def command() -> None:
    """Report on the installation: versions, processor, measured speed, memory, optional parts."""
    console = Console()
    for title, facts in (
        ("hoarfrost " + __version__, _machine()),
        ("libraries", {name: _version(name) for name in _LIBRARIES}),
        ("optional", _optional()),
    ):
        table = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            table.add_row(f"  [dim]{name}[/]", escape(value))
        console.print(f"[bold]{title}[/]")
        console.print(table, highlight=False)


def _machine() -> dict[str, str]:
    machine = describe_machine()
    facts = {
        "system": machine["system"],
        "python": machine["python"],
        "processor": f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads in use",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory": f"{machine['memory_bytes'] / 1e9:.1f} GB, {available_memory() / 1e9:.1f} GB free",
        "matrix product": _rates(torch.device("cpu")),
        "kernels": _kernels(),
    }
    for number, name in enumerate(machine["gpus"]):
        device = torch.device("cuda", number)
        memory = torch.cuda.get_device_properties(device).total_memory
        facts[f"GPU {number}"] = f"{name}, {memory / 1e9:.0f} GB: {_rates(device)}"
    if not machine["gpus"]:
        facts["GPU"] = "none that this build of torch can use; not needed"
    return facts


def _rates(device: torch.device) -> str:
    size = 8192 if device.type == "cuda" else 2048
    exact = matrix_product_rate(size, device=device)
    fast = matrix_product_rate(size, device=device, precision=fast_matrix_products())
    return f"{exact / 1e12:.2f} TFLOP/s in float32, {fast / 1e12:.2f} TFLOP/s in bfloat16 or TF32"


def _kernels() -> str:
    """Which compiled kernels run, and what the search reaches of the processor's integer products."""
    missing = missing_kernels()
    if missing is not None:
        return missing.removeprefix("compiled kernels are ")
    instructions, peak, rate = instruction_set(), integer_product_rate(), search_rate()
    if peak is None or rate is None:
        return f"{instructions}: poses are refined and images inserted by them; PyTorch does the search"
    return (
        f"{instructions}: the search makes {rate / 1e12:.2f}e12 operations/s, {100 * rate / peak:.0f} % "
        f"of the peak of 8-bit products ({peak / 1e12:.2f}e12)"
    )


def _optional() -> dict[str, str]:
    facts = {}
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if _version(name) == "missing"]
        facts[extra] = f"missing {', '.join(missing)}: pip install 'hoarfrost[{extra}]'" if missing else "there"
    for program, names in _PROGRAMS.items():
        paths = [path for name in names if (path := shutil.which(name))]
        facts[program] = paths[0] if paths else "not on the PATH; not needed"
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
