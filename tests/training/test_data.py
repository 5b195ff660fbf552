import io
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from made_videos import encode
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos, load_videos
from videomae.data.opening import open_video
from videomae.errors import ConfigError, VideoError
from videomae.settings import TrainSettings
from videomae.training.augment import crop_and_resize
from videomae.training.data import Batch, ClipSource, Sampler, train_batches
from videomae.video.reader import probe, read_frames

CONFIG = VideoMAEConfig.preset("tiny", image_size=16, num_frames=4, frame_stride=2)


def source(folder: Path, **settings: Any) -> ClipSource:
    return source_of(load_videos(folder), **settings)


def source_of(
    videos: Videos,
    config: VideoMAEConfig = CONFIG,
    **settings: Any,
) -> ClipSource:
    return ClipSource(videos, config, TrainSettings(**settings))


def batches(clips: ClipSource, sampler: Sampler, first: int = 0, **options: Any) -> list[Batch]:
    last = options.pop("last", sampler.steps_per_epoch)
    return list(train_batches(clips, sampler, first_step=first, num_steps=last, **options))


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.index == b.index and a.rows == b.rows and torch.equal(a.pixels, b.pixels)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3), (3, 2)])
def test_processes_and_parts_share_each_step_without_repeats_or_losses(
    world: int, accumulate: int
) -> None:
    whole = Sampler(num_videos=50, batch_size=12, seed=3)
    assert whole.steps_per_epoch == 4
    for step in range(9):
        dealt = []
        for rank in range(world):
            sampler = Sampler(50, 12, 3, rank=rank, world=world, accumulate=accumulate)
            parts = sampler.parts(step)
            assert len(parts) == accumulate
            dealt += [pair for p in parts for pair in zip(p.places, p.index, strict=True)]
        (only,) = whole.parts(step)
        assert sorted(dealt) == list(zip(only.places, only.index, strict=True))
        assert only.epoch == step // 4


def test_an_epoch_shows_each_video_once_in_a_new_order() -> None:
    sampler = Sampler(num_videos=12, batch_size=3)
    orders = [
        [i for step in range(4 * epoch, 4 * epoch + 4) for i in sampler.parts(step)[0].index]
        for epoch in range(3)
    ]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != [i for s in range(4) for i in Sampler(12, 3, seed=1).parts(s)[0].index]


def test_the_last_incomplete_batch_is_left_out() -> None:
    assert Sampler(10, 4).steps_per_epoch == 2
    assert Sampler(10, 64).videos_per_step == 10
    assert Sampler(10, 64, world=2, accumulate=2).videos_per_step == 8


def test_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=10 cannot be split evenly over 2"):
        Sampler(100, 10, world=2, accumulate=2)
    with pytest.raises(ConfigError, match="3 videos are too few for 4 processes of 1 parts"):
        Sampler(3, 8, world=4)


def test_videos_of_shards_stay_near_each_other() -> None:
    shards = tuple(i // 10 for i in range(400))  # 40 shards of 10, mixed 8 at a time
    sampler = Sampler(400, 80, seed=1, shards=shards)
    assert sampler.steps_per_epoch == 5
    seen = []
    for step in range(5):
        index = sampler.parts(step)[0].index
        seen += index
        assert len({shards[i] for i in index}) == 8
        assert list(index) != sorted(index)
    assert sorted(seen) == list(range(400))


def test_workers_cache_and_resume_do_not_change_a_batch(videos_dir: Path) -> None:
    sampler = Sampler(10, 4, seed=0)
    plain = batches(source(videos_dir, cache_gb=0), sampler, last=4)
    assert plain[0].pixels.shape == (4, 4, 3, 16, 16)
    assert plain[0].pixels.dtype == torch.uint8
    assert [batch.step for batch in plain] == [0, 1, 2, 3]
    cached = source(videos_dir, cache_gb=1)
    for _ in range(2):  # decoded, then from memory
        assert same(plain, batches(cached, sampler, last=4, num_workers=4))
    assert same(plain[1:], batches(source(videos_dir), sampler, first=1, last=4))


def test_a_video_that_cannot_be_read_leaves_its_room_to_others(
    videos_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = source(videos_dir, cache_gb=1.0)
    before = clips._cache_left

    def broken(*_: Any) -> None:
        raise VideoError("cut off")

    monkeypatch.setattr("videomae.video.reader.VideoReader.read", broken)
    with pytest.raises(VideoError, match="cut off"):
        clips.train_clips(0, 0)
    assert clips._cache_left == before


def test_a_cache_on_disk_changes_no_batch_and_serves_other_runs(
    videos_dir: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    sampler = Sampler(10, 4, seed=0)
    plain = batches(source(videos_dir, cache_gb=0), sampler, last=6)
    room = 3.5 * probe(next(videos_dir.rglob("*.mp4"))).num_frames * 24 * 24 * 3 / 2**30
    for cache_gb in (room, 1.0):  # for three of the videos, then for all
        for workers in (1, 4):
            clips = source(videos_dir, cache_gb=cache_gb, cache_dir=tmp_path / "frames")
            assert same(plain, batches(clips, sampler, last=6, num_workers=workers))
        assert len(list((tmp_path / "frames").iterdir())) == (3 if cache_gb == room else 10)
    monkeypatch.delattr("videomae.training.data.open_video")  # nothing is decoded any more
    clips = source(videos_dir, cache_gb=0, cache_dir=tmp_path / "frames")
    assert same(plain, batches(clips, sampler, last=6))


def test_repeats_are_other_crops_of_one_decoding(videos_dir: Path, monkeypatch: Any) -> None:
    opened: list[str] = []

    def counting(video: Video, *how: Any) -> Any:
        opened.append(video.path)
        return open_video(video, *how)

    monkeypatch.setattr("videomae.training.data.open_video", counting)
    clips = source(videos_dir, num_repeats=3, cache_gb=0)
    (batch,) = batches(clips, Sampler(10, 4), last=1)
    assert len(opened) == 4
    assert batch.pixels.shape[0] == 12
    assert batch.index == batch.index[:4] * 3
    assert batch.rows == tuple(range(12))
    once = source(videos_dir).train_clips(0, batch.index[0])
    assert torch.equal(batch.pixels[0], once[0])  # the first repeat is the clip without repeats
    assert len({clip.numpy().tobytes() for clip in batch.pixels}) > 8  # most crops differ
    whole = source_of(clips.videos, crop_scales=(1.0,), num_repeats=2)
    first, second = whole.train_clips(0, batch.index[0])
    assert torch.equal(first, second)  # the same frames: with nothing to crop, the same clip
    cached = source(videos_dir, num_repeats=3, cache_gb=1)
    for _ in range(2):
        assert same([batch], batches(cached, Sampler(10, 4), last=1))


def test_other_seeds_and_epochs_draw_other_clips(videos_dir: Path) -> None:
    first = source(videos_dir).train_clips(0, 0)
    assert torch.equal(first, source(videos_dir).train_clips(0, 0))
    others = [source(videos_dir).train_clips(epoch, 0) for epoch in range(1, 5)]
    others += [source(videos_dir, seed=seed).train_clips(0, 0) for seed in range(1, 5)]
    assert any(not torch.equal(first, other) for other in others[:4])
    assert any(not torch.equal(first, other) for other in others[4:])


def test_unreadable_videos_leave_gaps_that_are_told(videos_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    (tmp_path / "v" / "throw" / "bad.mp4").write_bytes(b"not a video")
    clips = source(tmp_path / "v", num_repeats=2)
    (batch,) = batches(clips, Sampler(11, 11))
    (bad,) = batch.bad
    assert clips.videos.items[bad].path.endswith("bad.mp4")
    assert "bad.mp4: " in batch.bad[bad]
    assert Counter(batch.index) == {index: 2 for index in range(11) if index != bad}
    (part,) = Sampler(11, 11).parts(0)
    place = part.index.index(bad)
    assert set(range(22)) - set(batch.rows) == {place, 11 + place}
    # 11 places in a ring: whoever would meet the lost one stays alone
    met = [batch.rows[partner] for partner in batch.partner]
    for row, other in zip(batch.rows, met, strict=True):
        repeat, at = divmod(row, 11)
        after = (at + 1) % 11
        assert other == (row if after == place else 11 * repeat + after)


def test_a_step_without_any_readable_video_is_still_a_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"not a video")
    made = batches(source(tmp_path), Sampler(2, 1))
    assert [(batch.num_clips, batch.clips_per_step) for batch in made] == [(0, 1)] * 2
    assert all(torch.equal(batch.pixels, torch.zeros(1, 4, 3, 16, 16)) for batch in made)
    assert {next(iter(batch.bad)) for batch in made} == {0, 1}


def test_a_stumble_is_forgiven_once(videos_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: Counter[str] = Counter()

    def stumbling(video: Video, *how: Any) -> Any:
        tries[video.path] += 1
        if tries[video.path] == 1:
            raise VideoError(f"{video}: the disk was asleep")
        return open_video(video, *how)

    monkeypatch.setattr("videomae.training.data.open_video", stumbling)
    (batch,) = batches(source(videos_dir), Sampler(10, 10))
    assert not batch.bad
    assert set(tries.values()) == {2}


def shard_of(paths: Sequence[Path], place: Path) -> Videos:
    """A tar of video files, and the rows that find them in it."""
    with tarfile.open(place, "w") as tar:
        for number, path in enumerate(paths):
            info = tarfile.TarInfo(f"{number}.mp4")
            info.size = path.stat().st_size
            tar.addfile(info, io.BytesIO(path.read_bytes()))
    with tarfile.open(place) as tar:
        members = tar.getmembers()
    return Videos(tuple(Video(str(place), offset=m.offset_data, num_bytes=m.size) for m in members))


def test_shards_and_addresses_give_the_clips_of_files(videos_dir: Path, tmp_path: Path) -> None:
    paths = sorted((videos_dir / "throw").glob("*.mp4"))
    plain = source_of(Videos(tuple(Video(str(p)) for p in paths)))
    sharded = source_of(shard_of(paths, tmp_path / "0.tar"))
    memory = fsspec.filesystem("memory")
    for path in paths:
        memory.pipe_file(f"/test/{path.name}", path.read_bytes())
    memory.pipe_file("/test/0.tar", (tmp_path / "0.tar").read_bytes())
    remote = source_of(Videos(tuple(Video(f"memory://test/{path.name}") for path in paths)))
    rows = [
        Video("memory://test/0.tar", offset=item.offset, num_bytes=item.num_bytes)
        for item in sharded.videos.items
    ]
    both = source_of(Videos(tuple(rows)))
    for index in range(len(paths)):
        expected = plain.train_clips(1, index)
        for other in (sharded, remote, both):
            assert torch.equal(expected, other.train_clips(1, index))


def test_clips_come_from_their_part_alone(videos_dir: Path) -> None:
    path = sorted((videos_dir / "throw").glob("*.mp4"))[0]
    assert probe(path).fps == 8
    last = torch.from_numpy(read_frames(path, [7])).permute(0, 3, 1, 2)
    rows = (Video(str(path), start_seconds=7 / 8),)
    clips = source_of(Videos(rows), crop_scales=(1.0,))
    expected = crop_and_resize(last, (0, 0, 24, 24), (16, 16))
    (clip,) = clips.train_clips(0, 0)
    assert torch.equal(clip, expected.expand(4, -1, -1, -1))


def test_videos_are_taken_as_if_at_the_rate_of_the_config(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), np.uint8)
    slow = encode(tmp_path / "slow.mkv", frames, codec="ffv1", fps=5)
    fast = encode(tmp_path / "fast.mkv", frames.repeat(4, axis=0), codec="ffv1", fps=20)
    part = {"start_seconds": 1.0, "end_seconds": 4.0}
    rows = [Video(str(path), **place) for path in (slow, fast) for place in ({}, part)]
    config = CONFIG.copy(fps=5)
    drawn: dict[float, list[bytes]] = {}
    for cache_gb in (0.0, 1.0):
        clips = source_of(Videos(tuple(rows)), config, crop_scales=(1.0,), cache_gb=cache_gb)
        found = [
            clips._random_frames(row, random.Random(epoch)).tobytes()
            for epoch in range(4)
            for row in range(4)
        ]
        assert found[0::4] == found[2::4]
        assert found[1::4] == found[3::4]
        drawn[cache_gb] = found
    assert drawn[0] == drawn[1]
    # without a rate, the frames of the fast one lie nearer
    plain = source_of(Videos(tuple(rows)), CONFIG, crop_scales=(1.0,))
    both = [plain._random_frames(row, random.Random(0)).tobytes() for row in (0, 2)]
    assert both[0] != both[1]


def test_a_model_of_other_channels_trains_on_them(videos_dir: Path) -> None:
    videos = load_videos(videos_dir)
    rgb = source_of(videos).train_clips(0, 0)  # (1, T, 3, H, W)
    grey = source_of(videos, CONFIG.copy(num_channels=1)).train_clips(0, 0)
    frames = rgb[0].permute(0, 2, 3, 1).numpy()
    luma = [np.asarray(Image.fromarray(frame).convert("L")) for frame in frames]
    assert torch.equal(grey[0, :, 0], torch.from_numpy(np.stack(luma)))
    four = source_of(videos, CONFIG.copy(num_channels=4))
    assert torch.equal(four.train_clips(0, 0)[:, :, :3], rgb)
    assert bool((four.train_clips(0, 0)[:, :, 3] == 255).all())
    with pytest.raises(ConfigError, match="frames have 3 channels and the model takes 2"):
        source_of(videos, CONFIG.copy(num_channels=2)).train_clips(0, 0)


def test_threads_of_the_loader_compute_alone_and_leave_others_as_they_were(
    videos_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen_by_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    seen: list[int] = []
    read = ClipSource.train_clips

    def reading(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return read(*arguments)

    monkeypatch.setattr(ClipSource, "train_clips", reading)
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = train_batches(
            source(videos_dir), Sampler(10, 4), first_step=0, num_steps=2, num_workers=2
        )
        next(made)
        assert (torch.get_num_threads(), seen_by_a_new_thread()) == (2, 2)
        made.close()
    finally:
        torch.set_num_threads(own)
    assert set(seen) == {1}
