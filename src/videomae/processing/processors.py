"""Videos to the pixels that VideoMAE reads: the two processors, their settings, and their files.

Each frame goes its own way as a (1, C, H, W) tensor of the type that came in, uint8 mostly; only
the cropped pixels become float32. B videos, T frames, C channels, H height, W width.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from videomae.errors import ConfigError
from videomae.processing.sampling import even_indices
from videomae.processing.stored import IMAGE_FILE, VIDEO_FILE, StoredSettings
from videomae.processing.transforms import (
    Frame,
    Video,
    as_tensor,
    as_videos,
    center_crop,
    check_range,
    resize,
    to_pixels,
)
from videomae.video.reader import VideoReader

_NEEDS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}


class BatchFeature(dict[str, Any]):
    """The result of a processor: a dict whose values are attributes too, fit for `model(**batch)`.

    >>> BatchFeature(pixel_values=torch.zeros(1, 2)).to(torch.float16).pixel_values.dtype
    torch.float16
    """

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"no {name!r} in this batch; it has {', '.join(self)}")
        return self[name]

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move all tensors, cast those of floats, as `Tensor.to` does; returns itself."""

        def moved(value: Any) -> Any:
            if isinstance(value, list):
                return [moved(item) for item in value]
            if not isinstance(value, Tensor):
                return value
            there = value.to(*args, **kwargs)
            return there if value.is_floating_point() else there.to(value.dtype)

        self.update({key: moved(value) for key, value in self.items()})
        return self


class _Processor(StoredSettings):
    """The steps that both processors share."""

    def _process(
        self, videos: Iterable[Any], return_tensors: str | None, device: Any
    ) -> BatchFeature:
        if return_tensors not in (None, "pt", "np"):
            raise ConfigError(
                f"return_tensors={return_tensors!r}; expected 'pt', 'np', or None for a list"
            )
        for switch, names in _NEEDS.items():
            if getattr(self, switch) and any(getattr(self, name) is None for name in names):
                raise ConfigError(
                    f"{switch}=True needs {' and '.join(names)}, but got None; give a value, or "
                    f"pass {switch}=False"
                )
        clips = [self._clip(frames, device) for frames in videos]  # each (T, C, H, W)
        if return_tensors is None:
            return BatchFeature(pixel_values=clips)
        if len(shapes := sorted({tuple(clip.shape) for clip in clips})) > 1:
            raise ConfigError(
                f"the videos of this batch come out unlike: {' and '.join(map(str, shapes))} "
                "(frames, channels, height, width); give each as many frames and keep "
                "do_center_crop=True, or take a list with return_tensors=None"
            )
        batch = torch.stack(clips) if len(clips) > 1 else clips[0][None]  # (B, T, C, H, W)
        return BatchFeature(pixel_values=batch.cpu().numpy() if return_tensors == "np" else batch)

    def _clip(self, images: list[Frame], device: Any) -> Tensor:
        """One video's pixels (T, C, H, W)."""
        if not images:
            raise ConfigError("a video has no frames; pass at least one")
        layout, to_rgb, count = (
            self.input_data_format,
            self.do_convert_rgb,
            np.size(self.image_mean),
        )
        factor = self.rescale_factor if self.do_rescale else None
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, 1.0)
        frames = [  # T x (1, C, H, W)
            as_tensor(image, layout=layout, to_rgb=bool(to_rgb), num_channels=count)
            for image in images
        ]
        check_range(frames, factor=factor, mean=mean)
        if device is not None:
            frames = [frame.to(device) for frame in frames]
        if self.do_resize:
            frames = [resize(frame, self.size, resample=self.resample) for frame in frames]
        if self.do_center_crop:
            frames = [center_crop(frame, **self.crop_size) for frame in frames]
        if len(shapes := sorted({tuple(frame.shape[1:]) for frame in frames})) > 1:
            raise ConfigError(
                f"the frames of a video come out unlike: {' and '.join(map(str, shapes))} "
                "(channels, height, width); keep do_center_crop=True or give size a height and a "
                "width, and pass do_convert_rgb=True if their channels differ"
            )
        return to_pixels(frames, factor=factor, mean=mean, std=std, to_rgb=bool(to_rgb))


@dataclass(kw_only=True)
class VideoMAEImageProcessor(_Processor):
    """Frames to the pixels that VideoMAE reads, with transformers' arguments and results.

    Takes one video or several: a list of frames (PIL images, or arrays or tensors (H, W, C),
    (C, H, W) or (H, W), of any sizes), an array with T in front, a list of such videos, or an array
    with B in front. Gives `pixel_values` (B, T, C, H, W), float32 (with neither of the last two
    steps the type that came in). The steps, in order:

    - `do_convert_rgb`: grey to RGB, transparent onto white. (Grey becomes RGB anyway if
      `image_mean` has three values.)
    - `do_resize` to `size`, in px: {"shortest_edge": a}, perhaps with "longest_edge" as a limit;
      {"height": a, "width": b}; {"max_height": a, "max_width": b}; (height, width); an int is
      the shortest edge, or with `default_to_square` a square. `resample` is "bilinear", "bicubic",
      "nearest", "lanczos" or Pillow's number.
    - `do_center_crop` to `crop_size`: {"height": a, "width": b}, (height, width) or an int. Black
      is added around frames that are smaller.
    - `do_rescale`: times `rescale_factor`, 0..255 to 0..1.
    - `do_normalize`: minus `image_mean`, divided by `image_std`; one number, or one per channel. By
      default ImageNet's, as in training (transformers' default is 0.5).

    `input_data_format` "channels_first" or "channels_last" is seen from the shape if not given.
    Every setting can be given here, changed as an attribute, or overridden in a call; one that does
    not exist or cannot be raises ConfigError. VideoMAEFeatureExtractor is the old name.

    >>> clip = np.zeros((16, 240, 320, 3), dtype=np.uint8)
    >>> processor = VideoMAEImageProcessor(size=112, crop_size=112)
    >>> processor(clip, return_tensors="pt").pixel_values.shape
    torch.Size([1, 16, 3, 112, 112])
    """

    _files = (IMAGE_FILE, VIDEO_FILE)
    _type_keys = ("image_processor_type", "feature_extractor_type")

    def __call__(self, images: Any, **arguments: Any) -> BatchFeature:
        """The same as `preprocess`."""
        return self.preprocess(images, **arguments)

    def preprocess(
        self,
        videos: Any,
        *,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Pixels of one or more videos; `overrides` are settings for this call only.

        `return_tensors`: "pt" one tensor, "np" one array, None a list of one (T, C, H, W) tensor
        per reader, of any shapes. `device`: where to compute. Raises ConfigError.
        """
        chosen = dataclasses.replace(self, **overrides)
        clips = as_videos(videos)
        if paths := [item for item in clips if not isinstance(item, list)]:
            raise ConfigError(f"{paths[0]} is a path; VideoMAEVideoProcessor reads files")
        return chosen._process(clips, return_tensors, device)


VideoMAEFeatureExtractor = VideoMAEImageProcessor


@dataclass(kw_only=True)
class VideoMAEVideoProcessor(_Processor):
    """Videos, also as files, to the pixels that VideoMAE reads, with transformers' arguments.

    Takes and does what VideoMAEImageProcessor takes and does, with `do_convert_rgb` on, and takes
    paths of video files too, of which it decodes only the chosen frames. Chosen are, as in
    transformers:

    - `do_sample_frames=False`: all frames.
    - `num_frames`: so many, evenly from the first on, as 3 of 10: `fxxfxxfxxx`.
    - `fps`: so many a second, evenly; arrays need `video_metadata` for it, {"fps": their rate}, one
      dict per video.

    For the frames that a model was trained with, see `videomae.processing.sampling`.
    `return_metadata` adds `video_metadata`, a list of dicts: total_num_frames, fps (None if
    unknown), frames_indices.

    >>> clip = np.zeros((10, 240, 320, 3), dtype=np.uint8)
    >>> processor = VideoMAEVideoProcessor(do_sample_frames=True, return_metadata=True)
    >>> processor(clip, num_frames=3).video_metadata
    [{'total_num_frames': 10, 'fps': None, 'frames_indices': [0, 3, 6]}]
    """

    do_convert_rgb: bool | None = True
    do_sample_frames: bool | None = False
    num_frames: int | None = None
    fps: float | None = None
    return_metadata: bool | None = False

    _files = (VIDEO_FILE, IMAGE_FILE)
    _type_keys = ("video_processor_type",)

    def preprocess(
        self,
        videos: Any,
        *,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
        video_metadata: Any = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Pixels of one or more videos; `overrides` are settings for this call only.

        `return_tensors` and `device` as in VideoMAEImageProcessor. Raises ConfigError, and for
        files VideoError.
        """
        chosen = dataclasses.replace(self, **overrides)
        items = as_videos(videos)
        known = [video_metadata] if isinstance(video_metadata, Mapping) else video_metadata
        known = [{}] * len(items) if known is None else list(known)
        if len(known) != len(items):
            raise ConfigError(f"{len(items)} videos, {len(known)} video_metadata; give one each")
        pairs = zip(items, known, strict=True)
        sampled = [chosen._sampled(item, facts or {}) for item, facts in pairs]
        batch = chosen._process((frames for frames, _ in sampled), return_tensors, device)
        if chosen.return_metadata:
            batch["video_metadata"] = [metadata for _, metadata in sampled]
        return batch

    __call__ = preprocess

    def _sampled(self, item: Video, facts: Any) -> tuple[list[Frame], dict[str, Any]]:
        """The chosen frames, and what is known of the video they are from."""
        if isinstance(item, list):
            total, rate = len(item), facts.get("fps")
            if self.do_sample_frames and facts.get("total_num_frames", total) != total:
                raise ConfigError(
                    f"video_metadata says {facts['total_num_frames']} frames, {total} were given; "
                    "pass all, or do_sample_frames=False if these were chosen already"
                )
            indices = self._indices(total, rate)
            frames = [item[index] for index in indices]
        else:
            with VideoReader(item) as reader:
                total, rate = reader.info.num_frames, reader.info.fps
                indices = self._indices(total, rate)
                frames = list(reader.read(indices))
        return frames, {"total_num_frames": total, "fps": rate, "frames_indices": indices}

    def _indices(self, total: int, rate: float | None) -> list[int]:
        if self.do_sample_frames:
            return even_indices(total, num_frames=self.num_frames, fps=self.fps, video_fps=rate)
        if self.num_frames or self.fps:
            warnings.warn(
                "num_frames and fps do nothing without do_sample_frames=True: all frames are taken",
                stacklevel=2,
            )
        return list(range(total))
