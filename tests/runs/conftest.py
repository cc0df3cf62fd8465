"""What the tests of runs share."""

from pathlib import Path

import pytest

from small_runs import write_small_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small stack."""
    return write_small_stack(tmp_path_factory.mktemp("stack"))
