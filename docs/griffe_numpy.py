"""How the reference page reads docstrings.

Docstrings here say ``name : what it is`` and leave types to the signature; numpy's parser takes the text after the
colon for a type. Sphinx roles are no Markdown. This extension rewrites both before they are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import griffe

_ROLE = re.compile(r":(?:mod|func|class|meth|data|attr):`~?\.?([^`]+)`")
_PARAMETER = re.compile(r"(\w[\w*, ]*) : (.+)")


class PlainDocstrings(griffe.Extension):
    """Rewrites the docstring of every object."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite one docstring, if there is one."""
        if obj.docstring is not None:
            obj.docstring.value = "\n".join(_rewritten(_ROLE.sub(r"`\1`", obj.docstring.value).splitlines()))


def _rewritten(lines: list[str]) -> Iterator[str]:
    """The lines, with sentences after a parameter's colon moved into its description."""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        found = _PARAMETER.fullmatch(line)
        if found and (found[2].endswith(".") or not following.startswith(" ")):
            yield found[1]
            yield "    " + found[2]
        else:
            yield line
