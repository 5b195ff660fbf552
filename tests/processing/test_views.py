import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from made_videos import encode, numbers, scene
from videomae.config import IMAGENET_MEAN, VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.processing import views
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import (
    ViewMaker,
    find_processor,
    normalize,
    prepared,
    run_views,
    shown,
    try_twice,
)
from videomae.video.decoder import Frames
from videomae.video.reader import BadVideo
from videomae.video.writer import write_video

CONFIG = VideoMAEConfig(
    image_size=8, patch_size=4, num_frames=4, hidden_size=8, num_attention_heads=1, frame_stride=2
)


class Plain:
    """A processor that crops the middle 8 x 8 pixels and changes no value."""

    def __call__(self, frames: list[Any], do_center_crop: bool = True, **_: Any) -> dict[str, Any]:
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
        if do_center_crop:
            top, left = (pixels.shape[2] - 8) // 2, (pixels.shape[3] - 8) // 2
            pixels = pixels[:, :, top : top + 8, left : left + 8]
        return {"pixel_values": pixels[None]}


class WholeFrames:
    """A processor that leaves frames as they are."""

    def __call__(self, frames: list[Any], **_: Any) -> dict[str, Any]:
        return {"pixel_values": torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None]}


def numbered(count: int, height: int = 8, width: int = 8) -> Frames:
    """Frames whose first channel is their number and whose second is the column."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = np.arange(count, dtype=np.uint8)[:, None, None]
    frames[..., 1] = np.arange(width, dtype=np.uint8)
    return frames


def make(frames: Any, **options: Any) -> torch.Tensor:
    return ViewMaker(CONFIG, Plain(), **options)(frames)


def test_one_view_is_the_centred_clip_of_the_config() -> None:
    # 11 frames, span 7: start 2.
    views = make(numbered(11))
    assert views.shape == (1, 4, 3, 8, 8)
    assert views[0, :, 0, 0, 0].tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        ("config", [2, 4, 6, 8]),
        (1, [3, 4, 5, 6]),
        (None, [1, 4, 6, 9]),
        ("uniform", [1, 4, 6, 9]),
    ],
)
def test_the_stride_can_be_told(stride: views.FrameStride, expected: list[int]) -> None:
    views = make(numbered(11), frame_stride=stride)
    assert views[0, :, 0, 0, 0].tolist() == expected


@pytest.mark.parametrize("stride", [0, "even", 1.5, True])
def test_a_stride_that_cannot_be_is_refused(stride: Any) -> None:
    with pytest.raises(ConfigError, match=f"frame_stride={stride!r}; expected a whole number of"):
        ViewMaker(CONFIG, Plain(), frame_stride=stride)


def test_grey_arrays_are_read() -> None:
    grey = numbered(11)[..., 0]
    for video in (grey, torch.from_numpy(grey), grey[..., None], grey[:, None]):
        assert torch.equal(make(video)[..., :1, :, :], make(video)[..., 2:, :, :])
        assert make(video)[0, :, 0, 0, 0].tolist() == [2, 4, 6, 8]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 6 s, of which picture k is shown from k / 8 s on: at 8 and 32 frames a second, and
    as a file of variable rate that holds each picture but the odd ones of its second half."""
    folder, frames = tmp_path_factory.mktemp("rates"), scene(48)
    kept = [k for k in range(48) if k < 24 or k % 2 == 0]
    return {
        "8 fps": encode(folder / "8.mkv", frames, codec="ffv1", fps=8),
        "32 fps": encode(folder / "32.mkv", np.repeat(frames, 4, axis=0), codec="ffv1", fps=32),
        "variable": encode(folder / "v.mp4", frames[kept], fps=8, times=kept),
    }


@pytest.mark.parametrize("name", ["8 fps", "32 fps", "variable"])
def test_videos_of_any_rate_are_seen_as_if_at_one(recorded: dict[str, Path], name: str) -> None:
    maker = ViewMaker(CONFIG, WholeFrames(), num_clips=3, frame_stride=4, fps=4)
    clips = [numbers(view) for view in maker(recorded[name]).permute(0, 1, 3, 4, 2).numpy()]
    # 24 ticks of pictures 0, 2, 4, ...; clips of span 13 start at ticks 0, 5 and 11
    assert clips == [[0, 8, 16, 24], [10, 18, 26, 34], [22, 30, 38, 46]]
    for source in (recorded[name].read_bytes(), recorded[name]):
        assert torch.equal(maker(source), maker(recorded[name]))


def test_the_rate_is_the_configs_unless_it_is_told(recorded: dict[str, Path]) -> None:
    def seen(config: VideoMAEConfig, **options: Any) -> list[int]:
        views = ViewMaker(config, WholeFrames(), **options)(recorded["8 fps"])
        return numbers(views[0].permute(0, 2, 3, 1).numpy())

    own = seen(CONFIG)
    assert own == [20, 22, 24, 26]
    assert seen(CONFIG, fps=4) == [16, 20, 24, 28]
    assert seen(CONFIG, fps=4, frame_stride="uniform") == [6, 18, 30, 42]
    trained = CONFIG.copy(fps=4)
    assert seen(trained) == [16, 20, 24, 28]
    assert seen(trained, fps=8) == seen(trained, fps="own") == seen(trained, fps=None) == own
    for wrong in (0, "fast"):
        with pytest.raises(ConfigError, match=f"fps={wrong!r}; expected frames per second"):
            seen(CONFIG, fps=wrong)


def test_what_has_no_rate_is_taken_to_be_at_it(tmp_path: Path) -> None:
    for index, frame in enumerate(numbered(11)):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    for video in (numbered(11), tmp_path):
        with pytest.warns(UserWarning, match="have no rate; their frames are taken to be at fps=4"):
            assert make(video, fps=4)[0, :, 0, 0, 0].tolist() == [2, 4, 6, 8]


def test_views_go_clip_by_clip_and_left_to_right() -> None:
    views = make(numbered(11, width=12), num_clips=2, num_crops=3)
    assert views.shape == (6, 4, 3, 8, 8)
    assert views[:, 0, 0, 0, 0].tolist() == [0, 0, 0, 4, 4, 4]
    assert views[:, 0, 1, 0, 0].tolist() == [0, 2, 4, 0, 2, 4]
    one = make(numbered(11, width=12))
    middle = make(numbered(11, width=12), num_crops=3)[1]
    assert torch.equal(one[0], middle)


def test_each_frame_is_read_once_and_few_at_a_time() -> None:
    read: list[list[int]] = []
    frames = numbered(60)

    def reader(indices: Any) -> Frames:
        read.append(list(indices))
        return frames[list(indices)]

    config = CONFIG.copy(num_frames=16, frame_stride=3)
    ViewMaker(config, Plain(), num_clips=3).views(60, reader)
    flat = [index for indices in read for index in indices]
    assert flat == sorted(set(flat))
    assert max(map(len, read)) == 16


def test_files_folders_arrays_and_tensors_are_read_alike(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 10, 12, 3), dtype=np.uint8)
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}.png")
    expected = make(frames)
    for video in (
        folder,
        str(folder),
        torch.from_numpy(frames),
        frames.transpose(0, 3, 1, 2),
        torch.from_numpy(frames).permute(0, 3, 1, 2),
    ):
        assert torch.equal(make(video), expected)
    write_video(tmp_path / "a.mp4", numbered(9) * 20)
    assert make(tmp_path / "a.mp4").shape == (1, 4, 3, 8, 8)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (
            np.zeros((4, 8, 8, 3), np.float32),
            r"\(4, 8, 8, 3\) and type float32 was given; ",
        ),
        (
            torch.zeros(4, 8, 8, 3, dtype=torch.bfloat16),
            r"\(4, 8, 8, 3\) and type torch.bfloat16 was given; ",
        ),
        (np.zeros((4, 8, 8, 4), np.uint8), r"\(4, 8, 8, 4\) and type uint8 was given; "),
        (np.zeros((8, 8, 3), np.uint8), r"stack the frames of one video with np.stack\(frames\)"),
        (np.zeros((2, 4, 8, 8, 3), np.uint8), "give several videos as a list"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), "four grey frames as video"),
        ([1, 2], "a video cannot be a list; expected a path, bytes, a file opened in binary mode"),
    ],
)
def test_what_is_no_video_is_explained(video: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(video)


def pixels_of(video: Any) -> torch.Tensor:
    """Stands in for a ViewMaker: a video is a number, or the name of a broken file."""
    if isinstance(video, str):
        raise VideoError(f"{video}: broken")
    return torch.full((video, 2), float(video))


def test_the_order_is_kept_and_bad_videos_hold_their_place() -> None:
    found = list(prepared([1, "x.mp4", 3], pixels_of, "skip"))
    assert [path for path, _ in found] == [None, Path("x.mp4"), None]
    assert found[1][1] == BadVideo(Path("x.mp4"), "x.mp4: broken")
    with pytest.raises(VideoError, match=r"x\.mp4: broken"):
        list(prepared([1, "x.mp4", 3], pixels_of, "raise"))
    with pytest.raises(ConfigError, match="on_error='ignore' is not one of raise, skip"):
        list(prepared([1], pixels_of, "ignore"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (3, 3), (64, 8)])
def test_as_many_videos_are_read_ahead_as_there_are_threads(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "num_cores", lambda: cores)
    asked: list[int] = []

    def videos() -> Iterator[int]:
        for number in range(1, 100):
            asked.append(number)
            yield number

    results = prepared(videos(), pixels_of, "raise")
    next(results)
    assert asked == list(range(1, threads + 2))
    next(results)
    assert asked == list(range(1, threads + 3))


def test_the_share_of_the_cores_reads_ahead_unless_a_number_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "cores_per_process", lambda: 3)
    for given in (None, 3):
        together = threading.Barrier(3)  # passed only by three threads

        def make(number: int, wait: threading.Barrier = together) -> int:
            wait.wait(timeout=60)
            return number

        made = views.read_ahead(make, range(6), num_threads=given, num_ahead=6)
        assert list(made) == list(range(6))


def test_the_next_videos_are_decoded_while_the_caller_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "num_cores", lambda: 2)
    third_done = threading.Event()
    together = threading.Barrier(2)  # passed only by two videos that are decoded at once

    def decode(number: int) -> torch.Tensor:
        if number < 3:
            together.wait(timeout=60)
        else:
            third_done.set()
        return pixels_of(number)

    results = prepared([1, 2, 3], decode, "raise")
    assert len(next(results)[1]) == 1  # type: ignore[arg-type]
    assert third_done.wait(timeout=60)  # though nobody has asked for the second yet
    assert [len(made) for _, made in results] == [2, 3]  # type: ignore[arg-type]


def test_each_video_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_video(tmp_path / f"{name}.mp4", numbered(40, 16, 16)) for name in "abc"]
    opened: list[Path] = []
    reader = views.VideoReader

    def counting(path: Path, **how: Any) -> Any:
        opened.append(path)
        return reader(path, **how)

    monkeypatch.setattr(views, "VideoReader", counting)
    maker = ViewMaker(CONFIG, Plain(), num_clips=3, num_crops=3)
    assert all(len(made) == 9 for _, made in prepared(paths, maker, "raise"))  # type: ignore[arg-type]
    assert sorted(opened) == paths


def test_leaving_early_ends_the_thread() -> None:
    results = prepared(iter(range(1, 9)), pixels_of, "raise")
    next(results)
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("videomae-ahead")]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_views_share_batches_and_find_their_way_back(batch_size: int) -> None:
    sizes: list[int] = []

    def compute(views: torch.Tensor) -> torch.Tensor:
        sizes.append(len(views))
        return views.sum(1) * 10

    videos: list[Any] = [1, 2, "x.mp4", 3, 1, "y.mp4"]
    pairs = prepared(videos, pixels_of, "skip")
    found = [made for _, made in run_views(pairs, compute, batch_size)]
    outputs = [made.tolist() if isinstance(made, torch.Tensor) else made.reason for made in found]
    assert outputs == [[20], [40, 40], "x.mp4: broken", [60, 60, 60], [20], "y.mp4: broken"]
    assert max(sizes) <= batch_size
    assert sum(sizes) == 7


def test_a_result_comes_as_soon_as_its_batch_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "num_cores", lambda: 1)
    asked: list[int] = []

    def videos() -> Iterator[int]:
        for _ in range(50):
            asked.append(1)
            yield 1

    results = run_views(prepared(videos(), pixels_of, "raise"), lambda views: views, 4)
    next(results)
    assert len(asked) == 5  # one batch and one video ahead


def test_batches_are_as_full_as_whole_videos_make_them() -> None:
    sizes: list[int] = []

    def compute(views: torch.Tensor) -> torch.Tensor:
        sizes.append(len(views))
        return views

    videos = [("a", torch.zeros(3, 2)), ("b", "broken"), *[("c", torch.zeros(3, 2))] * 4]
    assert [name for name, _ in run_views(videos, compute, 8)] == list("abcccc")
    assert sizes == [6, 6, 3]


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_stumble_is_forgiven_once(failures: int) -> None:
    left = [failures]

    def stumbling(number: int) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise VideoError("the disk stumbles")
        return number

    assert try_twice(stumbling, 7) == (7 if failures < 2 else "the disk stumbles")


def test_the_stored_processor_is_found_beside_the_weights(tmp_path: Path) -> None:
    VideoMAEImageProcessor(size=12, crop_size=8, image_mean=0.25).save_pretrained(tmp_path)
    (tmp_path / "model.pth").touch()
    for path in (tmp_path, str(tmp_path), tmp_path / "model.pth"):
        processor = find_processor(path, CONFIG)
        assert processor.size == {"shortest_edge": 12}
        assert processor.image_mean == 0.25


def test_without_one_the_config_says_what_fits(tmp_path: Path) -> None:
    for path in (None, tmp_path):
        processor = find_processor(path, CONFIG)
        assert processor.size == {"shortest_edge": 8}
        assert processor.crop_size == {"height": 8, "width": 8}
        assert processor.image_mean == IMAGENET_MEAN
    wide = find_processor(None, CONFIG.copy(image_size=(8, 12)))
    assert wide.size == wide.crop_size == {"height": 8, "width": 12}


@pytest.mark.parametrize(("num_channels", "opaque"), [(1, 0), (3, 0), (4, 1)])
def test_the_processor_that_fits_has_the_channels_of_the_model(
    num_channels: int, opaque: int
) -> None:
    processor = find_processor(None, CONFIG.copy(num_channels=num_channels))
    assert len(processor.image_mean) == len(processor.image_std) == num_channels
    assert processor.image_mean[:3] == (IMAGENET_MEAN if num_channels > 1 else (0.449,))
    made = ViewMaker(CONFIG.copy(num_channels=num_channels), processor)(numbered(9))
    assert made.shape == (1, 4, num_channels, 8, 8)
    if opaque:
        assert torch.equal(made[:, :, 3], torch.ones(1, 4, 8, 8))


def test_arrays_with_the_channels_of_the_model_are_taken_as_they_are() -> None:
    for count in (1, 2, 4, 5):
        config = CONFIG.copy(num_channels=count)
        frames = np.random.default_rng(0).integers(0, 255, (9, 8, 8, count), dtype=np.uint8)
        maker = ViewMaker(config, find_processor(None, config))
        made = maker(frames)
        assert torch.equal(made, maker(torch.from_numpy(frames).permute(0, 3, 1, 2)))
        clip = torch.from_numpy(frames)[[1, 3, 5, 7]].permute(0, 3, 1, 2)[None]
        assert torch.equal(made, normalize(clip, maker.processor))
    with pytest.raises(ConfigError, match="or with the 5 channels of the model"):
        maker(frames[..., :4])
    with pytest.raises(ConfigError, match="frames have 3 channels and the model takes 5"):
        maker(frames[..., :3])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_mean": 0.5, "image_std": 0.5},
        {"rescale_factor": 1 / 127.5, "image_mean": (1, 0, 1), "image_std": (1, 2, 1)},
        {"do_rescale": False, "image_mean": 100.0, "image_std": 3.0},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
    ],
)
def test_clips_get_the_numbers_of_the_processor(settings: dict[str, Any]) -> None:
    processor = VideoMAEImageProcessor(size=8, crop_size=8, **settings)
    clip = torch.randint(0, 256, (1, 4, 3, 8, 8), dtype=torch.uint8)
    expected = processor(clip, return_tensors="pt").pixel_values
    assert torch.equal(normalize(clip, processor), expected.float())
    if processor.do_rescale and processor.rescale_factor == 1 / 255:
        torch.testing.assert_close(shown(expected[0], processor), clip[0] / 255)


def test_a_video_is_done_when_its_first_views_agree() -> None:
    # Of 5 views, 0 and 4 are looked at first. Each view is the output itself.
    sure = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.6, 0.4]])
    unsure = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]])
    seen: list[int] = []

    def compute(views: Any) -> Any:
        seen.append(len(views))
        return views

    videos = [("sure", sure), ("bad", "no video"), ("unsure", unsure)]
    found = dict(run_views(iter(videos), compute, 10, early_exit=2))
    assert torch.equal(found["sure"], sure[[0, 4]])
    assert torch.equal(found["unsure"], unsure)  # all, in their order
    assert found["bad"] == "no video"
    assert seen == [4, 3]
    assert torch.equal(dict(run_views(iter(videos), compute, 10))["sure"], sure)
    assert torch.equal(dict(run_views(iter(videos), compute, 10, early_exit=5))["sure"], sure)


def test_frames_too_narrow_for_their_resizing_are_refused() -> None:
    maker = ViewMaker(VideoMAEConfig(), VideoMAEImageProcessor())
    expected = (
        r"frames of 2 x 16000 px .* resized to 224 x 1,792,000, above the limit of 35,389,440"
    )
    with pytest.raises(VideoError, match=expected):
        maker(np.zeros((16, 2, 16000, 3), np.uint8))
    assert maker(np.zeros((16, 2, 60, 3), np.uint8)).shape == (1, 16, 3, 224, 224)
