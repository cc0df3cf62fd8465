"""Gauss-Newton on rotation and shift: normal equations, likelihood, and the whole refinement of an image at once."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.kernels.library import compiled_for, library, pointer
from hoarfrost.kernels.threads import in_parts, map_parts

IMAGES_AT_ONCE = 32
"""Images of one call: some milliseconds of work."""


class _Batch(ctypes.Structure):
    """``SlicedImages`` of ``src/native/kernels.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "coefficients", "box", "padding", "centre")),
        *(
            (name, ctypes.c_void_p)
            for name in ("fields", "values", "k", "vectors", "transfer", "root_weight", "matrices")
        ),
    )


@dataclass(frozen=True)
class SlicedImages:
    """Whitened images in a band, and the tables of a density that its slices are read from."""

    fields: Float[Tensor, "nodes 8"]  # the transform and its three moments
    values: Float[Tensor, "nodes 2"]  # the transform alone
    k: Int[Tensor, "m 2"]
    vectors: Complex[Tensor, "b m"]
    transfer: Float[Tensor, "b m"]
    root_weight: Float[Tensor, "m"]
    matrices: Float[Tensor, "b 2 2"] | None
    box: int
    padding: int
    centre: int

    def fits(self, rotations: Float[Tensor, "b 3 3"], shifts: Float[Tensor, "b 2"]) -> bool:
        """Whether the kernels take them: single precision in the computer's memory, no derivatives wanted."""
        tensors = (self.fields, self.values, self.vectors, self.transfer, self.root_weight)
        wanted = torch.is_grad_enabled() and any(one.requires_grad for one in (*tensors, rotations, shifts))
        return compiled_for(*tensors) and not wanted

    def normal_equations(
        self, rotations: Float[Tensor, "b 3 3"], shifts: Float[Tensor, "b 2"]
    ) -> tuple[Float[Tensor, "b 5 5"], Float[Tensor, "b 5"], Float[Tensor, "b"]]:
        """Curvature, slope and log-likelihood at the poses."""
        count = len(self.vectors)
        curvature, slope, likelihood = (torch.empty(count, *shape, dtype=torch.float64) for shape in ((5, 5), (5,), ()))
        self._run("normal_equations", (), rotations.double(), shifts.double(), curvature, slope, likelihood)
        return curvature.float(), slope.float(), likelihood.float()

    def log_likelihood(self, rotations: Float[Tensor, "b 3 3"], shifts: Float[Tensor, "b 2"]) -> Float[Tensor, "b"]:
        """The log-likelihood at the poses."""
        likelihood = torch.empty(len(self.vectors), dtype=torch.float64)
        self._run("log_likelihood", (), rotations.double(), shifts.double(), likelihood)
        return likelihood.float()

    def refined(
        self, rotations: Float[Tensor, "b 3 3"], shifts: Float[Tensor, "b 2"], iterations: int, largest_turn: float
    ) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"], Float[Tensor, "b"]]:
        """Better rotations and shifts, and their log-likelihood."""
        turned, moved = (one.to(torch.float64, copy=True) for one in (rotations, shifts))
        likelihood = torch.empty(len(self.vectors), dtype=torch.float64)
        settings = (ctypes.c_int64(iterations), ctypes.c_double(largest_turn))
        self._run("refine_poses", settings, turned, moved, likelihood)
        return turned.to(rotations.dtype), moved.float(), likelihood.float()

    def _run(self, name: str, settings: tuple[object, ...], *poses_and_results: Tensor) -> None:
        """Call a kernel for a few images at a time; tensors in double precision, one row an image."""
        function = getattr(library(), f"hoarfrost_{name}")
        shared = [
            (self.fields.detach().contiguous(), torch.float32),
            (self.values.detach().contiguous(), torch.float32),
            (self.k.contiguous(), torch.int64),
        ]
        vectors, transfer = self.vectors.detach().contiguous(), self.transfer.detach().contiguous()
        weight = self.root_weight.detach().contiguous()
        matrices = None if self.matrices is None else self.matrices.double().contiguous()
        tensors = [one.contiguous() for one in poses_and_results]

        def run(rows: slice) -> None:
            batch = _Batch(
                rows.stop - rows.start,
                len(self.k),
                self.box,
                self.padding,
                self.centre,
                *(pointer(one, dtype) for one, dtype in shared),
                pointer(vectors[rows], torch.complex64),
                pointer(transfer[rows], torch.float32),
                pointer(weight, torch.float32),
                None if matrices is None else pointer(matrices[rows], torch.float64),
            )
            function(ctypes.byref(batch), *settings, *(pointer(one[rows], torch.float64) for one in tensors))

        map_parts(run, in_parts(len(vectors), IMAGES_AT_ONCE), vectors.device)
        for given, used in zip(poses_and_results, tensors, strict=True):
            if used is not given:
                given.copy_(used)
