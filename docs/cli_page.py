"""Write docs/cli.md from the program itself: python docs/cli_page.py."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from hoarfrost.cli.main import available_verbs, command_line

PAGE = Path(__file__).with_name("cli.md")

_OPENING = """\
# Command line

`hoarfrost --help` lists the verbs, `hoarfrost VERB --help` says what each takes. This page is made from the same
texts (`python docs/cli_page.py`), and a test keeps the two equal.

Whatever is wrong with what you gave (a missing column, a truncated stack, a folder that cannot be written) ends a
command with exit code 2 and one line that names the file, the row or column, and the remedy. Nothing that exists is
overwritten without `--force`. Other exit codes are in [Runs](runs.md#exit-codes).
"""

_EXAMPLES = {
    "demo": ("hoarfrost demo --output demo",),
    "abinit": (
        "hoarfrost abinit particles.star -o run",
        "hoarfrost abinit particles.star -o run --dry-run",
        "hoarfrost abinit J12/particles.cs -o run --root /data/project --symmetry D2 --diameter 180",
    ),
    "refine": (
        "hoarfrost refine run/particles.star --map run/map.mrc -o refined",
        "hoarfrost refine particles.star --map map.mrc -o refined --low-pass 30 --symmetry C3",
        "hoarfrost refine refined/particles.star --map refined/map.mrc --mask part.mrc --low-pass 12 -o part",
    ),
    "reconstruct": (
        "hoarfrost reconstruct particles.star -o maps",
        "hoarfrost reconstruct run/particles.star -o maps --mask run/mask.mrc --contrast",
        "hoarfrost reconstruct particles.star -o maps --poses refine --symmetry D7",
    ),
    "simulate": (
        "hoarfrost simulate builtin -o data",
        "hoarfrost simulate model.cif -o data --n 10000 --box 128 --snr 0.05 --junk 0.1",
        "hoarfrost simulate open.pdb closed.pdb -o data --weights 2,1 --preferred 5",
    ),
    "evaluate": ("hoarfrost evaluate run --truth data",),
    "select": (
        "hoarfrost select run -o good.star --junk drop --confidence 0.9",
        "hoarfrost select run -o first.star --class 1",
    ),
    "info": ("hoarfrost info particles.star", "hoarfrost info run/map.mrc"),
    "convert": ("hoarfrost convert run/particles.star particles.cs",),
    "downsample": ("hoarfrost downsample particles.star -o small/particles.star --box 128",),
    "fsc": ("hoarfrost fsc run/half1.mrc run/half2.mrc --mask run/mask.mrc -o fsc.csv --plot fsc.png",),
    "mask": ("hoarfrost mask run/map.mrc -o mask.mrc --lowpass 20",),
    "flip": ("hoarfrost flip run -o run-flipped", "hoarfrost flip map.mrc -o mirrored.mrc"),
    "cite": ("hoarfrost cite run --bibtex",),
}


def page() -> str:
    """The text of the page."""
    parts = [_OPENING]
    for verb in available_verbs():
        command = typer.main.get_command(command_line(verb.name)).commands[verb.name]  # type: ignore[attr-defined]
        parts.append("\n".join(_section(verb.name, command)))
    return "\n".join(parts)


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}\n"
    yield inspect.cleandoc(command.help) + "\n"
    for example in _EXAMPLES.get(name, ()):
        yield f"    {example}"
    rows = list(_rows(command.params, get_type_hints(command.callback)))
    if rows:
        yield "\n| argument or option | meaning | default |"
        yield "|---|---|---|"
        yield from rows
    yield ""


def _rows(parameters: list[Any], types: dict[str, Any]) -> Iterator[str]:
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            name = f"`{(parameter.metavar or parameter.name).upper()}`"
        else:
            name = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
        choices = _choices(types[parameter.name])
        meaning = f"{parameter.help or ''} {f'One of {choices}.' if choices else ''}"
        yield f"| {name} | {_cell(meaning)} | {_cell(_default(parameter))} |"


def _choices(kind: Any) -> str:
    values = get_args(kind) if get_origin(kind) is Literal else ()
    if isinstance(kind, type) and issubclass(kind, Enum):
        values = tuple(member.value for member in kind)
    return ", ".join(f"`{value}`" for value in values)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    value = parameter.default
    if isinstance(value, bool):
        return ("on" if value else "off") if parameter.secondary_opts or value else ""
    if value is None:
        return ""
    values = value if isinstance(value, list | tuple) else [value]
    return f"`{' '.join(_plain(part) for part in values)}`"


def _plain(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
