from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import load_videos
from videomae.errors import ConfigError, VideoError
from videomae.evaluation.sharding import compute_videos, evaluating, is_split
from videomae.training.data import ClipSource

CONFIG = VideoMAEConfig.preset("tiny", image_size=16, num_frames=4, frame_stride=2)


@pytest.fixture
def source(videos_dir: Path) -> ClipSource:
    return ClipSource(load_videos(videos_dir), CONFIG)


@pytest.fixture
def machine() -> Machine:
    return Machine.start("cpu", "float32")


def brightness(pixels: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, C)."""
    return pixels.float().mean((1, 3, 4))


class Stumbling(ClipSource):
    """Opens nothing at the first so many tries of video 3."""

    failures = 1

    def view_clips(self, index: int, *, num_clips: int = 1, num_crops: int = 1) -> Tensor:
        if index == 3 and self.failures:
            self.failures -= 1
            raise VideoError("the disk stumbles")
        return super().view_clips(index, num_clips=num_clips, num_crops=num_crops)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 7, 100])
def test_each_video_has_its_own_views_in_the_order_of_the_list(
    source: ClipSource, machine: Machine, batch_size: int
) -> None:
    sizes, told = [], []

    def compute(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return brightness(pixels)

    rows = compute_videos(
        source,
        compute,
        lambda views: views,
        machine=machine,
        num_clips=2,
        num_crops=3,
        batch_size=batch_size,
        num_workers=2,
        on_progress=lambda done, of: told.append((done, of)),
    )
    assert len(rows) == 10
    for index, row in enumerate(rows):
        assert isinstance(row, Tensor)
        expected = brightness(source.view_clips(index, num_clips=2, num_crops=3))
        assert torch.equal(row, expected)
    assert max(sizes) <= batch_size
    assert sum(sizes) == 60
    assert told[-1] == (10, 10)
    assert told == sorted(told)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_video_is_tried_twice_and_never_replaced(
    source: ClipSource, machine: Machine, failures: int
) -> None:
    stumbling = Stumbling(source.videos, CONFIG)
    stumbling.failures = failures
    rows = compute_videos(
        stumbling, brightness, lambda views: views[0], machine=machine,
        num_clips=1, batch_size=3, num_workers=1,
    )  # fmt: skip
    texts = {index: row for index, row in enumerate(rows) if isinstance(row, str)}
    assert texts == ({} if failures == 1 else {3: "the disk stumbles"})
    assert stumbling.failures == 0


def test_answers_that_are_no_numbers_are_told(source: ClipSource, machine: Machine) -> None:
    rows = compute_videos(
        source, lambda pixels: brightness(pixels) / 0 * 0, lambda views: views[0],
        machine=machine, num_clips=1, batch_size=8, num_workers=1,
    )  # fmt: skip
    assert set(map(str, rows)) == {"the model's answer is no number; try dtype=float32"}


def test_a_split_model_is_called_equally_often_whatever_can_be_read(
    source: ClipSource, machine: Machine
) -> None:
    class Broken(ClipSource):
        def view_clips(self, index: int, **_: int) -> Tensor:
            raise VideoError(f"{index} is broken")

    calls = {}
    for name, each in (("whole", source), ("broken", Broken(source.videos, CONFIG))):
        sizes: list[int] = []

        def compute(pixels: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(pixels))
            return brightness(pixels)

        compute_videos(
            each, compute, lambda views: views, machine=machine,
            num_clips=3, num_crops=3, batch_size=4, num_workers=1, in_step=True,
        )  # fmt: skip
        calls[name] = len(sizes)
    assert calls == {"whole": 30, "broken": 30}  # 9 views as 4, 4, 1


def test_errors_of_the_caller_are_not_taken_for_bad_videos(
    source: ClipSource, machine: Machine
) -> None:
    class Wrong(ClipSource):
        def view_clips(self, index: int, **_: int) -> Tensor:
            raise ConfigError(f"fsspec lacks a package for {index}")

    with pytest.raises(ConfigError, match="lacks a package"):
        compute_videos(
            Wrong(source.videos, CONFIG), brightness, lambda views: views, machine=machine,
            num_clips=1, batch_size=4, num_workers=1,
        )  # fmt: skip


def test_every_part_of_a_model_is_left_in_its_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    model.train()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model(torch.ones(1, 2)).requires_grad
    assert [module.training for module in model.modules()] == [True, True, False]
    assert not is_split(model)
