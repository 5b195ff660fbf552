"""Videos to the pixels that VideoMAE reads: the two processors, their settings, and their files.

Each frame goes its own way as a (1, C, H, W) tensor of the type that came in, uint8 mostly; only
the cropped pixels become float32. B videos, T frames, C channels, H height, W width.
"""

import dataclasses
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.compute.threads import Share, shared
from videomae.errors import ConfigError
from videomae.processing import transforms
from videomae.processing.inputs import Video, as_videos
from videomae.processing.sampling import even_indices
from videomae.processing.stored import IMAGE_FILE, VIDEO_FILE, NamedDict, StoredSettings
from videomae.processing.transforms import Frame, as_tensor, check_range, to_pixels
from videomae.video.reader import VideoReader

# Numbers of a clip that are more work than handing out its frames to other threads.
_WORTH_SHARING = 3_000_000


class BatchFeature(NamedDict):
    """The result of a processor: a dict whose values are attributes too, fit for `model(**batch)`.

    >>> BatchFeature(pixel_values=torch.zeros(1, 2)).to(torch.float16).pixel_values.dtype
    torch.float16
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        tensor_type: Any = None,
        skip_tensor_conversion: Collection[str] = (),
        **values: Any,
    ) -> None:
        super().__init__(data or {}, **values)
        self.convert_to_tensors(tensor_type, skip_tensor_conversion)

    @property
    def data(self) -> dict[str, Any]:
        """The batch itself, under the name that transformers has for its dict."""
        return self

    def convert_to_tensors(
        self, tensor_type: Any = None, skip_tensor_conversion: Collection[str] | None = ()
    ) -> Self:
        """Make each list or array of numbers one tensor ("pt") or array ("np"); returns itself.

        None changes nothing, nor does any type what is no numbers. ConfigError for unlike shapes.
        """
        if tensor_type is None:
            return self
        kind = getattr(tensor_type, "value", tensor_type)  # of an enum
        if kind not in ("pt", "np"):
            raise ConfigError(f"tensor_type={kind!r}; expected 'pt', 'np', or None")
        for key in set(self) - set(skip_tensor_conversion or ()):
            value = self[key]
            if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
                if len(shapes := sorted({tuple(item.shape) for item in value})) > 1:
                    raise ConfigError(
                        f"{key} of this batch have unlike shapes: {' and '.join(map(str, shapes))};"
                        " give videos of as many frames and keep do_center_crop=True, or take a "
                        "list with return_tensors=None"
                    )
                value = torch.stack(list(value)) if len(value) > 1 else value[0][None]
            if not isinstance(value, Tensor):
                array = np.asarray(value)
                if array.dtype.kind not in "biuf":
                    continue
                value = torch.from_numpy(array)
            self[key] = value.cpu().numpy() if kind == "np" else value
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move all tensors, cast those of floats, as `Tensor.to` does; returns itself."""

        def moved(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(moved(item) for item in value)
            if not isinstance(value, Tensor):
                return value
            there = value.to(*args, **kwargs)
            return there if value.is_floating_point() else there.to(value.dtype)

        self.update({key: moved(value) for key, value in self.items()})
        return self


class VideoMetadata(NamedDict):
    """Facts about a video, and which of its frames were taken."""

    _names = (
        *("total_num_frames", "fps", "frames_indices", "duration", "height", "width"),
        "video_backend",
    )

    @property
    def timestamps(self) -> list[float]:
        """Seconds from the start of the video to each frame; ConfigError without fps."""
        if not self.fps:
            raise ConfigError("a video of unknown fps has no timestamps; give its fps")
        return [index / self.fps for index in self.frames_indices]


class _Processor(StoredSettings):
    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    valid_kwargs: ClassVar[type]  # its annotations name the settings, as in transformers

    def center_crop(self, image: Any, size: Any, **_: Any) -> Any:
        """The middle of images (..., C, H, W), tensor or array; `size` as `crop_size` of the class.

        As in the next three, other arguments of transformers change nothing.
        """
        size = dataclasses.replace(self, crop_size=size).crop_size
        return _each(image, lambda frame: transforms.center_crop(frame, **size))

    def resize(self, image: Any, size: Any, resample: Any = None, **_: Any) -> Any:
        """Images (..., C, H, W) in another size; for `size` and `resample` see the class."""
        resample = self.resample if resample is None else resample
        chosen = dataclasses.replace(self, size=size, resample=resample)
        return _each(image, chosen._resized)

    def rescale(self, image: Any, scale: float, **_: Any) -> Any:
        """Images times a number."""
        return image * scale

    def normalize(self, image: Any, mean: Any, std: Any, **_: Any) -> Any:
        """Images (..., C, H, W), float32, minus `mean` and divided by `std`."""
        return _each(image, lambda frame: to_pixels([frame], mean=mean, std=std))

    def _videos(self, videos: Any, *, image: bool) -> list[Video]:
        layout, count = self.input_data_format, np.size(self.image_mean)
        return as_videos(videos, layout=layout, num_channels=count, image=image)

    def _process(self, videos: Iterable[Any]) -> BatchFeature:
        for switch, names in self._incomplete().items():
            raise ConfigError(
                f"{switch}=True needs {' and '.join(names)}, but got None; give a value, or pass "
                f"{switch}=False"
            )
        with shared() as each:
            clips = [self._clip(frames, each) for frames in videos]  # each (T, C, H, W)
            return BatchFeature(pixel_values=clips).convert_to_tensors(self.return_tensors)

    def _clip(self, images: list[Frame], each: Share) -> Tensor:
        if not images:
            raise ConfigError("a video has no frames; pass at least one")
        layout, to_rgb = self.input_data_format, bool(self.do_convert_rgb)
        count = np.size(self.image_mean)
        factor = self.rescale_factor if self.do_rescale else None
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, 1.0)
        frames = [  # T x (1, C, H, W)
            as_tensor(image, layout=layout, to_rgb=to_rgb, num_channels=count) for image in images
        ]
        if (to_rgb or count == 3) and len({frame.shape[1] for frame in frames}) > 1:
            # grey beside RGB; where all are grey, they become three channels at the end
            frames = [f.expand(-1, 3, -1, -1) if f.shape[1] == 1 else f for f in frames]
        check_range(frames, factor=factor, mean=mean)
        if self.device is not None:
            frames = [frame.to(self.device) for frame in frames]
        # Not on a GPU, where each thread has a stream of its own.
        count = sum(frame.numel() for frame in frames if frame.device.type == "cpu")
        frames = list((each if count > _WORTH_SHARING else map)(self._fitted, frames))
        if len(shapes := sorted({tuple(frame.shape[1:]) for frame in frames})) > 1:
            raise ConfigError(
                f"the frames of a video come out unlike: {' and '.join(map(str, shapes))} "
                "(channels, height, width); keep do_center_crop=True or give size a height and a "
                "width, and pass do_convert_rgb=True if their channels differ"
            )
        return to_pixels(frames, factor=factor, mean=mean, std=std, to_rgb=to_rgb)

    def _fitted(self, frame: Tensor) -> Tensor:
        if self.do_resize:
            frame = self._resized(frame)
        if not self.do_center_crop:
            return frame
        # A copy: what is cut off may be far larger, and would be kept until the clip is whole.
        return transforms.center_crop(frame, **self.crop_size).clone()

    def _resized(self, frame: Tensor) -> Tensor:
        return transforms.resize(frame, self.size, resample=self.resample)


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
    `return_tensors` "pt" makes one tensor of all videos, "np" one array, None a list of one
    (T, C, H, W) tensor per video, of any shapes. `device` says where to compute.
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

    def preprocess(self, videos: Any, **overrides: Any) -> BatchFeature:
        """Pixels of one or more videos; `overrides` are settings for this call only.

        Raises ConfigError.
        """
        chosen = dataclasses.replace(self, **overrides)
        clips = chosen._videos(videos, image=True)
        if sources := [item for item in clips if not isinstance(item, list)]:
            raise ConfigError(
                f"{str(sources[0])[:80]} is no frames; VideoMAEVideoProcessor decodes videos"
            )
        return chosen._process(clips)


VideoMAEFeatureExtractor = VideoMAEImageProcessor


@dataclass(kw_only=True)
class VideoMAEVideoProcessor(_Processor):
    """Videos, also as files, to the pixels that VideoMAE reads, with transformers' arguments.

    Takes and does what VideoMAEImageProcessor takes and does, with `do_convert_rgb` on, and decodes
    what `VideoReader` opens too (paths, bytes, open files, torchcodec decoders), of which it reads
    only the chosen frames. Chosen are, as in transformers:

    - `do_sample_frames=False`: all frames.
    - `num_frames`: so many, evenly from the first on, as 3 of 10: `fxxfxxfxxx`.
    - `fps`: so many a second, evenly; arrays need `video_metadata` for it, {"fps": their rate}, one
      dict per video. A subclass may choose otherwise, in `sample_frames`.

    For the frames that a model was trained with, see `videomae.processing.sampling`.
    `return_metadata` adds `video_metadata`, a list of VideoMetadata: total_num_frames, fps (None if
    unknown), frames_indices.

    >>> clip = np.zeros((10, 240, 320, 3), dtype=np.uint8)
    >>> processor = VideoMAEVideoProcessor(do_sample_frames=True, return_metadata=True)
    >>> processor(clip, num_frames=3).video_metadata
    [{'fps': None, 'total_num_frames': 10, 'frames_indices': [0, 3, 6]}]
    """

    do_convert_rgb: bool | None = True
    do_sample_frames: bool | None = False
    num_frames: int | None = None
    fps: float | None = None
    return_metadata: bool | None = False
    video_metadata: Any = None

    _files = (VIDEO_FILE, IMAGE_FILE)
    _type_keys = ("video_processor_type",)

    def __call__(self, videos: Any, **arguments: Any) -> BatchFeature:
        """The same as `preprocess`."""
        return self.preprocess(videos, **arguments)

    def preprocess(self, videos: Any, **overrides: Any) -> BatchFeature:
        """Pixels of one or more videos; `overrides` are settings for this call only.

        Raises ConfigError, and for what cannot be decoded VideoError.
        """
        chosen = dataclasses.replace(self, **overrides)
        items = chosen._videos(videos, image=False)
        known = _flat(chosen.video_metadata or [None] * len(items))
        if len(known) != len(items):
            raise ConfigError(f"{len(items)} videos, {len(known)} video_metadata; give one each")
        sampled = list(map(chosen._sampled, items, known))
        batch = chosen._process(frames for frames, _ in sampled)
        if chosen.return_metadata:
            batch["video_metadata"] = [metadata for _, metadata in sampled]
        return batch

    def sample_frames(
        self,
        metadata: Mapping[str, Any],
        num_frames: int | None = None,
        fps: float | None = None,
        **_: Any,
    ) -> NDArray[np.int64]:
        """The numbers of the frames to take of a video with these facts; a subclass may choose.

        Its own `num_frames` and `fps` stand in where none is given. Raises ConfigError as
        `even_indices` does.
        """
        indices = even_indices(
            metadata["total_num_frames"],
            num_frames=self.num_frames if num_frames is None else num_frames,
            fps=self.fps if fps is None else fps,
            video_fps=metadata.get("fps"),
        )
        return np.array(indices)

    def _sampled(self, item: Video, facts: Mapping[str, Any]) -> tuple[list[Frame], VideoMetadata]:
        if isinstance(item, list):
            known = VideoMetadata({"fps": None, **facts, "total_num_frames": len(item)})
            if self.do_sample_frames and facts.get("total_num_frames", len(item)) != len(item):
                raise ConfigError(
                    f"video_metadata says {facts['total_num_frames']} frames, {len(item)} were "
                    "given; pass all, or do_sample_frames=False if these were chosen already"
                )
            known["frames_indices"] = indices = self._indices(known)
            return [item[index] for index in indices], known
        with VideoReader(item) as reader:
            info = reader.info
            known = VideoMetadata(
                total_num_frames=info.num_frames,
                fps=info.fps,
                duration=info.duration_seconds,
                height=info.height,
                width=info.width,
            )
            known["frames_indices"] = indices = self._indices(known)
            return list(reader.read(indices)), known

    def _indices(self, metadata: VideoMetadata) -> list[int]:
        if self.do_sample_frames:
            found = self.sample_frames(metadata, num_frames=self.num_frames, fps=self.fps)
            return [int(index) for index in found]
        if self.num_frames or self.fps:
            warnings.warn(
                "num_frames and fps do nothing without do_sample_frames=True: all frames are taken",
                stacklevel=2,
            )
        return list(range(metadata.total_num_frames))


def _flat(metadata: Any) -> list[Any]:
    """Facts about videos, nested as they may be, one by one."""
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata or {}]
    return [facts for item in metadata for facts in _flat(item)]


def _each(image: Any, step: Callable[[Tensor], Tensor]) -> Any:
    """What a step makes of each image (1, C, H, W) of a tensor or array (..., C, H, W)."""
    images = torch.as_tensor(image)
    made = torch.cat([step(one[None]) for one in images.reshape(-1, *images.shape[-3:])])
    made = made.reshape(*images.shape[:-3], *made.shape[1:])
    return made.numpy() if isinstance(image, np.ndarray) else made


def _kwargs_of(processor: type[StoredSettings]) -> type:
    settings = {entry.name: entry.type for entry in dataclasses.fields(processor)}
    return type(f"{processor.__name__}Kwargs", (), {"__annotations__": settings})


# By these names transformers' tests look for them in the processor's module.
VideoMAEImageProcessorKwargs = _kwargs_of(VideoMAEImageProcessor)
VideoMAEVideoProcessorKwargs = _kwargs_of(VideoMAEVideoProcessor)
VideoMAEImageProcessor.valid_kwargs = VideoMAEImageProcessorKwargs
VideoMAEVideoProcessor.valid_kwargs = VideoMAEVideoProcessorKwargs
