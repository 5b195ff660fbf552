"""From videos to batches of clips: read ahead, sampled, cropped, resized, and grouped.

All commands but training, which crops by itself, take their pixels from here. Only frames that a
model looks at are decoded, the next videos while it works on this one. Pixels are tensors, or
arrays where the processor makes those; torch is imported for tensors alone. Letters: B clips, V
views of a video; T, C, H, W as everywhere.
"""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from videomae import hub
from videomae.compute.cores import cores_per_process, num_cores
from videomae.compute.threads import alone
from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig, check_choice
from videomae.errors import VideoError
from videomae.hub import PathLike
from videomae.processing.plain import output_size, to_channels
from videomae.processing.sampling import crop_boxes, frames_at_rate, spread_clips, to_fps, to_stride
from videomae.processing.stored import StoredSettings
from videomae.settings import OnDamage
from videomae.video.decoder import Frames
from videomae.video.limits import VideoLimits
from videomae.video.reader import BadVideo, VideoReader, is_source, source_path, warn_of_gaps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videomae.processing.processors import VideoMAEImageProcessor

FrameStride = int | Literal["config", "uniform"] | None
Fps = float | Literal["config", "own"] | None
OnError = Literal["raise", "skip"]
Made = TypeVar("Made")
Name = TypeVar("Name")
Failure = TypeVar("Failure")

# Mean and std where none are stored, by the number of channels: those of ImageNet, their means for
# one channel, and for four such that an opaque alpha is 1 to the model. Any others get 0.5.
_STATISTICS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((0.449,), (0.226,)),
    3: (IMAGENET_MEAN, IMAGENET_STD),
    4: ((*IMAGENET_MEAN, 0.5), (*IMAGENET_STD, 0.5)),
}
FRAMES_AT_ONCE = 16  # decoded and of full size, per video, and no more bytes than
_BYTES_AT_ONCE = 2**28


def find_processor(path: PathLike | None, config: VideoMAEConfig) -> VideoMAEImageProcessor:
    """The processor stored beside a model's weights, else one that fits its config.

    `path` is a hub id, folder, weight file, shipped name, or None. The processor that fits resizes
    the short side to the model's frame and cuts out the centre (for a frame that is not square the
    whole picture is resized), with ImageNet's mean and std, as all published models have it.
    """
    from videomae.processing.processors import VideoMAEImageProcessor

    if path is not None:
        place = Path(path).parent if Path(path).is_file() else path
        with suppress(hub.AbsentError):
            return VideoMAEImageProcessor.from_pretrained(place)
    height, width = config.image_hw
    mean, std = _STATISTICS.get(config.num_channels, (0.5, 0.5))
    return VideoMAEImageProcessor(
        size=height if height == width else (height, width),
        crop_size=(height, width),
        image_mean=mean,
        image_std=std,
        do_convert_rgb=None if config.num_channels == 3 else False,
    )


def normalize(pixels: Tensor, processor: Any, device: torch.device | str = "cpu") -> Tensor:
    """uint8 crops (B, T, C, H, W) to the very numbers the processor gives for them: float32."""
    from videomae.processing.transforms import statistics

    factor = processor.rescale_factor if processor.do_rescale else None
    numbers = pixels.to(device, non_blocking=True).float()
    if not processor.do_normalize:
        return numbers * (factor or 1.0)
    mean, std = statistics(processor.image_mean, processor.image_std, factor, device)
    return (numbers - mean).div_(std)


def shown(pixel_values: Tensor, processor: Any) -> Tensor:
    """Pixel values (T, C, H, W) as they were before the processor normalised them: in 0..1."""
    if not processor.do_normalize:
        return pixel_values
    from videomae.processing.transforms import statistics

    mean, std = statistics(processor.image_mean, processor.image_std)
    return pixel_values * std + mean


@dataclass(frozen=True)
class ViewMaker:
    """Makes the pixel values (V, T, C, H, W) of a video's views, as a model was trained on them.

    Takes what `VideoReader` opens, or a uint8 array or tensor (T, H, W, 3), (T, 3, H, W) or grey
    (T, H, W), RGB or with the channels of the model (see `to_channels`). Views go clip by clip:
    `num_clips` along time, `num_crops` across each (`spread_clips`, `crop_boxes`); a single one is
    centred. `frame_stride` "config" is the config's, "uniform" or None spreads a clip; `fps`
    "config" is the config's, a number takes each video as if it had that rate (`frames_at_rate`),
    "own" or None as it is.
    """

    config: VideoMAEConfig
    processor: Any
    frame_stride: FrameStride = "config"
    num_clips: int = 1
    num_crops: int = 1
    fps: Fps = "config"
    on_damage: OnDamage = "refuse"
    # videos that were used in part (see `VideoReader`), by name, and in how many places damaged
    damaged: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        _ = self.stride, self.rate  # a wrong one raises before any video is opened

    def __call__(self, video: Any) -> Tensor:
        if is_source(video):
            with VideoReader(video, on_damage=self.on_damage) as reader:
                return self.read_views(reader)
        from videomae.processing.inputs import as_frames

        frames = as_frames(video, self.config.num_channels)
        if self.rate:
            _warn_of_no_rate(self.rate)
        return self.views(len(frames), lambda indices: frames[list(indices)])

    def read_views(self, reader: VideoReader, part: range | None = None) -> Tensor:
        """The views of an open video, or of a part of its frames."""
        if reader.info.num_gaps:
            self.damaged[str(reader.info.path)] = reader.info.num_gaps
            warn_of_gaps(reader.info)
        numbers = shown_frames(reader, self.rate, part)
        frame_bytes = 3 * reader.info.height * reader.info.width
        return self.views(
            len(numbers),
            lambda indices: reader.read([numbers[i] for i in indices]),
            at_once=max(1, min(FRAMES_AT_ONCE, _BYTES_AT_ONCE // frame_bytes)),
        )

    @property
    def stride(self) -> int | None:
        """Frames between two sampled ones, None for clips that are spread over a video."""
        chosen = self.frame_stride
        return to_stride(self.config.frame_stride if chosen == "config" else chosen)

    @property
    def rate(self) -> float | None:
        """Frames a second that each video is taken to have, None for its own."""
        return to_fps(self.config.fps if self.fps == "config" else self.fps)

    @property
    def num_views(self) -> int:
        """Views of each video."""
        return self.num_clips * self.num_crops

    def clips(self, num_video_frames: int) -> list[list[int]]:
        """The frame numbers of each clip of a video of so many frames: `num_clips` x T."""
        return spread_clips(
            num_video_frames,
            num_frames=self.config.num_frames,
            frame_stride=self.stride,
            num_clips=self.num_clips,
        )

    def views(
        self,
        num_video_frames: int,
        read: Callable[[Sequence[int]], Frames],
        at_once: int = FRAMES_AT_ONCE,
    ) -> Tensor:
        """The views (V, T, C, H, W) of a video of so many frames, of which `read` gives any."""
        # Clips overlap: every frame is decoded and resized once, a few at a time.
        clips = np.array(self.clips(num_video_frames))
        wanted = np.unique(clips).tolist()
        parts = (wanted[k : k + at_once] for k in range(0, len(wanted), at_once))
        pixels = _joined([self.pixels(read(part)) for part in parts])  # (frames, C, H, W)
        return self.cut(pixels, np.searchsorted(wanted, clips))

    def pixels(self, frames: Frames) -> Tensor:
        """Frames (F, H, W, 3) resized and normalised, and cropped but for several crops.

        VideoError where a frame is so long and narrow that it would be resized beyond all limits.
        """
        processor, old = self.processor, (frames.shape[1], frames.shape[2])
        if isinstance(processor, StoredSettings) and processor.do_resize and processor.size:
            high, wide = output_size(*old, processor.size)
            if high * wide > (most := VideoLimits().max_pixels):
                raise VideoError(
                    f"frames of {old[0]} x {old[1]} px (height x width) would be resized to "
                    f"{high:,} x {wide:,}, above the limit of {most:,} pixels; crop them first"
                )
        options = {} if self.num_crops == 1 else {"do_center_crop": False}
        if self.config.num_channels != 3:
            options["do_convert_rgb"] = False  # it would turn the model's channels back to RGB
        made = processor(
            list(to_channels(frames, self.config.num_channels)),
            return_tensors="pt",
            input_data_format="channels_last",
            **options,
        )
        pixels: Tensor = made["pixel_values"][0]
        return pixels

    def cut(self, pixels: Tensor, picked: NDArray[np.intp]) -> Tensor:
        """The views (V, T, C, H, W) whose frames are `picked` (clips, T) of pixels (F, C, H, W)."""
        if self.num_crops == 1:
            return pixels[picked]
        size = self.config.image_hw
        boxes = crop_boxes(*pixels.shape[2:], size=size, num_crops=self.num_crops)
        crops = [pixels[..., y : y + high, x : x + wide][picked] for y, x, high, wide in boxes]
        return _joined([crop[k : k + 1] for k in range(len(picked)) for crop in crops])


def shown_frames(
    reader: VideoReader, fps: float | None, part: range | None = None
) -> Sequence[int]:
    """The numbers of a video's frames, or of a part of them, as if it had the rate `fps`.

    Without `fps` they are as they are, and so they are, with a warning, for folders of images.
    """
    part = range(reader.info.num_frames) if part is None else part
    if fps is None:
        return part
    if reader.info.fps is None:
        _warn_of_no_rate(fps)
        return part
    times = reader.times()
    times = times[part.start : part.stop] if times else None
    indices = frames_at_rate(len(part), fps=fps, video_fps=reader.info.fps, times=times)
    return [part[index] for index in indices]


def _warn_of_no_rate(fps: float) -> None:
    warnings.warn(
        f"arrays and folders of images have no rate; their frames are taken to be at fps={fps:g} "
        "already, which fps='own' says without this warning",
        stacklevel=2,
    )


def read_ahead(
    make: Callable[[Any], Made], items: Iterable[Any], *, num_threads: int | None, num_ahead: int
) -> Generator[Made]:
    """Call `make` on each item by threads, ahead of the caller, and give the results in order.

    There are `num_threads` of them; None: as many as this process may take cores. While the caller
    works on one result, up to `num_ahead` more are made or wait. What `make` raises is raised in
    the place of its result. Each thread computes alone: helpers of theirs would take cores from the
    caller, who waits for the slowest after each operation.
    """
    pool = ThreadPoolExecutor(
        num_threads or cores_per_process(), "videomae-ahead", initializer=alone
    )
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_videos(make: Callable[[Any], Made], videos: Iterable[Any]) -> Generator[Made]:
    """`read_ahead` by a thread per core, up to 8: no large model keeps up with more."""
    threads = min(num_cores(), 8)
    return read_ahead(make, videos, num_threads=threads, num_ahead=threads)


def in_background(items: Iterable[Made], *, num_ahead: int) -> Generator[Made]:
    """The items in order, the next `num_ahead` made by a thread while the caller works on one."""
    end, rest = object(), iter(items)

    def following(_: None) -> Any:
        return next(rest, end)

    endless = itertools.repeat(None)
    for item in read_ahead(following, endless, num_threads=1, num_ahead=num_ahead):
        if item is end:
            return
        yield item


def try_twice(make: Callable[..., Made], *arguments: Any) -> Made | str:
    """Call `make`, once more after a VideoError, as disks and networks stumble; else the reason."""
    for _ in range(2):
        try:
            return make(*arguments)
        except VideoError as error:
            reason = str(error)
    return reason


def prepared(
    videos: Iterable[Any], make_views: Callable[[Any], Tensor], on_error: OnError
) -> Generator[tuple[Path | None, Tensor | BadVideo]]:
    """The path and views of each video in order, made ahead by a thread per core, up to 8."""
    check_choice("on_error", on_error, get_args(OnError))

    def prepare(video: Any) -> tuple[Path | None, Tensor | BadVideo]:
        path = source_path(video)
        try:
            return path, make_views(video)
        except VideoError as error:
            if on_error == "raise":
                raise
            return path, BadVideo(path, str(error))

    yield from read_videos(prepare, videos)


def run_views(
    videos: Iterable[tuple[Name, Tensor | Failure]],
    compute: Callable[[Tensor], Tensor],
    batch_size: int,
    early_exit: int = 0,
) -> Iterator[tuple[Name, Tensor | Failure]]:
    """Compute outputs (V, ...) of the views of each video; views of several share a batch.

    `videos` are pairs: a name, and views (V, ...) or, in the place of these, why there are none.
    With `early_exit`, a video whose first so many views, spread over all, have their highest output
    in the same place is done, and has outputs of these alone.
    """
    for group in _in_groups(videos, batch_size):
        good = [made for _, made in group if _are_views(made)]
        outputs = iter(_outputs(good, compute, batch_size, early_exit))
        for name, made in group:
            yield name, next(outputs) if _are_views(made) else made


def _outputs(
    videos: list[Tensor], compute: Callable[[Tensor], Tensor], batch_size: int, early_exit: int
) -> list[Tensor]:
    """The outputs of the views of each of some videos."""

    def run(views: list[Tensor]) -> list[Tensor]:
        if not views:
            return []
        pixels = _joined(views)
        parts = (pixels[k : k + batch_size] for k in range(0, len(pixels), batch_size))
        joined = _joined([compute(part) for part in parts])
        ends = list(itertools.accumulate(len(each) for each in views))
        return [joined[end - len(each) : end] for each, end in zip(views, ends, strict=True)]

    if not early_exit or max(map(len, videos), default=0) <= early_exit:
        return run(videos)
    first = [spread_views(len(views), early_exit) for views in videos]
    outputs = run([views[chosen] for views, chosen in zip(videos, first, strict=True)])
    unsure = [i for i, found in enumerate(outputs) if len(set(found.argmax(-1).tolist())) > 1]
    rest = {i: [k for k in range(len(videos[i])) if k not in first[i]] for i in unsure}
    more = run([videos[i][rest[i]] for i in unsure])
    for i, found in zip(unsure, more, strict=True):
        order = np.argsort([*first[i], *rest[i]]).tolist()
        outputs[i] = _joined([outputs[i], found])[order]
    return outputs


def spread_views(num_views: int, count: int) -> list[int]:
    """The numbers of `count` views, from first to last, of so many.

    >>> spread_views(15, 3), spread_views(2, 3)
    ([0, 7, 14], [0, 1])
    """
    count = min(count, num_views)
    return [round(k * (num_views - 1) / max(count - 1, 1)) for k in range(count)]


def _are_views(made: Tensor | Failure) -> TypeGuard[Tensor]:
    return hasattr(made, "ndim")  # which no reason has


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors, or arrays, one behind the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))


def _in_groups(
    videos: Iterable[tuple[Name, Tensor | Failure]], batch_size: int
) -> Iterator[list[tuple[Name, Tensor | Failure]]]:
    """Consecutive videos, as many as have `batch_size` views together, and at least one."""
    group: list[tuple[Name, Tensor | Failure]] = []
    count = 0
    for name, made in videos:
        group.append((name, made))
        if _are_views(made):
            count += len(made)
            if count + len(made) > batch_size:  # the next one has as many views
                yield group
                group, count = [], 0
    if group:
        yield group
