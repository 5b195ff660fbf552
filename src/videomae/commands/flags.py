"""The options of each command: a frozen dataclass, whose fields are its flags with their help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro import conf

from videomae.commands.model_flags import (
    Classify,
    Duplicates,
    Embed,
    Explain,
    Index,
    Reconstruct,
    Search,
    Timeline,
    VideoCommand,
)
from videomae.commands.overview import lines_by_group
from videomae.fields import Count, Seed
from videomae.serving.settings import ServeSettings
from videomae.settings import (
    ActionsSettings,
    Dtype,
    EvaluateSettings,
    Features,
    FinetuneSettings,
    LinearProbeSettings,
    PrepareSettings,
    PretrainSettings,
)


@dataclass(frozen=True)
class Probe(VideoCommand):
    pass


@dataclass(frozen=True)
class Convert:
    source: Annotated[conf.Positional[str], conf.arg(metavar="SRC")]
    """Hub id, folder, or weight file."""
    destination: Annotated[conf.Positional[Path], conf.arg(metavar="DST")]
    """The folder (hf) or .pth file (v1) to write."""
    to: Literal["hf", "v1"] = "hf"
    """hf: a folder for transformers and this package; v1: a .pth for the original code."""
    config: Path | None = None
    """A config.json, where the source has none and its shapes are not enough."""
    num_attention_heads: Count | None = None
    """Heads of the encoder, for widths that were never published."""
    decoder_num_attention_heads: Count | None = None
    """Heads of the decoder, for widths that were never published."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


@dataclass(frozen=True)
class Export:
    model: Annotated[conf.Positional[str], conf.arg(metavar="MODEL")]
    """Hub id, folder, weight file, or a model that comes with the package."""
    format: Literal["onnx", "openvino", "torch-export", "executorch", "web"] = "onnx"
    """docs/export.md compares them; web: a page that looks at a camera or a file by itself."""
    output: Path = Path("exported")
    """The folder to write: the model's file and a README.md."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Precision; auto: int8 for web, else float32."""
    task: Literal["auto", "classify", "embed"] = "auto"
    """classify: logits; embed: features, also of a classifier; auto: by what the model is."""
    features: Features = "pooled"
    """The features of embed: one vector per clip, per time slice, or per tubelet."""
    opset: Count = 20
    """Of ONNX, 18 to 23."""
    calibration: Path | None = None
    """A folder of videos of the model's own kind, to set the ranges of int8 and to check by."""
    calibration_clips: Count = 100
    """Clips that set the ranges of int8, at most."""
    check_clips: Count = 24
    """Clips whose answers are compared with those of torch before the file is kept."""


@dataclass(frozen=True)
class Prepare(PrepareSettings):
    source: Annotated[conf.Positional[Path], conf.arg(metavar="SOURCE")]


@dataclass(frozen=True)
class Actions(ActionsSettings):
    output: Annotated[conf.Positional[Path], conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class Demo:
    output: Path = Path("demo")
    """The folder to write; open index.html in it."""
    video: Path | None = None
    """Classify and reconstruct this video, too."""
    clips: Count = 60
    """Videos to classify."""
    train_clips: Count = 200
    """Labelled videos to learn from."""
    finetune_epochs: Count = 12
    """Times that fine-tuning sees each of those."""
    seed: Seed = 11
    """Other seeds give other videos."""
    workers: Count | None = None
    """Videos rendered at once; by default one per core."""


@dataclass(frozen=True)
class Serve(ServeSettings):
    model: conf.Positional[str] = ServeSettings.model


@dataclass(frozen=True)
class Space:
    model: Annotated[conf.Positional[str], conf.arg(metavar="MODEL")]
    """Hub id, folder or shipped name; a folder is copied, a hub id is loaded there."""
    output: Annotated[conf.Positional[Path], conf.arg(metavar="DIR")]
    """The folder to write."""
    examples: Path | None = None
    """Folder of short videos to offer on the page."""
    title: str = "VideoMAE"
    """Name of the Space."""


@dataclass(frozen=True)
class Doctor:
    json: bool = False
    """Print one line of JSON and nothing else: for a bug report."""


@dataclass(frozen=True)
class Bench:
    what: conf.Positional[
        Literal["forward", "train", "decode", "process", "end-to-end", "scaling"]
    ] = "forward"
    """The part to measure; docs/speed.md explains each."""
    model: str = "base"
    """A preset with random weights (tiny, small, base, large, huge, giant), or a model's path."""
    batch_sizes: tuple[Count, ...] = (1, 2, 4, 8)
    """Clips that go through the model at once, for forward."""
    repeats: Count = 7
    """Rounds in which all that is measured takes turns, after one to warm up."""
    threads: Count | None = None
    """Threads that compute on a CPU; by default as many as torch takes."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""
    dtype: Dtype = "float32"
    """Precision; forward has all there are."""
    clock: Literal["wall", "cpu"] = "wall"
    """wall: time that a user waits; cpu: time of all threads, for a machine that is busy."""
    video: Path | None = None
    """Measure decode and end-to-end with this video, not with rendered ones."""
    files: Count = 32
    """Number of short files, for end-to-end."""
    output: Path | None = None
    """A folder for bench.json."""
    json: bool = False
    """Print one line of JSON and nothing else."""


@dataclass(frozen=True)
class RecipeCommand:
    recipe: str | None = None
    """A TOML file, or the name of a published recipe (`videomae recipes`); flags override it."""


@dataclass(frozen=True)
class TrainCommand(RecipeCommand):
    dry_run: bool = False
    """Compute a few real steps and say what the run takes (time, memory, disk); write nothing."""


@dataclass(frozen=True)
class Pretrain(TrainCommand):
    settings: conf.OmitArgPrefixes[PretrainSettings] = field(default_factory=PretrainSettings)


@dataclass(frozen=True)
class Finetune(TrainCommand):
    settings: conf.OmitArgPrefixes[FinetuneSettings] = field(default_factory=FinetuneSettings)


@dataclass(frozen=True)
class Evaluate(RecipeCommand):
    settings: conf.OmitArgPrefixes[EvaluateSettings] = field(default_factory=EvaluateSettings)


@dataclass(frozen=True)
class LinearProbe(RecipeCommand):
    settings: conf.OmitArgPrefixes[LinearProbeSettings] = field(default_factory=LinearProbeSettings)


@dataclass(frozen=True)
class Recipes:
    name: Annotated[conf.Positional[str | None], conf.arg(metavar="[NAME]")] = None
    """Print this one, to be changed: `videomae recipes actions-tiny-pretrain > mine.toml`."""


COMMANDS: dict[str, type] = {
    "classify": Classify,
    "embed": Embed,
    "timeline": Timeline,
    "index": Index,
    "search": Search,
    "reconstruct": Reconstruct,
    "explain": Explain,
    "serve": Serve,
    "probe": Probe,
    "prepare": Prepare,
    "duplicates": Duplicates,
    "actions": Actions,
    "finetune": Finetune,
    "pretrain": Pretrain,
    "evaluate": Evaluate,
    "linear-probe": LinearProbe,
    "recipes": Recipes,
    "demo": Demo,
    "convert": Convert,
    "export": Export,
    "space": Space,
    "bench": Bench,
    "doctor": Doctor,
}
# The commands as `videomae --help` groups them; its line on each is the first of their own help.
GROUPS: dict[str, dict[str, type]] = {}
for _title, _lines in lines_by_group().items():
    GROUPS[_title] = {name: COMMANDS[name] for name in _lines}
    for _name, _line in _lines.items():
        COMMANDS[_name].__doc__ = _line
