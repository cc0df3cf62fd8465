"""Fourier shell correlation: how far two maps agree, and what of it a mask has made up.

Shells are one Fourier pixel wide and run from DC to Nyquist of the full box. A resolution is the first
crossing of a threshold, linearly interpolated in frequency.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.files import existing_file, replacing
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.types import HalfMaps, Volume

RANDOMISE_BELOW = 0.8
"""Phases are randomised from the first shell whose unmasked correlation is below this, as in RELION."""

UNCORRECTED_SHELLS = 2
"""Shells after the start of randomisation that keep their masked value: there the mask mixes neighbours."""

VOXELS_AT_ONCE = 500_000
"""Coefficients that one thread works on."""

NOTHING = 1e-10
"""A map whose power in a shell is less than this share of that in its strongest holds nothing there but rounding."""

Curve = Literal["unmasked", "masked", "randomised", "corrected"]

_COLUMNS = (
    "shell",
    "frequency_1_per_A",
    "resolution_A",
    "unmasked",
    "masked",
    "phase_randomised",
    "corrected",
)


def fourier_shell_correlation(
    first: Volume, second: Volume, mask: Float[Tensor, "z y x"] | None = None
) -> Float[Tensor, "shells"]:
    """Correlation of two maps in each shell 0 ... floor(D/2), float64.

    Parameters
    ----------
    first, second : Volume
        Cubic maps of one box and voxel size.
    mask : (z, y, x) tensor, optional
        Multiplies both maps beforehand.

    Returns
    -------
    (shells,) tensor
        ``Re sum(A B*) / sqrt(sum |A|^2 sum |B|^2)`` over a shell; 0 where either map has no power but rounding's.

    Raises
    ------
    InputError
        If the maps differ in box or voxel size, or the mask in box.
    """
    _require_alike(first, second, mask)
    data = (first.data, second.data) if mask is None else (first.data * mask, second.data * mask)
    return _correlate(_half_spectrum(data[0]), _half_spectrum(data[1]), first.box)


def shell_frequency(box: int, voxel_size: float) -> Float[Tensor, "shells"]:
    """Frequency of the shells 0 ... floor(D/2) in 1/Å, float64."""
    return torch.arange(box // 2 + 1, dtype=torch.float64) / (box * voxel_size)


def first_crossing(frequency: Float[Tensor, "shells"], curve: Float[Tensor, "shells"], threshold: float) -> float:
    """Resolution in Å at which a correlation curve first falls below a threshold.

    The crossing is interpolated linearly in frequency; DC takes no part. A curve that never falls below gives
    the last shell (Nyquist); one that starts below gives the first shell, the side of the box.
    """
    below = (curve[1:] < threshold).nonzero().flatten()
    if len(below) == 0:
        return 1 / float(frequency[-1])
    shell = int(below[0]) + 1
    if shell == 1:
        return 1 / float(frequency[1])
    above, under = float(curve[shell - 1]), float(curve[shell])
    fraction = (above - threshold) / (above - under)
    return 1 / float(torch.lerp(frequency[shell - 1], frequency[shell], fraction))


def full_from_half(fsc: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Correlation ``2F / (1 + F)`` expected of full maps from that of halves; negative values count as 0."""
    positive = fsc.clamp(0, 1)
    return 2 * positive / (1 + positive)


def spectral_snr_weight(fsc: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Weight ``sqrt(2F / (1 + F))`` of a shell of the full map: its correlation with the noiseless one.

    Rosenthal and Henderson, J. Mol. Biol. 333, 721 (2003), where it is called C_ref.
    """
    return full_from_half(fsc).sqrt()


@dataclass(frozen=True)
class HalfMapFSC:
    """Correlation of two half-maps by shell: as they are, masked, with randomised phases, and corrected.

    ``corrected`` is what is left of ``masked`` once the part that the mask alone makes is taken out; that is
    ``randomised``, measured on maps whose phases are random from shell ``randomised_from`` on.
    """

    frequency: Float[Tensor, "shells"]  # 1/Å
    unmasked: Float[Tensor, "shells"]
    masked: Float[Tensor, "shells"]
    randomised: Float[Tensor, "shells"]
    corrected: Float[Tensor, "shells"]
    randomised_from: int

    def resolution(self, threshold: float = 0.143, curve: Curve = "corrected") -> float:
        """First crossing of a curve in Å (see :func:`first_crossing`)."""
        return first_crossing(self.frequency, getattr(self, curve), threshold)

    def write_csv(self, path: Path) -> None:
        """One row a shell; the first crossings stand in comment lines above the header."""
        curves = (self.unmasked, self.masked, self.randomised, self.corrected)
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            for threshold in (0.143, 0.5):
                corrected = self.resolution(threshold)
                unmasked = self.resolution(threshold, "unmasked")
                file.write(f"# first crossing of {threshold}, corrected: {corrected:.3f} A\n")
                file.write(f"# first crossing of {threshold}, unmasked: {unmasked:.3f} A\n")
            file.write(f"# phases randomised from shell: {self.randomised_from}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for shell, frequency in enumerate(self.frequency.tolist()):
                resolution = 1 / frequency if shell else math.inf
                writer.writerow([shell, frequency, f"{resolution:.4f}", *(float(curve[shell]) for curve in curves)])

    @classmethod
    def read_csv(cls, path: Path) -> HalfMapFSC:
        """What :meth:`write_csv` wrote; curves come back exactly."""
        lines = existing_file(path).read_text(encoding="utf-8").splitlines()
        start = [line.rpartition(":")[2] for line in lines if line.startswith("# phases randomised from shell:")]
        rows = list(csv.reader(line for line in lines if not line.startswith("#")))
        if not start or not rows or tuple(rows[0]) != _COLUMNS:
            raise InputError(f"{path}: not an FSC table of hoarfrost; expected the columns {', '.join(_COLUMNS)}")
        try:
            table = torch.tensor([[float(cell) for cell in row] for row in rows[1:]], dtype=torch.float64)
            randomised_from = int(start[0])
        except ValueError as error:
            raise InputError(f"{path}: a row of the FSC table is damaged ({error}); write it again") from None
        if table.ndim != 2 or table.shape[1] != len(_COLUMNS) or len(table) < 2:
            raise InputError(f"{path}: the FSC table is cut short; write it again")
        _, frequency, _, unmasked, masked, randomised, corrected = table.unbind(1)
        return cls(frequency, unmasked, masked, randomised, corrected, randomised_from)


def validate_half_maps(
    half_maps: HalfMaps, mask: Volume | None = None, seed: int = 0, *, randomise: bool = True
) -> HalfMapFSC:
    """Gold-standard FSC of two half-maps, corrected for the mask by phase randomisation.

    From the first shell whose unmasked correlation is below 0.8 the phases of both maps are replaced by
    random ones and the masked correlation is measured again: what it shows is the mask's own. From two
    shells further on ``corrected = (masked - randomised) / (1 - randomised)`` (Chen et al., Ultramicroscopy
    135, 24 (2013)).
    Without a mask there is nothing to correct, and ``corrected`` equals ``unmasked``. Beyond the last shell in which
    the maps hold anything all curves are 0: what a mask leaks into there correlates, and says nothing.

    Parameters
    ----------
    half_maps : HalfMaps
        Maps from halves of the data, unfiltered.
    mask : Volume, optional
        Values in [0, 1], on the same grid.
    seed : int
        Seed of the random phases.
    randomise : bool
        Without it nothing is corrected: ``randomised`` is zero and ``corrected`` equals ``masked``.

    Raises
    ------
    InputError
        If the maps and the mask are not on one grid.
    """
    first, second = half_maps.first, half_maps.second
    unmasked = fourier_shell_correlation(first, second).cpu()
    frequency = shell_frequency(first.box, first.voxel_size)
    start = _first_shell_below(unmasked, RANDOMISE_BELOW)
    nothing = torch.zeros_like(unmasked)
    if mask is None:
        return HalfMapFSC(frequency, unmasked, unmasked, nothing, unmasked, start)
    _require_alike(first, mask, None)
    # Exactly 0 is a shell without power.
    ends = int(unmasked.nonzero().max()) if unmasked.any() else 0
    beyond = torch.arange(len(unmasked)) > ends
    masked = fourier_shell_correlation(first, second, mask.data).cpu().masked_fill(beyond, 0.0)
    if not randomise:
        return HalfMapFSC(frequency, unmasked, masked, nothing, masked, start)
    generator = torch.Generator().manual_seed(seed)
    scrambled = randomise_phases(first, start, generator), randomise_phases(second, start, generator)
    randomised = fourier_shell_correlation(scrambled[0], scrambled[1], mask.data).cpu().masked_fill(beyond, 0.0)
    corrected = masked.clone()
    tail = slice(start + UNCORRECTED_SHELLS, None)
    corrected[tail] = (masked[tail] - randomised[tail]) / (1 - randomised[tail]).clamp(min=1e-3)
    return HalfMapFSC(frequency, unmasked, masked, randomised, corrected, start)


def randomise_phases(volume: Volume, from_shell: int, generator: torch.Generator) -> Volume:
    """The map with its amplitudes kept and its phases drawn anew in the shells ``from_shell`` and beyond."""
    box = volume.box
    spectrum = _half_spectrum(volume.data)
    # The phases of the transform of real white noise are uniform and have the symmetry of a real map's.
    noise = _half_spectrum(torch.randn(box, box, box, generator=generator).to(volume.data))

    def scramble(part: slice) -> None:
        beyond = _shells(box, part, spectrum.device) >= from_shell
        scrambled = noise[part] * (spectrum[part].abs() / noise[part].abs())
        spectrum[part] = torch.where(beyond, scrambled, spectrum[part])

    map_parts(scramble, _planes(box), spectrum.device)
    data = torch.fft.irfftn(spectrum, s=(box, box, box), dim=(0, 1, 2), norm="ortho")
    return Volume(data, volume.voxel_size)


def _half_spectrum(data: Float[Tensor, "z y x"]) -> Complex[Tensor, "z y half"]:
    return torch.fft.rfftn(data, dim=(0, 1, 2), norm="ortho")


def _shells(box: int, planes: slice, device: torch.device) -> Int[Tensor, "z y half"]:
    """The shells of some planes of a half spectrum."""
    k = torch.fft.fftfreq(box, 1 / box, device=device).square()
    return (k[planes, None, None] + k[:, None] + k[: box // 2 + 1]).sqrt().round().long()


def _planes(box: int) -> list[slice]:
    """A half spectrum in parts that stay in a core's cache."""
    return in_parts(box, max(1, VOXELS_AT_ONCE // (box * (box // 2 + 1))))


def _correlate(
    first: Complex[Tensor, "z y half"], second: Complex[Tensor, "z y half"], box: int
) -> Float[Tensor, "shells"]:
    pairs = torch.full((box // 2 + 1,), 2.0, dtype=torch.float64, device=first.device)
    # The planes kx = 0 and, in even boxes, kx = Nyquist hold both members of each conjugate pair.
    pairs[0] = 1
    if box % 2 == 0:
        pairs[-1] = 1

    def totals(part: slice) -> Tensor:
        a, b, shells = first[part], second[part], _shells(box, part, first.device).flatten()
        products = (one.real * other.real + one.imag * other.imag for one, other in ((a, a), (b, b), (a, b)))
        return torch.stack([torch.bincount(shells, (one * pairs).flatten(), box) for one in products])

    *powers, common = torch.stack(map_parts(totals, _planes(box), first.device)).sum(0)[:, : box // 2 + 1]
    both = torch.stack(powers)
    present = (both > NOTHING * both[:, 1:].amax(1, keepdim=True)).all(0)
    power = both.prod(0).sqrt()
    return torch.where(present, common / power.clamp(min=torch.finfo(power.dtype).tiny), 0.0)


def _first_shell_below(curve: Float[Tensor, "shells"], threshold: float) -> int:
    below = (curve[1:] < threshold).nonzero().flatten()
    return int(below[0]) + 1 if len(below) else len(curve)


def _require_alike(first: Volume, second: Volume, mask: Tensor | None) -> None:
    if first.box != second.box:
        raise InputError(f"the maps have boxes {first.box} and {second.box}; resample one of them first")
    if not math.isclose(first.voxel_size, second.voxel_size, rel_tol=1e-3):
        raise InputError(f"the maps have voxel sizes {first.voxel_size:g} and {second.voxel_size:g} A; resample one")
    if mask is not None and mask.shape != first.data.shape:
        raise InputError(f"the mask has shape {tuple(mask.shape)}, the maps {tuple(first.data.shape)} (z, y, x)")
