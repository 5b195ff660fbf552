"""From videos to batches of clips: read ahead, sampled, cropped, resized, and grouped.

Only the frames that a model looks at are decoded, and the next videos are decoded while the model
works on this one. Letters: V views of a video; T, C, H, W as everywhere.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from videomae import hub
from videomae.compute.cpu import num_cores
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.hub import PathLike
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.sampling import crop_boxes, views
from videomae.video.reader import BadVideo, Frames, VideoReader

FrameStride = int | Literal["config"] | None
OnError = Literal["raise", "skip"]
Item = tuple[Path | None, Tensor | BadVideo]  # a video's path, and what was made of it

# Decoded frames of full size that are held at once, per video.
_FRAMES_AT_ONCE = 16
# Videos are decoded by a thread per core, but no more than these: each holds a clip of its own, and
# no model that is worth a GPU keeps up with more.
_MAX_DECODE_THREADS = 8


def find_processor(path: PathLike | None, config: VideoMAEConfig) -> VideoMAEImageProcessor:
    """The processor stored beside a model's weights, else one that fits its config.

    `path` is a hub id, folder, weight file, shipped name, or None for a model without a place. The
    processor that fits resizes the short side to the model's frame and cuts out the centre (for a
    frame that is not square the whole picture is resized), with the mean and std of ImageNet, which
    all published models were trained with.
    """
    if path is not None:
        place = Path(path).parent if Path(path).is_file() else path
        for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
            if hub.fetch(place, name, required=False) is not None:
                return VideoMAEImageProcessor.from_pretrained(place)
    height, width = config.image_hw
    whole = {"height": height, "width": width}
    size = {"shortest_edge": height} if height == width else whole
    return VideoMAEImageProcessor(size=size, crop_size=whole)


@dataclass(frozen=True)
class ViewMaker:
    """Makes the pixel values (V, T, C, H, W) of a video's views, as a model was trained on them.

    Takes a video file, GIF or folder of frames, or a uint8 array or tensor (T, H, W, 3) or
    (T, 3, H, W). Views go clip by clip: `num_clips` along time, `num_crops` across each (see
    `sampling.views`); a single one is centred. `frame_stride` "config" is the config's.
    """

    config: VideoMAEConfig
    processor: Any
    frame_stride: FrameStride = "config"
    num_clips: int = 1
    num_crops: int = 1

    def __call__(self, video: Any) -> Tensor:
        if isinstance(video, str | os.PathLike):
            with VideoReader(video) as reader:
                return self.views(reader.info.num_frames, reader.read)
        frames = _as_frames(video)
        return self.views(len(frames), lambda indices: frames[list(indices)])

    def views(self, num_video_frames: int, read: Callable[[Sequence[int]], Frames]) -> Tensor:
        config = self.config
        height, width = config.image_hw
        # Crops are made below, when the resized frames are there: here a clip is a view.
        clips = [
            view.indices
            for view in views(
                num_video_frames,
                height,
                width,
                num_frames=config.num_frames,
                frame_stride=(
                    config.frame_stride if self.frame_stride == "config" else self.frame_stride
                ),
                size=(height, width),
                num_clips=self.num_clips,
                num_crops=1,
            )
        ]
        # Clips overlap: every frame is decoded and resized once, a few at a time.
        wanted = sorted(set(itertools.chain(*clips)))
        options = {} if self.num_crops == 1 else {"do_center_crop": False}
        pixels = torch.cat(
            [
                self.processor(
                    list(read(wanted[first : first + _FRAMES_AT_ONCE])),
                    return_tensors="pt",
                    input_data_format="channels_last",
                    **options,
                )["pixel_values"][0]
                for first in range(0, len(wanted), _FRAMES_AT_ONCE)
            ]
        )  # (frames, C, H, W)
        place = {index: number for number, index in enumerate(wanted)}
        picked = torch.tensor([[place[index] for index in clip] for clip in clips])
        if self.num_crops == 1:
            return pixels[picked]
        boxes = crop_boxes(*pixels.shape[2:], size=(height, width), num_crops=self.num_crops)
        return torch.stack(
            [
                pixels[clip, :, top : top + high, left : left + wide]
                for clip in picked
                for top, left, high, wide in boxes
            ]
        )


def _as_frames(video: Any) -> Frames:
    """A video given as array or tensor, as uint8 (T, H, W, 3)."""
    frames = video.detach().cpu().numpy() if isinstance(video, Tensor) else video
    if not isinstance(frames, np.ndarray):
        raise ConfigError(
            f"a video cannot be a {type(video).__name__}; expected a path, or an array or tensor "
            "of frames"
        )
    if frames.ndim == 4 and frames.shape[-1] != 3 and frames.shape[1] == 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        more = "; frames of one video must be stacked: np.stack(frames)" if frames.ndim == 3 else ""
        more = "; give several videos as a list" if frames.ndim == 5 else more
        raise ConfigError(
            f"a video of shape {frames.shape} and type {frames.dtype} was given; expected uint8 "
            f"(T, H, W, 3) or (T, 3, H, W), RGB in 0..255{more}"
        )
    return frames


def decode_threads() -> int:
    """How many videos are decoded at once: one per core that this process may use, up to 8."""
    return min(num_cores(), _MAX_DECODE_THREADS)


def prepared(
    videos: Iterable[Any], make_views: Callable[[Any], Tensor], on_error: OnError
) -> Iterator[Item]:
    """The path and views of each video in order, made ahead by `decode_threads` threads.

    No more videos are read ahead than there are threads, whatever their number. With two threads on
    two cores the shipped model classifies half as many short files again as with one.
    """
    if on_error not in get_args(OnError):
        raise ConfigError(f"on_error={on_error!r} is unknown; expected 'raise' or 'skip'")

    def prepare(video: Any) -> Item:
        path = Path(video) if isinstance(video, str | os.PathLike) else None
        try:
            return path, make_views(video)
        except VideoError as error:
            if on_error == "raise" or path is None:
                raise
            return path, BadVideo(path, str(error))

    pending: deque[Future[Item]] = deque()
    ahead = decode_threads()
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="videomae-decode")
    try:
        for video in videos:
            pending.append(pool.submit(prepare, video))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def run_views(
    videos: Iterable[Any],
    make_views: Callable[[Any], Tensor],
    compute: Callable[[Tensor], Tensor],
    batch_size: int,
    on_error: OnError,
) -> Iterator[Item]:
    """The path and outputs (V, ...) of each video; views of several videos share a batch."""
    for group in _in_groups(prepared(videos, make_views, on_error), batch_size):
        good = [made for _, made in group if isinstance(made, Tensor)]
        outputs: Iterator[Tensor] = iter(())
        if good:
            clips = torch.cat(good)
            starts = range(0, len(clips), batch_size)
            joined = torch.cat([compute(clips[start : start + batch_size]) for start in starts])
            outputs = iter(torch.split(joined, [len(made) for made in good]))
        for path, made in group:
            yield path, made if isinstance(made, BadVideo) else next(outputs)


def _in_groups(prepared: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """Consecutive videos, as few as have `batch_size` views together."""
    group: list[Item] = []
    for item in prepared:
        group.append(item)
        if sum(len(made) for _, made in group if isinstance(made, Tensor)) >= batch_size:
            yield group
            group = []
    if group:
        yield group
