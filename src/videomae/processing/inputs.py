"""What is given as a video, told apart: frames in any usual form, or a source to be decoded.

T frames, H height, W width, C channels. A frame is a PIL image, or an array or tensor (H, W, C),
(C, H, W) or (H, W); a source is what `VideoReader` opens.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from videomae.errors import ConfigError
from videomae.video.reader import is_source

Video = Any  # a list of frames, or a source
# Channels that an axis is taken for: grey, RGB, RGBA.
_CHANNELS = (1, 3, 4)


def as_videos(
    videos: Any, *, layout: str | None = None, num_channels: int = 3, image: bool = True
) -> list[Video]:
    """One video or several, nested in any usual way, to a list of videos.

    A video is a list of frames, an array or tensor with the frames in front (also grey, without an
    axis of channels), a source, or a single image. Several are a list of those, or an array with
    one more axis in front. For `layout` and `num_channels` see `as_tensor`. An array of three axes
    that could be one frame, channels first, or a few grey ones is the frame with `image`, and else
    refused. Raises ConfigError for anything else.

    >>> [len(video) for video in as_videos(np.zeros((2, 16, 240, 320, 3)))]
    [16, 16]
    """

    def is_grey(item: Any) -> bool:
        return not layout and _is_grey_video(item, (*_CHANNELS, num_channels))

    if is_source(videos):
        return [videos]
    if _is_frame(videos):
        if is_grey(videos):
            return [list(videos)]
        shape = tuple(videos.shape) if _has_axes(videos, 3) else (1,)
        if not (layout or image) and shape[0] in (3, 4) and shape[-1] not in _CHANNELS:
            raise ConfigError(
                f"an array of shape {shape} may be one frame of {shape[0]} channels or {shape[0]} "
                "grey frames; pass frame[None], or video[..., None]"
            )
        return [[videos]]
    if _has_axes(videos, 5) or (_has_axes(videos, 4) and is_grey(videos[0])):
        videos = list(videos)
    if not isinstance(videos, list | tuple):
        return [_as_video(videos)]
    if not videos:
        raise ConfigError("got an empty list; pass the frames of a video, or videos")
    if _is_frame(videos[0]) and not is_grey(videos[0]):
        return [_as_video(videos)]
    return [list(item) if is_grey(item) else _as_video(item) for item in videos]


def _as_video(item: Any) -> Video:
    if is_source(item):
        return item
    if _has_axes(item, 4):
        return list(item)
    odd = item
    if isinstance(item, list | tuple):
        strangers = [entry for entry in item if not _is_frame(entry)]
        if not strangers:
            return list(item)
        odd = strangers[0]
    got = repr(odd)[:80]
    if isinstance(odd, np.ndarray | Tensor):
        got = f"{type(odd).__name__} of shape {tuple(odd.shape)}"
    raise ConfigError(
        f"{got} is neither a frame nor a video; expected a list of frames (PIL images, or arrays "
        "or tensors of 2 or 3 axes), an array or tensor of 4 axes, the frames first (of 5 for a "
        "batch), or the path, the bytes or the decoder of a video"
    )


def _has_axes(item: Any, *counts: int) -> bool:
    """Whether this is an array or a tensor, of one of these numbers of axes."""
    return isinstance(item, np.ndarray | Tensor) and item.ndim in counts


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or _has_axes(item, 2, 3)


def _is_grey_video(item: Any, channels: Collection[int]) -> bool:
    """Whether an array is (T, H, W): of three axes, and none at an end that could be channels."""
    return _has_axes(item, 3) and not {item.shape[0], item.shape[-1]} & {*channels}


def as_frames(video: Any, num_channels: int) -> NDArray[np.uint8]:
    """A video given as array or tensor, (T, H, W, C), (T, C, H, W) or (T, H, W), with C last.

    All uint8; C is 3, the `num_channels` of a model, or 1, which becomes three equal channels.
    Raises ConfigError for anything else.

    >>> as_frames(np.zeros((16, 240, 320), np.uint8), 3).shape
    (16, 240, 320, 3)
    """
    kind, frames = getattr(video, "dtype", None), video
    if isinstance(video, Tensor):  # of other types than uint8 only the shape counts, for the error
        frames = np.broadcast_to(np.float32(0), video.shape)
        if kind == torch.uint8:
            frames = video.detach().cpu().numpy()
    if not isinstance(frames, np.ndarray):
        raise ConfigError(
            f"a video cannot be a {type(video).__name__}; expected a path, bytes, a file opened in "
            "binary mode, or an array or tensor of frames"
        )
    known = (1, 3, num_channels)
    if _is_grey_video(frames, (3, 4)):
        frames = frames[..., None]
    if frames.ndim == 4 and frames.shape[-1] not in known and frames.shape[1] in known:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim == 4 and frames.shape[-1] in known and frames.dtype == np.uint8 and frames.size:
        is_grey = frames.shape[-1] == 1 and num_channels != 1
        return np.repeat(frames, 3, axis=-1) if is_grey else frames
    own = "" if num_channels == 3 else f", or with the {num_channels} channels of the model"
    advice = {
        3: "; stack the frames of one video with np.stack(frames), and give three or four grey "
        "frames as video[..., None]",
        5: "; give several videos as a list",
    }
    raise ConfigError(
        f"a video of shape {frames.shape} and type {kind} was given; expected uint8 "
        f"(T, H, W, 3) or (T, 3, H, W), RGB in 0..255, or grey (T, H, W){own}"
        f"{advice.get(frames.ndim, '')}"
    )
