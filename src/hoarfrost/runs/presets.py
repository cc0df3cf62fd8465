"""From options as a user gives them to the settings of a run."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from hoarfrost.errors import InputError
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.reconstruct.settings import AbInitioConfig, Preset, RefineConfig

Config = TypeVar("Config", AbInitioConfig, RefineConfig)


def ab_initio_settings(preset: Preset, **options: object) -> AbInitioConfig:
    """The settings of a preset with the options that were given; those that are None keep the preset's value.

    Raises
    ------
    InputError
        If a value is out of range or a symmetry is unknown; the option is named as on the command line.
    """
    return _settings(AbInitioConfig, "abinit", preset, options)


def refine_settings(preset: Preset, **options: object) -> RefineConfig:
    """The same for a refinement."""
    return _settings(RefineConfig, "refine", preset, options)


def _settings(kind: type[Config], verb: str, preset: Preset, options: dict[str, object]) -> Config:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        config = kind.from_preset(preset, **given)
    except ValidationError as error:
        detail = error.errors()[0]
        option = "--" + str(detail["loc"][0] if detail["loc"] else "preset").replace("_", "-")
        raise InputError(f"{option} {detail['input']}: {detail['msg']}; see hoarfrost {verb} --help") from error
    point_group(config.symmetry)
    return config
