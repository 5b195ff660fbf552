"""The settings of the processors: checked, and stored in files that transformers reads too."""

import dataclasses
import operator
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from videomae import hub
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.errors import ConfigError, nearest, to_json
from videomae.fields import shortened

Size = Any  # given as an int, (height, width) or a dict; reads back as the dict
Numbers = Any  # one number, or one per channel; reads back as a float or a tuple

# Pillow's number of a filter, which files store. Its box (4) and Hamming (5) are missing: PyTorch
# has no such filters.
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
IMAGE_FILE, VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
# Settings of one call, which no file holds.
_CALL_KEYS = ("return_tensors", "device", "video_metadata")
# Stored keys that name classes or belong to a call, and the choice of frames, which only the video
# processor makes.
_IDLE_KEYS = {
    *("image_processor_type", "video_processor_type", "feature_extractor_type", "processor_class"),
    *("auto_map", "_valid_processor_keys", *_CALL_KEYS),
    *("do_sample_frames", "num_frames", "fps", "return_metadata"),
}
_NEEDS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
_PUBLISHED = ("MCG-NJU/videomae", "OpenGVLab/VideoMAE")


class NamedDict(dict[str, Any]):
    """A dict whose keys are attributes too; those that it may have are None where missing."""

    _names: ClassVar[tuple[str, ...]] = ()

    def __getattr__(self, name: str) -> Any:
        if name not in self and name not in self._names:
            raise AttributeError(f"no {name!r} here; there is {', '.join(self._names or self)}")
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._names and name not in self._names:
            raise AttributeError(f"no {name!r} here; there is {', '.join(self._names)}")
        self[name] = value

    def __missing__(self, name: str) -> None:
        if name not in self._names:
            raise KeyError(name)


class SizeDict(NamedDict):
    """A size in px.

    >>> size = SizeDict(height=224, width=298)
    >>> size.height, size["width"], size.shortest_edge
    (224, 298, None)
    """

    _names = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")

    def __hash__(self) -> int:  # type: ignore[override]  # as in transformers, where it is a key
        return hash(tuple(sorted(self.items())))


_SIZE, _CROP_SIZE = SizeDict(shortest_edge=224), SizeDict(height=224, width=224)


@dataclass(kw_only=True)
class StoredSettings:
    """The settings that both processors share; VideoMAEImageProcessor explains them.

    A value is brought to its one form where it is set; one that cannot be raises ConfigError.
    do_pad, pad_size, disable_grouping and image_seq_length change nothing, as in transformers.
    """

    do_resize: bool | None = True
    default_to_square: bool | None = False
    size: Size = _SIZE
    resample: Any = RESAMPLE["bilinear"]
    do_center_crop: bool | None = True
    crop_size: Size = _CROP_SIZE
    do_rescale: bool | None = True
    rescale_factor: float | None = 1 / 255
    do_normalize: bool | None = True
    image_mean: Numbers = IMAGENET_MEAN
    image_std: Numbers = IMAGENET_STD
    do_convert_rgb: bool | None = None
    input_data_format: Any = None
    data_format: Any = None
    return_tensors: Any = None
    device: Any = None
    do_pad: bool | None = None
    pad_size: Size = None
    disable_grouping: bool | None = None
    image_seq_length: int | None = None

    _files: ClassVar[tuple[str, str]]  # the one this class writes, and the other it can read
    _type_keys: ClassVar[tuple[str, ...]]  # by which transformers finds its class for the file

    def __new__(cls, *_: Any, **arguments: Any) -> Self:
        cls._refuse_unknown(arguments)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_unknown([name])
        if name in ("crop_size", "pad_size") or (name == "size" and self.default_to_square):
            value = (value, value) if isinstance(value, int | np.integer) else value
        value = getattr(value, "value", value)  # of an enum
        form, expected = _FORMS.get(name, (_flag, "True or False"))
        try:
            value = None if value is None else form(value)  # None means "off"
        except (TypeError, ValueError, KeyError, RuntimeError, OverflowError):
            raise ConfigError(f"{name}={shortened(value)}; expected {expected}") from None
        object.__setattr__(self, name, value)

    def _incomplete(self) -> dict[str, tuple[str, ...]]:
        """The switches that are on without what they need, and what that is."""
        return {
            switch: names
            for switch, names in _NEEDS.items()
            if getattr(self, switch) and any(getattr(self, name) is None for name in names)
        }

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
    def from_dict(
        cls, values: Mapping[str, Any], *, return_unused_kwargs: bool = False, **overrides: Any
    ) -> Self:
        """A processor from the keys of a stored file, of this or of the other processor.

        A key that neither has is left out with a warning. An unknown override is a ConfigError, or
        with `return_unused_kwargs` comes back in a dict: (processor, unused).
        """
        names = {entry.name for entry in dataclasses.fields(cls)}
        if odd := sorted(set(values) - names - _IDLE_KEYS):
            warnings.warn(f"stored settings unknown here, left out: {', '.join(odd)}", stacklevel=2)
        unused = {}
        if return_unused_kwargs:
            unused = {name: overrides.pop(name) for name in set(overrides) - names}
        known = (names & set(values)) - set(_CALL_KEYS)
        processor = cls(**({name: values[name] for name in known} | overrides))
        return (processor, unused) if return_unused_kwargs else processor  # type: ignore[return-value]

    def to_dict(self) -> dict[str, Any]:
        """The settings as the stored file holds them, named as in transformers."""
        stored: dict[str, Any] = {self._type_keys[0]: type(self).__name__}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            is_set = value is not None or entry.default is not None  # a None chosen means "off"
            if is_set and entry.name not in _CALL_KEYS:
                stored[entry.name] = dict(value) if isinstance(value, SizeDict) else value
        return stored

    @classmethod
    def from_json_file(cls, path: hub.PathLike) -> Self:
        """A processor from a file that `to_json_file` or `save_pretrained` has written."""
        return cls.from_dict(hub.read_json(path))

    def to_json_string(self) -> str:
        """The settings as the text of a JSON file."""
        return to_json(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: hub.PathLike) -> None:
        """Write the settings into a JSON file."""
        hub.write_json(path, self.to_dict(), sort_keys=True)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: hub.PathLike, **kwargs: Any) -> Self:
        """Read the settings stored with a hub id, in a folder, a shipped model, or one JSON file.

        Of preprocessor_config.json and video_preprocessor_config.json each processor takes its own
        first. `subfolder`, `revision`, `token` and other arguments of `hub.fetch` say where, other
        keywords are for `from_dict`. If a published checkpoint stores mean 0.5, which is not what
        it was trained with, a warning says so. Raises WeightsError where there is no such file.
        """
        where = hub.take_arguments(kwargs)
        path = Path(pretrained_model_name_or_path)
        if not path.is_file():
            path = hub.fetch(pretrained_model_name_or_path, *cls._files, **where)
        processor = cls.from_dict(hub.read_json(path), **kwargs)
        stored = processor[0] if isinstance(processor, tuple) else processor
        # In its cache the hub writes owner--name.
        name = os.fspath(pretrained_model_name_or_path).replace("--", "/")
        published = any(known in name for known in _PUBLISHED)
        if published and np.all(np.equal(stored.image_mean, 0.5)) and "image_mean" not in kwargs:
            warnings.warn(
                f"{path} says mean 0.5, but the published VideoMAE models were trained with "
                f"ImageNet's: pass image_mean={IMAGENET_MEAN}, image_std={IMAGENET_STD}",
                stacklevel=2,
            )
        return processor

    def save_pretrained(
        self,
        save_directory: hub.PathLike,
        push_to_hub: bool = False,
        *,
        repo_id: str | None = None,
        **push: Any,
    ) -> list[str]:
        """Write the settings into a folder, made if missing; returns the file's path in a list.

        `push_to_hub=True` uploads the file as well, into `repo_id` or the repository of the
        folder's name (see `push_to_hub`).
        """
        hub.check_push(push)
        path = Path(save_directory) / self._files[0]
        names = dict.fromkeys(self._type_keys, type(self).__name__)
        hub.write_json(path, names | self.to_dict())
        if push_to_hub:
            self.push_to_hub(repo_id or Path(save_directory).resolve().name, **push)
        return [str(path)]

    def push_to_hub(self, repo_id: str, **push: Any) -> str:
        """Upload the file of settings to a hub repository; the URL of the commit.

        `push` are `private`, `token`, `commit_message` and `revision`: see `hub.push_folder`.
        """
        return hub.push_saved(self.save_pretrained, repo_id, **push)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


_MOST_PX = 4096  # of a side, and of any count here: a file that asks for more is meant to harm


def _count(value: Any) -> int:
    if isinstance(value, bool) or not 1 <= operator.index(value) <= _MOST_PX:
        raise ValueError
    return operator.index(value)


def _numbers(value: Any, *, above: float = -np.inf) -> Any:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim > 1 or not array.size or not ((array > above) & (abs(array) <= 1e6)).all():
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


def _size(value: Any, forms: Collection[set[str]] = _SIZES) -> SizeDict:
    if isinstance(value, list | tuple):
        value = dict(zip(("height", "width"), value, strict=True))
    elif isinstance(value, int | np.integer):
        value = {"shortest_edge": value}
    # dict() also of transformers' own SizeDict
    size = SizeDict({key: _count(number) for key, number in dict(value).items()})
    if set(size) not in forms:
        raise ValueError
    return size


def _device(value: Any) -> Any:
    import torch

    return torch.device(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    return {word: word for word in words}.__getitem__


_BOX = (
    lambda value: _size(value, [{"height", "width"}]),
    "an int, (height, width), or a dict of height and width, up to 4096 px",
)
_FORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "size": (
        _size,
        "an int, (height, width), or a dict of shortest_edge (and longest_edge), of height and "
        "width, or of max_height and max_width, up to 4096 px",
    ),
    "crop_size": _BOX,
    "pad_size": _BOX,
    "resample": (_filter, "'bilinear', 'bicubic', 'nearest', 'lanczos', or Pillow's 0 to 3"),
    "rescale_factor": (
        lambda value: float(_numbers(value, above=0)),
        "a number above 0, up to 1e6",
    ),
    "image_mean": (_numbers, "a number, or one per channel, up to 1e6"),
    "image_std": (
        lambda value: _numbers(value, above=1e-6),
        "a number above 1e-6, or one per channel, up to 1e6",
    ),
    "input_data_format": (
        _one_of("channels_first", "channels_last"),
        "'channels_first' or 'channels_last'",
    ),
    "data_format": (
        _one_of("channels_first"),
        "'channels_first', as pixels always are: turn them by pixel_values.movedim(2, -1)",
    ),
    "return_tensors": (_one_of("pt", "np"), "'pt', 'np', or None for a list"),
    "device": (_device, "a device of PyTorch, such as 'cuda'"),
    "image_seq_length": (_count, "a whole number from 1 to 4096"),
    "video_metadata": (lambda value: value, ""),
    "num_frames": (_count, "a whole number from 1 to 4096"),
    "fps": (lambda value: float(_numbers(value, above=0)), "a number above 0, up to 1e6"),
}
