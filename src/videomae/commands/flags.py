"""The options of each command: a frozen dataclass, whose fields are its flags with their help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro import conf
from tyro.constructors import PrimitiveConstructorSpec

from videomae.errors import complain
from videomae.fields import Count, NotNegative, PartialShare, Positive, Rate, Seed
from videomae.serving.settings import ServeSettings
from videomae.settings import (
    ActionsSettings,
    Dtype,
    EvaluateSettings,
    FinetuneSettings,
    LinearProbeSettings,
    Mask,
    MotionSettings,
    OnDamage,
    PrepareSettings,
    PretrainSettings,
)


class Files(tuple[Path, ...]):
    """Paths of a command line; into a plain tuple, tyro imports a type checker to look: 0.15 s."""


@dataclass(frozen=True)
class VideoCommand:
    """The options of all commands on videos."""

    files: Annotated[
        conf.Positional[Files],
        PrimitiveConstructorSpec[Files](
            nargs="*",
            metavar="FILE",
            instance_from_str=lambda words: Files(map(Path, words)),
            is_instance=lambda value: isinstance(value, Files),
            str_from_instance=lambda files: [str(path) for path in files],
        ),
        conf.arg(metavar="FILE [FILE ...]", help_behavior_hint=""),
    ]
    """Videos, GIFs, folders of frames; any other folder stands for all videos in it."""
    json: bool = False
    """Print one line of JSON per video and nothing else."""
    on_damage: OnDamage = "refuse"
    """use_readable: take the frames that can be decoded of damaged videos."""

    def videos(self) -> list[Path]:
        """All videos that the paths stand for."""
        from videomae.video.folder import counted, find_videos, scan_folder

        for path in filter(Path.is_dir, self.files):
            scan = scan_folder(path)
            if scan.videos and set(scan.passed_over.values()) - {"hidden"}:
                complain(f"{path}: passed over {counted(scan.passed_over)}")
        return [video for path in self.files for video in find_videos(path)]


@dataclass(frozen=True)
class ModelCommand(VideoCommand):
    """The options of all commands that run a model."""

    model: str = "motion-tiny"
    """Hub id, folder, weight file, or a model that comes with the package."""
    frame_stride: Count | Literal["config", "uniform"] = "config"
    """Video frames between two sampled ones; uniform: spread out; config: as it was trained."""
    fps: Rate | Literal["config", "own"] = "config"
    """Take each video as if it had so many frames a second; own: as it is; config: as trained."""
    dtype: Dtype = "auto"
    """Precision; auto is the fastest that keeps the accuracy here."""
    engine: Literal["auto", "torch", "compile", "openvino", "onnxruntime"] = "auto"
    """The engine that runs the model; docs/engines.md says which suits what."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""


@dataclass(frozen=True)
class ViewsCommand(ModelCommand):
    num_clips: Count = 1
    """Clips along time, averaged; the paper tests Kinetics with 5."""
    num_crops: Count = 1
    """Crops across each clip, averaged; the paper tests with 3."""
    batch_size: Count = 8
    """Views that go through the model at once."""


Address = Annotated[
    str,
    PrimitiveConstructorSpec[str](
        nargs=(0, 1),
        metavar="[ADDRESS]",
        instance_from_str=lambda words: words[0] if words else "auto",
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value] if value else [],
    ),
]


@dataclass(frozen=True)
class BatchCommand(ViewsCommand):
    """The options of commands whose answers may be a batch job, with `output` a folder."""

    input: str = ""
    """For a batch job: a folder, list, tar or address of videos, such as s3://bucket/videos."""
    window_seconds: Positive | Literal["video"] = "video"
    """A row of the batch job per window of so many seconds; video: per video."""
    hop_seconds: Positive | Literal["half"] = "half"
    """From the start of one window to the next; half: half a window."""
    resume: bool = False
    """Go on with a batch job, leaving out what is in its folder."""
    shard: str = "1/1"
    """Share of a batch job: 2/8 is the second of 8, which may all write into one folder."""
    part_size: Count = 500
    """Videos per file of a batch job."""
    ray: Address = ""
    """Run the batch job on a Ray cluster; without an address, on the one this machine knows."""

    def videos(self) -> list[Path]:
        """All videos that the paths stand for; those of `input` are listed by the job."""
        return super().videos() if self.files else []


@dataclass(frozen=True)
class Classify(BatchCommand):
    """Name what happens in videos."""

    top_k: Count = 5
    """Labels per video."""
    output: Path = Path("-")  # `Path | None` makes tyro import a type checker: 0.1 s
    """predictions.csv: a row per video; a folder: a batch job, in Parquet; -: what is printed."""


@dataclass(frozen=True)
class Embed(BatchCommand):
    """Describe videos by vectors."""

    features: Literal["pooled", "per_time", "tokens"] = "pooled"
    """One vector per video, per time slice, or per tubelet."""
    output: Path = Path("-")
    """features.npz for one file with `paths` and `features`; features.csv: a row per video; a
    folder: a batch job, in Parquet; -: what is printed."""


@dataclass(frozen=True)
class Index(BatchCommand):
    """Describe videos, or each stretch of long ones, so that `search` finds them."""

    window_seconds: float | Literal["video"] = 10.0
    """A row per window of so many seconds; video: one clip of each video is all that is seen."""
    output: Path = Path("index")
    """The folder to write, as `embed` does: Parquet files of features."""


@dataclass(frozen=True)
class Search:
    """Find the videos of an index that are most like a video or a stretch of one."""

    index: Annotated[conf.Positional[Path], conf.arg(metavar="INDEX")]
    """A folder that `index` has written."""
    query: Annotated[conf.Positional[Path], conf.arg(metavar="VIDEO")]
    """The video to compare with."""
    start_seconds: float = 0.0
    """Where the stretch of the video begins that is looked for."""
    end_seconds: float | Literal["end"] = "end"
    """Where it ends; the whole video is compared window by window, a stretch as one clip."""
    top_k: int = 10
    """Videos to find."""
    mirrored: bool = False
    """Look for the mirror image, too."""
    model: str = ""
    """Where the model of the index lies now, if it has moved."""
    engine: Literal["auto", "torch", "compile", "openvino", "onnxruntime"] = "auto"
    """The engine that runs the model."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""
    output: Path = Path("-")
    """found.html: a page of moving pictures; -: what is printed is all."""
    json: bool = False
    """Print one line of JSON per video found and nothing else."""


@dataclass(frozen=True)
class Duplicates:
    """Find copies among videos, and test videos that training has seen."""

    source: Annotated[conf.Positional[str], conf.arg(metavar="VIDEOS")]
    """A folder, list, tar or address of videos; or an index of them, as `index` has written."""
    threshold: float | Literal["auto"] = "auto"
    """Least similarity of a pair, up to 1; auto is measured on copies of some of the videos."""
    model: str = "motion-tiny"
    """Hub id, folder, weight file or shipped model for the features; an index knows its own."""
    window_seconds: float | Literal["video"] = 10.0
    """Windows that are compared, a video may have many; video: one clip of each."""
    engine: Literal["auto", "torch", "compile", "openvino", "onnxruntime"] = "auto"
    """The engine that runs the model."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""
    output: Path = Path("duplicates")
    """Folder of pairs.csv, index.html and, unless there is one already, the index."""
    json: bool = False
    """Print one line of JSON per pair and nothing else."""


@dataclass(frozen=True)
class Timeline(ViewsCommand):
    """Say what happens when in long videos: segments, subtitles, a picture."""

    window_seconds: Positive | Literal["clip"] = "clip"
    """Length of the windows that slide over a video; clip: the span of one clip."""
    hop_seconds: Positive | Literal["half"] = "half"
    """From one window to the next; half: half a window."""
    novelty: bool = False
    """No labels, but how unlike its neighbours each moment is; --model may be a pre-trained one."""
    enter: NotNegative | Literal["auto"] = "auto"
    """A segment begins where a score reaches this; auto: 0.5, of novelty 2.5."""
    leave: NotNegative | Literal["auto"] = "auto"
    """It ends where the score falls below this; auto: 0.4, of novelty 1.5."""
    min_seconds: NotNegative = 1.0
    """Leave out shorter segments."""
    max_gap_seconds: NotNegative = 1.0
    """Join two segments of a label that are no further apart."""
    top_k: Count = 5
    """Labels per window in tables and JSON."""
    output: Path | None = None
    """A file .json, .csv (segments), .scores.csv (windows), .vtt, .png or .svg of one video; or a
    folder for all of them."""
    camera: str = ""
    """No files, but a camera by its number, or a stream: 0, rtsp://..., http://..., udp://..."""
    annotate: Path | None = None
    """out.mp4 or .mkv: the video with its labels drawn in and its sound; or a folder."""


@dataclass(frozen=True)
class Reconstruct(ModelCommand):
    """Hide most of a video and let a pre-trained model reconstruct it."""

    model: str = "motion-tiny-pretrain"
    """A pre-trained model with its decoder: hub id, folder, weight file, or a shipped one."""
    mask: Mask = "tube"
    """Kind of mask."""
    mask_ratio: PartialShare = 0.9
    """Share that is hidden."""
    seed: Seed = 0
    """Seed of the mask."""
    rendering: Literal["plain", "paper"] = "plain"
    """plain: what the model knows; paper: borrows each hidden patch's brightness and contrast."""
    output: Path = Path("reconstructions")
    """A file .png, .gif or .mp4 for one video, else a folder."""
    format: Literal["png", "gif", "mp4"] = "png"
    """Kind of file to write into a folder."""


@dataclass(frozen=True)
class Probe(VideoCommand):
    """Show frames, size, rate and codec of videos."""


@dataclass(frozen=True)
class Convert:
    """Convert weights of any known format to that of transformers or of the original code."""

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
    """Write a model as a file that runs without this package: ONNX, OpenVINO, a web page."""

    model: conf.Positional[str]
    """Hub id, folder, weight file, or a model that comes with the package."""
    format: Literal["onnx", "openvino", "torch-export", "executorch", "web"] = "onnx"
    """docs/export.md compares them; web: a page that looks at a camera or a file by itself."""
    output: Path = Path("exported")
    """The folder to write: the model's file and a README.md."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Precision; auto: int8 for web, else float32."""
    task: Literal["auto", "classify", "embed"] = "auto"
    """classify: logits; embed: features, also of a classifier; auto: by what the model is."""
    features: Literal["pooled", "per_time", "tokens"] = "pooled"
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
    """Make one checked manifest of a published list or a folder of videos."""

    source: Annotated[conf.Positional[Path], conf.arg(metavar="SOURCE")]


@dataclass(frozen=True)
class Actions(ActionsSettings):
    """Render the built-in data set: short videos of people, labelled by what they do."""

    output: Annotated[conf.Positional[Path], conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class Motion(MotionSettings):
    """Render a data set without people: short videos, labelled by how the view moves."""

    output: Annotated[conf.Positional[Path], conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class Demo:
    """Show everything in a few minutes: classify, reconstruct and train, all on one page."""

    output: Path = Path("demo")
    """The folder to write; open index.html in it."""
    video: Path | None = None
    """Classify and reconstruct this video, too."""
    clips: Count = 48
    """Videos to classify."""
    train_clips: Count = 240
    """Labelled videos to learn from."""
    finetune_epochs: Count = 24
    """Times that fine-tuning sees each of those."""
    seed: Seed = 11
    """Other seeds give other scenes."""
    workers: Count | None = None
    """Videos rendered at once; by default one per core."""


@dataclass(frozen=True)
class Serve(ServeSettings):
    """Answer in a browser and over HTTP, about uploaded videos."""

    model: conf.Positional[str] = ServeSettings.model


@dataclass(frozen=True)
class Space:
    """Write a folder to push as a Hugging Face Space: the page of `serve`."""

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
    """Say what is installed here, what will be used and why, and try whether it works."""

    json: bool = False
    """Print one line of JSON and nothing else: for a bug report."""


@dataclass(frozen=True)
class Bench:
    """Measure how fast this machine is: models, training, decoding, whole files."""

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
    """Pre-train a model on videos, by hiding most of them."""

    settings: conf.OmitArgPrefixes[PretrainSettings] = field(default_factory=PretrainSettings)


@dataclass(frozen=True)
class Finetune(TrainCommand):
    """Train a classifier on a folder of videos per class."""

    settings: conf.OmitArgPrefixes[FinetuneSettings] = field(default_factory=FinetuneSettings)


@dataclass(frozen=True)
class Evaluate(RecipeCommand):
    """Measure a classifier's accuracy on a folder of videos per class."""

    settings: conf.OmitArgPrefixes[EvaluateSettings] = field(default_factory=EvaluateSettings)


@dataclass(frozen=True)
class LinearProbe(RecipeCommand):
    """Measure a pre-trained encoder by nearest neighbours and a linear probe."""

    settings: conf.OmitArgPrefixes[LinearProbeSettings] = field(default_factory=LinearProbeSettings)


@dataclass(frozen=True)
class Recipes:
    """List the training recipes that come with the package, or print one of them."""

    name: Annotated[conf.Positional[str | None], conf.arg(metavar="[NAME]")] = None
    """Print this one, to be changed: `videomae recipes motion-tiny-pretrain > mine.toml`."""


# The commands as `videomae --help` groups them.
GROUPS: dict[str, dict[str, type]] = {
    "use a model": {
        "classify": Classify,
        "embed": Embed,
        "timeline": Timeline,
        "index": Index,
        "search": Search,
        "reconstruct": Reconstruct,
        "serve": Serve,
    },
    "videos and data": {
        "probe": Probe,
        "prepare": Prepare,
        "duplicates": Duplicates,
        "actions": Actions,
        "motion": Motion,
    },
    "train and measure": {
        "finetune": Finetune,
        "pretrain": Pretrain,
        "evaluate": Evaluate,
        "linear-probe": LinearProbe,
        "recipes": Recipes,
    },
    "more": {
        "demo": Demo,
        "convert": Convert,
        "export": Export,
        "space": Space,
        "bench": Bench,
        "doctor": Doctor,
    },
}
COMMANDS = {name: kind for group in GROUPS.values() for name, kind in group.items()}
