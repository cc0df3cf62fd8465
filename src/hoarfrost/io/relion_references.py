"""How RELION's particles refer to what is elsewhere: to images in stacks, and to rows of the optics table."""

from __future__ import annotations

import numpy as np

from hoarfrost.errors import InputError
from hoarfrost.io.star import StarBlock, decode, unquoted
from hoarfrost.io.table import ImageNames


def group_rows(particles: StarBlock, optics: StarBlock) -> np.ndarray:
    """Row of the optics table of each particle; a table of one group serves particles that name none."""
    if "rlnOpticsGroup" not in particles:
        if len(optics) > 1:
            raise InputError(f"{particles.origin}: column rlnOpticsGroup is missing, with {len(optics)} optics groups")
        return np.zeros(len(particles), dtype=np.int64)
    if "rlnOpticsGroup" not in optics:
        raise InputError(f"{optics.origin}: column rlnOpticsGroup is missing")
    known, wanted = optics.numbers("rlnOpticsGroup"), particles.numbers("rlnOpticsGroup")
    if len(np.unique(known)) != len(known):
        raise InputError(f"{optics.origin}: an rlnOpticsGroup number occurs twice")
    unknown = ~np.isin(wanted, known)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise InputError(
            f"{particles.origin}: row {row + 1}: optics group {wanted[row]:g} is not in data_optics, which has "
            + ", ".join(f"{group:g}" for group in known)
        )
    order = np.argsort(known)
    return order[np.searchsorted(known[order], wanted)]


def parse_names(block: StarBlock) -> ImageNames:
    """Files and places from ``rlnImageName``: ``number@stack``, or the name alone."""
    files: dict[str, int] = {}
    file = np.empty(len(block), dtype=np.int64)
    index = np.full(len(block), -1, dtype=np.int64)
    for row, token in enumerate(block.columns["rlnImageName"].tolist()):
        number, at, name = unquoted(decode(token)).rpartition("@")
        if at:
            try:
                index[row] = int(number) - 1
            except (ValueError, OverflowError):
                raise InputError(
                    f"{block.origin}: row {row + 1}, column rlnImageName: {decode(token)!r} is not 'number@stack'"
                ) from None
            if index[row] < 0:
                raise InputError(f"{block.origin}: row {row + 1}: image {number} of {name}: images count from 1")
        file[row] = files.setdefault(name, len(files))
    return ImageNames(tuple(files), file, index)


def parse_vector(text: str, where: str) -> list[float]:
    """Numbers written as ``[a,b,...]``."""
    try:
        return [float(part) for part in text.strip("[]").split(",") if part]
    except ValueError:
        raise InputError(f"{where}: {text!r} is not a list of numbers like [0.1,0.2]") from None
