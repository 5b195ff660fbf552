"""The sizes, rates and labels of a VideoMAE, read from and written to `config.json`."""

import dataclasses
import difflib
import functools
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeVar

from videomae import hub
from videomae.errors import ConfigError, nearest, to_json
from videomae.fields import (
    Limits,
    NotNegative,
    PartialShare,
    Rate,
    check_fields,
    check_value,
    field_types,
)
from videomae.fields import check_choice as check_choice  # beside the choices of a model
from videomae.presets import PRESETS as PRESETS  # beside the config that they are sizes of

# ImageNet statistics of RGB in 0..1. All published models were trained with them, and the loss
# undoes them to reach pixels; the processors and the loss both read them here.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ATTENTION_IMPLEMENTATIONS = ("auto", "eager", "sdpa", "flash_attention_2")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

# Not in config.json: how a model runs is not what it is, and id2label implies num_labels.
_NOT_STORED = ("attn_implementation", "extra", "name_or_path", "num_labels")
_LABEL_FIELDS = ("id2label", "label2id", "num_labels")
# Names that older files and other callers use.
RENAMED = {
    "torch_dtype": "dtype",
    "qkv_bias": "qv_bias",
    "_attn_implementation": "attn_implementation",
    "_name_or_path": "name_or_path",
}
# What a config of transformers has besides, where nobody has set it.
_UNSET = {
    "is_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "transformers_version": None,
    "base_model_tp_plan": None,
}
# Of sizes that no model comes near: a file that claims more is wrong, or meant to harm.
Size = Annotated[int, Limits(1, 2**16)]
Width = Annotated[int, Limits(1, 2**14)]
Depth = Annotated[int, Limits(0, 1000)]
_MOST_POSITIONS = 2**27  # numbers in the table of positions: 0.5 GB


class Grid(NamedTuple):
    """How many tubelets a clip has along time, height and width.

    >>> Grid(8, 14, 14).num_tokens
    1568
    """

    frames: Size
    height: Size
    width: Size

    @property
    def num_cells(self) -> int:
        """Cells of one time slice."""
        return self.height * self.width

    @property
    def num_tokens(self) -> int:
        """Tubelets of the whole clip."""
        return self.frames * self.height * self.width


Config = TypeVar("Config")


def _keeps_unknown(config_class: type[Config]) -> type[Config]:
    """Let a config be made of all that a config.json holds: what is no field goes to `extra`."""
    generated: Any = config_class.__init__
    known = [f.name for f in dataclasses.fields(config_class)]  # type: ignore[arg-type]

    @functools.wraps(generated)
    def init(self: Config, *args: Any, **values: Any) -> None:
        values = _renamed(values)
        extra = {**values.pop("extra", {}), **{k: v for k, v in values.items() if k not in known}}
        for word in extra.keys() & values.keys():
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.9)
            if close:
                warnings.warn(
                    f"VideoMAEConfig keeps {word!r}, which it does not know; did you mean "
                    f"{close[0]!r}?",
                    stacklevel=2,
                )
            del values[word]
        extra.pop("model_type", None)
        generated(self, *args, **values, extra=extra)

    config_class.__init__ = init  # type: ignore[assignment,method-assign]
    return config_class


@_keeps_unknown
@dataclass
class VideoMAEConfig:
    """Sizes and rates of a VideoMAE, with the field names and defaults of transformers.

    The defaults are ViT-B as published. `image_size` and `patch_size` are pixels, one number or
    (height, width). Fields that transformers does not have: `drop_path_rate`,
    `classifier_dropout_prob`, `pooled_norm_eps`, `frame_stride`, `fps` and `position_grid`.

    Any other key or attribute is kept as it is, in `extra`, and saved. Fields can be read as items.

    Raises ConfigError when sizes do not divide each other.

    >>> VideoMAEConfig(image_size=32, patch_size=8).grid
    Grid(frames=8, height=4, width=4)
    """

    image_size: Size | tuple[Size, Size] = 224
    patch_size: Size | tuple[Size, Size] = 16
    num_channels: Size = 3
    num_frames: Size = 16
    tubelet_size: Size = 2
    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Width = 12
    intermediate_size: Size = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: PartialShare = 0.0
    attention_probs_dropout_prob: PartialShare = 0.0
    initializer_range: NotNegative = 0.02
    layer_norm_eps: NotNegative = 1e-12
    qv_bias: bool = True
    use_mean_pooling: bool = True
    decoder_num_attention_heads: Width = 6
    decoder_hidden_size: Width = 384
    decoder_num_hidden_layers: Depth = 4
    decoder_intermediate_size: Size = 1536
    norm_pix_loss: bool = True

    drop_path_rate: PartialShare = 0.0  # stochastic depth: 0 in the first layer, this in the last
    classifier_dropout_prob: PartialShare = 0.0  # between the pooled features and the head
    pooled_norm_eps: NotNegative = 1e-5  # fc_norm, decoder.norm: 1e-5 in transformers, 1e-6 before
    frame_stride: Size | None = 4  # frames between two sampled ones; None: spread over the video
    fps: Rate | None = None  # the rate that videos are taken to have; None: each its own
    # the grid the weights were trained on, where it is not `grid`
    position_grid: Grid | None = None

    # Whichever is given names the classes, and none of them is None afterwards; two by default.
    id2label: dict[int, str] = None  # type: ignore[assignment]
    label2id: dict[str, int] = None  # type: ignore[assignment]
    num_labels: Annotated[int, Limits(0, 100_000)] = None  # type: ignore[assignment]
    problem_type: str | None = None
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    dtype: str | None = None
    architectures: list[str] | None = None
    attn_implementation: str = "auto"
    name_or_path: str = field(default="", compare=False)  # where it was read from
    extra: dict[str, Any] = field(default_factory=dict)  # unknown keys, kept for saving

    model_type = "videomae"
    sub_configs: ClassVar[dict[str, type]] = {}

    def __post_init__(self) -> None:
        for name in _LABEL_FIELDS:  # before a name is made for each of so many
            if getattr(self, name) is not None:
                check_value(name, getattr(self, name), field_types(type(self))[name])
        if self.id2label is not None and self.num_labels not in (None, len(self.id2label)):
            raise ConfigError(
                f"num_labels={self.num_labels}, but id2label names {len(self.id2label)}; "
                "give one of the two"
            )
        if self.id2label is not None:
            self.id2label = self.id2label  # fills in the others, see __setattr__
        elif self.label2id is not None:
            self.label2id = self.label2id
        else:
            self.num_labels = 2 if self.num_labels is None else self.num_labels
        check_fields(self)
        for name in ("image_size", "patch_size"):
            if not isinstance(value := getattr(self, name), int):
                setattr(self, name, (int(value[0]), int(value[1])))
        if self.position_grid is not None:
            self.position_grid = Grid(*self.position_grid)
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep labels in agreement, whichever is set, and what is no field in `extra`."""
        name = RENAMED.get(name, name)
        if name == "dtype" and value is not None:
            value = str(value).removeprefix("torch.")
        if name == "attn_implementation" and value is None:
            value = "auto"
        if (name, value) in (("frame_stride", "uniform"), ("fps", "own")):  # words of flags
            value = None
        if "extra" in self.__dict__ and not name.startswith("_") and not hasattr(type(self), name):
            self.extra[name] = value
            return
        if name not in _LABEL_FIELDS or "extra" not in self.__dict__:
            object.__setattr__(self, name, value)
            return  # `extra` is the last field: the generated __init__ is still at work
        if name in ("id2label", "label2id"):
            try:
                pairs = [pair if name == "id2label" else pair[::-1] for pair in value.items()]
                labels = sorted((int(index), str(label)) for index, label in pairs)
            except (AttributeError, TypeError, ValueError, OverflowError) as error:
                raise ConfigError(
                    f"{name} must have a name and a whole number of each class ({error})"
                ) from error
        elif self.id2label is None or len(self.id2label) != value:
            check_value(name, value, field_types(type(self))[name])
            labels = [(index, f"LABEL_{index}") for index in range(value)]
        else:
            return
        named = {label: index for index, label in labels}
        self.__dict__.update(id2label=dict(labels), label2id=named, num_labels=len(labels))

    if not TYPE_CHECKING:  # a checker shall go on to find wrong names

        def __getattr__(self, name: str) -> Any:
            """What is no field: a name of older days, what `extra` holds, or what is unset."""
            if name in RENAMED:
                return getattr(self, RENAMED[name])
            known = {**_UNSET, **self.__dict__.get("extra", {})}
            if name not in known:
                near = nearest(name, [*known, *self.__dict__])
                raise AttributeError(f"VideoMAEConfig has no field {name!r}{near}")
            return known[name]

    def __getitem__(self, name: str) -> Any:
        if not hasattr(self, name):
            raise KeyError(f"VideoMAEConfig has no field {name!r}")
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        """The names of what `to_dict` holds."""
        return iter(self.to_dict())

    def get_text_config(self, *_: Any, **__: Any) -> Self:
        """The config itself: there are no configs of parts."""
        return self

    def update(self, values: Mapping[str, Any]) -> None:
        """Set fields and others, and check them together."""
        for name, value in values.items():
            setattr(self, name, value)
        self.check()

    def check(self) -> None:
        """Raise ConfigError where values are out of range or contradict each other."""
        check_fields(self)
        if list(self.id2label) != list(range(len(self.id2label))):
            raise ConfigError(
                f"id2label names the classes {list(self.id2label)[:5]} ...; expected 0 to "
                f"{len(self.id2label) - 1}, each once"
            )
        for name, step_name, sizes, steps in (
            ("image_size", "patch_size", self.image_hw, self.patch_hw),
            ("num_frames", "tubelet_size", (self.num_frames,), (self.tubelet_size,)),
        ):
            fitting = [max(size // step, 1) * step for size, step in zip(sizes, steps, strict=True)]
            if fitting != list(sizes):
                got, step, use = ("x".join(map(str, each)) for each in (sizes, steps, fitting))
                raise ConfigError(
                    f"{name}={got} is not a multiple of {step_name}={step}; "
                    f"use {use}, or change {step_name}"
                )
        width = max(self.hidden_size, self.decoder_hidden_size)
        for grid in (self.grid, self.position_grid or self.grid):
            if math.prod(grid) * width > _MOST_POSITIONS:
                raise ConfigError(
                    f"a clip of {' x '.join(map(str, grid))} tubelets, each with a position of "
                    f"{width} numbers, is larger than any model can compute with; lower "
                    "image_size or num_frames"
                )
        check_choice("attn_implementation", self.attn_implementation, ATTENTION_IMPLEMENTATIONS)
        if self.problem_type is not None:
            check_choice("problem_type", self.problem_type, PROBLEM_TYPES)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Frame (height, width) in pixels."""
        return _pair(self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Patch (height, width) in pixels."""
        return _pair(self.patch_size)

    @property
    def grid(self) -> Grid:
        """The clip counted in tubelets."""
        (height, width), (p, q) = self.image_hw, self.patch_hw
        return Grid(self.num_frames // self.tubelet_size, height // p, width // q)

    @property
    def use_return_dict(self) -> bool:
        """The name transformers uses for `return_dict`."""
        return self.return_dict

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """A published size: small, base, large, huge or giant; or tiny and micro, for CPUs.

        Sizes are those of the papers (V1 for small to huge, V2 for giant), `layer_norm_eps` is
        that of the original code. Keyword arguments override single fields.

        >>> VideoMAEConfig.preset("small").num_attention_heads
        6
        """
        if name not in PRESETS:
            raise ConfigError(
                f"no preset {name!r}; known: {', '.join(PRESETS)}{nearest(name, PRESETS)}"
            )
        return cls.from_dict({"layer_norm_eps": 1e-6, **PRESETS[name]}, **overrides)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """A config from the keys of a config.json; keys it does not know are kept in `extra`.

        Overrides must be known fields: an unknown one raises ConfigError naming the nearest.
        """
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        values, overrides = _renamed(values), _renamed(overrides)
        unknown = set(overrides) - known
        if unknown:
            word = sorted(unknown)[0]
            raise ConfigError(f"VideoMAEConfig has no field {word!r}{nearest(word, known)}")
        names = values.get("id2label")
        num_named = len(names) if isinstance(names, dict) else 0
        if num_named:
            values.pop("num_labels", None)
        if set(overrides) & set(_LABEL_FIELDS) and overrides.get("num_labels") != num_named:
            for name in _LABEL_FIELDS:  # the caller's labels replace those of the file altogether
                values.pop(name, None)
        values.update(overrides)
        extra = values.pop("extra", {})
        extra = extra if isinstance(extra, dict) else {"extra": extra}
        others = {key: values.pop(key) for key in list(values) if key not in known}
        return cls(**values, extra={**extra, **others})  # without a word on names of the file

    @classmethod
    def convert(cls, config: Any) -> Self:
        """`config` as it is, or the same made of a VideoMAE config of transformers.

        Raises ConfigError for anything else.
        """
        if isinstance(config, cls):
            return config
        if getattr(config, "model_type", None) != cls.model_type or not hasattr(config, "to_dict"):
            what = getattr(config, "model_type", None) or type(config).__name__
            raise ConfigError(
                f"config is a {what!r}, expected a VideoMAEConfig of videomae or transformers; "
                "make one with VideoMAEConfig.from_pretrained(folder) or .from_dict(values)"
            )
        # to_dict leaves out how attention is to be computed.
        return cls.from_dict(
            {**config.to_dict(), "attn_implementation": config._attn_implementation}
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as config.json holds them: plain values, `model_type` and labels included."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if name not in _NOT_STORED and (value is not None or name == "frame_stride")
        }
        return {**self.extra, "model_type": self.model_type, **values}

    def to_diff_dict(self) -> dict[str, Any]:
        """The part of `to_dict` that differs from the defaults, and `model_type`."""
        default = type(self)().to_dict()
        values = self.to_dict().items()
        return {k: v for k, v in values if k == "model_type" or v != default.get(k)}

    def to_json_string(self, use_diff: bool = False) -> str:
        """`to_dict`, or `to_diff_dict`, as indented JSON with sorted keys."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return to_json(values, indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: hub.PathLike, use_diff: bool = False) -> None:
        """Write what `to_json_string` gives into a file."""
        hub.write_text(Path(json_file_path), self.to_json_string(use_diff))

    @classmethod
    def from_json_file(cls, json_file: hub.PathLike) -> Self:
        """Read a file that `to_json_file` wrote, or any config.json."""
        return cls.from_dict(hub.read_json(Path(json_file)))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: hub.PathLike,
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Read config.json of a hub id, a folder or a shipped model, or one JSON file.

        `subfolder`, `revision`, `token` and other arguments of `hub.fetch` say where; any other
        keyword overrides a field. With `return_unused_kwargs` those that are no field come back:
        (config, unused).
        """
        name, where = pretrained_model_name_or_path, hub.take_arguments(kwargs)
        fields = {field.name for field in dataclasses.fields(cls)} | set(RENAMED)
        unused = {}
        if return_unused_kwargs:
            unused = {key: kwargs.pop(key) for key in set(kwargs) - fields}
        path = Path(name) if Path(name).is_file() else hub.fetch(name, "config.json", **where)
        config = cls.from_dict({**hub.read_json(path), "name_or_path": str(name)}, **kwargs)
        return (config, unused) if return_unused_kwargs else config  # type: ignore[return-value]

    def save_pretrained(self, save_directory: hub.PathLike) -> None:
        """Write config.json into a folder, which is made if it is not there."""
        hub.write_json(Path(save_directory) / "config.json", self.to_dict())

    def copy(self, **overrides: Any) -> Self:
        """The same config with some fields changed."""
        return type(self).from_dict(dataclasses.asdict(self), **overrides)


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the names that older files and other callers use put right."""
    old = {RENAMED[key]: value for key, value in values.items() if key in RENAMED}
    return old | {key: value for key, value in values.items() if key not in RENAMED}


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
