"""`videomae bench`: how fast this machine is at what the package does.

Letters: B clips, T frames, C channels, H, W pixels.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from videomae.commands.flags import Bench
from videomae.commands.timing import about_machine, stopwatch, take_turns
from videomae.compute import devices
from videomae.compute.cpu import take_fastest_products
from videomae.config import PRESETS, VideoMAEConfig
from videomae.errors import ConfigError, say, to_json
from videomae.fields import check_fields
from videomae.hub import check_writable, write_json
from videomae.inference import engines
from videomae.inference.predict import classify
from videomae.masking import tube_mask
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.sampling import clip_indices
from videomae.rendering.actions import render_clip, render_dataset
from videomae.settings import ActionsSettings
from videomae.video.reader import probe, read_frames
from videomae.video.writer import write_video

KINDS = {"pretrain": VideoMAEForPreTraining, "finetune": VideoMAEForVideoClassification}
FILMS = {"340x256": (256, 340), "1280x720": (720, 1280)}  # height and width, px


class Case(NamedTuple):
    """Ways to do one thing with what is given, which take turns."""

    name: str
    ways: dict[str, Any]
    given: tuple[Any, ...] = ()


class Session:
    """What is asked for, and the figures so far: case -> way -> Timing."""

    def __init__(self, asked: Bench, folder: Path) -> None:
        self.asked, self.folder = asked, folder
        self.device = devices.as_device(asked.device)
        self.dtype = devices.as_dtype(asked.dtype, self.device)
        self.is_preset = asked.model in PRESETS
        if self.is_preset:
            self.config = VideoMAEConfig.preset(asked.model, num_labels=400)
        else:
            self.config = VideoMAEConfig.from_pretrained(asked.model)
        self.figures: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []

    @cached_property
    def classifier(self) -> VideoMAEForVideoClassification:
        """The model that is asked for; random where it is a preset."""
        if self.is_preset:
            return VideoMAEForVideoClassification(self.config).eval()
        return VideoMAEForVideoClassification.from_pretrained(self.asked.model).eval()

    def film(self, name: str) -> Path:
        """The video that was given, or one of `FILMS`, which is rendered where it is not there."""
        path = self.folder / f"{name}.mp4"
        if self.asked.video is not None or path.exists():
            return self.asked.video or path
        height, width = FILMS[name]
        scene = render_clip("walk", seed=0, size=width, num_frames=40)[:, -height:]
        to_and_fro = np.resize([*range(40), *reversed(range(40))], 250)
        return write_video(path, scene[to_and_fro], fps=25, crf=23)


def random_clips(config: VideoMAEConfig, count: int) -> Tensor:
    """Noise (count, T, C, H, W)."""
    return torch.randn(count, config.num_frames, config.num_channels, *config.image_hw)


def forward(session: Session, clips: Tensor | None = None) -> Iterator[Case]:
    """Batches of `clips`, or of noise, through the classifier, by each engine in each precision."""
    model, sizes = session.classifier, session.asked.batch_sizes
    clips = random_clips(model.config, max(sizes)) if clips is None else clips
    best = str(devices.best_dtype(session.device)).removeprefix("torch.")
    names = engines.ENGINES[1:]  # the first is auto
    pairs = itertools.product(names, dict.fromkeys(("float32", best)))
    where: dict[str, Any] = {"device": session.device, "engine_cache_dir": session.folder}
    ways = {}
    for name, dtype in [*pairs, ("openvino", "int8")]:
        try:
            call = engines.load(model, engine=name, dtype=dtype, calibration=[clips], **where)
            call(clips[:1])
        except ConfigError as error:
            session.left_out.append(f"{name} {dtype}: {error}")
        else:
            ways[f"{name} {dtype}"] = call
    for size in sizes:
        yield Case(f"batch {size}", ways, (clips[:size],))
    if not session.asked.json:
        auto = engines.fastest(model.config, session.device, best)
        say(f"\nof these engines, auto would take {auto} in {best}")


def train(session: Session) -> Iterator[Case]:
    """One step of pre-training, with 0.9 hidden, and one of fine-tuning."""
    for task in KINDS:
        config = session.config.copy(use_mean_pooling=task == "finetune")
        model = KINDS[task](config).to(session.device)
        take_fastest_products(model)  # as the training loop does
        inputs = train_inputs(session.config, task, session.device)
        yield Case(task, {"videomae": train_step(model, session.dtype)}, (inputs,))


def train_inputs(config: VideoMAEConfig, task: str, device: torch.device) -> dict[str, Tensor]:
    """Noise to pre-train on, two clips, or to fine-tune on, one."""
    if task == "finetune":
        inputs = {"pixel_values": random_clips(config, 1), "labels": torch.tensor([0])}
    else:
        mask = tube_mask(config.grid, 0.9, batch_size=2, generator=torch.Generator())
        inputs = {"pixel_values": random_clips(config, 2), "bool_masked_pos": mask}
    return {name: each.to(device) for name, each in inputs.items()}


def train_step(model: nn.Module, dtype: torch.dtype) -> Callable[[Any], None]:
    """A function that updates the weights of a model once, by AdamW, on what it is given."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(inputs: dict[str, Tensor]) -> None:
        device = inputs["pixel_values"].device
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(**inputs, return_dict=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def decode(session: Session) -> Iterator[Case]:
    """16 frames, 4 apart, out of the middle of a file of ten seconds."""
    for name in FILMS if session.asked.video is None else [str(session.asked.video)]:
        path = session.film(name)
        yield Case(name, {"videomae": read_frames}, (path, clip_indices(probe(path).num_frames)))


def process(_: Session) -> Iterator[Case]:
    """16 frames of 1280 x 720 px to pixel values, in the forms that frames come in."""
    frames = np.random.default_rng(0).integers(0, 256, (16, 720, 1280, 3), dtype=np.uint8)
    forms = {
        "list of arrays": list(frames),
        "list of PIL images": [Image.fromarray(frame) for frame in frames],
        "array T H W C": frames,
        "tensor T C H W": torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
        "tensor T C H W, turned": torch.from_numpy(frames).permute(0, 3, 1, 2),
    }
    ways = {
        "videomae image": partial(VideoMAEImageProcessor(), return_tensors="pt"),
        "videomae video": partial(VideoMAEVideoProcessor(), return_tensors="pt"),
    }
    for form, given in forms.items():
        yield Case(form, ways, (given,))


def end_to_end(session: Session) -> Iterator[Case]:
    """From a file to its five best labels: warm, from the start of a process, and many files."""
    if session.device.type != "cpu":
        raise ConfigError("bench end-to-end runs on a CPU so far; pass --device cpu")
    model, folder, film = session.classifier, session.folder / "model", session.film("1280x720")
    model.save_pretrained(folder)
    ours = partial(classify, model=model.to(session.dtype), engine="torch")
    yield Case("one file, the model loaded", {"videomae torch": ours}, (film,))
    words = f"-m videomae classify --json --engine torch --device cpu --dtype {session.asked.dtype}"
    ways = {"videomae torch": partial(run_python, *words.split(), "--model", folder)}
    yield Case("one file, from the start of a process", ways, (film,))
    short = ActionsSettings(
        session.folder / "short", clips=8, test_clips=0, size=256, num_frames=48, workers=1
    )
    paths = list(itertools.islice(itertools.cycle(render_dataset(short)), session.asked.files))
    yield Case(f"{len(paths)} short files", {"videomae torch": ours}, (paths,))


def run_python(*words: object) -> None:
    """Run the interpreter in a process of its own, with as many threads as here."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def scaling(session: Session) -> Iterator[Case]:
    """One clip over its frames, its size, and the size of the model."""
    config = session.config
    patch, side = max(config.patch_hw), max(config.image_hw)
    sizes = {max(patch, round(side * by / patch) * patch) for by in (0.5, 0.7, 1, 1.4)}
    axes = {
        "frames": {n: config.copy(num_frames=n) for n in (8, 16, 32, 64)},
        "height and width, px": {n: config.copy(image_size=n) for n in sorted(sizes)},
    }
    if session.is_preset and session.asked.model != "tiny":
        presets = [VideoMAEConfig.preset(name) for name in ("small", "base", "large")]
        axes["width of the model"] = {each.hidden_size: each for each in presets}
    build = partial(forward_job, session.device, session.dtype)
    for axis, configs in axes.items():
        yield Case(axis, {str(x): build(each) for x, each in configs.items()})


def forward_job(
    device: torch.device, dtype: torch.dtype, config: VideoMAEConfig
) -> Callable[[], Tensor]:
    """A random classifier and one random clip that goes through it."""
    model = VideoMAEForVideoClassification(config).eval().to(device, dtype)
    return partial(engines.load(model, engine="torch"), random_clips(config, 1))


Part = Callable[[Session], Iterator[Case]]
PARTS: dict[str, Part] = {
    "forward": forward,
    "train": train,
    "decode": decode,
    "process": process,
    "end-to-end": end_to_end,
    "scaling": scaling,
}


def bench(
    asked: Bench, parts: Mapping[str, Part] = PARTS, *, program: str = "videomae"
) -> dict[str, Any]:
    """Measure, print a table per case and one line of JSON, and return what that line holds.

    `figures` of that: case -> way -> "median", "low" and "high" (the quartiles), in seconds. Raises
    ConfigError for what cannot be measured.
    """
    check_fields(asked)
    if asked.output is not None:
        check_writable(asked.output)  # before the work
    out = Console(quiet=asked.json, highlight=False, markup=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as afterwards:
        afterwards.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(asked.threads or torch.get_num_threads())
        session = Session(asked, Path(folder))
        now = stopwatch(asked.clock, session.device)
        out.print(f"medians of {asked.repeats} rounds by the {asked.clock} clock, and quartiles")
        for case in parts[asked.what](session):
            out.print(f"\n{asked.what}: {case.name}")
            jobs = {name: partial(way, *case.given) for name, way in case.ways.items()}
            found = session.figures[case.name] = take_turns(jobs, now, repeats=asked.repeats)
            for name, timing in found.items():
                median, low, high = (f"{1e3 * timing[k]:,.1f}" for k in ("median", "low", "high"))
                out.print(f"  {name:<32} {median:>10} ms  {low} to {high}")
        for note in session.left_out:
            out.print(f"left out: {note}")
        record = {
            "bench": asked.what,
            "command": " ".join([program, *sys.argv[1:]]),
            "clock": asked.clock,
            "machine": about_machine(session.device),
            "figures": session.figures,
            "left_out": session.left_out,
        }
    say(to_json(record))
    if asked.output is not None:
        write_json(asked.output / "bench.json", record)
    return record
