"""From options as a user gives them to the settings of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from hoarfrost.errors import InputError
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.reconstruct.settings import AbInitioConfig, Preset, ReconstructConfig, RefineConfig, RunConfig

Config = TypeVar("Config", bound=RunConfig)


def ab_initio_settings(preset: Preset, **options: object) -> AbInitioConfig:
    """The settings of a preset with the options that were given; those that are None keep the preset's value.

    Raises
    ------
    InputError
        If a value is out of range or a symmetry is unknown; the option is named as on the command line.
    """
    return settings("abinit", AbInitioConfig.from_preset, preset=preset, **options)


def refine_settings(preset: Preset, **options: object) -> RefineConfig:
    """The same for a refinement."""
    return settings("refine", RefineConfig.from_preset, preset=preset, **options)


def reconstruct_settings(**options: object) -> ReconstructConfig:
    """The same for a reconstruction from known poses."""
    return settings("reconstruct", ReconstructConfig, **options)


def settings(verb: str, make: Callable[..., Config], **options: object) -> Config:
    """The settings that ``make`` makes of the options that are not None, for the command line's ``verb``."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        config = make(**given)
    except ValidationError as error:
        detail = error.errors()[0]
        option = "--" + str(detail["loc"][0] if detail["loc"] else "preset").replace("_", "-")
        raise InputError(f"{option} {detail['input']}: {detail['msg']}; see hoarfrost {verb} --help") from error
    point_group(config.symmetry)
    return config
