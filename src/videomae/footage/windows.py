"""Sliding windows over one video: each frame decoded and resized once, memory flat for hours.

A video that comes live has windows too, and waits for nobody: what is not looked at is dropped.

Letters: V views of a window, which are its clips and their crops; T, C, H, W as everywhere.
"""

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videomae.errors import ConfigError, VideoError, as_text
from videomae.processing.inputs import as_frames
from videomae.processing.sampling import clip_span
from videomae.processing.views import FRAMES_AT_ONCE, ViewMaker, shown_frames
from videomae.video.decoder import Frames
from videomae.video.reader import VideoReader, is_source, source_path, warn_of_gaps


@dataclass(frozen=True)
class Window:
    """A stretch of a video: number `index` of `count`, from 0; in seconds from the first frame."""

    start_seconds: float
    end_seconds: float
    index: int
    count: int


def sliding_windows(
    video: Any,
    maker: ViewMaker,
    *,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
) -> Generator[tuple[Window, Tensor]]:
    """The windows of one video in order, each with the views (V, T, C, H, W) that `maker` makes.

    A window is to `maker` as a whole video of its length: one clip is centred in it, `num_clips`
    are spread over it. Pixels are those that `classify` takes for frames of these numbers. Every
    frame that a clip needs is decoded once, however much windows overlap, and kept at the model's
    size while a window needs it. The pairs are fit for `views.run_views`.

    window_seconds: how long a window is; None is the span of one clip. hop_seconds: from the start
    of one window to the next; None is half a window. Both are rounded to whole frames.

    The last window ends with the video, so it begins less than a hop after the one before; a video
    shorter than a window is one window. Clips of 4 at stride 2 (span 7), windows of 7, hop of 4::

        17 frames: fxfxfxf..........   8 frames: fxfxfxf.   5 frames: fxfxF
                   ....fxfxfxf......             .fxfxfxf
                   ........fxfxfxf..
                   ..........fxfxfxf

    A video of variable rate is taken as if it had its mean rate, so that all windows last as long
    (`sampling.frames_at_rate`), unless `maker` has another. `video` is what `ViewMaker` takes.

    Raises VideoError for a video that cannot be read, has no rate (a folder of images, frames in
    memory: give `maker` its fps) or whose frames do not suit the seconds: a window shorter than a
    clip, a hop shorter than a frame. What was read before a damaged place comes before the error.

    ```python
    for window, logits in run_views(sliding_windows(path, maker, hop_seconds=1), engine, 8):
        print(window.start_seconds, logits.mean(0).argmax())  # of logits (V, K)
    ```
    """
    _check_lengths(window_seconds=window_seconds, hop_seconds=hop_seconds)
    if maker.stride is None and window_seconds is None:
        raise ConfigError(
            "frame_stride='uniform' spreads a clip over a window; give its window_seconds"
        )
    with ExitStack() as stack:
        numbers, rate, read = _open(video, maker, stack)
        name = as_text(source_path(video) or "video in memory") if is_source(video) else "array"
        length, starts = _places(name, len(numbers), rate, maker, window_seconds, hop_seconds)
        clips = np.array(maker.clips(length))  # (clips, T), from the start of a window
        shown = np.asarray(numbers)
        coming = _each_once(shown[start + clips] for start in starts)
        held: dict[int, Tensor] = {}  # the frames that windows need, (C, H, W) each
        for index, start in enumerate(starts):
            frames = shown[start + clips]
            held = {number: kept for number, kept in held.items() if number >= frames.min()}
            while frames.max() not in held:
                wanted = list(itertools.islice(coming, FRAMES_AT_ONCE))
                held.update(zip(wanted, maker.pixels(read(wanted)), strict=True))
            needed = np.unique(frames)
            pixels = torch.stack([held[number] for number in needed.tolist()])
            window = Window(start / rate, (start + length) / rate, index, len(starts))
            yield window, maker.cut(pixels, np.searchsorted(needed, frames))


def _check_lengths(**lengths: float | None) -> None:
    for name, seconds in lengths.items():
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(
                f"{name}={seconds} is no length of time; expected a finite number above 0"
            )


def _open(
    video: Any, maker: ViewMaker, stack: ExitStack
) -> tuple[Sequence[int], float, Callable[[Sequence[int]], Frames]]:
    """The numbers of a video's frames at an even rate, that rate, and what reads some of them."""
    if not is_source(video):
        frames = as_frames(video, maker.config.num_channels)
        if maker.rate is None:
            raise VideoError(_no_rate("frames in memory have"))
        return range(len(frames)), maker.rate, lambda wanted: frames[list(wanted)]
    reader = stack.enter_context(VideoReader(video, on_damage=maker.on_damage))
    warn_of_gaps(reader.info)
    times, rate = reader.times(), maker.rate or reader.info.fps
    if rate is None:
        raise VideoError(_no_rate(f"{as_text(reader.info.path)}: has"))
    if maker.rate is None and times and len(times) > 1:
        rate = (len(times) - 1) / (times[-1] - times[0])
    return shown_frames(reader, rate if times else maker.rate, None), rate, reader.read


def _no_rate(what: str) -> str:
    return f"{what} no rate, so that nobody knows how many frames are a second; give fps=25 or such"


def _places(
    name: str,
    num_frames: int,
    rate: float,
    maker: ViewMaker,
    window_seconds: float | None,
    hop_seconds: float | None,
) -> tuple[int, list[int]]:
    """How many frames a window has, and with which frame each begins."""
    span = clip_span(maker.config.num_frames, maker.stride) if maker.stride else 1
    length = span if window_seconds is None else max(round(window_seconds * rate), 1)
    if length < min(span, num_frames):
        raise VideoError(
            f"{name}: window_seconds={window_seconds:g} is {length} of its frames ({rate:.4g} a "
            f"second), and a clip takes {span}, of which {maker.config.num_frames} at "
            f"frame_stride={maker.stride}; give at least {span / rate:.3g} seconds, a smaller "
            "frame_stride, or a higher fps"
        )
    hop = length / 2 if hop_seconds is None else hop_seconds * rate
    if hop < 0.999:
        raise VideoError(
            f"{name}: hop_seconds={hop_seconds} is less than one of its frames; give at least "
            f"{1 / rate:.3g}"
        )
    if num_frames <= length:
        return num_frames, [0]
    last = num_frames - length
    starts = [round(k * hop) for k in range(int(last / hop) + 1)]
    return length, sorted({*(start for start in starts if start < last), last})


def _each_once(windows: Iterator[np.ndarray]) -> Iterator[int]:
    """All numbers in windows, ascending and once each; a window begins no earlier than the last."""
    waiting: set[int] = set()
    for frames in windows:
        first = int(frames.min())
        yield from sorted(number for number in waiting if number < first)
        waiting = {number for number in waiting if number >= first} | set(frames.ravel().tolist())
    yield from sorted(waiting)


@dataclass(frozen=True)
class LiveWindow(Window):
    """The newest clip of a live video. `count` is 0: nobody knows how many are to come.

    arrived: when its last frame was there, by the clock of time.monotonic. num_skipped: windows
    that were due since the one before, and dropped, because nobody asked for them in time.
    """

    arrived: float
    num_skipped: int


def live_windows(
    frames: Iterable[tuple[float, Frames]], maker: ViewMaker, *, hop_seconds: float
) -> Generator[tuple[LiveWindow, Tensor]]:
    """The newest clip of a live video, again and again, with the views (V, T, C, H, W) of it.

    `frames` are what `LiveVideo.frames` gives: those of a clip, so many seconds apart. A thread
    takes them as they come and keeps the last T, already as the model takes them; a clip is due
    each `hop_seconds` of video. Raises what `frames` raise, and VideoError for too few of them.
    """
    _check_lengths(hop_seconds=hop_seconds)
    length = maker.config.num_frames
    clip: deque[tuple[float, float, Tensor]] = deque(maxlen=length)  # seconds, arrived, (C, H, W)
    news, ended, stopped = threading.Condition(), threading.Event(), threading.Event()
    errors: list[Exception] = []

    def receive() -> None:
        try:
            for seconds, frame in frames:
                pixels = maker.pixels(frame[None])[0]
                with news:
                    clip.append((seconds, time.monotonic(), pixels))
                    news.notify()
                if stopped.is_set():
                    return
        except Exception as error:
            errors.append(error)
        finally:
            with news:
                ended.set()
                news.notify()

    def is_time() -> bool:
        return ended.is_set() or (len(clip) == length and clip[-1][0] >= due)

    due, index = -math.inf, 0
    thread = threading.Thread(target=receive, name="videomae-live", daemon=True)
    thread.start()
    try:
        while True:
            with news:
                news.wait_for(is_time)
                newest = list(clip)
            if len(newest) < length or newest[-1][0] < due:
                break
            last, arrived, _ = newest[-1]
            skipped = 0 if index == 0 else int((last - due) / hop_seconds + 1e-6)
            pixels = torch.stack([each for *_, each in newest])
            window = LiveWindow(newest[0][0], last, index, 0, arrived, skipped)
            yield window, maker.cut(pixels, np.arange(length)[None])
            due, index = last + hop_seconds - 1e-6, index + 1
    finally:
        stopped.set()
        thread.join()
    if errors:
        raise errors[0]
    if not index:
        raise VideoError(f"ended after {len(newest)} of the {length} frames that a clip takes")
