"""The parts of `videomae bench`, in the same turns with transformers and others.

    python -m benchmarks.compare.run forward --batch-sizes 1

From a checkout, with the flags of `videomae bench`. Beyond times there are ratios to the first row;
how far each engine's logits lie from float32 on rendered clips or on those of --video; peak memory;
and power laws of scaling. --output has charts too. What is not installed is named and left out.
--busy 0 1 2 measures everything again beside one and two processes that keep a core busy each.
"""

import copy
import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from benchmarks.compare import baselines
from benchmarks.compare.baselines import is_there
from benchmarks.compare.memory import peak_of
from videomae.commands import bench
from videomae.commands.bench import FILMS, Case, Session
from videomae.commands.flags import Bench
from videomae.errors import counted
from videomae.fields import Limits
from videomae.inference import engines
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import ViewMaker, find_processor
from videomae.rendering.actions import CLASSES, render_clip
from videomae.report.plots import plot_curve
from videomae.video.writer import write_video


@dataclasses.dataclass(frozen=True)
class Compare(Bench):
    busy: tuple[Annotated[int, Limits(0, 64)], ...] = (0,)
    """Measure also beside so many processes that keep a core busy each: 0 1 2."""


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep `count` cores busy, or as much of them as the system gives to so many processes."""
    # They end with this process, even where it is killed.
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass"
    command = [sys.executable, "-c", code]
    loops = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def has(session: Session, package: str) -> bool:
    """True for a package that is installed; one that is not is named among what is left out."""
    if not is_there(package):
        session.left_out.append(f"{package} is not installed")
    return is_there(package)


def draw(session: Session, name: str, curves: Mapping[str, Any], **labels: Any) -> None:
    """Draw a chart, where an output folder is given."""
    if session.asked.output is not None:
        plot_curve(curves, session.asked.output / f"{name}.svg", ylabel="ms", **labels)


def forward(session: Session) -> Iterator[Case]:
    """Beside each attention here and in transformers, with the same weights, on real clips."""
    model, sizes = session.classifier, session.asked.batch_sizes
    if session.is_preset:  # or all logits would be near zero
        assert isinstance(model.classifier, nn.Linear)
        nn.init.normal_(model.classifier.weight, std=0.1)
    ways: dict[str, Any] = {}
    for attention in ("eager", "sdpa"):
        ours = copy.deepcopy(model)
        ours.set_attn_implementation(attention)
        where: dict[str, Any] = {"dtype": session.dtype, "device": session.device}
        ways[attention] = engines.load(ours, engine="torch", **where)
    builds = {"videomae": partial(bench.forward_job, session.device, session.dtype)}
    if has(session, "transformers"):
        ways |= baselines.transformers_calls(session)
        builds["transformers"] = partial(
            baselines.transformers_forward_job, session.device, session.dtype
        )
    clips = real_clips(session, max(sizes))
    for case in bench.forward(session, clips):
        ways |= case.ways
        yield case._replace(ways=ways)
    cases = [session.figures[f"batch {size}"] for size in sizes]
    curves = {name: (sizes, [1e3 * times[name]["median"] for times in cases]) for name in ways}
    draw(session, "forward", curves, xlabel="batch", log_y=True)
    with torch.inference_mode():
        exact = model(clips.to(model.device), return_dict=True).logits.float().cpu()
    session.figures["deviation"] = {
        name: deviation(call(clips), exact) for name, call in ways.items()
    }
    session.figures["peak_bytes"] = {
        name: peak_of(build, session.config, session.device) for name, build in builds.items()
    }


def real_clips(session: Session, count: int) -> Tensor:
    """Pixel values (count, T, C, H, W) of the video that was given, or of rendered ones."""
    config = session.config
    place = None if session.is_preset else session.asked.model
    maker = ViewMaker(config, find_processor(place, config), num_clips=count)
    if session.asked.video is not None:
        return maker(session.asked.video)
    one = dataclasses.replace(maker, num_clips=1, frame_stride=1)
    size, length = max(*config.image_hw, 32), config.num_frames
    motions = itertools.islice(itertools.cycle(CLASSES), count)
    clips = (
        render_clip(motion, seed=seed, size=size, num_frames=length)
        for seed, motion in enumerate(motions)
    )
    return torch.cat([one(clip) for clip in clips])


def deviation(logits: Tensor, exact: Tensor) -> dict[str, float]:
    """The distance of logits (B, K) from those in float32, and how often the best label is kept."""
    return {
        "largest_error": float((logits - exact).abs().max()),
        "largest_logit": float(exact.abs().max()),
        "same_best": int((logits.argmax(-1) == exact.argmax(-1)).sum()),
    }


def train(session: Session) -> Iterator[Case]:
    """Beside the model of transformers, and one written as one would write it down."""
    device, dtype = session.device, session.dtype
    others: dict[str, baselines.Make] = {}
    if has(session, "transformers"):
        others["transformers"] = baselines.transformers_to_train
    others["plain"] = baselines.PlainModel
    for case in bench.train(session):
        for name, make in others.items():
            case.ways[name] = bench.train_step(make(session.config, case.name).to(device), dtype)
        yield case
        session.figures[f"peak_bytes, {case.name}"] = {
            name: peak_of(
                partial(baselines.train_job, make, case.name, device, dtype), session.config, device
            )
            for name, make in {"videomae": baselines.ours_to_train, **others}.items()
        }


def make_films(session: Session) -> None:
    """Make the films out of a real one, where no other video was given."""
    for name, size in FILMS.items() if session.asked.video is None else ():
        scene = baselines.film_scene(*size)
        order = np.resize([*range(len(scene)), *reversed(range(len(scene)))], 250)
        write_video(session.folder / f"{name}.mp4", scene[order], fps=25, crf=23)


def decode(session: Session) -> Iterator[Case]:
    """Beside decord and torchcodec, out of a real film."""
    make_films(session)
    decoders = {"decord": baselines.by_decord, "torchcodec": baselines.by_torchcodec}
    others = {name: read for name, read in decoders.items() if has(session, name)}
    for case in bench.decode(session):
        yield case._replace(ways=case.ways | others)


def process(session: Session) -> Iterator[Case]:
    """Beside the processors of transformers, with the same mean and std."""
    others: dict[str, Callable[[Any], Tensor]] = {}
    if has(session, "transformers"):
        ours = VideoMAEImageProcessor()
        settings = {"image_mean": list(ours.image_mean), "image_std": list(ours.image_std)}
        others = baselines.transformers_processors(**settings)
    for case in bench.process(session):
        yield case._replace(ways=case.ways | others)


def end_to_end(session: Session) -> Iterator[Case]:
    """Beside transformers, as its documentation reads and classifies a file."""
    make_films(session)
    cases = bench.end_to_end(session)
    if not has(session, "transformers"):
        yield from cases
        return
    first, folder = next(cases), session.folder / "model"  # where the model lies by now
    find_processor(None, session.config).save_pretrained(folder)
    theirs = import_module("benchmarks.compare.transformers_reader")
    stride = session.config.frame_stride or 4  # None, spread out, is not what others do
    read = theirs.reader(folder, stride)
    ways = {
        "one file, the model loaded": read,
        "one file, from the start of a process": partial(
            bench.run_python, theirs.__file__, folder, stride
        ),
    }
    for case in itertools.chain([first], cases):
        way = ways.get(case.name, lambda paths: [read(path) for path in paths])
        yield case._replace(ways={**case.ways, "transformers": way})


def scaling(session: Session) -> Iterator[Case]:
    """With peak memory, and the power laws that fit best."""
    build = partial(bench.forward_job, session.device, session.dtype)
    for case in bench.scaling(session):
        yield case
        xs = [int(x) for x in case.ways]
        medians = [times["median"] for times in session.figures[case.name].values()]
        peaks = {x: peak_of(build, job.func.config, session.device) for x, job in case.ways.items()}
        powers = {"time": exponent(xs, medians), "memory": exponent(xs, [*peaks.values()])}
        session.figures[f"peak_bytes, {case.name}"] = peaks
        session.figures[f"exponents, {case.name}"] = powers
        growth = f"time ~ x^{powers['time']:.2f}, memory ~ x^{powers['memory']:.2f}"
        title = f"one clip over {case.name}: {growth}"
        curve = {"": (xs, [1e3 * median for median in medians])}
        draw(session, case.name.split()[0], curve, title=title, xlabel=case.name)


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The k of y = c * x ** k that fits best: least squares between the logarithms.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def with_summary(part: bench.Part) -> bench.Part:
    """A part that measures beside busy cores too; when done it prints ratios and all but times."""

    def cases(session: Session) -> Iterator[Case]:
        for case in part(session):
            yield case
            assert isinstance(session.asked, Compare)
            for count in filter(None, session.asked.busy):
                with busy_cores(count):
                    yield case._replace(name=f"{case.name}, beside {counted(count, 'busy loop')}")
        for name, rows in session.figures.items() if not session.asked.json else ():
            print(f"\ncompared: {name}")
            first = next(iter(rows.values()))
            for who, row in rows.items():
                print(f"  {who:<32} {in_words(row, first)}")

    return cases


def in_words(figure: Any, first: Any) -> str:
    """A figure to be read; a time as its ratio to the first."""
    if not isinstance(figure, Mapping):
        return f"{figure:,}" if isinstance(figure, int) else f"{figure:.3g}"
    if "median" in figure:
        return f"{figure['median'] / first['median']:.2f}x"
    return ", ".join(f"{name} {value:.3g}" for name, value in figure.items())


PARTS: dict[str, bench.Part] = {
    "forward": with_summary(forward),
    "train": with_summary(train),
    "decode": with_summary(decode),
    "process": with_summary(process),
    "end-to-end": with_summary(end_to_end),
    "scaling": with_summary(scaling),
}


def main(arguments: Sequence[str] | None = None) -> None:
    program = "python -m benchmarks.compare.run"
    asked = tyro.cli(
        Compare,
        prog=program,
        description=__doc__,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    bench.bench(asked, PARTS, program=program)


if __name__ == "__main__":
    main()
