"""What the command line sets before PyTorch is loaded."""

import os
import platform
import subprocess
import sys

import pytest

FRESH_PAGES = """
import resource
from hoarfrost.cli.process import prepare_process

prepare_process()
import torch
from hoarfrost.kernels.threads import map_parts

def batch(number):
    blocks = [torch.ones(size) for size in (500_000, 520_000, 1_000_000)]
    return sum(float(block.sum()) for block in blocks)

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        map_parts(batch, range(16), torch.device("cpu"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(2)
print([fresh_pages() for _ in range(3)][-1])
"""
"""Pages that the system has to clear for 160 batches of 8 MB, after as many before."""


def output(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | environment,
    )
    return done.stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept only by the GNU C library")
def test_memory_of_a_batch_is_there_for_the_next_one():
    """Without the settings a tenth of the pages, or a fifth, are new ones."""
    pages = 160 * 2_020_000 * 4 // os.sysconf("SC_PAGE_SIZE")
    assert int(output(FRESH_PAGES)) < 0.02 * pages


@pytest.mark.parametrize(("given", "seen"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(given, seen):
    code = (
        "import os; from hoarfrost.cli.process import prepare_process as p; p(); print(os.environ['OMP_WAIT_POLICY'])"
    )
    assert output(code, **given) == seen


def test_at_the_end_no_object_is_left_to_be_taken_down():
    code = (
        "import atexit, gc, sys; sys.argv = ['hoarfrost', 'cite'];"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0.9 * len(gc.get_objects())));"
        "from hoarfrost.cli.main import main; main()"
    )
    assert output(code).splitlines()[-1] == "True"
