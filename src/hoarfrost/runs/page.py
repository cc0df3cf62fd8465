"""A self-contained HTML page: no scripts, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any


def document(title: str, body: Iterable[str]) -> str:
    """A whole page around finished pieces of HTML; light or dark as the reader's system, light in print."""
    style = files("hoarfrost.runs").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Even if text from a file slipped through unescaped, the browser would load and run nothing.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style></head><body><main>",
            *body,
            "</main></body></html>",
        ]
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def bullets(items: Sequence[str]) -> str:
    """A list of plain sentences; nothing where there are none."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def code(text: str) -> str:
    """Lines to copy into a terminal."""
    return f"<pre>{escape(text)}</pre>"


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Headline figures: (value, what it is)."""
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in values)
    return f'<div class="tiles">{"".join(cells)}</div>'


def picture(title: str, caption: str, svg: str) -> str:
    """A figure with its heading and caption; ``svg`` is trusted markup."""
    return f"<figure>{heading(title, 3)}{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def facts(values: Mapping[str, Any]) -> str:
    """A table of names and values; nested mappings are flattened with dots."""
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in _flat(values))
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            yield from _flat({str(place + 1): item for place, item in enumerate(value)}, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(_plain(item) for item in value)
        else:
            yield name, _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
