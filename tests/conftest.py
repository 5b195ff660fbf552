"""What all tests share: a known random state, stored reference cases, a tiny run and its videos."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from videomae.rendering.actions import CLASSES, render_clip
from videomae.video.writer import write_video

# Of tests/test_properties.py: the same cases in each run, and no clock.
settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")


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
    return Path(__file__).parent / "reference"


# What makes a run tiny: 4 frames of 16 px, so 2 x 2 x 2 tubelets of the tiny preset.
SMALL: dict[str, Any] = {
    "preset": "tiny",
    "image_size": 16,
    "num_frames": 4,
    "frame_stride": 2,
    "batch_size": 4,
    "log_every_steps": 1,
    "device": "cpu",
    "dtype": "float32",
}


@pytest.fixture(scope="session")
def videos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of 8 frames in two class folders, throw and walk."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(10):
        motion = ("throw", "walk")[index % 2]
        assert motion in CLASSES
        path = folder / motion / f"{index}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, render_clip(motion, seed=index, size=24, num_frames=8), fps=8)
    return folder


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Keyword arguments of settings for a tiny run."""
    return dict(SMALL)
