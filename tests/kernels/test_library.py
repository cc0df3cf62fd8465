import _ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hoarfrost.kernels.library import (
    FUNCTIONS,
    INSTRUCTION_SETS,
    INTERFACE_VERSION,
    OTHER_VERSION,
    VARIABLE,
    fitting,
    library,
    limit_instructions,
    pointer,
)
from hoarfrost.kernels.peak import integer_product_rate

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")

SOURCES = Path(__file__).parents[2] / "src"


@needs_kernels
def test_no_more_than_asked_for_is_used():
    best = limit_instructions(INSTRUCTION_SETS[-1])
    try:
        for index, name in enumerate(INSTRUCTION_SETS):
            assert limit_instructions(name) == INSTRUCTION_SETS[min(index, INSTRUCTION_SETS.index(best))]
    finally:
        limit_instructions(best)


@needs_kernels
def test_peak_counts_at_least_as_many_operations_as_a_plain_loop_could():
    rate = integer_product_rate(0.02)
    assert rate is not None
    assert rate > 1e8


@pytest.mark.parametrize(("value", "expected"), [("off", "None"), ("portable", "portable")])
def test_environment_variable_limits_the_kernels(value, expected):
    if value != "off" and library() is None:
        pytest.skip("the kernels were not compiled here")
    code = "from hoarfrost.kernels.library import instruction_set; print(instruction_set())"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {VARIABLE: value}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected


def test_a_kernel_is_never_handed_numbers_of_another_layout():
    numbers = torch.zeros(4, 6)
    pointer(numbers, torch.float32)
    for wrong in (numbers.double(), numbers.T):
        with pytest.raises(ValueError, match="contiguous"):
            pointer(wrong, torch.float32)


def test_a_library_without_the_functions_is_not_taken_for_the_kernels():
    assert fitting(_ctypes.__file__) == OTHER_VERSION


def test_a_file_that_is_no_library_is_not_taken_for_the_kernels(tmp_path):
    (tmp_path / "_native.so").write_text("compiled for another world")
    found = fitting(str(tmp_path / "_native.so"))
    assert isinstance(found, str)
    assert found.startswith("not to be loaded")


@needs_kernels
@pytest.mark.parametrize("stale", ["INTERFACE_VERSION = 99", "FUNCTIONS += ('made_of_late',)"])
def test_kernels_older_than_the_source_are_left_alone_in_one_line(stale):
    code = f"import hoarfrost.kernels.library as l; l.{stale}; print(l.library()); print(l.missing_kernels())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there, line = run.stdout.splitlines()
    assert there == "None"
    assert line.startswith(f"compiled kernels are {OTHER_VERSION}: PyTorch does their work")


def test_the_functions_asked_for_are_those_that_are_offered():
    interface = (SOURCES / "native/interface.cpp").read_text()
    offered = set(re.findall(r"EXPORT .*?hoarfrost_(\w+)\(", interface))
    assert offered == {*FUNCTIONS, "interface_version"}
    assert f"hoarfrost_interface_version() {{ return {INTERFACE_VERSION}; }}" in interface
