"""The commands that run a model on videos: classify, embed, reconstruct, explain."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videomae.claim import refuse_to_replace
from videomae.commands.model_flags import (
    BatchCommand,
    Classify,
    Embed,
    Explain,
    ModelCommand,
    Reconstruct,
)
from videomae.commands.terminal import Shown, report, score_bar
from videomae.errors import ConfigError, VideoError, complain, file_name
from videomae.hub import atomic_path, check_writable, resolve_shipped
from videomae.inference import graphs, predict
from videomae.inference.predict import Classification, Embedding
from videomae.video.reader import probe

if TYPE_CHECKING:
    from videomae.inference.explain import Explanation
    from videomae.inference.reconstruct import Reconstruction

BATCH = tuple(BatchCommand.__annotations__)  # the options that a batch job has on top
_PICTURES = (".png", ".gif", ".mp4")
_FILES = (".csv", ".npz", *_PICTURES)  # else `output` is a folder
RENDERED_SIZE = (64, 64)  # of the clips that the shipped models were trained on


def classify(command: Classify) -> int:
    """Show the most likely labels of each video."""
    files = command.videos()

    def show(result: Classification) -> Shown:
        rows = [
            (label, f"{score:6.1%}", score_bar(score))
            if result.are_shares
            else (label, f"{score:.4g}")
            for label, score in zip(result.labels, result.scores, strict=True)
        ]
        scores = [round(score, 6) for score in result.scores]
        return {"labels": result.labels, "scores": scores}, rows

    def cells(result: Classification) -> dict[str, Any]:
        pairs = enumerate(zip(result.labels, result.scores, strict=True), start=1)
        names = (((f"label_{k}", label), (f"score_{k}", f"{s:.6g}")) for k, (label, s) in pairs)
        return dict(chain.from_iterable(names))

    output = None if command.output == Path("-") else command.output
    if output is not None and output.suffix.lower() != ".csv":
        predict.import_engines()
        from videomae.commands.batch import run_batch

        look_at = partial(warn_if_unlike_rendered, command.model)
        return run_batch("classify", command, files, look_at=look_at)
    _check_no_batch(command)
    warn_if_unlike_rendered(command.model, files[0])
    options = {**_options(command, output), "model": _model(command, files)}
    results = predict.classify(iter(files), **options)
    return report(
        results,
        files,
        "classifying",
        show,
        widths=(14, 6),
        as_json=command.json,
        csv_path=output,
        cells=cells,
    )


def embed(command: Embed) -> int:
    """Show the features of each video, or write them to one file or one per video."""
    files, suffix = command.videos(), command.output.suffix
    output = None if command.output == Path("-") else command.output
    if output is not None and suffix not in (".npz", ".csv"):
        predict.import_engines()
        from videomae.commands.batch import run_batch

        return run_batch("embed", command, files)
    _check_no_batch(command)
    if suffix == ".csv" and command.features != "pooled":
        raise ConfigError(
            f"--output {output}: a row of a table has one vector; use --features pooled, .npz, or "
            "a folder"
        )
    kept: list[Embedding] = []

    def show(result: Embedding) -> Shown:
        found = result.features
        if suffix == ".npz":
            kept.append(result)
        few = " ".join(f"{value:.3f}" for value in found.flat[:4])
        record = {"features": found} if output is None else {"shape": found.shape}
        return record, [(" x ".join(map(str, found.shape)), f"{few} ...")]

    def cells(result: Embedding) -> dict[str, Any]:
        return {f"feature_{k}": f"{value:.6g}" for k, value in enumerate(result.features)}

    options = {**_options(command, output), "model": _model(command, files)}
    results = predict.embed(iter(files), **options)
    try:
        return report(
            results,
            files,
            "embedding",
            show,
            widths=(10,),
            as_json=command.json,
            csv_path=output if suffix == ".csv" else None,
            cells=cells,
        )
    finally:  # what there is, where the work is broken off
        if kept and output is not None:
            paths = np.array([str(each.path) for each in kept])
            features = np.stack([each.features for each in kept])
            with atomic_path(output) as temporary:
                np.savez(temporary, paths=paths, features=features)


def reconstruct_videos(command: Reconstruct) -> int:
    """Write a picture or clip of each video: as it is, hidden, reconstructed."""
    predict.import_engines()
    from videomae.inference.reconstruct import reconstruct

    files = command.videos()
    places = _places(files, command)

    def show(result: "Reconstruction") -> Shown:
        assert result.path is not None
        place = result.save(places[result.path])
        record = {"output": str(place), "loss": round(result.loss, 6)}
        return record, [(str(place), f"loss {result.loss:.3f}")]

    results = reconstruct(iter(files), **_options(command, command.output))
    return report(results, files, "reconstructing", show, as_json=command.json)


def explain_videos(command: Explain) -> int:
    """Write a picture or clip of each video with its heat map, and say where it is hottest."""
    predict.import_engines()
    from videomae.inference.explain import explain

    files = command.videos()
    places = _places(files, command)

    def show(result: "Explanation") -> Shown:
        assert result.path is not None
        place = result.save(places[result.path])
        time, row, column = (
            f"{name} {at + 1} of {count}"
            for name, at, count in zip(
                ("slice", "row", "column"), result.hottest, result.heat.shape, strict=True
            )
        )
        where = f"most in {time}, {row}, {column}"
        record = {"output": str(place), **result.record()}
        return record, [(result.label, result.shown_score, where, str(place))]

    warn_if_unlike_rendered(command.model, files[0])
    options = {**_options(command, command.output), "label": command.label or None}
    results = explain(iter(files), **options)
    return report(results, files, "explaining", show, widths=(14, 6), as_json=command.json)


FUNCTIONS: dict[type, Callable[[Any], int]] = {
    Classify: classify,
    Embed: embed,
    Reconstruct: reconstruct_videos,
    Explain: explain_videos,
}


def _places(files: list[Path], command: Reconstruct | Explain) -> dict[Path, Path]:
    """The file that each video's picture is written to."""
    output = command.output
    is_file = output.suffix.lower() in _PICTURES
    if is_file and len(files) > 1:
        raise ConfigError(f"{output} is one file for {len(files)} videos; name a folder")
    places = {files[0]: output} if is_file else mirrored(files, output, f".{command.format}")
    refuse_to_replace(f"--output {output}", places.values(), files)
    return places


def _check_no_batch(command: BatchCommand) -> None:
    """Raise ConfigError for options of a batch job, where there is none."""
    for name in BATCH:
        if getattr(command, name) != getattr(BatchCommand, name):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is for a batch job; give --output FOLDER, too")


def warn_if_unlike_rendered(model: str, path: Path) -> None:
    """Warn where a model that comes with the package, and knows rendered clips, gets another."""
    if resolve_shipped(model) is None:
        return
    try:
        info = probe(path)
    except VideoError:
        return  # reported with its reason when its turn comes
    width, height = RENDERED_SIZE
    if (info.width, info.height) != (width, height):
        complain(
            f"warning: {model} knows nothing but rendered clips of {width} x {height} pixels, and "
            f"{path} has {info.width} x {info.height}: its labels mean nothing there; "
            "name a model that was trained on such videos, as in --model "
            "MCG-NJU/videomae-base-finetuned-kinetics"
        )


def _model(command: Classify | Embed, files: list[Path]) -> str | graphs.Graph:
    """What `--model` names; with "auto" its graph, where one is kept that answers sooner."""
    views = len(files) * command.num_clips * command.num_crops
    if views > graphs.FEW_VIEWS:
        predict.import_engines()  # torch makes pixels faster, which pays by now
    if command.engine != "auto" or graphs.exported_file(command.model):
        return command.model
    options = {"dtype": command.dtype, "device": command.device}
    tokens = isinstance(command, Embed)
    kept = graphs.automatic(command.model, views=views, tokens=tokens, **options)
    return kept or command.model


def _options(command: ModelCommand, output: Path | None) -> dict[str, Any]:
    """The arguments of the function of the same name in `videomae.inference.predict`.

    Raises ConfigError where `output`, a file or a folder, could not be written after all the work.
    """
    if output is not None:
        check_output("--output", output, is_file=output.suffix.lower() in _FILES)
    ours = ("files", "json", "output", "format", *BATCH)
    options = {name: value for name, value in vars(command).items() if name not in ours}
    # For a person who watches; a program finds nothing but complaints on stderr.
    options["tell"] = complain if sys.stderr.isatty() else None
    return {**options, "on_error": "skip"}


def check_output(flag: str, place: Path, *, is_file: bool) -> None:
    """ConfigError where a file, or else a folder, cannot be written: best known before the work."""
    if is_file and place.is_dir():
        raise ConfigError(f"{flag} {place} is a folder; name a file")
    check_writable(place.parent if is_file else place)


def mirrored(files: list[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """The output of each file: as the files lie to each other, so lie the outputs in `folder`.

    Two files that differ in their suffix alone keep it: a/x.mp4 and a/x.avi become a/x.mp4.png
    and a/x.avi.png; and so does x.mp4.mp4 beside x.mp4.
    """
    absolute = {path: Path(os.path.abspath(path)) for path in files}  # noqa: PTH100 keeps links
    root = os.path.commonpath([path.parent for path in absolute.values()])
    names = {path: place.relative_to(root) for path, place in absolute.items()}
    stems = {path: name if path.is_dir() else name.with_suffix("") for path, name in names.items()}
    whole = (name for path, name in names.items() if stems[path] != name)
    times = Counter([*stems.values(), *whole])
    chosen = {path: name if times[stems[path]] > 1 else stems[path] for path, name in names.items()}
    return {
        path: folder.joinpath(*map(file_name, name.parent.parts), file_name(name.name) + suffix)
        for path, name in chosen.items()
    }
