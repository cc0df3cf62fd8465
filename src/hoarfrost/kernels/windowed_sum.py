"""Windowed Gaussians added up on a grid, and moments of a grid under them (``representations/splatting``)."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.kernels.library import library, pointer
from hoarfrost.kernels.threads import in_parts, map_parts

PLANES_A_PART = 16
"""Planes of a grid that one thread fills."""

GAUSSIANS_A_PART = 1024
"""Gaussians whose moments one thread takes at a time."""

_CPU = torch.device("cpu")


class _WindowedGaussians(ctypes.Structure):
    """``WindowedGaussians`` of ``src/native/kernels.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("depth", "height", "width", "isotropic")),
        ("edge", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("order", "centres", "amplitudes", "precisions", "reach")),
    )


def add_gaussians(
    shape: tuple[int, int, int],
    edge: float,
    centres: Float[Tensor, "n 3"],
    amplitudes: Float[Tensor, "n"],
    precisions: Float[Tensor, "n 6"] | Float[Tensor, "n"],
    reach: Float[Tensor, "n 3"],
    own_planes: bool,
) -> Float[Tensor, "z y x"]:
    """The sum on a grid; with ``own_planes`` every plane has an equal share of the Gaussians, one plane's after another."""
    loaded = library()
    assert loaded is not None
    order = torch.arange(len(centres)) if own_planes else _in_neighbourhoods(centres)
    tensors = (order, centres, amplitudes, precisions, reach)
    mixture, result = _mixture(shape, edge, *tensors), torch.zeros(shape)
    target, an_own_part = pointer(result, torch.float32), len(centres) // max(1, shape[0])

    def fill(planes: slice) -> None:
        first, last = (planes.start * an_own_part, planes.stop * an_own_part) if own_planes else (0, len(centres))
        numbers = (ctypes.c_int64(number) for number in (first, last, planes.start, planes.stop))
        loaded.hoarfrost_add_gaussians(ctypes.byref(mixture), *numbers, target)

    map_parts(fill, in_parts(shape[0], 1 if own_planes else PLANES_A_PART), _CPU)
    return result


def gaussian_moments(
    field: Float[Tensor, "z y x"],
    edge: float,
    centres: Float[Tensor, "n 3"],
    precisions: Float[Tensor, "n 6"] | Float[Tensor, "n"],
    reach: Float[Tensor, "n 3"],
    own_planes: bool,
) -> Float[Tensor, "n 10"]:
    """Sums over the grid of field times ``g``, and times ``dg/dq`` times x, y, z, xx, yy, zz, xy, xz, yz."""
    loaded = library()
    assert loaded is not None
    order = torch.arange(len(centres)) if own_planes else _in_neighbourhoods(centres)
    amplitudes, result = torch.ones(len(centres)), torch.empty(len(centres), 10)
    mixture = _mixture(tuple(field.shape), edge, order, centres, amplitudes, precisions, reach)
    source, target = pointer(field, torch.float32), pointer(result, torch.float32)

    def gather(part: slice) -> None:
        first, last = ctypes.c_int64(part.start), ctypes.c_int64(part.stop)
        loaded.hoarfrost_gaussian_moments(ctypes.byref(mixture), source, first, last, target)

    map_parts(gather, in_parts(len(centres), GAUSSIANS_A_PART), _CPU)
    return result


def _in_neighbourhoods(centres: Tensor) -> Tensor:
    """An order in which Gaussians that lie near one another follow one another, for the sake of the caches."""
    blocks = (centres[:, 1:] / 8).nan_to_num(0.0).clamp(-1, 1022).int()
    return torch.argsort(blocks[:, 1] * 1024 + blocks[:, 0], stable=True)


def _mixture(
    shape: tuple[int, ...],
    edge: float,
    order: Tensor,
    centres: Tensor,
    amplitudes: Tensor,
    precisions: Tensor,
    reach: Tensor,
) -> _WindowedGaussians:
    numbers = [pointer(one, torch.float32) for one in (centres, amplitudes, precisions, reach)]
    return _WindowedGaussians(*shape, int(precisions.ndim == 1), edge, pointer(order, torch.int64), *numbers)
