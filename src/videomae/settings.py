"""Every knob of a command that learns, measures or makes data, written once.

Flags, recipe keys and help texts all come from these fields. A run writes its resolved settings as
`settings.toml`, which is itself a recipe.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from videomae.errors import ConfigError
from videomae.fields import (
    Checked,
    Count,
    Limits,
    NotNegative,
    PartialShare,
    Pixels,
    Positive,
    Rate,
    Seed,
    Share,
)
from videomae.recipe import load_recipe as load_recipe  # beside the settings that it loads

Scale = Annotated[float, Limits(above=0, most=1)]
Check = Literal["quick", "decode"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "torch", "compile", "openvino", "onnxruntime"]
Features = Literal["pooled", "per_time", "tokens"]
Layout = Literal[
    "auto", "folder", "v1", "v2-pretrain", "v2-finetune", "mmaction2", "mmaction2-offset",
    "vjepa2", "kinetics", "ssv2", "ucf101", "hmdb51", "shards", "manifest", "paths",
]  # fmt: skip
Mask = Literal["tube", "random", "frame", "running_cell"]
Rendering = Literal["plain", "paper"]
RenderedSplit = Literal["train", "test"]
# refuse: a file that cannot be decoded whole is an error. use_readable: the frames that can be
# decoded are its frames; after a damaged place, they go on with the next key frame.
OnDamage = Literal["refuse", "use_readable"]
Preset = Literal["micro", "tiny", "small", "base", "large", "huge", "giant"]
Problem = Literal["single_label", "multi_label", "regression"]
Tracker = Literal["auto", "none", "tensorboard", "wandb", "trackio", "mlflow"]


@dataclass(frozen=True)
class DataSettings(Checked):
    """Settings of all that learns or measures on the videos of a data set."""

    data: Path = Path("data")
    """Folder of videos, with a folder per class where there are classes; or what `prepare` made."""
    device: str = "auto"
    """cpu, cuda, mps; by default the best that is there."""
    dtype: Dtype = "auto"
    """Precision of the products: bfloat16 where the device has it, else float32."""
    num_workers: Count | None = None
    """Threads that decode and crop, in each process; by default its share of the cores."""
    on_damage: OnDamage = "refuse"
    """use_readable: take the frames that can be decoded of damaged videos, and count these."""
    allow_addresses: bool = False
    """Open the addresses (s3:, https:, ...) that a list names; any list can name any address."""


@dataclass(frozen=True)
class TrainSettings(DataSettings):
    """Settings that pre-training and fine-tuning share."""

    published_warmup_epochs: ClassVar[float] = 5.0

    split: str = "train"
    """Videos of the data to learn from."""
    output: Path = Path("run")
    """Folder of the run: model, checkpoints, log, curves and pictures."""
    resume: bool = False
    """Go on from the last checkpoint in the output folder; begin where there is none."""

    preset: Preset = "base"
    """Size of a model that starts from scratch."""
    init: str | None = None
    """Start from these weights: a hub id, folder, weight file or shipped name; image MAE too."""
    image_size: Pixels | None = None
    """Height and width of a clip in pixels; by default the preset's."""
    num_frames: Pixels | None = None
    """Frames of a clip; by default the preset's."""
    frame_stride: Count | Literal["uniform"] | None = None
    """Video frames between two sampled ones; uniform: one of each part; None: the preset's."""
    fps: Rate | Literal["own"] | None = None
    """Take each video as if it had so many frames a second; own: as it is; None: as init has it."""
    num_repeats: Count = 1
    """Crops drawn from each clip that is decoded (repeated augmentation)."""
    crop_scales: tuple[Scale, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides that multi-scale crops may have, as shares of the largest possible."""
    flip: bool = False
    """Mirror half of the clips. Not where left and right are told apart, as in SSv2."""

    epochs: Annotated[int, Limits(0)] = 0
    """Times that every video is seen; 0: so many that a small data set gets enough steps."""
    batch_size: Annotated[int, Limits(0)] = 0
    """Videos per step, over all processes; each gives num_repeats clips. 0: by the data's size."""
    accumulate: Count = 1
    """Parts that a step is computed in, one after the other, to save memory."""
    lr: NotNegative = 0.0
    """Base learning rate; the peak is lr * batch_size / 256, as in the published recipes. 0: by the
    model's width and the batch (docs/training.md has the rule)."""
    min_lr: NotNegative = 1e-6
    """Learning rate at the end of the cosine, scaled like lr."""
    warmup_epochs: NotNegative | None = None
    """Epochs of linear warm-up from 0; by default the published 5 (pre-training: 40), at most a
    tenth of all."""
    weight_decay: NotNegative = 0.05
    """Weight decay of AdamW; biases, norms and the mask token have none."""
    beta2: PartialShare = 0.999
    """Second beta of AdamW; the first is 0.9."""
    clip_grad: Positive | None = None
    """Largest norm of the gradient; None clips nothing."""
    max_nonfinite_steps: Count = 5
    """A step whose loss is no number is skipped; so many in a row stop the run."""
    seed: Seed = 0
    """Another seed gives other weights, order, crops and masks."""

    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: a whole model in each, or one split over all (for large to giant)."""
    activation_checkpointing: bool = False
    """Compute activations again for the gradients: less memory for a third more time."""
    compile: bool = False
    """Compile the model with torch.compile."""
    cache_gb: NotNegative = 4.0
    """Memory for videos that are kept decoded, or room for them in cache_dir."""
    cache_dir: Path | None = None
    """Keep decoded videos in this folder, for all epochs, processes and runs, not in memory."""
    max_bad_fraction: Share = 0.01
    """Unreadable videos are skipped and listed; a larger share of them stops the run."""

    log_every_steps: Count = 20
    """Steps from one line of log.jsonl to the next."""
    save_every_steps: Count = 500
    """Steps from one checkpoint to the next."""
    keep_checkpoints: Count = 2
    """Number of last checkpoints that stay."""
    tracker: Tracker = "auto"
    """Place for the figures besides log.jsonl; auto is tensorboard where it is installed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs and self.num_warmup_epochs > self.epochs:
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
        names = ("image_size", "num_frames", "frame_stride", "fps")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class PretrainSettings(TrainSettings):
    """Masked pre-training; the defaults are near those of the published recipes."""

    published_warmup_epochs: ClassVar[float] = 40.0

    min_lr: NotNegative = 1e-5
    beta2: PartialShare = 0.95
    mask: Mask | Literal["auto"] = "auto"
    """Way of hiding tubelets: tube, random, frame or running_cell. auto: tube, or random where a
    slice has fewer than 100 cells."""
    mask_ratio: PartialShare = 0.0
    """Share of the clip that is hidden; 0: 0.9, or 0.75 where a slice has fewer than 100 cells."""
    decoder_mask_ratio: PartialShare | None = None
    """Share that is not decoded either, in running cells (VideoMAE V2: 0.5); None decodes all."""
    decoder_depth: Annotated[int, Limits(1, 1000)] | None = None
    """Layers of the decoder; by default the preset's."""
    decoder_width: Annotated[int, Limits(1, 2**14)] | None = None
    """Features of a decoder token, 64 a head or more; by default the preset's."""
    norm_pix_loss: bool = True
    """Predict tubelets less their mean, over their deviation; --no-norm-pix-loss: plain pixels."""
    draw_every_epochs: Count = 10
    """Epochs from one picture of reconstructions to the next."""
    keep_every_epochs: Annotated[int, Limits(0)] = 0
    """Epochs from one model that is kept (epoch_0010/) to the next; 0 keeps the last alone."""


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """Supervised fine-tuning. The defaults augment gently; the published recipes say more."""

    eval_data: Path | None = None
    """Data to evaluate on; by default split val, else test, of the data."""
    eval_every_epochs: Annotated[int, Limits(0)] = 0
    """Epochs from one evaluation to the next; 0 evaluates at the end only."""
    problem: Problem = "single_label"
    """One class each; several (labels such as a|b; mAP); or a number to predict."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: classes with few videos count for more, so that all count alike."""
    train_only: Literal["all", "head"] = "all"
    """head keeps the backbone as it is, computes its features once and fits the classifier to
    them, in seconds; lr, epochs and augmentation have no part in it."""
    keep_final_norm: bool = False
    """Start the classifier's norm from the encoder's last one, which published code throws away."""
    layer_decay: Share = 0.0
    """Learning rate of each layer as a share of that of the layer above it. 0: 0.75, and 1 for
    models up to preset tiny."""
    drop_path_rate: PartialShare = 0.1
    """Stochastic depth: rises to this in the last layer."""
    classifier_dropout: PartialShare = 0.0
    """Dropout between the pooled features and the head."""
    head_init: Literal["auto", "fitted", "drawn"] = "auto"
    """What a fresh head begins with: what --train-only head would give it, or small random weights,
    as published. auto: fitted to an --init up to preset tiny, unless head_scale is named."""
    head_scale: Scale = 1.0
    """Share of its usual weights that a drawn head begins with; published: 0.001, which asks for
    thousands of steps."""
    label_smoothing: Share = 0.1
    """Share of the target that is spread over all classes."""
    ema_decay: PartialShare = 0.0
    """Keep a running mean of the weights with this decay, say 0.9999, and evaluate and save it."""
    merge_tokens: Annotated[int, Limits(0)] = 0
    """Tokens that each layer merges into others like them: faster, at some cost in accuracy."""
    crop: Literal["multi_scale", "random_resized"] = "multi_scale"
    """Crops of a few scales and one shape, or of any area and shape, as published."""
    crop_area: tuple[Scale, Scale] = (0.08, 1.0)
    """Share of the frame's area, for random_resized."""
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Width by height, for random_resized."""
    rand_augment_ops: Annotated[int, Limits(0)] = 0
    """RandAugment: operations per clip; published: 4."""
    rand_augment_magnitude: Annotated[float, Limits(0, 10)] = 7.0
    """RandAugment: strength, 0 to 10."""
    erase_prob: Share = 0.0
    """Chance that a box of the clip is filled with noise; published: 0.25."""
    mixup_alpha: NotNegative = 0.0
    """Mix pairs of clips, shares drawn from Beta(a, a); published: 0.8."""
    cutmix_alpha: NotNegative = 0.0
    """Paste a box of one clip into another, its area drawn from Beta(a, a); published: 1."""
    mix_prob: Share = 1.0
    """Chance that a batch is mixed at all."""
    mix_switch_prob: Share = 0.5
    """Chance of cutmix where both could be."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_area", "crop_ratio"):
            least, largest = getattr(self, name)
            if least > largest:
                raise ConfigError(f"{name}={(least, largest)} must be a least and a largest value")
        if self.mixes and self.problem == "regression":
            raise ConfigError("mixup and cutmix mix classes; leave them out for regression")
        if self.class_weights == "balanced" and self.problem == "regression":
            raise ConfigError("class_weights='balanced' has no meaning for regression")
        if self.merge_tokens and (self.parallel == "fsdp" or self.activation_checkpointing):
            raise ConfigError(
                f"merge_tokens={self.merge_tokens} does not go with parallel='fsdp' or "
                "activation_checkpointing; leave one of them out"
            )

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed with each other."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


@dataclass(frozen=True)
class EvaluateSettings(DataSettings):
    """The multi-view protocol: clips x crops per video, softmax averaged."""

    split: str | None = None
    """Videos of the data to test on; by default test, else val, else all."""
    model: str = "actions-tiny"
    """Hub id, folder, weight file or shipped name."""
    num_clips: Count = 1
    """Clips along time; the paper tests Kinetics with 5, Something-Something with 2."""
    num_crops: Count = 1
    """Crops across each clip; the paper tests with 3."""
    frame_stride: Count | Literal["uniform"] | None = None
    """Video frames between two sampled ones; uniform: one of each part; None: the model's."""
    fps: Rate | Literal["own"] | None = None
    """Take each video as if it had so many frames a second; own: as it is; None: the model's."""
    batch_size: Count = 32
    """Views per forward."""
    early_exit: Annotated[int, Limits(0)] = 0
    """Stop with a video whose first so many views all name one class; 0 looks at all views."""
    merge_tokens: Annotated[int, Limits(0)] = 0
    """Tokens that each layer merges into others like them: faster, at some cost in accuracy."""
    output: Path | None = None
    """Write figures, predictions (Parquet) and a confusion matrix into this folder."""


@dataclass(frozen=True)
class LinearProbeSettings(DataSettings):
    """A test of a pre-trained encoder: nearest neighbours, and a linear map on its features."""

    split: str = "train"
    """Videos of the data to learn the classes from."""
    eval_data: Path | None = None
    """Data to test on, where it is another folder."""
    eval_split: str | None = None
    """Videos to test on; by default test, else val, else all of eval_data."""
    model: str = "actions-tiny-pretrain"
    """Hub id, folder, weight file or shipped name."""
    num_clips: Count = 1
    """Clips along time of each video learned from; tested is one centred clip."""
    num_neighbours: Count = 20
    """Nearest neighbours that vote on a video's class."""
    frame_stride: Count | Literal["uniform"] | None = None
    """Video frames between two sampled ones; uniform: one of each part; None: the model's."""
    fps: Rate | Literal["own"] | None = None
    """Take each video as if it had so many frames a second; own: as it is; None: the model's."""
    batch_size: Count = 32
    """Clips per forward."""
    output: Path = Path("probe")
    """Folder of figures and features; features that lie there are not computed again."""


@dataclass(frozen=True)
class PrepareSettings(Checked):
    """One checked manifest of a published list or a folder of videos; small videos and shards."""

    source: Path
    """A list, a folder of lists, a folder of videos or frames, or of tar shards."""
    output: Path
    """The folder to write: manifest.csv, labels.txt, report.md, report.json."""
    layout: Layout = "auto"
    """Way to read the source; auto goes by its names and lines, and asks where they allow two."""
    folders: str | None = None
    """Kinds of folders above a video, from the top: split/class, class/* ('*': neither; the last
    word holds for all below); by default found out, and asked where there are two ways."""
    root: Path | None = None
    """Where relative paths start and the videos lie; by default the folder of the source."""
    split: str | None = None
    """Split of a list whose name has none of train, val and test."""
    fold: Annotated[int, Limits(1, 3)] = 1
    """Number of the split of UCF101 and HMDB51, which have three."""
    labels: Path | None = None
    """Names of class numbers: a line each, classInd.txt, or SSv2's labels.json."""
    delimiter: str | None = None
    """Between the parts of a line; by default tabs, ::, commas or spaces, as all lines have."""
    check: Check = "quick"
    """quick: count the frames and read the first, middle and last; decode: read them all."""
    on_damage: OnDamage = "refuse"
    """use_readable: keep damaged videos, as far as their frames can be decoded, and list them."""
    min_frames: Count = 1
    """Leave out shorter videos."""
    val_share: PartialShare = 0.0
    """Make this share of the training videos val, where there is no val or test."""
    group: str | None = None
    """Keep videos of one group in one split. folder: their folder; column:NAME of the list;
    pattern:REGEX, by what it finds in the path."""
    resize_short: Annotated[int, Limits(16, 8192)] | None = None
    """Re-encode the videos with this short side in pixels, quick to read from any frame."""
    keyframe_distance: Count = 16
    """Frames from one key frame of a resized video to the next."""
    crf: Annotated[int, Limits(0, 51)] = 23
    """Quality of resized videos, from 0 (lossless) to 51."""
    shards: bool = False
    """Pack the videos into WebDataset tar files."""
    videos_per_shard: Count = 500
    """Videos in each of those."""
    seed: Seed = 0
    """Another seed gives another order in shards."""
    workers: Count | None = None
    """Videos read or written at once; by default one per core."""

    def __post_init__(self) -> None:
        super().__post_init__()
        words = (self.folders or "class").split("/")
        if not {"split", "class", "*"}.issuperset(words) or words.count("split") > 1:
            raise ConfigError(
                f"folders={self.folders!r} is unknown; expected the words split (once), class and "
                "* with / between them, such as split/class or class/*"
            )
        kind, _, text = (self.group or "folder").partition(":")
        if kind not in ("folder", "column", "pattern") or (kind == "folder") == bool(text):
            raise ConfigError(
                f"group={self.group!r} is unknown; expected folder, column:NAME or pattern:REGEX"
            )
        try:
            re.compile(text)
        except re.error as error:
            raise ConfigError(f"group={self.group!r}: no regular expression: {error}") from error


@dataclass(frozen=True)
class RenderSettings(Checked):
    """Settings of all rendered data sets."""

    output: Path
    """The folder to write: a folder per class."""
    clips: Count = 600
    """Videos in all; the classes take turns."""
    seed: Seed = 7
    """Other seeds give other videos."""
    size: Pixels = 64
    """Height and width in pixels."""
    num_frames: Count = 32
    """Frames per video."""
    fps: Count = 16
    """Frames per second."""
    workers: Count | None = None
    """Videos rendered at once; by default one per core."""
    still: bool = False
    """Repeat each clip's middle frame, which shows no class: a check on the models."""


@dataclass(frozen=True)
class ActionsSettings(RenderSettings):
    """The built-in data set of people doing things."""

    output: Path
    """The folder to write: train/ and test/, with a folder per class in each."""
    clips: Count = 600
    """Videos to train on; the 20 classes take turns."""
    test_clips: Annotated[int, Limits(0)] = 200
    """Videos to test on: other people, before other grounds."""
