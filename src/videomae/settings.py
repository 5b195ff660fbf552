"""Every knob of a command that learns, measures or makes data, written once.

Flags, recipe keys and help texts all come from these fields. A run writes its resolved settings as
`settings.toml`, which is itself a recipe.
"""

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from videomae.config import check_choice, nearest
from videomae.errors import ConfigError
from videomae.hub import atomic_path

Check = Literal["quick", "decode"]
Domain = Literal["camera", "object"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Layout = Literal[
    "auto", "folder", "v1", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset",
    "vjepa2", "kinetics", "ssv2", "ucf101", "hmdb51", "shards", "manifest", "paths",
]  # fmt: skip
Mask = Literal["tube", "random", "frame", "running_cell"]
Preset = Literal["micro", "tiny", "small", "base", "large", "huge", "giant"]
Problem = Literal["single_label", "multi_label", "regression"]
Tracker = Literal["auto", "none", "tensorboard", "wandb", "trackio", "mlflow"]

RECIPES_DIR = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class TrainSettings:
    """What pre-training and fine-tuning share."""

    published_warmup_epochs: ClassVar[float] = 5.0

    data: Path = Path("data")
    """Folder of videos, with a folder per class where there are classes; or what `prepare` made."""
    split: str = "train"
    """Which videos of the data are learned from."""
    output: Path = Path("run")
    """Folder of the run: model, checkpoints, log, curves and pictures."""
    resume: bool = False
    """Go on from the last checkpoint in the output folder; begin where there is none."""

    preset: Preset = "base"
    """Size of a model that starts from scratch."""
    init: str | None = None
    """Start from these weights: a hub id, folder, weight file or shipped name; image MAE too."""
    image_size: int | None = None
    """Height and width of a clip in pixels; by default the preset's."""
    num_frames: int | None = None
    """Frames of a clip; by default the preset's."""
    frame_stride: int | Literal["uniform"] | None = None
    """Video frames between two sampled ones; uniform: one of each part; None: the preset's."""
    num_repeats: int = 1
    """Crops drawn from each clip that is decoded (repeated augmentation)."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides that multi-scale crops may have, as shares of the largest possible."""
    flip: bool = False
    """Mirror half of the clips. Not where left and right are told apart, as in SSv2."""

    epochs: int = 100
    """Times that every video is seen."""
    batch_size: int = 64
    """Videos per step, over all processes; each gives num_repeats clips."""
    accumulate: int = 1
    """Parts that a step is computed in, one after the other, to save memory."""
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
    max_nonfinite_steps: int = 5
    """A step whose loss is no number is skipped; so many in a row stop the run."""
    seed: int = 0
    """Of weights, order, crops and masks."""

    device: str = "auto"
    """cpu, cuda, mps; by default the best that is there."""
    dtype: Dtype = "auto"
    """Precision of the products: bfloat16 where the device has it, else float32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: a whole model in each, or one split over all (for large to giant)."""
    activation_checkpointing: bool = False
    """Compute activations again for the gradients: less memory for a third more time."""
    compile: bool = False
    """Compile the model with torch.compile."""
    num_workers: int = 2
    """Threads that decode and crop, for each training process."""
    workers: Literal["threads", "processes"] = "threads"
    """Of earlier versions; threads decode, whichever is named."""
    cache_gb: float = 4.0
    """Memory for videos that are kept decoded."""
    max_bad_fraction: float = 0.01
    """Unreadable videos are skipped and listed; a larger share of them stops the run."""

    log_every_steps: int = 20
    """Steps from one line of log.jsonl to the next."""
    save_every_steps: int = 500
    """Steps from one checkpoint to the next."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints stay."""
    tracker: Tracker = "auto"
    """Where the figures go besides log.jsonl; auto is tensorboard where it is installed."""

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in (
            "num_repeats", "epochs", "batch_size", "accumulate", "max_nonfinite_steps",
            "num_workers", "log_every_steps", "save_every_steps", "keep_checkpoints",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not all(0 < scale <= 1 for scale in self.crop_scales) or not self.crop_scales:
            raise ConfigError(f"crop_scales={self.crop_scales} must lie above 0 and up to 1")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction={self.max_bad_fraction} must lie in 0 to 1")
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

    @property
    def floor_lr(self) -> float:
        """The learning rate at the end, linear in the batch size too."""
        return self.min_lr * self.batch_size / 256

    @property
    def sizes(self) -> dict[str, Any]:
        """The model's sizes that are named; the others stay the preset's or the checkpoint's."""
        names = ("image_size", "num_frames", "frame_stride")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if found.get("frame_stride") == "uniform":
            found["frame_stride"] = None
        return found


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
    decoder_mask_ratio: float | None = None
    """Share that is not decoded either, in running cells (VideoMAE V2: 0.5); None decodes all."""
    decoder_depth: int | None = None
    """Layers of the decoder; by default the preset's."""
    decoder_width: int | None = None
    """Features of a decoder token, 64 a head; by default the preset's."""
    norm_pix_loss: bool = True
    """Predict each tubelet's pattern, without its mean and contrast."""
    draw_every_epochs: int = 10
    """Epochs from one picture of reconstructions to the next."""
    keep_every_epochs: int = 0
    """Epochs from one model that is kept (epoch_0010/) to the next; 0 keeps the last alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("draw_every_epochs", 1), ("keep_every_epochs", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """Supervised fine-tuning. The defaults augment gently; the published recipes say more."""

    eval_data: Path | None = None
    """What is evaluated on; by default split val, else test, of the data."""
    eval_every_epochs: int = 0
    """Epochs from one evaluation to the next; 0 evaluates at the end only."""
    problem: Problem = "single_label"
    """One class each; several (labels such as a|b; mAP); or a number to predict."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: classes with few videos count for more, so that all count alike."""
    epochs: int = 75
    batch_size: int = 32
    train_only: Literal["all", "head"] = "all"
    """head keeps the backbone as it is and trains the classifier alone."""
    keep_final_norm: bool = False
    """Start the classifier's norm from the encoder's last one, which published code throws away."""
    layer_decay: float = 0.75
    """Learning rate of each layer as a share of that of the layer above it."""
    drop_path_rate: float = 0.1
    """Stochastic depth: rises to this in the last layer."""
    classifier_dropout: float = 0.0
    """Dropout between the pooled features and the head."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    ema_decay: float = 0.0
    """Keep a running mean of the weights with this decay, say 0.9999, and evaluate and save it."""
    crop: Literal["multi_scale", "random_resized"] = "multi_scale"
    """Crops of a few scales and one shape, or of any area and shape, as published."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Of random_resized: share of the frame's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Of random_resized: width by height."""
    rand_augment_ops: int = 0
    """RandAugment: operations per clip; published: 4."""
    rand_augment_magnitude: float = 7.0
    """RandAugment: strength, 0 to 10."""
    erase_prob: float = 0.0
    """Chance that a box of the clip is filled with noise; published: 0.25."""
    mixup_alpha: float = 0.0
    """Mix pairs of clips, shares drawn from Beta(a, a); published: 0.8."""
    cutmix_alpha: float = 0.0
    """Paste a box of one clip into another, its area drawn from Beta(a, a); published: 1."""
    mix_prob: float = 1.0
    """Chance that a batch is mixed at all."""
    mix_switch_prob: float = 0.5
    """Chance of cutmix where both could be."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "label_smoothing", "ema_decay", "drop_path_rate", "classifier_dropout", "erase_prob",
            "mix_prob", "mix_switch_prob",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} must lie in 0 to 1")
        mixed = self.mixup_alpha > 0 or self.cutmix_alpha > 0
        if mixed and self.problem == "regression":
            raise ConfigError("mixup and cutmix mix classes; leave them out for regression")
        if self.class_weights == "balanced" and self.problem == "regression":
            raise ConfigError("class_weights='balanced' has no meaning for regression")

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed with each other."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


@dataclass(frozen=True)
class EvaluateSettings:
    """The multi-view protocol: clips x crops per video, softmax averaged."""

    data: Path = Path("data")
    """Folder of videos per class, or what `prepare` made of a list."""
    split: str | None = None
    """Which videos of the data; by default test, else val, else all."""
    model: str = "motion-tiny"
    """Hub id, folder, weight file or shipped name."""
    num_clips: int = 1
    """Clips along time; the paper tests Kinetics with 5, Something-Something with 2."""
    num_crops: int = 1
    """Crops across each clip; the paper tests with 3."""
    frame_stride: int | Literal["uniform"] | None = None
    """Video frames between two sampled ones; uniform: one of each part; None: the model's."""
    batch_size: int = 32
    """Views per forward."""
    dtype: Dtype = "auto"
    """Precision of the products."""
    device: str = "auto"
    """cpu, cuda, mps; by default the best that is there."""
    num_workers: int = 2
    """Threads that decode."""
    output: Path | None = None
    """Write figures, predictions (Parquet) and a confusion matrix into this folder."""

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("num_clips", "num_crops", "batch_size", "num_workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")


def _check_choices(settings: Any) -> None:
    """Fields with named choices hold one of them: recipes and callers can write anything."""
    for name, kind in _field_types(type(settings)).items():
        value, words = getattr(settings, name), _words(kind)
        if words and isinstance(value, str):
            check_choice(name, value, words)


def _check_least(settings: Any, **least: int) -> None:
    """Numbers are at least so large; None is no number."""
    for name, number in least.items():
        value = getattr(settings, name)
        if value is not None and value < number:
            raise ConfigError(f"{name}={value} must be at least {number}")


def _words(kind: Any) -> list[str]:
    """The texts a field's type allows by name.

    >>> _words(int | Literal["uniform"] | None)
    ['uniform']
    """
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in _words(part)]


def _field_types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


Settings = TypeVar("Settings", bound=TrainSettings | EvaluateSettings)


def recipe_names() -> list[str]:
    """The recipes that come with the package: `["hmdb51-base-finetune", ...]`."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def find_recipe(name: Path | str) -> Path:
    """The file of a recipe: a path that exists, or the name of one that comes with the package."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES_DIR / f"{path.name}.toml"
    if path.name == str(name) and shipped.is_file():
        return shipped
    raise ConfigError(
        f"there is no recipe {name}, neither a file nor one of those that come with the package"
        f"{nearest(path.stem, recipe_names())}; `videomae recipes` lists them"
    )


def read_recipe(name: Path | str) -> dict[str, Any]:
    """The whole of a recipe file, with its table `[about]`."""
    path = find_recipe(name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from error


def load_recipe(name: Path | str, kind: type[Settings]) -> Settings:
    """Settings out of a TOML file; the table `[about]` is for people and not read.

    Raises ConfigError for a file that is not TOML, an unknown key (naming the nearest) or a value
    of the wrong kind.
    """
    values = read_recipe(name)
    values.pop("about", None)
    fields = _field_types(kind)
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(
                f"recipe {name}: {kind.__name__} has no key {key!r}{nearest(key, fields)}"
            )
        values[key] = _converted(value, fields[key], f"recipe {name}: {key}")
    return kind(**values)


def _converted(value: Any, kind: Any, name: str) -> Any:
    """A TOML value as the field wants it: paths and tuples are written as strings and lists."""
    if "Path" in str(kind) and isinstance(value, str):
        return Path(value)
    if isinstance(value, list):
        return tuple(value)
    numbers = [option for option in get_args(kind) or (kind,) if option in (int, float, bool)]
    if not numbers or (isinstance(value, str) and _words(kind)):
        return value
    wanted: Any = (int, float) if float in numbers else numbers[0]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in numbers):
        raise ConfigError(f"{name}={value!r} should be {numbers[0].__name__}")
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
        Path(temporary).write_text(to_toml(settings), encoding="utf-8")


@dataclass(frozen=True)
class LinearProbeSettings:
    """What a frozen encoder knows of classes: nearest neighbours, and a linear map on top."""

    data: Path = Path("data")
    """Folder of videos per class, or what `prepare` made of a list."""
    split: str = "train"
    """Which videos of the data the classes are learned from."""
    eval_data: Path | None = None
    """What is tested on, where it is another folder."""
    eval_split: str | None = None
    """Which videos are tested on; by default test, else val, else all of eval_data."""
    model: str = "motion-tiny-pretrain"
    """Hub id, folder, weight file or shipped name."""
    num_clips: int = 1
    """Clips along time of each video learned from; tested is one centred clip."""
    num_neighbours: int = 20
    """Nearest neighbours that vote on a video's class."""
    frame_stride: int | Literal["uniform"] | None = None
    """Video frames between two sampled ones; uniform: one of each part; None: the model's."""
    batch_size: int = 32
    """Clips per forward."""
    dtype: Dtype = "auto"
    """Precision of the products."""
    device: str = "auto"
    """cpu, cuda, mps; by default the best that is there."""
    num_workers: int = 2
    """Threads that decode."""
    output: Path = Path("probe")
    """Folder of figures and features; features that lie there are not computed again."""

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("num_clips", "num_neighbours", "batch_size", "num_workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class PrepareSettings:
    """One checked manifest of a published list or a folder of videos; small videos and shards."""

    source: Path
    """A list, a folder of lists, a folder of videos or frames, or of tar shards."""
    output: Path
    """The folder to write: manifest.csv, labels.txt, report.md, report.json."""
    layout: Layout = "auto"
    """How to read the source; auto goes by its names and lines, and asks where they allow two."""
    root: Path | None = None
    """Where relative paths start and the videos lie; by default the folder of the source."""
    split: str | None = None
    """Split of a list whose name has none of train, val and test."""
    fold: int = 1
    """Which of the three splits of UCF101 and HMDB51."""
    labels: Path | None = None
    """Names of class numbers: a line each, classInd.txt, or SSv2's labels.json."""
    delimiter: str | None = None
    """Between the parts of a line; by default tabs, ::, commas or spaces, as all lines have."""
    check: Check = "quick"
    """quick: count the frames and read the first, middle and last; decode: read them all."""
    min_frames: int = 1
    """Leave out shorter videos."""
    val_share: float = 0.0
    """Make this share of the training videos val, where there is no val or test."""
    resize_short: int | None = None
    """Re-encode the videos with this short side in pixels, quick to read from any frame."""
    keyframe_distance: int = 16
    """Frames from one key frame of a resized video to the next."""
    crf: int = 23
    """Quality of resized videos, from 0 (lossless) to 51."""
    shards: bool = False
    """Pack the videos into WebDataset tar files."""
    videos_per_shard: int = 500
    """Videos in each of those."""
    seed: int = 0
    """Another seed gives another order in shards."""
    workers: int | None = None
    """Videos read or written at once; by default one per core."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_least(self, min_frames=1, videos_per_shard=1, workers=1, resize_short=16)
        if self.fold not in (1, 2, 3):
            raise ConfigError(f"fold={self.fold} is unknown; UCF101 and HMDB51 have 1, 2 and 3")
        if not 0 <= self.val_share < 1:
            raise ConfigError(f"val_share={self.val_share} must be at least 0 and below 1")


@dataclass(frozen=True)
class MotionSettings:
    """The built-in data set: short videos, labelled by how the view moves."""

    output: Path
    """The folder to write: a folder per class."""
    clips: int = 600
    """Videos in all; the 12 classes take turns."""
    seed: int = 7
    """Other seeds give other scenes."""
    size: int = 64
    """Height and width in pixels."""
    num_frames: int = 32
    """Frames per video."""
    fps: int = 16
    """Frames per second."""
    workers: int | None = None
    """Videos rendered at once; by default one per core."""
    still: bool = False
    """Repeat each clip's middle frame, which shows no class: a check on the models."""
    domain: Domain = "camera"
    """The view of a bright plane moves, or one object over a grey ground."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_least(self, clips=1, fps=1, workers=1, seed=0)
