"""The look at a table before a run: images of a table that another run wrote are found again."""

import shutil
from pathlib import Path

import pytest

from hoarfrost.errors import InputError
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.manifest import table_record
from hoarfrost.runs.ready import images_of_run, look_over
from small_runs import COUNT


def run_on(table: Path, folder: Path) -> Path:
    """The table of a run on a table."""
    with RunFolder.open(folder, verb="refine", config={}, inputs=(table_record(table),)) as run:
        shutil.copy(table, run.output("particles.star"))
        run.finish({})
    return folder / "particles.star"


def test_images_are_looked_for_where_the_first_run_of_a_line_had_them(stack: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "deep" / "down").mkdir(parents=True)
    first = run_on(stack / "particles.star", tmp_path / "one" / "deep" / "down" / "first")
    second = run_on(first, tmp_path / "second")
    for table in (first, second):
        assert images_of_run(table) == stack
        assert len(look_over(table, RefineConfig()).particles.images) == COUNT


def test_images_that_a_run_made_itself_are_found(stack: Path, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "demo", verb="demo", config={}, inputs=()) as run:
        shutil.copy(stack / "particles.mrcs", run.output("truth/particles.mrcs"))
        shutil.copy(stack / "particles.star", run.output("particles.star"))
        run.finish({})
    assert len(look_over(tmp_path / "demo" / "particles.star", RefineConfig()).particles.images) == COUNT


def test_a_root_that_is_named_is_taken(stack: Path, tmp_path: Path) -> None:
    table = run_on(stack / "particles.star", tmp_path / "run")
    with pytest.raises(InputError, match=r"image file particles\.mrcs not found .* --root"):
        look_over(table, RefineConfig(), root=tmp_path)


def test_a_run_on_its_own_table_is_no_endless_line(tmp_path: Path, stack: Path) -> None:
    (tmp_path / "run").mkdir()
    table = run_on(stack / "particles.star", tmp_path / "run")
    record = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(record.replace(str(stack / "particles.star"), str(table)))
    assert images_of_run(table) == table.parent


def test_a_table_of_no_run_has_no_such_place(stack: Path) -> None:
    assert images_of_run(stack / "particles.star") is None
