from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.compare import memory
from videomae.config import VideoMAEConfig


def hold(config: VideoMAEConfig) -> Callable[[], torch.Tensor]:
    """A job that needs 1 MB per frame, for a process of its own."""
    return lambda: torch.ones(250_000 * config.num_frames)


@pytest.mark.slow
def test_peak_memory_is_what_came_on_top_of_the_imports() -> None:
    config = VideoMAEConfig.preset("tiny", num_frames=200)
    peak = memory.peak_of(hold, config, torch.device("cpu"))
    assert 195e6 <= peak < 260e6  # and not the hundreds of MB that torch itself takes


def test_peak_memory_does_not_depend_on_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    there = memory.peak_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert memory.peak_bytes() >= there * 0.9
