"""What every test may ask for."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def _shared_data() -> Path | None:
    candidates = [os.environ.get("HOARFROST_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real and synthetic test data; tests skip where it is absent."""
    folder = _shared_data()
    if folder is None:
        pytest.skip("no shared test data: set HOARFROST_TEST_DATA to its folder")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(20261120)
