"""What all tests share: a known random state that is put back, and the stored reference cases."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    """Models start from the global generators: begin each test alike, and leave them as found."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    random.setstate(python)
    np.random.set_state(numpy)


@pytest.fixture
def reference_dir() -> Path:
    """Tiny models of the published code with their inputs and outputs; see the README there."""
    return Path(__file__).parent / "data"
