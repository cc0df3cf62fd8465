"""STAR text: tokens kept letter for letter, agreement with starfile, malformed files refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st
from pandas.api.types import is_numeric_dtype

from hoarfrost.errors import InputError
from hoarfrost.io.star import StarBlock, decode, number_tokens, read_star, text_tokens, unquoted, write_star

_TABLE = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
1 300.000000

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnNote #3
000001@a.mrcs   1.50000e+04 "two words"
# a comment between rows
000002@a.mrcs\t 15000       '' # and one at the end

data_general
_rlnFinalResolution   3.40
_rlnMaskName "my mask.mrc"
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "t.star"
    path.write_text(text)
    return path


def test_blocks_columns_and_tokens(tmp_path: Path) -> None:
    optics, particles, general = read_star(_write(tmp_path, _TABLE))
    assert [optics.name, particles.name, general.name] == ["optics", "particles", "general"]
    assert particles.columns["rlnDefocusU"].tolist() == [b"1.50000e+04", b"15000"]
    assert particles.numbers("rlnDefocusU").tolist() == [15000.0, 15000.0]
    assert particles.text("rlnNote") == ["two words", ""]
    assert optics.comments == (b"# version 30001",)
    assert not general.loop
    assert general.text("rlnMaskName") == ["my mask.mrc"]


def test_writing_back_keeps_every_token(tmp_path: Path) -> None:
    blocks = read_star(_write(tmp_path, _TABLE))
    write_star(tmp_path / "u.star", blocks)
    again = read_star(tmp_path / "u.star")
    for old, new in zip(blocks, again, strict=True):
        assert (old.name, old.loop, old.comments) == (new.name, new.loop, new.comments)
        assert {k: v.tolist() for k, v in old.columns.items()} == {k: v.tolist() for k, v in new.columns.items()}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_numbers_survive_exactly(values: list[float]) -> None:
    block = StarBlock("", {"x": number_tokens(np.array(values))})
    assert block.numbers("x").tolist() == values


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30).filter(
    lambda text: not ('"' in text and "'" in text)
)


@given(rows=st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=10))
def test_any_text_survives_the_disk(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("star") / "t.star"
    columns = {name: text_tokens(column) for name, column in zip("ab", zip(*rows, strict=True), strict=True)}
    write_star(path, [StarBlock("x", columns)])
    (block,) = read_star(path)
    assert list(zip(block.text("a"), block.text("b"), strict=True)) == rows


_TOKEN = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'#"), min_size=1, max_size=15)


@given(table=st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(_TOKEN, min_size=n, max_size=n), min_size=1)))
def test_any_tokens_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]) -> None:
    table = [row for row in table if not row[0].startswith(("_", "data_", "loop_"))]
    if not table:
        return
    path = tmp_path_factory.mktemp("star") / "t.star"
    head = "data_\nloop_\n" + "".join(f"_c{i} #{i + 1}\n" for i in range(len(table[0])))
    path.write_text(head + "\n".join("  ".join(row) for row in table) + "\n")
    write_star(path, read_star(path))
    (block,) = read_star(path)
    assert [[decode(t) for t in row] for row in zip(*block.columns.values(), strict=True)] == table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data_ block"),
        ("hello world\n", r"line 1: 'hello world' stands outside a data_ block"),
        ("data_\nloop_\n_a\n_b\n1 2\n3\n", r"row 2 \(line 6\) has 1 fields, the table has 2 columns"),
        ("data_\nloop_\n_a\n_b\n1 2 3\n", r"row 1 \(line 5\) has 3 fields"),
        ("data_\nloop_\n_a\n_a\n1 2\n", "column a occurs twice"),
        ("data_\nloop_\n1 2\n", "a loop_ without column labels"),
        ("data_\nloop_\n_a\n1\nloop_\n_b\n1\n", r"line 5: a second loop_"),
        ("data_x\n_a 1\n_a 2\n", "column a occurs twice"),
        ("data_x\n_a\n", "line 2: expected '_label value'"),
        ("data_x\n_a 1\ndata_x\n_a 1\n", "block data_x occurs twice"),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_star(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.star").write_bytes(b"data_\n\0\1")
    with pytest.raises(InputError, match="holds binary data"):
        read_star(tmp_path / "t.star")


@pytest.mark.parametrize(
    ("token", "message"), [("abc", "'abc' is not a number"), ("nan", "nan is not a finite number")]
)
def test_bad_numbers_name_row_and_column(tmp_path: Path, token: str, message: str) -> None:
    (block,) = read_star(_write(tmp_path, f"data_p\nloop_\n_rlnDefocusU\n1\n{token}\n"))
    with pytest.raises(InputError, match=rf"data_p: row 2, column rlnDefocusU: {message}"):
        block.numbers("rlnDefocusU")


def test_windows_line_ends_read(tmp_path: Path) -> None:
    (tmp_path / "t.star").write_bytes(b"data_\r\nloop_\r\n_a #1\r\n1\r\n2\r\n")
    assert read_star(tmp_path / "t.star")[0].numbers("a").tolist() == [1.0, 2.0]


@pytest.mark.data
def test_real_files_read_as_starfile_reads_them(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted(shared_data.rglob("*.star"))
    packed = shared_data / "metadata/cryocat/R5_tutorial_run_data.star.gz"
    paths.append(tmp_path / "R5.star")
    paths[-1].write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(paths) > 30
    for path in paths:
        reference = starfile.read(path, always_dict=True, parse_as_string=["rlnTomoVisibleFrames"])
        blocks = {block.name: block for block in read_star(path)}
        assert set(blocks) == {str(name) for name in reference}, path
        for name, table in reference.items():
            block = blocks[name]
            if isinstance(table, dict):
                assert not block.loop
                assert list(block.columns) == list(table), path
                continue
            assert list(block.columns) == list(table.columns), path
            assert len(block) == len(table), path
            for label in table.columns:
                if is_numeric_dtype(table[label]) and not table[label].isna().any():
                    assert np.array_equal(block.numbers(label), table[label].to_numpy(float)), (path, label)
                elif len(table) < 2000:
                    text = [unquoted(decode(token)) for token in block.columns[label]]
                    assert text == [str(value) for value in table[label]] or _mixed(text, table[label]), (path, label)


def _mixed(text: list[str], column: object) -> bool:
    """Columns of numbers and text together: starfile turns some into numbers and empty text into nothing."""
    return all(a == str(b) or a == "" or float(a) == float(b) for a, b in zip(text, column, strict=True))  # type: ignore[call-overload]


@pytest.mark.data
def test_real_files_are_written_back_token_for_token(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted(shared_data.rglob("*.star")):
        blocks = read_star(path)
        write_star(tmp_path / "copy.star", blocks)
        for old, new in zip(blocks, read_star(tmp_path / "copy.star"), strict=True):
            assert {k: v.tolist() for k, v in old.columns.items()} == {k: v.tolist() for k, v in new.columns.items()}
