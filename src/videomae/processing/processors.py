"""Videos to the pixels that VideoMAE reads: the two processors, their settings, and their files.

Each frame goes its own way as a (1, C, H, W) tensor of the type that came in, uint8 mostly; only
the cropped pixels become float32. B videos, T frames, C channels, H height, W width.
"""

import dataclasses
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from videomae import hub
from videomae.config import IMAGENET_MEAN, IMAGENET_STD, nearest
from videomae.errors import ConfigError
from videomae.processing.transforms import (
    RESAMPLE,
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

Size = Any  # given as an int, (height, width) or a dict; reads back as the dict
Numbers = Any  # one number, or one per channel; reads back as a float or a tuple

_NEEDS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
_IMAGE_FILE, _VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
# Stored keys that name classes, or settings of transformers without effect on VideoMAE's pixels.
_IDLE_KEYS = {
    *("image_processor_type", "video_processor_type", "feature_extractor_type", "processor_class"),
    *("auto_map", "_valid_processor_keys", "return_tensors", "device", "disable_grouping"),
    *("data_format", "do_pad", "pad_size", "image_seq_length", "video_metadata"),
}
_PUBLISHED = ("MCG-NJU/videomae", "OpenGVLab/VideoMAE")


class BatchFeature(dict[str, Any]):
    """What a processor returns: a dict whose values are attributes too, fit for `model(**batch)`.

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


@dataclass(kw_only=True)
class _Processor:
    """The settings and steps that both processors share; VideoMAEImageProcessor explains them."""

    do_resize: bool | None = True
    default_to_square: bool | None = False
    size: Size = field(default_factory=lambda: {"shortest_edge": 224})
    resample: Any = RESAMPLE["bilinear"]
    do_center_crop: bool | None = True
    crop_size: Size = field(default_factory=lambda: {"height": 224, "width": 224})
    do_rescale: bool | None = True
    rescale_factor: float | None = 1 / 255
    do_normalize: bool | None = True
    image_mean: Numbers = IMAGENET_MEAN
    image_std: Numbers = IMAGENET_STD
    do_convert_rgb: bool | None = None
    input_data_format: Any = None

    _files: ClassVar[tuple[str, str]]  # the one this class writes, and the other it can read
    _type_keys: ClassVar[tuple[str, ...]]  # by which transformers finds its class for the file

    def __new__(cls, *_: Any, **arguments: Any) -> Self:
        cls._refuse_unknown(arguments)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_unknown([name])
        if name == "crop_size" or (name == "size" and self.default_to_square):
            value = (value, value) if isinstance(value, int | np.integer) else value
        object.__setattr__(self, name, _standard(name, value))

    @classmethod
    def _names(cls) -> list[str]:
        return [entry.name for entry in dataclasses.fields(cls)]

    @classmethod
    def _refuse_unknown(cls, names: Iterable[str]) -> None:
        known = cls._names()
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{cls.__name__} has no argument {name!r}{nearest(name, known)} "
                    f"(it has: {', '.join(known)})"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """A processor from the keys of a stored file, of this or of the other processor.

        Old spellings are understood, such as one number for a size. A key that neither processor
        has is left out with a warning; an override that this one lacks is a ConfigError.
        """
        if odd := sorted(set(values) - set(VideoMAEVideoProcessor._names()) - _IDLE_KEYS):
            warnings.warn(f"stored settings unknown here, left out: {', '.join(odd)}", stacklevel=2)
        known = {key: value for key, value in values.items() if key in cls._names()}
        return cls(**(known | overrides))

    def to_dict(self) -> dict[str, Any]:
        """The settings as the stored file holds them, spelt as in transformers."""
        stored: dict[str, Any] = dict.fromkeys(self._type_keys, type(self).__name__)
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is not None or entry.default is not None:  # a None chosen means "off"
                stored[entry.name] = list(value) if isinstance(value, tuple) else value
        return stored

    @classmethod
    def from_pretrained(cls, id_or_path: hub.PathLike, **kwargs: Any) -> Self:
        """Read the settings stored with a hub id, in a folder, a shipped model, or one JSON file.

        A folder's preprocessor_config.json serves either processor, and so does its
        video_preprocessor_config.json; each takes its own first. `revision`, `token`, `cache_dir`
        and `local_files_only` go to the hub, any other keyword overrides a setting. Stored mean and
        std are honoured; if a published checkpoint stores 0.5, which is not what it was trained
        with, a warning says so. Raises WeightsError where there is no such file.
        """
        where = {key: kwargs.pop(key) for key in hub.HUB_ARGUMENTS if key in kwargs}
        path = Path(id_or_path)
        if not path.is_file():
            path = hub.fetch(id_or_path, *cls._files, **where)
        processor = cls.from_dict(hub.read_json(path), **kwargs)
        # In its cache the hub writes owner--name.
        published = any(name in os.fspath(id_or_path).replace("--", "/") for name in _PUBLISHED)
        if published and np.all(np.equal(processor.image_mean, 0.5)) and "image_mean" not in kwargs:
            warnings.warn(
                f"{path} says mean 0.5, but the published VideoMAE models were trained with "
                f"ImageNet's: pass image_mean={IMAGENET_MEAN}, image_std={IMAGENET_STD}",
                stacklevel=2,
            )
        return processor

    def save_pretrained(self, save_directory: hub.PathLike) -> list[str]:
        """Write the settings into a folder, for this library and transformers alike.

        Returns the file's path in a list. The folder is made if missing; other files stay.
        """
        path = Path(save_directory) / self._files[0]
        hub.write_json(path, self.to_dict())
        return [str(path)]

    def _process(
        self, videos: list[list[Frame]], return_tensors: str | None, device: Any
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
                "the videos of this batch come out unlike: "
                f"{' and '.join(map(str, shapes))} (frames, channels, height, width); give each as "
                "many frames and keep do_center_crop=True, or take a list with return_tensors=None"
            )
        batch = torch.stack(clips) if len(clips) > 1 else clips[0][None]  # (B, T, C, H, W)
        return BatchFeature(pixel_values=batch.cpu().numpy() if return_tensors == "np" else batch)

    def _clip(self, images: list[Frame], device: Any) -> Tensor:
        """One video's pixels (T, C, H, W)."""
        if not images:
            raise ConfigError("a video has no frames; pass at least one")
        to_rgb = bool(self.do_convert_rgb)
        factor = self.rescale_factor if self.do_rescale else None
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, 1.0)
        frames = [  # T x (1, C, H, W)
            as_tensor(
                image,
                layout=self.input_data_format,
                to_rgb=to_rgb,
                num_channels=np.size(self.image_mean),
            )
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
        return to_pixels(frames, factor=factor, mean=mean, std=std, to_rgb=to_rgb)


@dataclass(kw_only=True)
class VideoMAEImageProcessor(_Processor):
    """Frames to the pixels that VideoMAE reads, with transformers' arguments and results.

    Takes one video or several: a list of frames (PIL images, or arrays or tensors of shape
    (H, W, C), (C, H, W) or (H, W), of any sizes), an array with T in front of that, a list of such
    videos, or an array with B in front. Gives `pixel_values` (B, T, C, H, W), float32 (with neither
    of the last two steps the type that came in). The steps, in order:

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

    _files = (_IMAGE_FILE, _VIDEO_FILE)
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
        clips: list[list[Frame]] = []
        for item in as_videos(videos):
            if not isinstance(item, list):
                raise ConfigError(f"{item} is a path; VideoMAEVideoProcessor reads files")
            clips.append(item)
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

    _files = (_VIDEO_FILE, _IMAGE_FILE)
    _type_keys = ("video_processor_type",)

    def __call__(self, videos: Any, **arguments: Any) -> BatchFeature:
        """The same as `preprocess`."""
        return self.preprocess(videos, **arguments)

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
        clips, metadata = [], []
        for item, facts in zip(items, known, strict=True):
            frames, about = chosen._sampled(item, facts or {})
            clips.append(frames)
            metadata.append(about)
        batch = chosen._process(clips, return_tensors, device)
        if chosen.return_metadata:
            batch["video_metadata"] = metadata
        return batch

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
        count = self.num_frames
        if not self.do_sample_frames:
            if count or self.fps:
                warnings.warn(
                    "num_frames and fps do nothing without do_sample_frames=True: all frames are "
                    "taken",
                    stacklevel=2,
                )
            return list(range(total))
        if count and self.fps:
            raise ConfigError(f"num_frames={count} and fps={self.fps} exclude each other; give one")
        if self.fps:
            if not rate:
                raise ConfigError(
                    f"fps={self.fps} cannot be chosen from a video of unknown rate; pass "
                    "video_metadata={'fps': ...}, or num_frames="
                )
            count = max(1, int(total / rate * self.fps))
        count = count or total
        if count > total:
            raise ConfigError(
                f"{count} frames were asked for, the video has {total}; ask for fewer"
            )
        return [index * total // count for index in range(count)]


def _standard(name: str, value: Any) -> Any:
    """A setting in the one form that is stored and worked with; None stays, and means "off"."""
    value = getattr(value, "value", value)  # of an enum
    form, expected = _FORMS.get(name, (_flag, "True or False"))
    try:
        return None if value is None else form(value)
    except (TypeError, ValueError, KeyError):
        raise ConfigError(f"{name}={value!r}; expected {expected}") from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or operator.index(value) < 1:
        raise ValueError
    return operator.index(value)


def _positive(value: Any) -> float:
    if not 0 < float(value) < float("inf"):
        raise ValueError
    return float(value)


def _numbers(value: Any, *, above: float = float("-inf")) -> float | tuple[float, ...]:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim > 1 or not array.size or not ((array > above) & np.isfinite(array)).all():
        raise ValueError
    return tuple(array.tolist()) if array.ndim else array.item()


def _filter(value: Any) -> int:
    number = RESAMPLE[value] if isinstance(value, str) else operator.index(value)
    if number not in RESAMPLE.values():
        raise ValueError
    return number


def _size(value: Any) -> dict[str, int]:
    if isinstance(value, list | tuple):
        value = dict(zip(("height", "width"), value, strict=True))
    elif isinstance(value, int | np.integer):
        value = {"shortest_edge": value}
    size = {key: _count(number) for key, number in dict(value).items()}  # a SizeDict of HF, too
    if set(size) not in _SIZE_KEYS:
        raise ValueError
    return size


def _crop_size(value: Any) -> dict[str, int]:
    size = _size(value)
    return {"height": size["height"], "width": size["width"]}


_SIZE_KEYS: list[set[str]] = [
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"height", "width"},
    {"max_height", "max_width"},
]
_FORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "size": (
        _size,
        "an int, (height, width), or a dict of shortest_edge (and longest_edge), of height and "
        "width, or of max_height and max_width, in px",
    ),
    "crop_size": (_crop_size, "an int, (height, width), or a dict of height and width, in px"),
    "resample": (_filter, "'bilinear', 'bicubic', 'nearest', 'lanczos', or Pillow's 0 to 3"),
    "rescale_factor": (_positive, "a number above 0"),
    "image_mean": (_numbers, "a number, or one per channel"),
    "image_std": (lambda value: _numbers(value, above=0), "a number above 0, or one per channel"),
    "input_data_format": (
        {"channels_first": "channels_first", "channels_last": "channels_last"}.__getitem__,
        "'channels_first' or 'channels_last'",
    ),
    "num_frames": (_count, "a whole number above 0"),
    "fps": (_positive, "a number above 0"),
}
