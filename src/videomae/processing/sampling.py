"""Which frame indices and which crops make a clip or a view: numbers in, numbers out, no files.

The pictures show the frames of a video as a row: `f` is taken, `x` is passed over, `F` is taken
more than once.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

from videomae.errors import ConfigError
from videomae.fields import RATES


def clip_span(num_frames: int, frame_stride: int) -> int:
    """Video frames from the first to the last of a dense clip, both counted.

    4 frames at stride 3 span 10: `fxxfxxfxxf`.

    >>> clip_span(16, 4)
    61
    """
    check_counts(num_frames=num_frames, frame_stride=frame_stride)
    return (num_frames - 1) * frame_stride + 1


def clip_indices(
    num_video_frames: int, *, num_frames: int = 16, frame_stride: int = 4, start: int | None = None
) -> list[int]:
    """Frame indices of one dense clip: `num_frames` frames, every `frame_stride`-th one.

    Without `start` the clip is centred. Indices past the end become the last frame, so a short
    video ends in a still picture::

        12 frames, 4 at stride 3 (span 10): xfxxfxxfxxfx   [1, 4, 7, 10]
        10 frames, 4 at stride 3:           fxxfxxfxxf     [0, 3, 6, 9]
         8 frames, 4 at stride 3:           fxxfxxfF       [0, 3, 6, 7]
         5 frames, 4 at stride 3:           fxxfF          [0, 3, 4, 4]
         1 frame,  4 at stride 3:           F              [0, 0, 0, 0]

    (The published pre-training code repeats the last *sampled* index: 0, 3, 3, 3 in the fourth
    row.) Raises ConfigError where a count is below 1 or `start` lies outside the video.
    """
    span, last = clip_span(num_frames, frame_stride), num_video_frames - 1
    check_counts(num_video_frames=num_video_frames)
    if start is None:
        start = max(0, num_video_frames - span) // 2
    if not 0 <= start <= last:
        raise ConfigError(
            f"start={start} lies outside the video; expected 0 to {last}, as it has "
            f"{num_video_frames} frames"
        )
    return [min(start + k * frame_stride, last) for k in range(num_frames)]


def frames_at_rate(
    num_video_frames: int, *, fps: float, video_fps: float, times: Sequence[float] | None = None
) -> list[int]:
    """Frame indices that show a video as if it had the rate `fps`: those nearest to its ticks.

    A tick is every 1 / fps seconds from the first frame to the last. Ticks are counted, not added
    up, so that nothing drifts. What the other functions call a video's frames can then be
    these: `[shown[i] for i in clip_indices(len(shown), frame_stride=2)]`. One second, fps=6::

        12 fps:  |fxfxfxfxfxfx|  [0, 2, 4, 6, 8, 10]      with stride 2: |fxxxfxxxfxxx|
         6 fps:  |f f f f f f |  [0, 1, 2, 3, 4, 5]       with stride 2: |f x f x f x |
         3 fps:  |f   F   F   |  [0, 1, 1, 2, 2]

    `times`: seconds at which each frame is shown, ascending, for a variable rate; `video_fps` does
    not matter then. Raises ConfigError where a number is not above 0.

    >>> frames_at_rate(12, fps=6, video_fps=12)
    [0, 2, 4, 6, 8, 10]
    """
    check_counts(num_video_frames=num_video_frames)
    for name, rate in (("fps", fps), ("video_fps", video_fps)):
        if not rate > 0:
            raise ConfigError(f"{name}={rate} is too small; expected frames per second, above 0")
    if times is None:
        times = [index / video_fps for index in range(num_video_frames)]
    shown = [time - times[0] for time in times]
    middles = [(before + after) / 2 for before, after in pairwise(shown)]
    # The last frame may be a little early, as many files count milliseconds.
    num_ticks = int(shown[-1] * fps + 0.1) + 1
    # The millionth: of two frames that are as near, the later one, however numbers are rounded.
    return [bisect_right(middles, tick / fps + 1e-6) for tick in range(num_ticks)]


def uniform_indices(
    num_video_frames: int, *, num_frames: int = 16, offset: float = 0.5
) -> list[int]:
    """Frame indices spread over the whole video: one frame from each of `num_frames` equal parts.

    `offset` is the place inside each part: 0 its beginning, 0.5 its middle (the default), below 1.
    A video with fewer frames than parts gives frames more than once, in order::

        12 frames, 4 parts: |xfx|xfx|xfx|xfx|        [1, 4, 7, 10]
        10 frames, 4 parts: parts of 2.5: xfxfxxfxfx [1, 3, 6, 8]
         2 frames, 4 parts: FF                       [0, 0, 1, 1]

    Raises ConfigError where a count is below 1 or `offset` is not in [0, 1).
    """
    if not 0.0 <= offset < 1.0:
        raise ConfigError(f"offset={offset} is not in [0, 1); use 0.5 for the middle of each part")
    check_counts(num_video_frames=num_video_frames, num_frames=num_frames)
    return _part_indices(num_video_frames, [offset] * num_frames)


def even_indices(
    num_video_frames: int,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    video_fps: float | None = None,
) -> list[int]:
    """Frame indices spread evenly from the first frame on, as transformers chooses them.

    So many in all (`num_frames`), or so many a second (`fps`) of a video that has `video_fps`;
    with neither all of them. 3 of 10 frames: `fxxfxxfxxx`, [0, 3, 6]. Raises ConfigError for both
    at once, more frames than there are, and an unknown `video_fps`.
    """
    if num_frames and fps:
        raise ConfigError(f"num_frames={num_frames} and fps={fps} exclude each other; give one")
    if fps:
        if not video_fps:
            raise ConfigError(
                f"fps={fps} cannot be chosen from a video of unknown rate; pass "
                "video_metadata={'fps': ...}, or num_frames="
            )
        num_frames = max(1, int(num_video_frames / video_fps * fps))
    count = num_frames or num_video_frames
    if count > num_video_frames:
        raise ConfigError(
            f"{count} frames were asked for, the video has {num_video_frames}; ask for fewer"
        )
    return [index * num_video_frames // count for index in range(count)]


def random_start(
    num_video_frames: int, *, num_frames: int, frame_stride: int, generator: random.Random
) -> int:
    """Draw the start of a dense clip, all that keep it inside the video being as likely.

    11 frames, 4 at stride 3 (span 10); a video no longer than the span starts at 0::

        start 0: fxxfxxfxxfx
        start 1: xfxxfxxfxxf

    The published code leaves the last start out: in fine-tuning it never saw a last frame.
    """
    span = clip_span(num_frames, frame_stride)
    check_counts(num_video_frames=num_video_frames)
    return generator.randint(0, max(0, num_video_frames - span))


def random_uniform_indices(
    num_video_frames: int, *, num_frames: int, generator: random.Random
) -> list[int]:
    """Draw one frame from each of `num_frames` equal parts of the video (TSN sampling).

    The training counterpart of `uniform_indices`: 12 frames, 4 parts could give
    `|fxx|xxf|xfx|fxx|`, which is [0, 5, 7, 9]. Indices never decrease.
    """
    check_counts(num_video_frames=num_video_frames, num_frames=num_frames)
    return _part_indices(num_video_frames, [generator.random() for _ in range(num_frames)])


def spread_clips(
    num_video_frames: int, *, num_frames: int, frame_stride: int | None, num_clips: int
) -> list[list[int]]:
    """Frame indices of the clips of the multi-view protocol, evenly along time: 5 in the paper.

    Dense clips (`frame_stride` a number) go from the first frame to the last; one clip is centred.
    14 frames, 3 clips of 4 frames at stride 2 (span 7)::

        clip 0, start 0: fxfxfxfxxxxxxx
        clip 1, start 3: xxxfxfxfxfxxxx
        clip 2, start 7: xxxxxxxfxfxfxf

    Clips over the whole video (`frame_stride=None`) interleave: clip k takes the middle of slot k
    of the `num_clips` equal slots in each part. 16 frames, 2 clips of 4 frames::

        clip 0: xfxxxfxxxfxxxfxx
        clip 1: xxxfxxxfxxxfxxxf
    """
    check_counts(num_clips=num_clips)
    if frame_stride is None:
        offsets = [(clip + 0.5) / num_clips for clip in range(num_clips)]
        return [uniform_indices(num_video_frames, num_frames=num_frames, offset=x) for x in offsets]
    free = max(0, num_video_frames - clip_span(num_frames, frame_stride))
    return [
        clip_indices(num_video_frames, num_frames=num_frames, frame_stride=frame_stride, start=at)
        for at in _spread(free, num_clips)
    ]


def crop_boxes(
    height: int, width: int, *, size: tuple[int, int], num_crops: int
) -> list[tuple[int, int, int, int]]:
    """Boxes (top, left, height, width) of a `size` spread evenly along the longer side of a frame.

    All in px. One crop is the centre; several go from one end to the other. Along the other side
    every box is centred::

        size (4, 4), 3 crops of a 4 x 10 frame: left = 0, 3, 6
        ####------  ---####---  ------####

    Raises ConfigError where the crop does not fit into the frame.
    """
    crop_height, crop_width = size
    check_counts(crop_height=crop_height, crop_width=crop_width, num_crops=num_crops)
    free_height, free_width = height - crop_height, width - crop_width
    if min(free_height, free_width) < 0:
        raise ConfigError(
            f"a crop of {crop_height} x {crop_width} px does not fit into a frame of "
            f"{height} x {width} px; resize the frame's short side to the crop first"
        )
    if free_height > free_width:
        places = [(top, free_width // 2) for top in _spread(free_height, num_crops)]
    else:
        places = [(free_height // 2, left) for left in _spread(free_width, num_crops)]
    return [(top, left, crop_height, crop_width) for top, left in places]


def _spread(free: int, count: int) -> list[int]:
    """`count` whole numbers from 0 to `free`, both included and evenly apart; one is the middle."""
    return [free // 2] if count == 1 else [free * k // (count - 1) for k in range(count)]


def _part_indices(num_video_frames: int, offsets: Sequence[float]) -> list[int]:
    """The frame at place offsets[k] (0 to 1) of part k of len(offsets) equal parts."""
    # min: an offset a hair below 1 can round up to the frame after the last
    return [
        min(int(num_video_frames * (part + offset) / len(offsets)), num_video_frames - 1)
        for part, offset in enumerate(offsets)
    ]


def to_stride(frame_stride: int | str | None) -> int | None:
    """The stride as the functions above take it: "uniform", as flags have it, is None.

    Raises ConfigError for what is neither that nor a whole number of at least 1.
    """
    if frame_stride is None or frame_stride == "uniform":
        return None
    is_number = isinstance(frame_stride, Integral) and not isinstance(frame_stride, bool)
    if is_number and int(frame_stride) >= 1:
        return int(frame_stride)
    raise ConfigError(
        f"frame_stride={frame_stride!r}; expected a whole number of at least 1, or 'uniform' to "
        "spread the frames over the whole video"
    )


def to_fps(fps: float | str | None) -> float | None:
    """The rate as a number; "own", as flags have it, is None: each video's own rate.

    Raises ConfigError for what is neither that nor a number of 0.01 to 1000.
    """
    if fps is None or fps == "own":
        return None
    if isinstance(fps, str | bool) or fps not in RATES:
        raise ConfigError(
            f"fps={fps!r}; expected frames per second, {RATES.least} to {RATES.most}, or 'own' for "
            "each video's own rate"
        )
    return float(fps)


def check_counts(**counts: int) -> None:
    """ConfigError for a count below 1, by its name."""
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name}={count} is too small; expected at least 1")
