"""The settings of the processors: checked, and stored in files that transformers reads too."""

import dataclasses
import operator
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from videomae import hub
from videomae.config import IMAGENET_MEAN, IMAGENET_STD, nearest
from videomae.errors import ConfigError
from videomae.processing.transforms import RESAMPLE

Size = Any  # given as an int, (height, width) or a dict; reads back as the dict
Numbers = Any  # one number, or one per channel; reads back as a float or a tuple

IMAGE_FILE, VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
# Stored keys that name classes, or settings without effect on VideoMAE's pixels: of transformers,
# and the choice of frames, which only the video processor makes.
_IDLE_KEYS = {
    *("image_processor_type", "video_processor_type", "feature_extractor_type", "processor_class"),
    *("auto_map", "_valid_processor_keys", "return_tensors", "device", "disable_grouping"),
    *("data_format", "do_pad", "pad_size", "image_seq_length", "video_metadata"),
    *("do_sample_frames", "num_frames", "fps", "return_metadata"),
}
_PUBLISHED = ("MCG-NJU/videomae", "OpenGVLab/VideoMAE")


@dataclass(kw_only=True)
class StoredSettings:
    """The settings that both processors share; VideoMAEImageProcessor explains them.

    A value is brought to its one form where it is set; one that cannot be raises ConfigError.
    """

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
    def _refuse_unknown(cls, names: Iterable[str]) -> None:
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{cls.__name__} has no argument {name!r}{nearest(name, known)} "
                    f"(it has: {', '.join(known)})"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """A processor from the keys of a stored file, of this or of the other processor.

        A key that neither has is left out with a warning; an unknown override is a ConfigError.
        """
        names = {entry.name for entry in dataclasses.fields(cls)}
        if odd := sorted(set(values) - names - _IDLE_KEYS):
            warnings.warn(f"stored settings unknown here, left out: {', '.join(odd)}", stacklevel=2)
        return cls(**({name: values[name] for name in names & set(values)} | overrides))

    def to_dict(self) -> dict[str, Any]:
        """The settings as the stored file holds them, named as in transformers."""
        stored: dict[str, Any] = dict.fromkeys(self._type_keys, type(self).__name__)
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is not None or entry.default is not None:  # a None chosen means "off"
                stored[entry.name] = list(value) if isinstance(value, tuple) else value
        return stored

    @classmethod
    def from_pretrained(cls, id_or_path: hub.PathLike, **kwargs: Any) -> Self:
        """Read the settings stored with a hub id, in a folder, a shipped model, or one JSON file.

        Of preprocessor_config.json and video_preprocessor_config.json each processor takes its own
        first. `revision`, `token`, `cache_dir` and `local_files_only` go to the hub, any other
        keyword overrides a setting. If a published checkpoint stores mean 0.5, which is not what
        it was trained with, a warning says so. Raises WeightsError where there is no such file.
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
        """Write the settings into a folder, made if missing; returns the file's path in a list."""
        path = Path(save_directory) / self._files[0]
        hub.write_json(path, self.to_dict())
        return [str(path)]


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


def _numbers(value: Any, *, above: float = -np.inf) -> Any:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim > 1 or not array.size or not ((array > above) & np.isfinite(array)).all():
        raise ValueError
    return tuple(array.tolist()) if array.ndim else array.item()


def _filter(value: Any) -> int:
    number = RESAMPLE[value] if isinstance(value, str) else operator.index(value)
    if number not in RESAMPLE.values():
        raise ValueError
    return number


_SIZES: list[set[str]] = [
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"height", "width"},
    {"max_height", "max_width"},
]


def _size(value: Any, forms: Collection[set[str]] = _SIZES) -> dict[str, int]:
    if isinstance(value, list | tuple):
        value = dict(zip(("height", "width"), value, strict=True))
    elif isinstance(value, int | np.integer):
        value = {"shortest_edge": value}
    size = {key: _count(number) for key, number in dict(value).items()}  # a SizeDict of HF, too
    if set(size) not in forms:
        raise ValueError
    return size


_FORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "size": (
        _size,
        "an int, (height, width), or a dict of shortest_edge (and longest_edge), of height and "
        "width, or of max_height and max_width, in px",
    ),
    "crop_size": (
        lambda value: _size(value, [{"height", "width"}]),
        "an int, (height, width), or a dict of height and width, in px",
    ),
    "resample": (_filter, "'bilinear', 'bicubic', 'nearest', 'lanczos', or Pillow's 0 to 3"),
    "rescale_factor": (lambda value: float(_numbers(value, above=0)), "a number above 0"),
    "image_mean": (_numbers, "a number, or one per channel"),
    "image_std": (lambda value: _numbers(value, above=0), "a number above 0, or one per channel"),
    "input_data_format": (
        {"channels_first": "channels_first", "channels_last": "channels_last"}.__getitem__,
        "'channels_first' or 'channels_last'",
    ),
    "num_frames": (_count, "a whole number above 0"),
    "fps": (lambda value: float(_numbers(value, above=0)), "a number above 0"),
}
