import os
import subprocess
import sys

import pytest
import torch

from hoarfrost.kernels.library import INSTRUCTION_SETS, VARIABLE, library, limit_instructions, pointer
from hoarfrost.kernels.peak import integer_product_rate

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")


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
