import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from made_videos import damage, encode, make, numbers, scene
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.footage import windows
from videomae.footage.windows import Window, live_windows, sliding_windows
from videomae.inference import predict
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import ViewMaker, find_processor, in_background, run_views
from videomae.video.decoder import Frames
from videomae.video.reader import VideoReader, read_frames

CONFIG = VideoMAEConfig(
    image_size=16,
    patch_size=8,
    num_frames=4,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    frame_stride=2,
    id2label={0: "run", 1: "jump", 2: "fall"},
)
# Leaves frames as they are, so that they can be told by their bars.
WHOLE = VideoMAEImageProcessor(
    do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("film") / "x.mp4", scene(60), codec_options={"g": "12"})


def maker(processor: Any = WHOLE, **options: Any) -> ViewMaker:
    return ViewMaker(CONFIG, processor, **options)


FRAME_BY_FRAME = ViewMaker(CONFIG.copy(num_frames=2), WHOLE, frame_stride=1, num_clips=59)


def frames_of(views: torch.Tensor) -> list[list[int]]:
    """The numbers of the frames of each view of a window."""
    return [numbers(view.permute(0, 2, 3, 1).numpy()) for view in views]


def seen(video: Any, made: ViewMaker, **seconds: Any) -> list[tuple[float, float, list[int]]]:
    """Start, end, and the numbers of the frames of the first view of each window."""
    return [
        (round(window.start_seconds, 3), round(window.end_seconds, 3), frames_of(views)[0])
        for window, views in sliding_windows(video, made, **seconds)
    ]


@pytest.mark.parametrize(
    ("num_frames", "starts"), [(17, [0, 4, 8, 10]), (15, [0, 4, 8]), (8, [0, 1]), (7, [0])]
)
def test_the_last_window_ends_with_the_video(num_frames: int, starts: list[int]) -> None:
    found = seen(scene(num_frames), maker(fps=1), hop_seconds=4)
    assert found == [(at, at + 7, [at, at + 2, at + 4, at + 6]) for at in starts]


def test_a_short_video_is_one_window_seen_as_classify_sees_it() -> None:
    assert seen(scene(5), maker(fps=1), hop_seconds=4) == [(0, 5, [0, 2, 4, 4])]


@pytest.mark.parametrize("kind", ["b-frames", "open-groups", "vp9", "mpeg4-avi", "wmv", "gif"])
def test_at_an_even_rate_frames_are_as_they_are(kind: str, tmp_path: Path) -> None:
    window, views = next(sliding_windows(make(kind, tmp_path), FRAME_BY_FRAME, window_seconds=9))
    assert window == Window(0, pytest.approx(2.4, abs=0.05), 0, 1)
    assert frames_of(views) == [[k, k + 1] for k in range(59)]


def test_a_window_is_a_clip_and_a_hop_is_half_of_it_by_default(film: Path) -> None:
    # 25 frames a second, so that 7 are 0.28 s; windows begin at 0, 3.5, 7, 10.5, ...
    found = seen(film, maker())
    assert found[:4] == [
        (0, 0.28, [0, 2, 4, 6]),
        (0.16, 0.44, [4, 6, 8, 10]),
        (0.28, 0.56, [7, 9, 11, 13]),
        (0.4, 0.68, [10, 12, 14, 16]),
    ]
    assert found[-1] == (2.12, 2.4, [53, 55, 57, 59])


def test_a_window_has_the_clips_of_a_video_of_its_length(film: Path) -> None:
    def first(made: ViewMaker, **seconds: Any) -> list[list[int]]:
        return frames_of(next(sliding_windows(film, made, **seconds))[1])

    # 15 frames
    assert first(maker(), window_seconds=0.6) == [[4, 6, 8, 10]]
    assert first(maker(num_clips=2), window_seconds=0.6) == [[0, 2, 4, 6], [8, 10, 12, 14]]
    uniform = maker(frame_stride="uniform")
    assert first(uniform, window_seconds=0.6) == [[1, 5, 9, 13]]


def test_pixels_and_scores_are_those_of_classify_on_the_same_frames(film: Path) -> None:
    torch.manual_seed(1)
    model = VideoMAEForVideoClassification(CONFIG).eval()
    torch.nn.init.normal_(model.classifier.weight)
    processor = find_processor(None, CONFIG)
    for options in ({}, {"num_clips": 2, "num_crops": 3}, {"frame_stride": 1}):
        made = maker(processor, **options)
        pairs = list(sliding_windows(film, made, window_seconds=0.52, hop_seconds=0.2))
        scored = list(run_views(iter(pairs), model_of(model), 3))
        assert len(pairs) == len(scored) == 11
        for index, ((window, views), (_, logits)) in enumerate(zip(pairs, scored, strict=True)):
            first = round(window.start_seconds * 25)
            assert first == min(5 * index, 60 - 13)
            frames = read_frames(film, range(first, first + 13))
            assert torch.equal(views, made(frames))
            assert isinstance(logits, torch.Tensor)
            expected = predict.classify(frames, model=model, processor=processor, **options)
            np.testing.assert_allclose(logits, expected.logits, atol=1e-6)


def model_of(model: VideoMAEForVideoClassification) -> Callable[[torch.Tensor], torch.Tensor]:
    def compute(views: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(views).logits

    return compute


def test_each_frame_is_decoded_once_and_kept_only_while_it_is_needed(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    of_reader, of_maker = VideoReader.read, ViewMaker.pixels

    def reading(self: VideoReader, wanted: Any) -> Any:
        read.extend(wanted)
        return of_reader(self, wanted)

    def pixels(self: ViewMaker, frames: Any) -> Any:
        made = of_maker(self, frames)
        alive.add(made.untyped_storage())
        return made

    monkeypatch.setattr(VideoReader, "read", reading)
    monkeypatch.setattr(ViewMaker, "pixels", pixels)
    monkeypatch.setattr(windows, "FRAMES_AT_ONCE", 4)
    most = 0
    for window, views in sliding_windows(film, maker(), hop_seconds=0.04):
        assert frames_of(views) == [[window.index + k for k in (0, 2, 4, 6)]]
        most = max(most, len(alive))
    assert read == list(range(60))
    assert most <= 3  # of 15 parts of 4 frames, those that hold 7 in a row


def test_frames_that_no_window_needs_are_not_read(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    of_reader = VideoReader.read

    def reading(self: VideoReader, wanted: Any) -> Any:
        read.extend(wanted)
        return of_reader(self, wanted)

    monkeypatch.setattr(VideoReader, "read", reading)
    list(sliding_windows(film, maker(), hop_seconds=1))
    assert read == [0, 2, 4, 6, 25, 27, 29, 31, 50, 52, 53, 54, 55, 56, 57, 59]


def test_windows_of_a_variable_rate_last_as_long(tmp_path: Path) -> None:
    """Frames 0 to 9 every 0.2 s, then 20 more every 0.05 s: 29 in 2.95 s to the last."""
    times = [*range(0, 200, 20), *range(200, 300, 5)]
    path = encode(tmp_path / "v.mp4", scene(30), fps=100, times=times)
    told = seen(path, maker(frame_stride=1, fps=20), window_seconds=0.2, hop_seconds=1)
    assert told == [
        (0, 0.2, [0, 0, 1, 1]),
        (1, 1.2, [5, 5, 6, 6]),
        (2, 2.2, [10, 11, 12, 13]),
        (2.8, 3, [26, 27, 28, 29]),
    ]
    # at the mean rate, 29 / 2.95 = 9.83 a second: 4 frames a window, 9.83 to the next
    own = seen(path, maker(frame_stride=1), window_seconds=0.4, hop_seconds=1)
    assert [round(start * 29 / 2.95, 1) for start, *_ in own] == [0, 10, 20, 26]
    assert [shown for *_, shown in own] == [
        [0, 1, 1, 2],
        [5, 6, 6, 7],
        [11, 13, 15, 17],
        [23, 25, 27, 29],
    ]


def test_the_rate_can_be_told(film: Path) -> None:
    found = seen(film, maker(fps=12.5), hop_seconds=0.8)
    assert found[:2] == [(0, 0.56, [0, 4, 8, 12]), (0.8, 1.36, [20, 24, 28, 32])]


def test_what_has_no_rate_needs_one(tmp_path: Path) -> None:
    for k, frame in enumerate(scene(9)):
        Image.fromarray(frame).save(tmp_path / f"{k}.png")
    for video, what in ((scene(9), "frames in memory have"), (tmp_path, f"{tmp_path}: has")):
        with pytest.raises(VideoError, match=f"{what} no rate, so .*; give fps=25 or such"):
            next(sliding_windows(video, maker()))
    with pytest.warns(UserWarning, match="have no rate; their frames are taken to be at fps=2"):
        assert seen(tmp_path, maker(fps=2)) == [(0, 3.5, [0, 2, 4, 6]), (1, 4.5, [2, 4, 6, 8])]


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        ({"window_seconds": 0}, ConfigError, "window_seconds=0 is no length of time; expected"),
        ({"hop_seconds": -1.0}, ConfigError, "hop_seconds=-1.0 is no length of time; expected"),
        ({"hop_seconds": float("nan")}, ConfigError, "hop_seconds=nan is no length of time"),
        ({"window_seconds": float("inf")}, ConfigError, "window_seconds=inf is no length of time"),
        (
            {"window_seconds": 0.2},
            VideoError,
            r"x.mp4: window_seconds=0.2 is 5 of its frames \(25 a second\), and a clip takes 7, of "
            "which 4 at frame_stride=2; give at least 0.28 seconds, a smaller frame_stride",
        ),
        (
            {"hop_seconds": 0.01},
            VideoError,
            "x.mp4: hop_seconds=0.01 is less than one of its frames; give at least 0.04",
        ),
    ],
)
def test_seconds_that_cannot_be_are_explained(
    film: Path, seconds: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        next(sliding_windows(film, maker(), **seconds))


def test_a_clip_over_the_window_needs_its_length(film: Path) -> None:
    with pytest.raises(ConfigError, match="a clip over a window; give its window_seconds"):
        next(sliding_windows(film, maker(frame_stride="uniform")))


def test_what_comes_before_a_damaged_place_is_not_lost(tmp_path: Path) -> None:
    path = damage(encode(tmp_path / "x.mp4", scene(60), codec_options={"g": "12"}), 50)
    found: list[Window] = []
    with pytest.raises(VideoError, match="damaged"):
        found.extend(window for window, _ in sliding_windows(path, maker(), hop_seconds=0.04))
    assert found
    assert found[-1].count == 54


def test_a_thread_makes_the_next_ones_and_ends_with_them() -> None:
    assert list(in_background(iter(range(5)), num_ahead=2)) == [0, 1, 2, 3, 4]

    def broken() -> Any:
        yield 1
        raise VideoError("broken")

    found = in_background(broken(), num_ahead=2)
    assert next(found) == 1
    with pytest.raises(VideoError, match="broken"):
        next(found)


def test_live_windows_hold_the_newest_clip_and_what_is_late_is_dropped() -> None:
    """Frames come one a second; while the first window is looked at, all others come."""
    looking, all_came = threading.Event(), threading.Event()

    def frames() -> Iterator[tuple[float, Frames]]:
        for number, frame in enumerate(scene(30)):
            if number == 4:
                looking.wait(timeout=60)
            yield number, frame
        all_came.set()

    found = live_windows(frames(), maker(), hop_seconds=2)
    window, views = next(found)
    assert frames_of(views) == [[0, 1, 2, 3]]
    assert (window.start_seconds, window.end_seconds, window.num_skipped) == (0, 3, 0)
    looking.set()
    assert all_came.wait(timeout=60)
    late, views = next(found)
    assert frames_of(views) == [[26, 27, 28, 29]]
    # due at 5, 7, ... 29 s: the last of these 13 is shown
    assert (late.index, late.end_seconds, late.num_skipped) == (1, 29, 12)
    assert late.arrived >= window.arrived
    assert next(found, None) is None
    assert not [each for each in threading.enumerate() if each.name == "videomae-live"]


def test_a_live_video_that_breaks_off_shows_what_came_before() -> None:
    def frames(count: int) -> Iterator[tuple[float, Frames]]:
        yield from enumerate(scene(count))
        raise VideoError("broke off")

    found = live_windows(frames(4), maker(), hop_seconds=1)
    assert frames_of(next(found)[1]) == [[0, 1, 2, 3]]
    with pytest.raises(VideoError, match="broke off"):
        next(found)
    short = live_windows(iter(list(enumerate(scene(3)))), maker(), hop_seconds=1)
    with pytest.raises(VideoError, match="ended after 3 of the 4 frames that a clip takes"):
        next(short)


def test_a_hop_of_a_live_video_is_checked() -> None:
    with pytest.raises(
        ConfigError, match="hop_seconds=0 is no length of time; expected a finite number"
    ):
        next(live_windows(iter([]), maker(), hop_seconds=0))


def test_leaving_a_live_video_early_ends_its_thread() -> None:
    def endless() -> Iterator[tuple[float, Frames]]:
        [frame] = scene(1)
        for number in range(10**9):
            yield number, frame

    found = live_windows(endless(), maker(), hop_seconds=1)
    next(found)
    found.close()
    assert not [each for each in threading.enumerate() if each.name == "videomae-live"]
