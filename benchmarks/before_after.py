"""This checkout beside an older one, in turns: starts of a process, and work in a running one.

    git worktree add ../older COMMIT
    python -m benchmarks.before_after cold --before ../older
    python -m benchmarks.before_after warm --before ../older --busy 0 1 2

`cold`: the command line from its start, with the graphs of ONNX Runtime and OpenVINO kept by the
round that warms up. `warm`: processors, classification, the loader and a step of training, each
checkout in a process of its own (`compare/worker.py`), also beside processes that keep a core busy.
Without --before, this checkout alone. Prints tables, and last a line of JSON; --json: that alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.compare.baselines import film_scene
from benchmarks.compare.run import busy_cores
from videomae.commands.timing import Timing, about_machine, stopwatch, take_turns
from videomae.config import VideoMAEConfig
from videomae.errors import counted
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.video.writer import write_video

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "videomae" / "assets" / "actions-tiny"
WORKER = Path(__file__).parent / "compare" / "worker.py"
ENGINES = ("torch", "onnxruntime", "openvino")
Job = Callable[[], object]
Case = tuple[str, dict[str, Job]]  # what is done, and who does it: "before", "now"


def environment(checkout: Path, folder: Path) -> dict[str, str]:
    """That of a process which runs the package of a checkout and keeps its graphs in a folder."""
    place = checkout.resolve()
    own = {"PYTHONPATH": place / "src", "VIDEOMAE_CACHE": folder / "cache" / place.name}
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def make_files(folder: Path, size: tuple[int, int], num_videos: int) -> None:
    """What all jobs read: a film and its frames, short videos, and a random ViT-S."""
    scene = film_scene(*size)
    order = np.resize([*range(len(scene)), *reversed(range(len(scene)))], 250)
    write_video(folder / "film.mp4", scene[order], fps=25, crf=23)
    np.save(folder / "frames.npy", scene[:16])
    small = film_scene(*(side * 256 // min(size) for side in size))
    (folder / "videos").mkdir()
    for number in range(num_videos):
        frames = np.roll(small, -17 * number, axis=0)
        write_video(folder / "videos" / f"{number}.mp4", np.resize(frames, (100, *small.shape[1:])))
    config = VideoMAEConfig.preset("small", num_labels=400)
    VideoMAEForVideoClassification(config).save_pretrained(folder / "ViT-S")


def commands(folder: Path, models: dict[str, Path]) -> dict[str, list[str]]:
    """The words after `python` of each start."""
    found = {
        "videomae --help": ["-m", "videomae", "--help"],
        "videomae --version": ["-m", "videomae", "--version"],
        "import videomae": ["-c", "import videomae"],
    }
    for model, place in models.items():
        for engine in ENGINES:
            words = ["-m", "videomae", "classify", folder / "film.mp4", "--model", place, "--json"]
            words += ["--engine", engine, "--device", "cpu", "--dtype", "float32"]
            found[f"classify, {model}, {engine}"] = [str(word) for word in words]
    return found


def cold(asked: argparse.Namespace, folder: Path, left_out: list[str]) -> Iterator[Case]:
    """Each start by each checkout; what a checkout cannot do is left out."""
    models = {"actions-tiny": SHIPPED, "ViT-S": folder / "ViT-S"}
    for name, words in commands(folder, models).items():
        jobs: dict[str, Job] = {}
        for who, checkout in asked.checkouts.items():
            run = partial(
                subprocess.run,
                [sys.executable, *words],
                check=True,
                capture_output=True,
                cwd=folder,
                env=environment(checkout, folder),
            )
            try:
                run()
            except subprocess.CalledProcessError as error:
                lines = error.stderr.decode(errors="replace").strip().splitlines()
                left_out.append(f"{name}, {who}: {lines[-1] if lines else error}")
            else:
                jobs[who] = run
        yield name, jobs


@contextmanager
def worker(checkout: Path, folder: Path) -> Iterator[tuple[dict[str, Job], dict[str, str]]]:
    """The jobs that a process of a checkout can do, and why it cannot do others."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(folder), str(SHIPPED)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(checkout, folder),
    )
    given, answers = process.stdin, process.stdout
    assert given is not None
    assert answers is not None

    def do(name: str) -> None:
        print(name, file=given, flush=True)
        if not answers.readline():
            raise SystemExit(f"the process of {checkout} ended at {name!r}; its error stands above")

    try:
        names, failed = json.loads(answers.readline() or "[[], {}]")
        yield {name: partial(do, name) for name in names}, failed
    finally:
        given.close()  # which ends it
        process.wait()


def warm(asked: argparse.Namespace, folder: Path, left_out: list[str]) -> Iterator[Case]:
    """Each job of the workers, beside so many busy processes as are asked for."""
    with ExitStack() as running:
        able: dict[str, dict[str, Job]] = {}
        for who, checkout in asked.checkouts.items():
            jobs, failed = running.enter_context(worker(checkout, folder))
            left_out += [f"{name}, {who}: {reason}" for name, reason in failed.items()]
            for name, job in jobs.items():
                able.setdefault(name, {})[who] = job
        for count in asked.busy:
            beside = f", beside {counted(count, 'busy loop')}" if count else ""
            with busy_cores(count):
                for name, case in able.items():
                    yield name + beside, case


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, as git abbreviates it; its path where git does not know."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(checkout)


def in_words(name: str, timings: dict[str, Timing]) -> str:
    """A line of a table: milliseconds of each."""
    cells = [f"{who} {1e3 * timing['median']:,.1f} ms" for who, timing in timings.items()]
    return f"{name:<60} {', '.join(cells)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cold", "warm"])
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, after one to warm up")
    parser.add_argument("--busy", type=int, nargs="+", default=[0], help="for warm")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: cold alone")
    parser.add_argument("--videos", type=int, default=8, help="for the loader")
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="of the film, px")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.clock == "cpu" and asked.what == "warm":
        parser.error("--clock cpu sees no work of a running process; it is for cold")
    if asked.before is not None and not (asked.before / "src" / "videomae").is_dir():
        parser.error(f"--before {asked.before} is no checkout: it has no src/videomae")
    asked.checkouts = {"before": asked.before} if asked.before is not None else {}
    asked.checkouts["now"] = ROOT
    device, left_out = torch.device("cpu"), list[str]()
    figures: dict[str, dict[str, Timing]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, now = Path(place), stopwatch(asked.clock, device)
        make_files(folder, tuple(asked.size), asked.videos)
        for name, jobs in (cold if asked.what == "cold" else warm)(asked, folder, left_out):
            figures[name] = take_turns(jobs, now, repeats=asked.repeats)
            if not asked.json:
                print(in_words(name, figures[name]), flush=True)
    record = {
        "command": " ".join(["python -m benchmarks.before_after", *(arguments or sys.argv[1:])]),
        "clock": asked.clock,
        "commits": {who: commit_of(checkout) for who, checkout in asked.checkouts.items()},
        "machine": about_machine(device),
        "figures": figures,
        "left_out": left_out,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
