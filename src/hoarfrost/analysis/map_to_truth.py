"""The maps of several classes against one or several true ones, each with the truth that it is most like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.fsc import HalfMapFSC, validate_half_maps
from hoarfrost.analysis.map_alignment import MapAlignment, align_maps
from hoarfrost.physics.masks import mask_from_map
from hoarfrost.types import HalfMaps, Volume


@dataclass(frozen=True)
class MapToTruth:
    """A map laid over a true one: how, and the Fourier shell correlation, also under a mask made from the true map."""

    alignment: MapAlignment
    fsc: HalfMapFSC

    def to_dict(self) -> dict[str, object]:
        """Resolutions in Å, masked ones corrected by phase randomisation."""
        scores: dict[str, object] = {}
        for threshold in (0.5, 0.143):
            name = f"fsc_{threshold}_angstrom"
            scores[name] = self.fsc.resolution(threshold, "unmasked")
            scores[f"{name}_masked"] = self.fsc.resolution(threshold)
        scores["map_correlation"] = self.alignment.correlation
        scores["map_hand"] = "mirrored" if self.alignment.mirrored else "same"
        return scores


def map_to_truth(map: Volume, truth: Volume, start: GlobalAlignment | None = None) -> MapToTruth:
    """Compare a map with the true one; ``start`` is the frame that the poses gave, where that is trusted."""
    alignment = align_maps(map, truth, start=start)
    laid_over = HalfMaps(alignment.apply(map, truth), truth)
    return MapToTruth(alignment, validate_half_maps(laid_over, mask_from_map(truth)))


def class_maps_to_truths(
    maps: Mapping[int, Volume], truths: Mapping[int, Volume], start: GlobalAlignment | None = None
) -> dict[int, tuple[int, MapToTruth]]:
    """For each class the number of the true map that it correlates best with, and how it compares with that."""
    result = {}
    for number, map in maps.items():
        found = {true: map_to_truth(map, truth, start) for true, truth in truths.items()}
        best = max(found, key=lambda true: found[true].alignment.correlation)
        result[number] = best, found[best]
    return result
