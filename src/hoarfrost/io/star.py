"""STAR text: blocks of columns that keep every token as it stands in the file.

RELION's dialect: ``data_`` blocks holding either one ``loop_`` or a list of ``_label value`` pairs, one row a line,
comments from ``#``, quotes round tokens with blanks. Tokens stay bytes, so that what is not changed is written back
letter for letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hoarfrost.errors import InputError
from hoarfrost.io.files import existing_file, replacing

Tokens = np.ndarray  # of bytes, dtype "S"

_CHUNK = 20_000  # rows split at once: bounds the memory that Python objects take
_LARGEST_WHOLE = 2.0**31
_QUOTED = re.compile(rb"""'(?:[^']|'(?=\S))*'(?=\s|$)|"(?:[^"]|"(?=\S))*"(?=\s|$)|\S+""")


@dataclass(frozen=True)
class StarBlock:
    """One ``data_`` block: columns by label without the underscore, in file order.

    A list of pairs is a block of one row with ``loop`` false. ``origin`` names the file in messages.
    """

    name: str
    columns: dict[str, Tokens]
    loop: bool = True
    comments: tuple[bytes, ...] = ()
    origin: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def __getitem__(self, rows: np.ndarray) -> StarBlock:
        return replace(self, columns={label: tokens[rows] for label, tokens in self.columns.items()})

    def numbers(self, label: str) -> np.ndarray:
        """A column as float64; refuses what is not a finite number, naming its row."""
        tokens = self.columns[label]
        try:
            values = tokens.astype(np.float64)
        except ValueError:
            row = next(i for i, token in enumerate(tokens) if not _is_number(token))
            raise InputError(
                f"{self.origin}: row {row + 1}, column {label}: {decode(tokens[row])!r} is not a number"
            ) from None
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = int(bad[0])
            raise InputError(
                f"{self.origin}: row {row + 1}, column {label}: {decode(tokens[row])} is not a finite number"
            )
        return values

    def whole_numbers(self, label: str) -> np.ndarray:
        """A column as integers; refuses what is not a whole number, naming its row."""
        values = self.numbers(label)
        wrong = (values != np.round(values)) | (np.abs(values) > _LARGEST_WHOLE)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{self.origin}: row {row + 1}: {label} is {values[row]:g}; a whole number is expected")
        return values.astype(np.int64)

    def text(self, label: str) -> list[str]:
        """A column as text without its quotes."""
        return [unquoted(decode(token)) for token in self.columns[label]]

    def with_columns(self, **columns: Tokens) -> StarBlock:
        """A copy with columns exchanged in place or added at the end."""
        return replace(self, columns={**self.columns, **columns})

    def without(self, labels: Iterable[str]) -> StarBlock:
        """A copy lacking these columns."""
        dropped = set(labels)
        return replace(self, columns={k: v for k, v in self.columns.items() if k not in dropped})


def read_star(path: Path) -> list[StarBlock]:
    """Read all blocks of a STAR file.

    Raises
    ------
    InputError
        Not a STAR file, a row with the wrong number of fields, a label that occurs twice.
    """
    content = existing_file(path).read_bytes()
    if b"\0" in content:
        raise InputError(f"{path}: not a STAR file: it holds binary data")
    lines = [line.strip() for line in content.split(b"\n")]
    blocks: list[StarBlock] = []
    comments: list[bytes] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        if _is_header(line):
            block, position = _read_block(lines, position, path)
            blocks.append(replace(block, comments=(*comments, *block.comments)))
            comments = []
            continue
        if line.startswith(b"#"):
            comments.append(line)
        elif line:
            raise InputError(
                f"{path}: line {position + 1}: {decode(line[:40])!r} stands outside a data_ block; not a STAR file?"
            )
        position += 1
    if not blocks:
        raise InputError(f"{path}: no data_ block; not a STAR file?")
    names = [block.name for block in blocks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: block data_{name} occurs twice")
    return blocks


def write_star(path: Path, blocks: Sequence[StarBlock]) -> None:
    """Write blocks in RELION's layout; the file appears whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        for block in blocks:
            stream.write(b"\n" + b"".join(comment + b"\n" for comment in block.comments))
            stream.write(b"\ndata_%s\n\n" % block.name.encode())
            if not block.loop:
                for label, tokens in block.columns.items():
                    stream.write(b"_%-45s %s\n" % (label.encode(), tokens[0]))
                continue
            stream.write(b"loop_ \n")
            for number, label in enumerate(block.columns, start=1):
                stream.write(b"_%s #%d \n" % (label.encode(), number))
            for start in range(0, len(block), _CHUNK):
                chunk = [tokens[start : start + _CHUNK].tolist() for tokens in block.columns.values()]
                stream.writelines(b" ".join(row) + b" \n" for row in zip(*chunk, strict=True))
        stream.write(b"\n")


def number_tokens(values: np.ndarray) -> Tokens:
    """The shortest text that gives each number back exactly."""
    return np.asarray(values).astype("S32")


def text_tokens(values: Iterable[str]) -> Tokens:
    """Text as tokens, quoted where it would not be read back as one."""
    return np.array([_quote(value).encode("utf-8", "surrogateescape") for value in values], dtype=np.bytes_)


def decode(token: bytes) -> str:
    """Text of a token; bytes that are no UTF-8 survive the way back."""
    return bytes(token).decode("utf-8", "surrogateescape")


def unquoted(text: str) -> str:
    """Text without the quotes round it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _read_block(lines: list[bytes], position: int, path: Path) -> tuple[StarBlock, int]:
    name = decode(lines[position][len(b"data_") :])
    origin = f"{path}, data_{name}"
    position += 1
    comments: list[bytes] = []
    while position < len(lines) and (not lines[position] or lines[position].startswith(b"#")):
        if lines[position]:
            # A comment after the last block heading may belong to the next block; RELION's carry a version number.
            comments.append(lines[position])
        position += 1
    if position == len(lines) or _is_header(lines[position]):
        return StarBlock(name, {}, loop=False, comments=tuple(comments), origin=origin), position
    end = _block_end(lines, position)
    body = [(number, line) for number, line in enumerate(lines[position:end], start=position + 1) if line]
    trailing = end
    while lines[trailing - 1].startswith(b"#") or not lines[trailing - 1]:
        trailing -= 1
    body = [(number, line) for number, line in body if not line.startswith(b"#")]
    if body[0][1].split()[0] == b"loop_":
        columns = _read_loop(body[1:], origin)
        loop = True
    else:
        columns = _read_pairs(body, origin)
        loop = False
    return StarBlock(name, columns, loop, tuple(comments), origin), trailing


def _block_end(lines: list[bytes], position: int) -> int:
    for end in range(position, len(lines)):
        if lines[end].startswith(b"data_") and _is_header(lines[end]):
            return end
    return len(lines)


def _is_header(line: bytes) -> bool:
    return line.startswith(b"data_") and len(line.split()) == 1


def _read_loop(body: list[tuple[int, bytes]], origin: str) -> dict[str, Tokens]:
    count = 0
    labels: list[str] = []
    for _, line in body:
        if not line.startswith(b"_"):
            break
        _add_label(labels, line.split()[0], origin)
        count += 1
    if not labels:
        raise InputError(f"{origin}: a loop_ without column labels")
    rows = body[count:]
    second = next((number for number, line in rows if line.startswith(b"loop_")), None)
    if second is not None:
        raise InputError(f"{origin}: line {second}: a second loop_ in one data_ block")
    if not rows:
        return {label: np.empty(0, dtype="S1") for label in labels}
    parts: list[list[Tokens]] = [[] for _ in labels]
    for start in range(0, len(rows), _CHUNK):
        split = [_split(line) for _, line in rows[start : start + _CHUNK]]
        if set(map(len, split)) != {len(labels)}:
            row = next(i for i, tokens in enumerate(split) if len(tokens) != len(labels))
            raise InputError(
                f"{origin}: row {start + row + 1} (line {rows[start + row][0]}) has {len(split[row])} fields, "
                f"the table has {len(labels)} columns"
            )
        for part, column in zip(parts, zip(*split, strict=True), strict=True):
            part.append(np.array(column, dtype=np.bytes_))
    return {label: np.concatenate(part) for label, part in zip(labels, parts, strict=True)}


def _read_pairs(body: list[tuple[int, bytes]], origin: str) -> dict[str, Tokens]:
    labels: list[str] = []
    values = []
    for number, line in body:
        tokens = _split(line)
        if not line.startswith(b"_") or len(tokens) != 2:
            raise InputError(f"{origin}: line {number}: expected '_label value', found {decode(line[:40])!r}")
        _add_label(labels, tokens[0], origin)
        values.append(np.array(tokens[1:], dtype=np.bytes_))
    return dict(zip(labels, values, strict=True))


def _add_label(labels: list[str], token: bytes, origin: str) -> None:
    label = decode(token[1:])
    if label in labels:
        raise InputError(f"{origin}: column {label} occurs twice")
    labels.append(label)


def _split(line: bytes) -> list[bytes]:
    tokens = _QUOTED.findall(line) if b'"' in line or b"'" in line else line.split()
    if b"#" in line:
        for place, token in enumerate(tokens):
            if token.startswith(b"#"):
                return tokens[:place]
    return tokens


def _quote(value: str) -> str:
    if value and not re.search(r"\s", value) and value[0] not in "#'\"_" and not value.startswith("data_"):
        return value
    if '"' not in value:
        return f'"{value}"'
    return f"'{value}'"


def _is_number(token: bytes) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True
