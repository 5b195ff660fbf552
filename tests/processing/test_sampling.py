"""Which frames and which crops, worked out by hand."""

import math
import random
import re
from collections import Counter

import numpy as np
import pytest

from videomae.errors import ConfigError
from videomae.processing.sampling import (
    clip_indices,
    clip_span,
    crop_boxes,
    even_indices,
    frames_at_rate,
    random_start,
    random_uniform_indices,
    spread_clips,
    to_fps,
    to_stride,
    uniform_indices,
)


def picture(indices: list[int], num_video_frames: int) -> str:
    """The row of a docstring: x passed over, f taken, F taken more than once."""
    counts = Counter(indices)
    return "".join("xfF"[min(counts[k], 2)] for k in range(num_video_frames))


@pytest.mark.parametrize(
    ("num_frames", "frame_stride", "span"), [(4, 3, 10), (16, 4, 61), (1, 9, 1), (16, 1, 16)]
)
def test_clip_span(num_frames: int, frame_stride: int, span: int) -> None:
    assert clip_span(num_frames, frame_stride) == span


@pytest.mark.parametrize(
    ("num_video_frames", "expected", "drawn"),
    [
        (12, [1, 4, 7, 10], "xfxxfxxfxxfx"),
        (11, [0, 3, 6, 9], "fxxfxxfxxfx"),
        (10, [0, 3, 6, 9], "fxxfxxfxxf"),
        (9, [0, 3, 6, 8], "fxxfxxfxf"),
        (8, [0, 3, 6, 7], "fxxfxxff"),
        (5, [0, 3, 4, 4], "fxxfF"),
        (3, [0, 2, 2, 2], "fxF"),
        (1, [0, 0, 0, 0], "F"),
    ],
)
def test_clips_are_centred_and_end_in_the_last_frame(
    num_video_frames: int, expected: list[int], drawn: str
) -> None:
    indices = clip_indices(num_video_frames, num_frames=4, frame_stride=3)
    assert indices == expected
    assert picture(indices, num_video_frames) == drawn


@pytest.mark.parametrize(
    ("num_video_frames", "video_fps", "fps", "expected"),
    [
        (12, 12, 6, [0, 2, 4, 6, 8, 10]),
        (6, 6, 6, [0, 1, 2, 3, 4, 5]),
        (3, 3, 6, [0, 1, 1, 2, 2]),
        (11, 12, 6, [0, 2, 4, 6, 8, 10]),  # the last frame is shown at 10/12
        (10, 30, 20, [0, 2, 3, 5, 6, 8, 9]),  # frames 0, 1.5, 3, 4.5, ...: the middle counts up
        (5, 10, 1, [0]),
        (1, 25, 5, [0]),
    ],
)
def test_frames_at_another_rate(
    num_video_frames: int, video_fps: float, fps: float, expected: list[int]
) -> None:
    assert frames_at_rate(num_video_frames, fps=fps, video_fps=video_fps) == expected
    times = [k / video_fps for k in range(num_video_frames)]
    late = [5 + round(time, 3) for time in times]  # a container of milliseconds that starts late
    for known in (times, late):
        found = frames_at_rate(num_video_frames, fps=fps, video_fps=video_fps, times=known)
        assert len(found) == len(expected)
        # what lies in the middle of two frames is as near to either
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1


@pytest.mark.parametrize("rate", [24, 30000 / 1001, 59.94, 7.3])
def test_the_own_rate_of_a_video_changes_nothing(rate: float) -> None:
    for count in (1, 2, 61, 10_000):
        assert frames_at_rate(count, fps=rate, video_fps=rate) == list(range(count))


def test_ticks_do_not_drift() -> None:
    found = frames_at_rate(100_000, fps=30, video_fps=59.94)
    assert len(found) == math.floor(99_999 / 59.94 * 30) + 1
    for tick in (1, 1000, 50_000):
        assert abs(found[tick] - tick * 59.94 / 30) <= 0.5 + 1e-3


def test_a_variable_rate_goes_by_the_times_of_the_frames() -> None:
    # Frame k is shown at k * k / 100 seconds: 1 s is frame 10, 2 s lies nearest to frame 14.
    times = [k * k / 100 for k in range(60)]
    found = frames_at_rate(60, fps=1, video_fps=59 / times[-1], times=times)
    assert len(found) == 35
    seconds = (0, 1, 2, 4, 9, 16, 25, 34)
    assert [found[second] for second in seconds] == [0, 10, 14, 20, 30, 40, 50, 58]


def test_clips_at_a_rate_see_the_same_time() -> None:
    # 2 s at 60 and at 15 frames a second; frame 4 k of the first is shown with frame k of the other
    fast, slow = (frames_at_rate(2 * n, fps=15, video_fps=n) for n in (60, 15))
    clips = [
        [shown[i] for i in clip_indices(len(shown), num_frames=4, frame_stride=3)]
        for shown in (fast, slow)
    ]
    assert clips == [[40, 52, 64, 76], [10, 13, 16, 19]]


@pytest.mark.parametrize(
    ("fps", "video_fps", "message"),
    [(0, 25, "fps=0 is too small"), (8, -1, "video_fps=-1 is too small; expected frames per sec")],
)
def test_a_rate_that_cannot_be_is_refused(fps: float, video_fps: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        frames_at_rate(9, fps=fps, video_fps=video_fps)


def test_words_of_flags_are_understood() -> None:
    assert to_stride("uniform") is to_stride(None) is to_fps("own") is to_fps(None) is None
    assert (to_stride(np.int64(3)), to_fps(8), to_fps(np.float32(7.5))) == (3, 8, 7.5)
    for wrong in (0, "8", True, "config", float("nan"), float("inf"), 1e8):
        expected = re.escape(f"fps={wrong!r}; expected frames per second, 0.01 to 1000, or")
        with pytest.raises(ConfigError, match=expected):
            to_fps(wrong)


def test_the_recipe_of_the_published_models() -> None:
    assert clip_indices(300) == list(range(119, 180, 4))  # (300 - 61) // 2 = 119
    assert clip_indices(61) == list(range(0, 61, 4))
    assert clip_indices(30) == [0, 4, 8, 12, 16, 20, 24, 28] + [29] * 8


def test_a_given_start() -> None:
    assert clip_indices(12, num_frames=4, frame_stride=3, start=2) == [2, 5, 8, 11]
    assert clip_indices(12, num_frames=4, frame_stride=3, start=5) == [5, 8, 11, 11]
    for start in (-1, 12):
        with pytest.raises(ConfigError, match=f"start={start} lies outside the video; expected 0"):
            clip_indices(12, num_frames=4, frame_stride=3, start=start)


@pytest.mark.parametrize(
    ("num_video_frames", "expected"),
    [
        (12, [1, 4, 7, 10]),  # parts of 3: |xfx|xfx|xfx|xfx|
        (10, [1, 3, 6, 8]),  # parts of 2.5, middles at 1.25, 3.75, 6.25, 8.75
        (4, [0, 1, 2, 3]),
        (3, [0, 1, 1, 2]),  # middles at 0.375, 1.125, 1.875, 2.625
        (2, [0, 0, 1, 1]),
        (1, [0, 0, 0, 0]),
    ],
)
def test_uniform_indices(num_video_frames: int, expected: list[int]) -> None:
    assert uniform_indices(num_video_frames, num_frames=4) == expected


def test_uniform_offsets() -> None:
    assert uniform_indices(12, num_frames=4, offset=0) == [0, 3, 6, 9]
    assert uniform_indices(12, num_frames=4, offset=0.99) == [2, 5, 8, 11]
    assert uniform_indices(12, num_frames=4, offset=1 - 2**-53)[-1] == 11
    for offset in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=rf"offset={offset} is not in \[0, 1\); use 0\.5"):
            uniform_indices(12, num_frames=4, offset=offset)


def test_even_frames_begin_with_the_first() -> None:
    assert picture(even_indices(10, num_frames=3), 10) == "fxxfxxfxxx"
    assert even_indices(10, fps=1.6, video_fps=5) == [0, 3, 6]  # 2 s, so 3 frames
    assert even_indices(10, fps=0.1, video_fps=5) == [0]
    assert even_indices(4) == [0, 1, 2, 3]
    for choice, message in (
        ({"num_frames": 4, "fps": 2.0}, "num_frames=4 and fps=2.0 exclude each other"),
        ({"fps": 2.0}, "unknown rate"),
        ({"num_frames": 11}, "11 frames were asked for, the video has 10"),
    ):
        with pytest.raises(ConfigError, match=message):
            even_indices(10, **choice)  # type: ignore[arg-type]


def test_random_starts_reach_the_last_frame() -> None:
    generator = random.Random(0)
    starts = Counter(
        random_start(13, num_frames=4, frame_stride=3, generator=generator) for _ in range(400)
    )
    assert sorted(starts) == [0, 1, 2, 3]  # 13 - 10 = 3: xxxfxxfxxfxxf
    assert min(starts.values()) > 60  # about 100 each
    assert clip_indices(13, num_frames=4, frame_stride=3, start=3)[-1] == 12


@pytest.mark.parametrize("num_video_frames", [1, 5, 10])
def test_short_videos_start_at_their_beginning(num_video_frames: int) -> None:
    generator = random.Random(0)
    for _ in range(5):
        start = random_start(num_video_frames, num_frames=4, frame_stride=3, generator=generator)
        assert start == 0


def test_random_uniform_indices_take_one_of_each_part() -> None:
    generator = random.Random(0)
    seen = set()
    for _ in range(200):
        indices = random_uniform_indices(12, num_frames=4, generator=generator)
        assert [index // 3 for index in indices] == [0, 1, 2, 3]
        seen.update(indices)
    assert seen == set(range(12))
    indices = random_uniform_indices(2, num_frames=4, generator=generator)
    assert indices == [0, 0, 1, 1]


def test_the_generator_alone_decides() -> None:
    before = random.getstate()
    draws = [
        (
            random_start(300, num_frames=16, frame_stride=4, generator=generator),
            random_uniform_indices(300, num_frames=16, generator=generator),
        )
        for generator in (random.Random(5), random.Random(5), random.Random(6))
    ]
    assert draws[0] == draws[1] != draws[2]
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("num_crops", "lefts"), [(1, [3]), (2, [0, 6]), (3, [0, 3, 6]), (4, [0, 2, 4, 6])]
)
def test_crops_lie_along_the_longer_side(num_crops: int, lefts: list[int]) -> None:
    wide = crop_boxes(4, 10, size=(4, 4), num_crops=num_crops)
    assert wide == [(0, left, 4, 4) for left in lefts]
    tall = crop_boxes(10, 4, size=(4, 4), num_crops=num_crops)
    assert tall == [(left, 0, 4, 4) for left in lefts]


def test_crops_of_the_paper() -> None:
    boxes = crop_boxes(224, 298, size=(224, 224), num_crops=3)
    assert boxes == [(0, 0, 224, 224), (0, 37, 224, 224), (0, 74, 224, 224)]


def test_crops_are_centred_along_the_other_side() -> None:
    assert crop_boxes(9, 12, size=(4, 4), num_crops=3) == [(2, 0, 4, 4), (2, 4, 4, 4), (2, 8, 4, 4)]
    assert crop_boxes(4, 4, size=(4, 4), num_crops=2) == [(0, 0, 4, 4), (0, 0, 4, 4)]
    assert crop_boxes(6, 10, size=(6, 8), num_crops=2) == [(0, 0, 6, 8), (0, 2, 6, 8)]


def test_crops_must_fit() -> None:
    message = "a crop of 8 x 8 px does not fit into a frame of 6 x 10 px; resize the frame's short"
    with pytest.raises(ConfigError, match=message):
        crop_boxes(6, 10, size=(8, 8), num_crops=1)


def test_clips_are_spread_over_the_video() -> None:
    found = spread_clips(14, num_frames=4, frame_stride=2, num_clips=3)
    assert found == [[0, 2, 4, 6], [3, 5, 7, 9], [7, 9, 11, 13]]  # starts 0, 3, 7 of 0 to 14 - 7
    (one,) = spread_clips(100, num_frames=4, frame_stride=3, num_clips=1)
    assert one == clip_indices(100, num_frames=4, frame_stride=3)


def test_clips_of_the_paper() -> None:
    found = spread_clips(300, num_frames=16, frame_stride=4, num_clips=5)
    assert [clip[0] for clip in found] == [0, 59, 119, 179, 239]  # 239 = 300 - 61
    assert found[-1][-1] == 299


def test_short_videos_give_the_same_clip_every_time() -> None:
    assert spread_clips(5, num_frames=4, frame_stride=3, num_clips=3) == [[0, 3, 4, 4]] * 3


def test_spread_out_clips_interleave() -> None:
    def clips(num_clips: int) -> list[list[int]]:
        return spread_clips(16, num_frames=4, frame_stride=None, num_clips=num_clips)

    assert clips(2) == [[1, 5, 9, 13], [3, 7, 11, 15]]
    assert clips(1) == [uniform_indices(16, num_frames=4)]
    assert sorted(index for clip in clips(4) for index in clip) == list(range(16))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("num_video_frames", lambda: clip_indices(0)),
        ("num_frames", lambda: clip_indices(9, num_frames=0)),
        ("frame_stride", lambda: clip_indices(9, frame_stride=0)),
        ("num_video_frames", lambda: uniform_indices(0)),
        ("num_frames", lambda: uniform_indices(9, num_frames=0)),
        (
            "num_video_frames",
            lambda: random_start(0, num_frames=1, frame_stride=1, generator=random.Random(0)),
        ),
        (
            "num_frames",
            lambda: random_uniform_indices(9, num_frames=0, generator=random.Random(0)),
        ),
        ("num_crops", lambda: crop_boxes(4, 4, size=(4, 4), num_crops=0)),
        ("crop_height", lambda: crop_boxes(4, 4, size=(0, 0), num_crops=1)),
        ("num_clips", lambda: spread_clips(9, num_frames=4, frame_stride=1, num_clips=0)),
    ],
)
def test_counts_are_at_least_one(name: str, call: "type[object]") -> None:
    with pytest.raises(ConfigError, match=f"{name}=0 is too small; expected at least 1"):
        call()
