"""The command line: read the flags of one command, import its code, call its function.

A command is a frozen dataclass, whose fields are its flags, and a function below that runs it.
Nothing heavy is imported before a command runs, so that `videomae --help` answers at once.
"""

import gc
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro
from rich.markup import escape
from rich.table import Table
from tyro import conf

from videomae.commands.flags import (
    Bench,
    Classify,
    Convert,
    Demo,
    Embed,
    Evaluate,
    Findings,
    Finetune,
    LinearProbe,
    ModelCommand,
    Motion,
    Prepare,
    Pretrain,
    Probe,
    RecipeCommand,
    Recipes,
    Reconstruct,
    VideoCommand,
    ViewsCommand,
)
from videomae.commands.terminal import (
    Screen,
    complain,
    report,
    rows_for,
    score_bar,
    show_recipes,
    show_warning,
)
from videomae.config import nearest
from videomae.errors import ConfigError, VideoError, VideoMAEError
from videomae.settings import (
    find_recipe,
    load_recipe,
)
from videomae.version import __version__

if TYPE_CHECKING:
    from videomae.inference.predict import Classification, Embedding, Reconstruction
    from videomae.video.reader import BadVideo, VideoInfo


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
            if isinstance(command, ModelCommand):
                _import_inference()
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


def _import_inference() -> None:
    """Import torch without the garbage collector, which would search it again and again in vain.

    What was imported is set aside for good, and not searched at the end either: from the start of
    `videomae classify` to its answer takes 2.3 s of CPU time in place of 2.7 s.
    """
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        from videomae.inference import predict  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def _parse(arguments: list[str]) -> Any:
    """The chosen command as an instance of its class; SystemExit for --help and wrong usage."""
    options: dict[str, Any] = {"config": (conf.OmitSubcommandPrefixes, conf.FlagCreatePairsOff)}
    names = {command_name(kind): kind for kind in RUN}
    kind: Any = names.get(arguments[0])
    if kind is None:
        every: Any = Union[  # noqa: UP007
            tuple(Annotated[each, conf.subcommand(name)] for name, each in names.items())
        ]
        about = f"videomae {__version__}: masked autoencoders for video. `videomae COMMAND --help`"
        return tyro.cli(every, prog="videomae", description=about, args=arguments, **options)
    if issubclass(kind, RecipeCommand):
        settings = kind.__dataclass_fields__["settings"].default_factory
        arguments = _as_flags(arguments, {each.name for each in fields(settings)} | {"recipe"})
        if recipe := _recipe_of(arguments):
            options["default"] = kind(recipe=recipe, settings=load_recipe(recipe, settings))
    command: Any = tyro.cli(kind, prog=f"videomae {arguments[0]}", args=arguments[1:], **options)
    if isinstance(command, VideoCommand) and not command.files:
        print(f"videomae {arguments[0]}: name at least one video", file=sys.stderr)
        raise SystemExit(2)
    return command


def command_name(kind: type) -> str:
    """How a command is called.

    >>> command_name(LinearProbe)
    'linear-probe'
    """
    words = "".join(f"-{letter}" if letter.isupper() else letter for letter in kind.__name__)
    return words[1:].lower()


def _as_flags(arguments: list[str], known: set[str]) -> list[str]:
    """Words such as epochs=100 become --epochs=100, as a recipe's lines are often copied."""
    flags = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or argument.startswith("-") or not name.isidentifier():
            flags.append(argument)
            continue
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}{nearest(name, known)}")
        switch = {"true": f"--{name}", "false": f"--no-{name}"}.get(value.lower())
        flags.append((switch or f"--{name}={value}").replace("_", "-", name.count("_")))
    return flags


def _recipe_of(arguments: list[str]) -> str | None:
    """The value of --recipe, which must be known before the other flags have their defaults."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--recipe" and (equals or index + 1 < len(arguments)):
            return value if equals else arguments[index + 1]
    return None


def _classify(command: Classify) -> int:
    from videomae.inference import predict

    files = _files(command)

    def show(result: "Classification") -> Table:
        rows = rows_for(files, 14, 6, None)
        for row, (label, score) in enumerate(zip(result.labels, result.scores, strict=True)):
            path = "" if row else escape(str(result.path))
            shown = (f"{score:6.1%}", score_bar(score)) if result.are_shares else (f"{score:.4g}",)
            rows.add_row(path, escape(label), *shown)
        return rows

    def record(result: "Classification") -> dict[str, Any]:
        return {"labels": result.labels, "scores": [round(score, 6) for score in result.scores]}

    results = predict.classify(iter(files), top_k=command.top_k, **_running(command))
    return report(results, files, "classifying", record, show, as_json=command.json)


def _embed(command: Embed) -> int:
    import numpy as np

    from videomae.hub import atomic_path
    from videomae.inference import predict

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

    results = predict.embed(iter(files), features=command.features, **_running(command))
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
    from videomae.inference import predict

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

    results = predict.reconstruct(
        iter(files),
        mask=command.mask,
        mask_ratio=command.mask_ratio,
        seed=command.seed,
        rendering=command.rendering,
        **_running(command),
    )
    return report(results, files, "reconstructing", record, show, as_json=command.json)


def _probe(command: Probe) -> int:
    from videomae.video.reader import BadVideo, probe

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
    from videomae.commands.convert import convert

    arguments = asdict(command)
    result = convert(arguments.pop("source"), arguments.pop("destination"), **arguments)
    print(result.report)
    print(f"wrote {result.path}, a {result.model_class}")
    return 0


def _prepare(command: Prepare) -> int:
    from videomae.data.prepare import prepare

    with Screen("reading lists", 0, as_json=False) as screen:
        result = prepare(
            command,
            on_progress=lambda what, done, of: screen.progress.update(
                screen.task, description=what, completed=done, total=of
            ),
        )
        rows = Table.grid(padding=(0, 2, 0, 0))
        for name, text in result.survey.summary():
            rows.add_row(escape(name), escape(text))
        screen.out.print(rows)
    for text in [*result.survey.left_out(), *result.survey.warnings()]:
        complain(text)
    print(f"wrote {', '.join(str(path) for path in (result.manifest, result.report) if path)}")
    return 0 if result.manifest else complain("no video is usable")


def _motion(command: Motion) -> int:
    from videomae.data.motion import render_dataset

    with Screen("rendering", command.clips, as_json=False) as screen:
        paths = render_dataset(command, on_progress=lambda done, _: screen.advance(done))
    print(f"wrote {len(paths)} videos into {command.output}")
    return 0


def _demo(command: Demo) -> int:
    from videomae.commands.demo import demo

    arguments = asdict(command)
    demo(arguments.pop("output"), **arguments)
    return 0


def _bench(command: Bench) -> int:
    from benchmarks.compare.run import bench

    arguments = asdict(command)
    bench(arguments.pop("what"), as_json=arguments.pop("json"), **arguments)
    return 0


def _findings(command: Findings) -> int:
    import time

    from reproduction.plan import FULL, QUICK
    from reproduction.report import write_page
    from reproduction.run import Progress, run_plan

    plan, results, page = FULL, command.results, command.page
    if command.quick:
        plan, results = QUICK, command.output / "quick" / "results"
        page = command.output / "quick" / "reproduction.md"
    began, first = time.monotonic(), -1

    with Screen("findings", 100, as_json=False) as screen:

        def show(progress: Progress) -> None:
            nonlocal first
            first = progress.work_done if first < 0 else first
            done, left = progress.work_done - first, progress.work - progress.work_done
            hours = (time.monotonic() - began) / 3600 * left / done if done else 0
            about = f"{progress.points_done} of {progress.points} points"
            about += f", about {hours:.1f} h left" if done else ""
            screen.progress.update(
                screen.task,
                description=f"{about}: {', '.join(progress.running)}",
                completed=100 * progress.work_done // progress.work,
            )

        failed = {}
        if not command.only_page:
            failed = run_plan(
                plan,
                folder=command.output,
                results_dir=results,
                workers=command.workers,
                on_progress=show,
            )
    for name, reason in failed.items():
        complain(f"{name}: {reason}")
    print(f"wrote {write_page(plan, results, page)}")
    return 1 if failed else 0


def _pretrain(command: Pretrain) -> int:
    from videomae.training.pretrain import pretrain

    folder = pretrain(command.settings)
    if _is_first():
        print(f"wrote {folder}")
    return 0


def _finetune(command: Finetune) -> int:
    from videomae.training.finetune import finetune

    evaluation = finetune(command.settings)
    if _is_first():
        print(f"wrote {command.settings.output / 'model'}")
        if evaluation is not None:
            print(evaluation)
    return 0


def _is_first() -> bool:
    """Whether this is the process, of those that torchrun started, that speaks."""
    return os.environ.get("RANK", "0") == "0"


def _evaluate(command: Evaluate) -> int:
    from videomae.compute.distributed import Machine
    from videomae.data.manifest import left_out
    from videomae.evaluation.evaluate import chosen_split, evaluate

    machine = Machine.start(command.settings.device, command.settings.dtype)
    if not machine.is_main:
        return 1 if evaluate(command.settings, machine=machine).bad else 0
    with Screen("evaluating", 0, as_json=False) as screen:
        evaluation = evaluate(
            command.settings,
            machine=machine,
            on_progress=lambda done, of: screen.progress.update(
                screen.task, completed=done, total=of
            ),
        )
    worst = [(f"  {name}", f"{value:.2f} %") for name, value in evaluation.worst_classes()]
    titled = [("lowest classes", ""), *worst] if worst else []
    lost = left_out(command.settings.data, chosen_split(command.settings) or "")
    skipped = [("left out when prepared", f"{lost:,}")] if lost else []
    screen.out.print(_figures([*evaluation.rows(), *skipped, *titled]))
    for row, reason in evaluation.bad.items():
        path = str(evaluation.videos.items[row])
        complain(reason if path in reason else f"{path}: {reason}")
    return 1 if evaluation.bad else 0


def _linear_probe(command: LinearProbe) -> int:
    from videomae.compute.distributed import Machine
    from videomae.evaluation.probe import FEATURES_NAME, linear_probe

    machine = Machine.start(command.settings.device, command.settings.dtype)
    if not machine.is_main:
        return 1 if linear_probe(command.settings, machine=machine).unreadable() else 0
    with Screen("learning", 0, as_json=False) as screen:
        result = linear_probe(
            command.settings,
            machine=machine,
            on_progress=lambda what, done, of: screen.progress.update(
                screen.task, description=what, completed=done, total=of
            ),
        )
    screen.out.print(_figures(result.rows()))
    if result.reused:
        print(f"the features were those of {command.settings.output / FEATURES_NAME}")
    for reason in result.unreadable():
        complain(reason)
    return 1 if result.unreadable() else 0


def _figures(rows: list[tuple[str, str]]) -> Table:
    """Names and, aligned to the right, what they stand for."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


def _recipes(command: Recipes) -> int:
    if command.name is None:
        show_recipes()
    else:
        print(find_recipe(command.name).read_text(encoding="utf-8"), end="")
    return 0


RUN: dict[type, Callable[[Any], int]] = {
    Classify: _classify,
    Embed: _embed,
    Reconstruct: _reconstruct,
    Probe: _probe,
    Convert: _convert,
    Prepare: _prepare,
    Motion: _motion,
    Demo: _demo,
    Bench: _bench,
    Findings: _findings,
    Pretrain: _pretrain,
    Finetune: _finetune,
    Evaluate: _evaluate,
    LinearProbe: _linear_probe,
    Recipes: _recipes,
}


def _files(command: VideoCommand) -> list[Path]:
    from videomae.video.folder import find_videos

    return [video for path in command.files for video in find_videos(path)]


def _running(command: ModelCommand) -> dict[str, Any]:
    """The arguments that the functions of `videomae.inference.predict` have in common."""
    arguments: dict[str, Any] = {
        "model": command.model,
        "frame_stride": None if command.frame_stride == "uniform" else command.frame_stride,
        "dtype": command.dtype,
        "engine": command.engine,
        "device": command.device,
        "on_error": "skip",
        # For whoever watches; a program finds nothing on stderr that is not a complaint.
        "tell": complain if sys.stderr.isatty() else None,
    }
    if isinstance(command, ViewsCommand):
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
