"""How much an image's own noise, found again in the map of its half, speaks for the pose it has."""

from __future__ import annotations

import torch

from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.poses.gauss_newton import GaussNewton
from hoarfrost.reconstruct.half_map_stage import HalfMapStage

SAMPLE = 1024
"""Particles by which it is measured: to a tenth of a nat."""


def own_share(maps: HalfMapStage, state: State, name: str, iterations: int) -> float:
    """By how much likelier images are at their present poses in a map of their half than in an equal one of the other.

    A map that lacks an image still remembers it: others were posed, in the rounds before, with maps that held it, and
    brought their own noise in line with its. With some thousand particles that is a nat or two, enough for an image in
    a wrong pose to stay in it. The map of the other half owes nothing to the image; pose and map are otherwise the same
    to both, refined in either.

    The mean over a sample of the particles, in nats, and no less than zero; ``maps`` made those under ``name``.
    """
    stack, used = maps.stack, (state["half"] > 0).nonzero()[:, 0]
    rows = used[torch.linspace(0, len(used) - 1, min(SAMPLE, len(used))).long()]
    band = Band(stack.band.box, int(state[f"{name}.limit"]))
    refine, ahead = GaussNewton(state[f"{name}.weight"], iterations).refine, 0.0
    for half, mine, decisive in maps.decisive(state, name, rows):
        images, rotations, shifts = stack.images(mine, band), state["rotations"][mine], state["shifts"][mine]
        for number, sign in ((half, 1), (3 - half, -1)):
            density = decisive.density(number, band.limit, stack.device)
            ahead += sign * float(refine(images, density, rotations, shifts).log_likelihood.sum())
    return max(0.0, ahead / len(rows))
