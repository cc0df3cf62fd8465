"""``hoarfrost cite``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hoarfrost.errors import InputError
from hoarfrost.runs.manifest import Manifest
from hoarfrost.runs.references import BY_VERB, REFERENCES, Reference, references_of


def command(
    what: Annotated[
        str | None, typer.Argument(help=f"The folder of a run, or a verb ({', '.join(BY_VERB)}); all if left out.")
    ] = None,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="As BibTeX entries.")] = False,
) -> None:
    """Name the papers that a run or a verb relied on, and for what."""
    for reference in _references(what):
        typer.echo(f"{reference.bibtex}\n" if bibtex else f"{reference.text}\n    for {reference.purpose}")


def _references(what: str | None) -> list[Reference]:
    if what is None:
        return list(REFERENCES.values())
    if what in BY_VERB:
        return references_of(what)
    if not Path(what).is_dir():
        raise InputError(f"{what}: neither the folder of a run nor one of {', '.join(BY_VERB)}")
    verb = Manifest.read(Path(what)).verb
    if verb not in BY_VERB:
        raise InputError(f"{what}: no papers are noted for 'hoarfrost {verb}'")
    return references_of(verb)
