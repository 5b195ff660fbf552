"""The command line: read the flags of one command, import its code, call its function.

A command is a frozen dataclass, whose fields are its flags, and a function below that runs it.
Nothing heavy is imported before a command runs, so that `videomae --help` answers at once.
"""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from rich.markup import escape
from rich.table import Table
from tyro import conf

from videomae import __version__
from videomae.errors import ConfigError, VideoError, VideoMAEError
from videomae.terminal import Screen, complain, report, rows_for, score_bar, show_warning
from videomae.training.settings import (
    Dtype,
    EvaluateSettings,
    FinetuneSettings,
    Mask,
    PretrainSettings,
    load_recipe,
)

if TYPE_CHECKING:
    from videomae.inference import Classification, Embedding, Reconstruction
    from videomae.video import BadVideo, VideoInfo


@dataclass(frozen=True)
class _Videos:
    """What all commands on videos have."""

    files: Annotated[
        conf.Positional[tuple[Path, ...]],
        conf.arg(metavar="FILE [FILE ...]", help_behavior_hint=""),
    ]
    """Videos, GIFs, folders of frames; any other folder stands for all videos in it."""


@dataclass(frozen=True)
class _Inference(_Videos):
    """What all commands that run a model have."""

    model: str = "motion-tiny"
    """Hub id, folder, weight file, or a model that comes with the package."""
    frame_stride: int | Literal["config", "uniform"] = "config"
    """Video frames between two sampled ones; uniform: spread out; config: as it was trained."""
    dtype: Dtype = "auto"
    """Precision; auto is the fastest that keeps the accuracy here."""
    engine: Literal["auto", "torch"] = "auto"
    """What runs the model."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the best that is there."""
    json: bool = False
    """Print one line of JSON per video and nothing else."""


@dataclass(frozen=True)
class _Views(_Inference):
    num_clips: int = 1
    """Clips along time, averaged; the paper tests Kinetics with 5."""
    num_crops: int = 1
    """Crops across each clip, averaged; the paper tests with 3."""
    batch_size: int = 8
    """Views that go through the model at once."""


@dataclass(frozen=True)
class Classify(_Views):
    """Tell what happens in videos."""

    top_k: int = 5
    """Labels per video."""


@dataclass(frozen=True)
class Embed(_Views):
    """Describe videos by vectors."""

    features: Literal["pooled", "per_time", "tokens"] = "pooled"
    """One vector per video, per time slice, or per tubelet."""
    output: Path | None = None
    """features.npz for one file with `paths` and `features`, or a folder for one .npy per video."""


@dataclass(frozen=True)
class Reconstruct(_Inference):
    """Hide most of a video and let a pre-trained model paint it."""

    model: str = "motion-tiny-pretrain"
    """A pre-trained model with its decoder: hub id, folder, weight file, or a shipped one."""
    mask: Mask = "tube"
    """What is hidden."""
    mask_ratio: float = 0.9
    """Share that is hidden."""
    seed: int = 0
    """Of the mask."""
    rendering: Literal["plain", "paper"] = "plain"
    """plain: what the model knows; paper: borrows each hidden patch's brightness and contrast."""
    output: Path = Path("reconstructions")
    """A file .png, .gif or .mp4 for one video, else a folder."""
    format: Literal["png", "gif", "mp4"] = "png"
    """What to write into a folder."""


@dataclass(frozen=True)
class Probe(_Videos):
    """Tell frames, size, rate and codec of videos."""

    json: bool = False
    """Print one line of JSON per video and nothing else."""


@dataclass(frozen=True)
class Convert:
    """Bring weights from any known spelling to that of transformers or of the original code."""

    source: Annotated[conf.Positional[str], conf.arg(metavar="SRC")]
    """Hub id, folder, or weight file."""
    destination: Annotated[conf.Positional[Path], conf.arg(metavar="DST")]
    """The folder (hf) or .pth file (v1) to write."""
    to: Literal["hf", "v1"] = "hf"
    """hf: a folder for transformers and this package; v1: a .pth for the original code."""
    config: Path | None = None
    """A config.json, where the source has none and cannot be told by its shapes."""
    num_attention_heads: int | None = None
    """For widths that were never published: heads of the encoder."""
    decoder_num_attention_heads: int | None = None
    """For widths that were never published: heads of the decoder."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


@dataclass(frozen=True)
class Motion:
    """Render the built-in data set: short videos, labelled by how the view moves."""

    output: Annotated[conf.Positional[Path], conf.arg(metavar="DIR")]
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
    """Repeat each clip's middle frame, which tells no class: a check on the models."""


@dataclass(frozen=True)
class Demo:
    """See it all in a few minutes: videos classified, painted, learned from, on one page."""

    output: Path = Path("demo")
    """The folder to write; open index.html in it."""
    video: Path | None = None
    """Show what the models make of this video, too."""
    clips: int = 48
    """Videos to classify."""
    train_clips: int = 240
    """Videos to learn from."""
    pretrain_epochs: int = 10
    """Times that pre-training sees each of those."""
    finetune_epochs: int = 6
    """Times that fine-tuning sees each of those."""
    seed: int = 11
    """Other seeds give other scenes."""
    workers: int | None = None
    """Videos rendered at once; by default one per core."""


@dataclass(frozen=True)
class _Recipe:
    recipe: Path | None = None
    """A TOML file whose values take the place of the defaults below; flags override both."""


@dataclass(frozen=True)
class Pretrain(_Recipe):
    """Pre-train a model on videos, by hiding most of them."""

    settings: conf.OmitArgPrefixes[PretrainSettings] = field(default_factory=PretrainSettings)


@dataclass(frozen=True)
class Finetune(_Recipe):
    """Train a classifier on a folder of videos per class."""

    settings: conf.OmitArgPrefixes[FinetuneSettings] = field(default_factory=FinetuneSettings)


@dataclass(frozen=True)
class Evaluate(_Recipe):
    """Measure a classifier's accuracy on a folder of videos per class."""

    settings: conf.OmitArgPrefixes[EvaluateSettings] = field(default_factory=EvaluateSettings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 all went well, 1 something failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        print(f"videomae {__version__}")
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            command = _parse(arguments or ["--help"])
            code = RUN[type(command)](command)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader, such as `head`, has enough. What is still unwritten must not raise again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            return complain("interrupted", code=130)
        except (VideoMAEError, OSError) as error:
            return complain(str(error))


def _parse(arguments: list[str]) -> Any:
    """The chosen command as an instance of its class; SystemExit for --help and wrong usage."""
    options: dict[str, Any] = {"config": (conf.OmitSubcommandPrefixes, conf.FlagCreatePairsOff)}
    names = {kind.__name__.lower(): kind for kind in RUN}
    kind: Any = names.get(arguments[0])
    if kind is None:
        every: Any = Union[  # noqa: UP007
            tuple(Annotated[each, conf.subcommand(name)] for name, each in names.items())
        ]
        about = f"videomae {__version__}: masked autoencoders for video. `videomae COMMAND --help`"
        return tyro.cli(every, prog="videomae", description=about, args=arguments, **options)
    if issubclass(kind, _Recipe) and (recipe := _recipe_of(arguments)):
        settings = kind.__dataclass_fields__["settings"].default_factory
        options["default"] = kind(recipe=recipe, settings=load_recipe(recipe, settings))
    command: Any = tyro.cli(kind, prog=f"videomae {arguments[0]}", args=arguments[1:], **options)
    if isinstance(command, _Videos) and not command.files:
        print(f"videomae {arguments[0]}: name at least one video", file=sys.stderr)
        raise SystemExit(2)
    return command


def _recipe_of(arguments: list[str]) -> Path | None:
    """The value of --recipe, which must be known before the other flags have their defaults."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--recipe" and (equals or index + 1 < len(arguments)):
            return Path(value if equals else arguments[index + 1])
    return None


def _classify(command: Classify) -> int:
    from videomae import inference

    files = _files(command)

    def show(result: "Classification") -> Table:
        rows = rows_for(files, 14, 6, None)
        for row, (label, score) in enumerate(zip(result.labels, result.scores, strict=True)):
            path = "" if row else escape(str(result.path))
            rows.add_row(path, escape(label), f"{score:6.1%}", score_bar(score))
        return rows

    def record(result: "Classification") -> dict[str, Any]:
        return {"labels": result.labels, "scores": [round(score, 6) for score in result.scores]}

    results = inference.classify(iter(files), top_k=command.top_k, **_running(command))
    return report(results, files, "classifying", record, show, as_json=command.json)


def _embed(command: Embed) -> int:
    import numpy as np

    from videomae import inference
    from videomae.hub import atomic_path

    files, output = _files(command), command.output
    if output is not None and output.suffix not in ("", ".npz"):
        raise ConfigError(f"--output {output}: name a file that ends in .npz, or a folder")
    one_file = output is not None and output.suffix == ".npz"
    places = _mirrored(files, output, ".npy") if output is not None and not one_file else {}
    kept: list[Embedding] = []

    def keep(result: "Embedding") -> None:
        if one_file:
            kept.append(result)
        elif places:
            assert result.path is not None
            with atomic_path(places[result.path]) as temporary:
                np.save(temporary, result.features)

    def show(result: "Embedding") -> Table:
        keep(result)
        rows = rows_for(files, 10, None)
        few = " ".join(f"{value:.3f}" for value in result.features.flat[:4])
        shape = " x ".join(map(str, result.features.shape))
        rows.add_row(escape(str(result.path)), shape, f"{few} ...")
        return rows

    def record(result: "Embedding") -> dict[str, Any]:
        keep(result)
        found = result.features
        return {"features": found.tolist()} if output is None else {"shape": found.shape}

    results = inference.embed(iter(files), features=command.features, **_running(command))
    code = report(results, files, "embedding", record, show, as_json=command.json)
    if one_file and kept:
        assert output is not None
        with atomic_path(output) as temporary:
            np.savez(
                temporary,
                paths=np.array([str(result.path) for result in kept]),
                features=np.stack([result.features for result in kept]),
            )
    return code


def _reconstruct(command: Reconstruct) -> int:
    from videomae import inference

    files, output = _files(command), command.output
    if output.suffix.lower() in (".png", ".gif", ".mp4"):
        if len(files) > 1:
            raise ConfigError(f"{output} is one file for {len(files)} videos; name a folder")
        places = {files[0]: output}
    else:
        places = _mirrored(files, output, f".{command.format}")

    def show(result: "Reconstruction") -> Table:
        assert result.path is not None
        rows = rows_for(files, None, None)
        place = result.save(places[result.path])
        rows.add_row(escape(str(result.path)), escape(str(place)), f"loss {result.loss:.3f}")
        return rows

    def record(result: "Reconstruction") -> dict[str, Any]:
        assert result.path is not None
        place = result.save(places[result.path])
        return {"output": str(place), "loss": round(result.loss, 6)}

    results = inference.reconstruct(
        iter(files),
        mask=command.mask,
        mask_ratio=command.mask_ratio,
        seed=command.seed,
        rendering=command.rendering,
        **_running(command),
    )
    return report(results, files, "reconstructing", record, show, as_json=command.json)


def _probe(command: Probe) -> int:
    from videomae.video import BadVideo, probe

    files = _files(command)

    def results() -> "Iterator[VideoInfo | BadVideo]":
        for path in files:
            try:
                yield probe(path)
            except VideoError as error:
                yield BadVideo(path, str(error))

    def show(info: "VideoInfo") -> Table:
        rows = rows_for(files, 10, 8, 12, None)
        rate = f"{info.fps:.4g} fps" if info.fps else ""
        size = f"{info.width} x {info.height} px"
        rows.add_row(escape(str(info.path)), f"{info.num_frames} frames", rate, size, info.codec)
        return rows

    def record(info: "VideoInfo") -> dict[str, Any]:
        return {**asdict(info), "path": str(info.path)}

    return report(results(), files, "probing", record, show, as_json=command.json)


def _convert(command: Convert) -> int:
    from videomae.apps.convert import convert

    arguments = asdict(command)
    result = convert(arguments.pop("source"), arguments.pop("destination"), **arguments)
    print(result.report)
    print(f"wrote {result.path}, a {result.model_class}")
    return 0


def _motion(command: Motion) -> int:
    from videomae.motion import render_dataset

    with Screen("rendering", command.clips, as_json=False) as screen:
        arguments = asdict(command)
        paths = render_dataset(
            arguments.pop("output"), **arguments, on_progress=lambda done, _: screen.advance(done)
        )
    print(f"wrote {len(paths)} videos into {command.output}")
    return 0


def _demo(command: Demo) -> int:
    from videomae.apps.demo import demo

    arguments = asdict(command)
    demo(arguments.pop("output"), **arguments)
    return 0


def _pretrain(command: Pretrain) -> int:
    from videomae.training.pretrain import pretrain

    print(f"wrote {pretrain(command.settings)}")
    return 0


def _finetune(command: Finetune) -> int:
    from videomae.training.finetune import finetune

    evaluation = finetune(command.settings)
    print(f"wrote {command.settings.output / 'model'}")
    if evaluation is not None:
        print(evaluation)
    return 0


def _evaluate(command: Evaluate) -> int:
    from videomae.training.evaluate import evaluate

    evaluation = evaluate(command.settings)
    print(evaluation)
    for path, reason in evaluation.bad.items():
        complain(reason if path in reason else f"{path}: {reason}")
    return 1 if evaluation.bad else 0


RUN: dict[type, Callable[[Any], int]] = {
    Classify: _classify,
    Embed: _embed,
    Reconstruct: _reconstruct,
    Probe: _probe,
    Convert: _convert,
    Motion: _motion,
    Demo: _demo,
    Pretrain: _pretrain,
    Finetune: _finetune,
    Evaluate: _evaluate,
}


def _files(command: _Videos) -> list[Path]:
    from videomae.pipeline import find_videos

    return [video for path in command.files for video in find_videos(path)]


def _running(command: _Inference) -> dict[str, Any]:
    """The arguments that the functions of `videomae.inference` have in common."""
    arguments: dict[str, Any] = {
        "model": command.model,
        "frame_stride": None if command.frame_stride == "uniform" else command.frame_stride,
        "dtype": command.dtype,
        "engine": command.engine,
        "device": command.device,
        "on_error": "skip",
    }
    if isinstance(command, _Views):
        for name in ("num_clips", "num_crops", "batch_size"):
            arguments[name] = getattr(command, name)
    return arguments


def _mirrored(files: list[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """Where to write for each file: as the files lie to each other, so lie the outputs in `folder`.

    Two files that differ in their suffix alone keep it: a/x.mp4 and a/x.avi become a/x.mp4.png
    and a/x.avi.png.
    """
    absolute = {path: Path(os.path.abspath(path)) for path in files}  # noqa: PTH100 keeps links
    root = os.path.commonpath([path.parent for path in absolute.values()])
    names = {path: place.relative_to(root) for path, place in absolute.items()}
    stems = {p: name if p.is_dir() else name.with_suffix("") for p, name in names.items()}
    times = Counter(stems[path] for path in names)
    return {
        path: folder / f"{names[path] if times[stems[path]] > 1 else stems[path]}{suffix}"
        for path in names
    }
