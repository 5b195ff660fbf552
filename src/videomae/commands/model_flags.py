"""The options of the commands that run a model on videos; see `flags`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro import conf
from tyro.constructors import PrimitiveConstructorSpec

from videomae.errors import complain
from videomae.fields import Count, Limits, NotNegative, PartialShare, Positive, Rate, Seed
from videomae.settings import Dtype, EngineName, Features, Mask, OnDamage, Rendering

Cosine = Annotated[float, Limits(-1, 1)]


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
        from videomae.video.folder import find_videos

        return [video for path in self.files for video in find_videos(path, tell=complain)]


@dataclass(frozen=True)
class ModelCommand(VideoCommand):
    """The options of all commands that run a model."""

    model: str = "actions-tiny"
    """Hub id, folder, weight file, or a model that comes with the package."""
    frame_stride: Count | Literal["config", "uniform"] = "config"
    """Video frames between two sampled ones; uniform: spread out; config: as it was trained."""
    fps: Rate | Literal["config", "own"] = "config"
    """Take each video as if it had so many frames a second; own: as it is; config: as trained."""
    dtype: Dtype = "auto"
    """Precision; auto is the fastest that keeps the accuracy here."""
    engine: EngineName = "auto"
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
    allow_addresses: bool = False
    """Open the addresses that a list names; any list can name any address."""
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
    top_k: Count = 5
    """Labels per video."""
    output: Path = Path("-")  # `Path | None` makes tyro import a type checker: 0.1 s
    """predictions.csv: a row per video; a folder: a batch job, in Parquet; -: what is printed."""


@dataclass(frozen=True)
class Embed(BatchCommand):
    features: Features = "pooled"
    """One vector per video, per time slice, or per tubelet."""
    output: Path = Path("-")
    """features.npz for one file with `paths` and `features`; features.csv: a row per video; a
    folder: a batch job, in Parquet; -: what is printed."""


@dataclass(frozen=True)
class Index(BatchCommand):
    window_seconds: Positive | Literal["video"] = 10.0
    """A row per window of so many seconds; video: one clip of each video is all that is seen."""
    output: Path = Path("index")
    """The folder to write, as `embed` does: Parquet files of features."""


@dataclass(frozen=True)
class Search:
    index: Annotated[conf.Positional[Path], conf.arg(metavar="INDEX")]
    """A folder that `index` has written."""
    query: Annotated[conf.Positional[Path], conf.arg(metavar="VIDEO")]
    """The video to compare with."""
    start_seconds: NotNegative = 0.0
    """Where the stretch of the video begins that is looked for."""
    end_seconds: Positive | Literal["end"] = "end"
    """Where it ends; the whole video is compared window by window, a stretch as one clip."""
    top_k: Count = 10
    """Videos to find."""
    mirrored: bool = False
    """Look for the mirror image, too."""
    model: str = ""
    """Where the model of the index lies now, if it has moved."""
    engine: EngineName = "auto"
    """The engine that runs the model."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""
    output: Path = Path("-")
    """found.html: a page of moving pictures; -: what is printed is all."""
    allow_addresses: bool = False
    """Open the addresses that an index names, for pictures; any index can name any address."""
    json: bool = False
    """Print one line of JSON per video found and nothing else."""


@dataclass(frozen=True)
class Duplicates:
    source: Annotated[conf.Positional[str], conf.arg(metavar="VIDEOS")]
    """A folder, list, tar or address of videos; or an index of them, as `index` has written."""
    threshold: Cosine | Literal["auto"] = "auto"
    """Least similarity of a pair, up to 1; auto is measured on copies of some of the videos."""
    model: str = "actions-tiny"
    """Hub id, folder, weight file or shipped model; an index knows its own, unless it has moved."""
    allow_addresses: bool = False
    """Open the addresses that a list or index names; any of them can name any address."""
    window_seconds: Positive | Literal["video"] = 10.0
    """Windows that are compared, a video may have many; video: one clip of each."""
    engine: EngineName = "auto"
    """The engine that runs the model."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""
    output: Path = Path("duplicates")
    """Folder of pairs.csv, index.html and, unless there is one already, the index."""
    json: bool = False
    """Print one line of JSON per pair and nothing else."""


@dataclass(frozen=True)
class Timeline(ViewsCommand):
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
    model: str = "actions-tiny-pretrain"
    """A pre-trained model with its decoder: hub id, folder, weight file, or a shipped one."""
    mask: Mask = "tube"
    """Kind of mask."""
    mask_ratio: PartialShare = 0.9
    """Share that is hidden."""
    seed: Seed = 0
    """Seed of the mask."""
    rendering: Rendering = "plain"
    """plain: what the model knows; paper: borrows each hidden patch's brightness and contrast."""
    output: Path = Path("reconstructions")
    """A file .png, .gif or .mp4 for one video, else a folder."""
    format: Literal["png", "gif", "mp4"] = "png"
    """Kind of file to write into a folder."""


@dataclass(frozen=True)
class Explain(ModelCommand):
    dtype: Dtype = "float32"
    """Precision; what one part of a clip changes is often less than bfloat16 can show."""
    label: str = ""
    """Explain this label; by default the likeliest of each video."""
    method: Literal["occlusion", "attention"] = "occlusion"
    """occlusion: hide parts and see what the label loses; attention: one pass, by gradients."""
    parts: Count = 4
    """Hide one of so many parts along time, height and width at once; more is finer, and slower."""
    batch_size: Count = 8
    """Clips with a hidden part that go through the model at once."""
    output: Path = Path("explanations")
    """A file .gif, .mp4 or .png for one video, else a folder."""
    format: Literal["gif", "mp4", "png"] = "gif"
    """Kind of file to write into a folder."""
