from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos, load_videos
from videomae.errors import ConfigError, VideoError
from videomae.evaluation import sharding
from videomae.evaluation.partial import Partial
from videomae.evaluation.sharding import (
    compute_videos,
    evaluating,
    is_split,
    list_unreadable,
    views_of,
)
from videomae.processing.views import ViewMaker, find_processor
from videomae.video.reader import probe, read_frames

CONFIG = VideoMAEConfig.preset("tiny", image_size=16, num_frames=4, frame_stride=2)


@pytest.fixture
def videos(videos_dir: Path) -> Videos:
    return load_videos(videos_dir)


@pytest.fixture
def machine() -> Machine:
    return Machine.start("cpu", "float32")


def maker_of(num_clips: int = 1, num_crops: int = 1) -> ViewMaker:
    return ViewMaker(CONFIG, find_processor(None, CONFIG), num_clips=num_clips, num_crops=num_crops)


def brightness(pixels: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, C)."""
    return pixels.mean((1, 3, 4))


class Brightness(nn.Module):
    """A model whose output is the brightness of the views; keeps the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, pixels: Tensor, return_dict: bool) -> Tensor:
        assert return_dict
        self.sizes.append(len(pixels))
        return brightness(pixels)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, failures: dict[str, int]) -> None:
    """Let each of these videos fail so many times; "" is all others."""

    def views(video: Video, maker: ViewMaker) -> Tensor:
        name = video.path if video.path in failures else ""
        if failures.get(name, 0) > 0:
            failures[name] -= 1
            raise error
        return views_of(video, maker)

    monkeypatch.setattr(sharding, "views_of", views)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 7, 100])
def test_each_video_has_its_own_views_in_the_order_of_the_list(
    videos: Videos, machine: Machine, batch_size: int
) -> None:
    model, told = Brightness(), []
    rows, bad = compute_videos(
        model,
        videos,
        maker_of(num_clips=2, num_crops=3),
        lambda output: output,
        lambda views: views,
        shape=(6, 3),
        machine=machine,
        batch_size=batch_size,
        num_workers=2,
        on_progress=lambda done, of: told.append((done, of)),
    )
    assert not bad
    for video, row in zip(videos.items, rows, strict=True):
        assert torch.equal(row, brightness(views_of(video, maker_of(num_clips=2, num_crops=3))))
    assert max(model.sizes) <= batch_size
    assert sum(model.sizes) == 60
    assert told[-1] == (10, 10)
    assert told == sorted(told)


def run(videos: Videos, machine: Machine, **options: Any) -> tuple[Tensor, dict[int, str]]:
    """The mean brightness of the first view of each video."""
    given: dict[str, Any] = {"batch_size": 4, "num_workers": 1, "maker": maker_of()} | options
    model, maker = given.pop("model", None) or Brightness(), given.pop("maker")
    answer: dict[str, Any] = {"answer_of": lambda output: output, "combine": lambda rows: rows[0]}
    return compute_videos(model, videos, maker, machine=machine, shape=(3,), **(answer | given))


@pytest.mark.parametrize("failures", [1, 2])
def test_a_video_is_tried_twice_and_never_replaced(
    videos: Videos, machine: Machine, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumbles = {videos.items[3].path: failures}
    failing(monkeypatch, VideoError("the disk stumbles"), stumbles)
    rows, bad = run(videos, machine, batch_size=3)
    assert bad == ({} if failures == 1 else {3: "the disk stumbles"})
    assert rows.isnan().any(1).nonzero()[:, 0].tolist() == list(bad)
    assert set(stumbles.values()) == {0}


def test_answers_that_are_no_numbers_are_told(videos: Videos, machine: Machine) -> None:
    _, bad = run(videos, machine, answer_of=lambda output: output / 0 * 0)
    assert len(bad) == 10
    assert set(bad.values()) == {"the model's answer is no number; try dtype=float32"}


def test_damaged_videos_are_read_and_counted_again_by_work_that_goes_on(
    videos: Videos, machine: Machine, tmp_path: Path
) -> None:
    for attempt in range(2):
        maker = maker_of()
        if not attempt:  # as `on_damage` of a reader notes it
            maker.damaged[videos.items[3].path] = 1
        partial = Partial(tmp_path, "test", "0" * 64)
        run(videos, machine, maker=maker, partial=partial)
        assert set(range(10)) - set(partial.read((3,))) == (set() if attempt else {3})


def test_a_split_model_is_called_equally_often_whatever_can_be_read(
    videos: Videos, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def num_calls(num_clips: int, batch_size: int) -> int:
        model, maker = Brightness(), maker_of(num_clips=num_clips)
        run(videos, machine, model=model, maker=maker, batch_size=batch_size)
        return len(model.sizes)

    assert not is_split(nn.Linear(2, 2))
    monkeypatch.setattr(sharding, "is_split", lambda _: True)
    cases = [(9, 4), (3, 8), (1, 4), (1, 100)]
    expected = [30, 5, 3, 1]  # 9 views as 4, 4, 1; 3 of two videos in 8; 4, 4, 2; all
    assert [num_calls(*case) for case in cases] == expected
    failing(monkeypatch, VideoError("broken"), {video.path: 99 for video in videos.items[::2]})
    assert [num_calls(*case) for case in cases] == expected
    failing(monkeypatch, VideoError("broken"), {"": 999})
    assert [num_calls(*case) for case in cases] == expected


def test_reasons_name_the_video_once() -> None:
    videos = Videos((Video("a.mp4", "x"), Video("b.mp4", "x")))
    bad = {0: "a.mp4: broken", 1: "torn"}
    assert list_unreadable(videos, bad) == ["a.mp4: broken", "b.mp4: torn"]


def test_errors_of_the_caller_are_not_taken_for_bad_videos(
    videos: Videos, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ConfigError("fsspec lacks a package"), {"": 99})
    with pytest.raises(ConfigError, match="lacks a package"):
        run(videos, machine)


def test_views_are_of_the_part_that_a_row_names(videos_dir: Path) -> None:
    path = sorted((videos_dir / "throw").glob("*.mp4"))[0]
    assert probe(path).fps == 8
    last = read_frames(path, [7])
    (view,) = views_of(Video(str(path), start_seconds=7 / 8), maker_of())
    assert torch.equal(view, maker_of()(last)[0])


def test_every_part_of_a_model_is_left_in_its_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    model.train()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model(torch.ones(1, 2)).requires_grad
    assert [module.training for module in model.modules()] == [True, True, False]
