"""hoarfrost: single-particle cryo-EM from a particle stack to poses, a validated map and a report.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "InputError": "hoarfrost.errors",
    "Particles": "hoarfrost.types",
    "Optics": "hoarfrost.types",
    "Poses": "hoarfrost.types",
    "Volume": "hoarfrost.types",
    "HalfMaps": "hoarfrost.types",
    "read_particles": "hoarfrost.io.particles",
    "write_particles": "hoarfrost.io.particles",
    "read_map": "hoarfrost.io.mrc",
    "write_map": "hoarfrost.io.mrc",
    "simulate": "hoarfrost.data.simulate",
    "fourier_shell_correlation": "hoarfrost.analysis.fsc",
    "reconstruct": "hoarfrost.reconstruct.homogeneous",
    "ab_initio": "hoarfrost.reconstruct.ab_initio",
    "refine": "hoarfrost.reconstruct.refine",
    "evaluate": "hoarfrost.analysis.metrics",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'hoarfrost' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
