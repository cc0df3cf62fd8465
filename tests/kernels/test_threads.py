import threading

import pytest
import torch

from hoarfrost.kernels.threads import map_parts

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_threads_are_left_as_they_were(two_threads):
    seen = set()

    def square(part):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return part**2

    assert map_parts(square, range(50), CPU) == [part**2 for part in range(50)]
    assert {count for _, count in seen} == {1}
    assert torch.get_num_threads() == 2


def test_two_parts_run_side_by_side(two_threads):
    both = threading.Barrier(2, timeout=10)
    map_parts(lambda _: both.wait(), range(2), CPU)


def test_an_error_in_a_part_is_raised(two_threads):
    with pytest.raises(ZeroDivisionError):
        map_parts(lambda part: 1 // part, [1, 0, 2], CPU)
