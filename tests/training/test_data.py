import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.training.data import (
    Batch,
    ClipSource,
    covering_size,
    crop_and_resize,
    list_videos,
    normalize,
    num_steps,
    random_crop_box,
    split_folder,
    train_batches,
)
from videomae.training.settings import TrainSettings
from videomae.video import read_frames

CONFIG = VideoMAEConfig.preset("tiny", image_size=16, num_frames=4, frame_stride=2)


def source(folder: Path, **settings: Any) -> ClipSource:
    return ClipSource(list_videos(folder), CONFIG, TrainSettings(**settings))


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.index == b.index and torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_class_folders_are_numbered_by_name(videos_dir: Path) -> None:
    videos = list_videos(videos_dir)
    assert videos.classes == ("sway", "zoom_in")
    assert videos.labels == (0,) * 5 + (1,) * 5
    assert len(videos) == 10


def test_equal_names_in_two_classes_stay_apart(videos_dir: Path, tmp_path: Path) -> None:
    for name in ("a [1] #", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(videos_dir / "sway" / "0.mp4", tmp_path / name / "0.mp4")
    videos = list_videos(tmp_path)
    assert [path.parent.name for path in videos.paths] == ["a [1] #", "b"]
    assert videos.labels == (0, 1)


def test_a_flat_folder_has_no_classes(videos_dir: Path) -> None:
    videos = list_videos(videos_dir / "sway")
    assert videos.classes == ()
    assert set(videos.labels) == {-1}


def test_labels_follow_the_model_where_it_has_classes(videos_dir: Path) -> None:
    videos = list_videos(videos_dir, classes=["zoom_in", "other", "sway"])
    assert set(videos.labels[:5]) == {2}
    assert set(videos.labels[5:]) == {0}
    with pytest.raises(ConfigError, match=r"class folders \['zoom_in'\], which the model does not"):
        list_videos(videos_dir, classes=["sway"])


def test_folders_without_videos_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no videos"):
        list_videos(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        list_videos(tmp_path / "nowhere")


def test_split_folders(tmp_path: Path) -> None:
    assert split_folder(tmp_path) == (tmp_path, None)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    assert split_folder(tmp_path) == (tmp_path / "train", tmp_path / "test")
    (tmp_path / "val").mkdir()
    assert split_folder(tmp_path)[1] == tmp_path / "val"
    assert split_folder(tmp_path, Path("x"))[1] == Path("x")


def test_an_epoch_shows_each_video_once_in_a_new_order(videos_dir: Path) -> None:
    clips = source(videos_dir)
    orders = []
    for epoch in range(2):
        batches = list(train_batches(clips, batch_size=5, epoch=epoch))
        order = [index for batch in batches for index in batch.index]
        assert sorted(order) == list(range(10))
        orders.append(order)
    assert orders[0] != orders[1]


def test_the_last_incomplete_batch_is_left_out(videos_dir: Path) -> None:
    batches = list(train_batches(source(videos_dir), batch_size=4, epoch=0))
    assert [len(batch.pixels) for batch in batches] == [4, 4]
    assert num_steps(10, 4) == 2
    (only,) = train_batches(source(videos_dir), batch_size=64, epoch=0)
    assert len(only.pixels) == 10
    assert num_steps(10, 64) == 1


def test_threads_cache_and_resume_do_not_change_a_batch(videos_dir: Path) -> None:
    plain = list(train_batches(source(videos_dir, cache_gb=0), batch_size=4, epoch=3))
    assert plain[0].pixels.shape == (4, 4, 3, 16, 16)
    assert plain[0].pixels.dtype == torch.uint8
    cached = source(videos_dir, cache_gb=1)
    for _ in range(2):  # decoded, then from memory
        assert same(plain, list(train_batches(cached, batch_size=4, epoch=3, num_workers=4)))
    later = list(train_batches(source(videos_dir), batch_size=4, epoch=3, start_step=1))
    assert same(plain[1:], later)


def test_other_seeds_and_epochs_draw_other_clips(videos_dir: Path) -> None:
    first = source(videos_dir).train_clip(0, 0)
    assert torch.equal(first, source(videos_dir).train_clip(0, 0))
    others = [source(videos_dir).train_clip(epoch, 0) for epoch in range(1, 5)]
    others += [source(videos_dir, seed=seed).train_clip(0, 0) for seed in range(1, 5)]
    assert any(not torch.equal(first, other) for other in others[:4])
    assert any(not torch.equal(first, other) for other in others[4:])


def test_unreadable_videos_are_skipped_counted_and_limited(
    videos_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    bad = tmp_path / "v" / "sway" / "bad.mp4"
    bad.write_bytes(b"not a video")
    clips = source(tmp_path / "v", max_bad_fraction=0.1)
    batches = list(train_batches(clips, batch_size=11, epoch=0))
    assert [len(batch.pixels) for batch in batches] == [10]
    assert list(clips.bad) == [bad]
    strict = source(tmp_path / "v", max_bad_fraction=0.05)
    with pytest.raises(VideoError, match=r"1 of 11 videos cannot be read.*bad\.mp4"):
        list(train_batches(strict, batch_size=11, epoch=0))


def test_the_centred_view_is_the_middle_of_the_video(videos_dir: Path) -> None:
    clips = source(videos_dir)
    (view,) = clips.view_clips(0)
    # 8 frames, span 7: starts at (8 - 7) // 2 = 0
    frames = read_frames(clips.videos.paths[0], [0, 2, 4, 6])
    whole = crop_and_resize(frames, (0, 0, *frames.shape[1:3]), (16, 16))
    assert torch.equal(view, whole)


def test_views_are_clips_times_crops(videos_dir: Path) -> None:
    views = source(videos_dir).view_clips(0, num_clips=2, num_crops=3)
    assert views.shape == (6, 4, 3, 16, 16)
    assert not torch.equal(views[0], views[3])  # clips start at frames 0 and 1


def test_crop_boxes_keep_the_shape_and_stay_inside() -> None:
    draw = random.Random(0)
    for _ in range(200):
        top, left, height, width = random_crop_box(60, 100, (32, 64), (1.0, 0.5), draw)
        assert (height, width) in [(50, 100), (25, 50)]
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 100 - width


def test_covering_size_rounds_down_the_longer_side() -> None:
    assert covering_size(240, 320, (224, 224)) == (224, 298)
    assert covering_size(320, 240, (224, 224)) == (298, 224)
    assert covering_size(32, 32, (32, 32)) == (32, 32)
    assert covering_size(100, 100, (32, 64)) == (64, 64)


def test_crop_cuts_the_box() -> None:
    frames = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    cut = crop_and_resize(frames, (1, 2, 2, 3), (2, 3))
    assert torch.equal(cut, torch.from_numpy(frames[:, 1:3, 2:5]).permute(0, 3, 1, 2))


def test_normalize_uses_the_training_statistics() -> None:
    pixels = torch.full((1, 1, 3, 1, 1), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(normalize(pixels, torch.device("cpu")).flatten(), expected)
