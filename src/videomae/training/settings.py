"""Every knob of pre-training, fine-tuning and evaluation, written once.

Flags, recipe keys and help texts all come from these fields. A run writes its resolved settings as
`settings.toml`, which is itself a recipe.
"""

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from videomae.config import PRESETS, nearest
from videomae.errors import ConfigError
from videomae.hub import atomic_path

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Mask = Literal["tube", "random", "frame", "running_cell"]
Preset = Literal["tiny", "small", "base", "large", "huge", "giant"]


@dataclass(frozen=True)
class TrainSettings:
    """What pre-training and fine-tuning share."""

    published_warmup_epochs: ClassVar[float] = 5.0

    data: Path = Path("data")
    """Folder of videos, with a folder per class where there are classes."""
    output: Path = Path("run")
    """Folder of the run: model, checkpoint, log, curves and pictures."""
    preset: Preset = "base"
    """Size of a model that starts from scratch."""
    init: str | None = None
    """Start from these weights: a hub id, folder, weight file or shipped name."""
    image_size: int | None = None
    """Height and width of a clip in pixels; by default the preset's."""
    num_frames: int | None = None
    """Frames of a clip; by default the preset's."""
    frame_stride: int | None = None
    """Video frames from one sampled frame to the next; by default the preset's."""
    epochs: int = 100
    """Times that every video is seen."""
    batch_size: int = 64
    """Clips per step."""
    lr: float = 1e-3
    """Base learning rate; the peak is lr * batch_size / 256, as in the published recipes."""
    min_lr: float = 1e-6
    """Where the cosine ends, scaled like lr."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up from 0; by default the published 5 (pre-training: 40), at most a
    tenth of all."""
    weight_decay: float = 0.05
    """Of AdamW; biases, norms and the mask token have none."""
    beta2: float = 0.999
    """Second beta of AdamW; the first is 0.9."""
    clip_grad: float | None = None
    """Largest norm of the gradient; None clips nothing."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides that random crops may have, as shares of the largest possible."""
    dtype: Dtype = "auto"
    """Precision of the products: bfloat16 where the device has it, else float32."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; by default the best that is there."""
    seed: int = 0
    """Of weights, order, crops and masks."""
    num_workers: int = 2
    """Threads that decode and crop."""
    cache_gb: float = 4.0
    """Memory for videos that are kept decoded."""
    max_bad_fraction: float = 0.01
    """Unreadable videos are skipped and listed; a larger share of them stops the run."""
    log_every_steps: int = 20
    """Steps from one line of log.jsonl to the next."""
    save_every_steps: int = 500
    """Steps from one checkpoint to the next; the last one is kept."""
    resume: bool = False
    """Go on from the checkpoint in the output folder."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(
                f"no preset {self.preset!r}; known: {', '.join(PRESETS)}"
                f"{nearest(self.preset, PRESETS)}"
            )
        for name in ("epochs", "batch_size", "num_workers", "log_every_steps", "save_every_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not all(0 < scale <= 1 for scale in self.crop_scales) or not self.crop_scales:
            raise ConfigError(f"crop_scales={self.crop_scales} must lie above 0 and up to 1")
        if self.num_warmup_epochs > self.epochs:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs} is longer than epochs={self.epochs}; lower it"
            )

    @property
    def num_warmup_epochs(self) -> float:
        """`warmup_epochs`, or what stands for it where it is None."""
        if self.warmup_epochs is not None:
            return self.warmup_epochs
        return min(self.published_warmup_epochs, self.epochs / 10)

    @property
    def peak_lr(self) -> float:
        """The highest learning rate: linear in the batch size (paper, appendix)."""
        return self.lr * self.batch_size / 256


@dataclass(frozen=True)
class PretrainSettings(TrainSettings):
    """Masked pre-training; the defaults are those of the published Kinetics-400 recipe."""

    published_warmup_epochs: ClassVar[float] = 40.0

    epochs: int = 800
    batch_size: int = 64
    lr: float = 1.5e-4
    min_lr: float = 1e-5
    beta2: float = 0.95
    mask: Mask = "tube"
    """What is hidden: tube, random, frame or running_cell."""
    mask_ratio: float = 0.9
    """Share of the clip that is hidden."""
    norm_pix_loss: bool = True
    """Predict each tubelet's pattern, without its mean and contrast."""
    draw_every_epochs: int = 10
    """Epochs from one picture of reconstructions to the next."""


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """Supervised fine-tuning on a folder per class."""

    eval_data: Path | None = None
    """Folder per class to be evaluated on; by default val/ or test/ inside data."""
    eval_every_epochs: int = 0
    """Epochs from one evaluation to the next; 0 evaluates at the end only."""
    epochs: int = 75
    batch_size: int = 32
    layer_decay: float = 0.75
    """Learning rate of each layer as a share of that of the layer above it."""
    drop_path_rate: float = 0.1
    """Stochastic depth: rises to this in the last layer."""
    classifier_dropout: float = 0.0
    """Dropout between the pooled features and the head."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""


@dataclass(frozen=True)
class EvaluateSettings:
    """The multi-view protocol: clips x crops per video, softmax averaged."""

    data: Path = Path("data")
    """Folder of videos, with a folder per class."""
    model: str = "motion-tiny"
    """Hub id, folder, weight file or shipped name."""
    num_clips: int = 1
    """Clips along time; the paper tests Kinetics with 5, Something-Something with 2."""
    num_crops: int = 1
    """Crops across each clip; the paper tests with 3."""
    batch_size: int = 32
    """Views per forward."""
    dtype: Dtype = "auto"
    """Precision of the products."""
    device: str = "auto"
    """cpu, cuda, mps; by default the best that is there."""
    num_workers: int = 2
    """Threads that decode."""
    output: Path | None = None
    """Write the figures (results.json) and a line per video (predictions.jsonl) here."""


Settings = TypeVar("Settings", bound=TrainSettings | EvaluateSettings)


def load_recipe(path: Path, kind: type[Settings]) -> Settings:
    """Settings out of a TOML file; the table `[about]` is for people and not read.

    Raises ConfigError for a file that is not TOML, an unknown key (naming the nearest) or a value
    of the wrong kind.
    """
    try:
        values = tomllib.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from error
    values.pop("about", None)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(
                f"recipe {path}: {kind.__name__} has no key {key!r}{nearest(key, fields)}"
            )
        values[key] = _converted(value, fields[key].type, f"recipe {path}: {key}")
    return kind(**values)


def _converted(value: Any, kind: Any, name: str) -> Any:
    """A TOML value as the field wants it: paths and tuples are written as strings and lists."""
    if "Path" in str(kind) and isinstance(value, str):
        return Path(value)
    if isinstance(value, list):
        return tuple(value)
    wanted: Any = {int: int, float: (int, float), bool: bool}.get(kind)
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool)):
        raise ConfigError(f"{name}={value!r} should be {kind.__name__}")
    return value


def to_toml(settings: TrainSettings | EvaluateSettings) -> str:
    """Settings as the text of a recipe; fields that are None are left out."""
    lines = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None:
            continue
        if isinstance(value, tuple):
            text = "[" + ", ".join(map(repr, value)) + "]"
        elif isinstance(value, bool | str | Path):
            text = json.dumps(value if isinstance(value, bool) else str(value), ensure_ascii=False)
        else:
            text = repr(value)
        lines.append(f"{field.name} = {text}\n")
    return "".join(lines)


def write_recipe(settings: TrainSettings | EvaluateSettings, path: Path) -> None:
    """Write settings as a recipe that `load_recipe` reads back unchanged."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(to_toml(settings))
