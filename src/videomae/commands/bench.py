"""`videomae bench`: how fast this machine is at what the package does.

All jobs of a case take turns; figures are medians over the rounds, with quartiles in the JSON.
Letters: B clips, T frames, C channels, H, W pixels, K labels, N tokens.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.live import Live
from torch import Tensor, nn

from videomae.commands import timing
from videomae.commands.flags import Bench
from videomae.commands.timing import Job
from videomae.compute import devices
from videomae.config import PRESETS, VideoMAEConfig
from videomae.data.motion import MOTIONS, render_clip, render_dataset
from videomae.errors import ConfigError
from videomae.hub import write_json
from videomae.inference import engines
from videomae.inference.predict import classify
from videomae.masking import tube_mask
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.sampling import clip_indices
from videomae.processing.views import ViewMaker, find_processor
from videomae.report.plots import plot_curve
from videomae.settings import MotionSettings
from videomae.video.decoder import Frames
from videomae.video.reader import probe, read_frames
from videomae.video.writer import write_video

Call = Callable[[Tensor], Tensor]  # clips (B, T, C, H, W) -> logits (B, K)
Task = Literal["pretrain", "finetune"]
Loss = Callable[[Tensor, Tensor], Any]  # clips; a mask (B, N) or labels (B) -> the loss

CLIPS_PER_STEP: dict[Task, int] = {"pretrain": 2, "finetune": 1}
FILMS = {"340x256": (256, 340), "1280x720": (720, 1280)}  # height and width, px


class Session:
    """One measurement: what is asked, and the figures so far, by case and name.

    others: more ways to do the jobs of this part, by name; each part says what they are, and
    benchmarks/compare has some. scene: makes frames of a height and width, to make films of.
    """

    def __init__(self, asked: Bench, folder: Path, log: Callable[[str], None]) -> None:
        self.asked, self.folder, self.log = asked, folder, log
        self.device = devices.as_device(asked.device)
        self.dtype = devices.as_dtype(asked.dtype, self.device)
        self.place = None if asked.model in PRESETS else asked.model
        if self.place:
            self.config = VideoMAEConfig.from_pretrained(self.place)
        else:
            self.config = VideoMAEConfig.preset(asked.model, num_labels=400)
        self.figures: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self.others: dict[str, Any] = {}
        self.scene: Callable[[int, int], Frames] = rendered_scene

    def times(self, jobs: Mapping[str, Job], most: int | None = None) -> dict[str, Any]:
        """Let jobs take turns, in at most so many rounds: see `timing.take_turns`."""
        now = timing.stopwatch(self.asked.clock, self.device)
        repeats = min(self.asked.repeats, most or self.asked.repeats)
        return timing.take_turns(jobs, now, repeats=repeats, log=self.log)

    def measure(self, case: str, jobs: Mapping[str, Job], most: int | None = None) -> None:
        """Let jobs take turns, and keep how long each took as a whole."""
        times = self.times(jobs, most)
        self.figures[case] = {name: each["total"] for name, each in times.items()}

    def peak(self, what: str, build: Callable[[VideoMAEConfig], Job], config: Any = None) -> int:
        """Peak memory in bytes of a job, with the model that is asked for or one of `config`."""
        self.log(f"memory of {what}")
        small = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=2, num_labels=2)
        return timing.peak_of(build, config or self.config, small=small, device=self.device)

    def draw(self, name: str, curves: Mapping[str, Any], **labels: Any) -> None:
        """Draw a chart, where an output folder is given."""
        if self.asked.output is not None:
            plot_curve(curves, self.asked.output / f"{name}.svg", ylabel="ms", **labels)

    def classifier(self) -> VideoMAEForVideoClassification:
        """The model, or a random one of the preset, whose logits are not all near zero."""
        if self.place:
            return VideoMAEForVideoClassification.from_pretrained(self.place).eval()
        torch.manual_seed(0)
        model = VideoMAEForVideoClassification(self.config).eval()
        assert isinstance(model.classifier, nn.Linear)
        nn.init.normal_(model.classifier.weight, std=0.1)
        return model

    def clips(self, count: int) -> Tensor:
        """Pixel values (count, T, C, H, W) of the video that was given, or of rendered ones."""
        config = self.config
        maker = ViewMaker(config, find_processor(self.place, config), num_clips=count)
        if self.asked.video is not None:
            return maker(self.asked.video)
        one = dataclasses.replace(maker, num_clips=1, frame_stride=1)
        size, length = max(*config.image_hw, 32), config.num_frames
        motions = itertools.islice(itertools.cycle(MOTIONS), count)
        clips = (
            render_clip(motion, seed=seed, size=size, num_frames=length)
            for seed, motion in enumerate(motions)
        )
        return torch.cat([one(clip) for clip in clips])

    def film(self, name: str) -> Path:
        """The video that was given, or ten seconds of a scene, which is played to and fro."""
        if self.asked.video is not None:
            return self.asked.video
        scene = self.scene(*FILMS[name])
        order = np.resize([*range(len(scene)), *reversed(range(len(scene)))], 250)
        return write_video(self.folder / f"{name}.mp4", scene[order], fps=25, crf=23)


def rendered_scene(height: int, width: int) -> Frames:
    scene = render_clip("orbit", seed=0, size=max(height, width), num_frames=40)
    return scene[:, :height, :width]


def forward(session: Session) -> None:
    """Batches through the classifier: eager and SDPA, others (as `Call`), and each engine."""
    model, sizes = session.classifier(), session.asked.batch_sizes
    clips = session.clips(max(sizes))
    calls: dict[str, Call] = {}
    for attention in ("eager", "sdpa"):
        ours = VideoMAEForVideoClassification(model.config.copy(attn_implementation=attention))
        ours.eval().load_state_dict(model.state_dict(), assign=True)
        where: dict[str, Any] = {"dtype": session.dtype, "device": session.device}
        calls[attention] = engines.load(ours, engine="torch", **where)
    best = str(devices.best_dtype(session.device)).removeprefix("torch.")
    calls |= session.others | _engine_calls(session, model, clips, best)
    for size in sizes:
        jobs = {name: partial(call, clips[:size]) for name, call in calls.items()}
        session.measure(f"batch {size}", jobs)
    batches = list(session.figures.values())
    curves = {name: (sizes, [1e3 * times[name].median for times in batches]) for name in calls}
    session.draw("forward", curves, xlabel="batch", log_y=True)
    with torch.inference_mode():
        exact = model(clips.to(model.device), return_dict=True).logits.float().cpu()
    session.figures["deviation"] = {
        name: _deviation(call(clips), exact) for name, call in calls.items()
    }
    build = partial(forward_job, session.device, session.dtype)
    session.figures["peak_bytes"] = {"videomae": session.peak("one clip", build)}
    if not session.asked.json:
        auto = engines.fastest(model.config, session.device, best)
        print(f"of these engines, auto would take {auto} in {best}")


def _engine_calls(
    session: Session, model: VideoMAEForVideoClassification, clips: Tensor, best: str
) -> dict[str, Call]:
    """Every engine in every precision that this machine computes in."""
    calls: dict[str, Call] = {}
    for name, dtype in itertools.product(engines.ENGINES, dict.fromkeys(("float32", best, "int8"))):
        known = (name, dtype) == ("torch", "float32")
        if name == "auto" or known or (dtype == "int8" and name != "openvino"):
            continue
        session.log(f"loading {name} {dtype}")
        try:
            call = engines.load(
                model,
                engine=name,
                dtype=dtype,
                device=session.device,
                calibration=list(clips) if dtype == "int8" else None,
                engine_cache_dir=session.folder / "engines",
            )
            call(clips[:1])
        except ConfigError as error:
            session.left_out.append(f"{name} {dtype}: {error}")
            continue
        calls[f"{name} {dtype}"] = call
    return calls


def _deviation(logits: Tensor, exact: Tensor) -> dict[str, float]:
    """The distance of logits (B, K) from those in float32, and how often the best label is kept."""
    return {
        "largest_error": float((logits - exact).abs().max()),
        "largest_logit": float(exact.abs().max()),
        "same_best": int((logits.argmax(-1) == exact.argmax(-1)).sum()),
    }


def forward_job(device: torch.device, dtype: torch.dtype, config: VideoMAEConfig) -> Job:
    """A random classifier and one random clip that goes through it."""
    model = VideoMAEForVideoClassification(config).eval().to(device, dtype)
    return partial(engines.load(model, engine="torch"), random_clips(config, 1))


def random_clips(config: VideoMAEConfig, count: int) -> Tensor:
    """Noise (count, T, C, H, W)."""
    return torch.randn(count, config.num_frames, config.num_channels, *config.image_hw)


def train(session: Session) -> None:
    """One step of pre-training, with 0.9 hidden, and one of fine-tuning; others as `our_model`."""
    for task in CLIPS_PER_STEP:
        where = (session.device, session.dtype)
        makers = {"videomae": our_model, **session.others}
        builds = {name: partial(step_job, make, task, *where) for name, make in makers.items()}
        times = session.times({name: build(session.config) for name, build in builds.items()})
        for name, build in builds.items():
            times[name]["peak_bytes"] = session.peak(f"{name}, {task}", build)
        session.figures[task] = times


def our_model(task: Task, config: VideoMAEConfig) -> tuple[nn.Module, Loss]:
    """A random model to be trained, and its loss."""
    if task == "pretrain":
        autoencoder = VideoMAEForPreTraining(config)
        return autoencoder, lambda pixels, mask: autoencoder(pixels, mask, return_dict=True).loss
    classifier = VideoMAEForVideoClassification(config.copy(use_mean_pooling=True))
    return classifier, lambda pixels, y: classifier(pixels, labels=y, return_dict=True).loss


def step_job(
    make: Callable[[Task, VideoMAEConfig], tuple[nn.Module, Loss]],
    task: Task,
    device: torch.device,
    dtype: torch.dtype,
    config: VideoMAEConfig,
) -> Job:
    """One update of the weights by AdamW on random clips, in three phases."""
    torch.manual_seed(0)
    model, loss = make(task, config)
    model.train().to(device)
    count = CLIPS_PER_STEP[task]
    pixels = random_clips(config, count).to(device)
    beside = torch.zeros(count, dtype=torch.long)
    if task == "pretrain":
        beside = tube_mask(config.grid, 0.9, batch_size=count, generator=torch.Generator())
    beside = beside.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> Iterator[str]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            value = loss(pixels, beside)
        yield "forward"
        value.backward()
        yield "backward"
        optimizer.step()
        optimizer.zero_grad()
        yield "optimiser"

    return step


def decode(session: Session) -> None:
    """16 frames, 4 apart, out of the middle of a file of ten seconds; others as `read_frames`."""
    for name in FILMS if session.asked.video is None else [str(session.asked.video)]:
        path = session.film(name)
        indices = clip_indices(probe(path).num_frames)
        decoders = {"videomae": read_frames, **session.others}
        session.measure(name, {who: partial(read, path, indices) for who, read in decoders.items()})


def process(session: Session) -> None:
    """16 frames of 1280 x 720 px to pixel values, in the forms that frames come in.

    Others: functions from such a form to pixel values.
    """
    frames = np.random.default_rng(0).integers(0, 256, (16, 720, 1280, 3), dtype=np.uint8)
    processors: dict[str, Callable[[Any], object]] = {
        "videomae image": partial(VideoMAEImageProcessor(), return_tensors="pt"),
        "videomae video": partial(VideoMAEVideoProcessor(), return_tensors="pt"),
        **session.others,
    }
    forms = {
        "list of arrays": list(frames),
        "list of PIL images": [Image.fromarray(frame) for frame in frames],
        "tensor T H W C": torch.from_numpy(frames),
        "tensor T C H W": torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
    }
    for form, given in forms.items():
        jobs = {name: partial(process, given) for name, process in processors.items()}
        session.measure(form, jobs)


def end_to_end(session: Session) -> None:
    """From a file to its five best labels: warm, from the start of a process, and many files.

    Others: modules with `reader(folder, frame_stride)`, which gives a function from a file to its
    labels; run as scripts with these two and a file as arguments, they do the same.
    """
    if session.device.type != "cpu":
        raise ConfigError("bench end-to-end runs on a CPU so far; pass --device cpu")
    others, folder = session.others, session.folder / "model"
    model, processor = session.classifier(), find_processor(None, session.config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    film = session.film("1280x720")
    stride = session.config.frame_stride or 4  # None, spread out, is not what others do
    readers = {name: other.reader(folder, stride) for name, other in others.items()}
    maker = ViewMaker(session.config, processor)

    def label(engine: engines.Engine) -> Tensor:
        logits = engine(maker(film))[0]
        return logits.topk(min(5, len(logits))).indices

    jobs: dict[str, Job] = {}
    for name in ("torch", "auto"):
        engine = engines.load(folder, engine=name, dtype=session.dtype, device=session.device)
        jobs.setdefault(f"videomae {engine.name}", partial(label, engine))
    jobs |= {name: partial(read, film) for name, read in readers.items()}
    session.measure("one file, the model loaded", jobs)

    ours = ["-m", "videomae", "classify", film, "--model", folder, "--json", "--engine", "torch"]
    words = {name: [other.__file__, folder, stride, film] for name, other in others.items()}
    words = {"videomae torch": ours, **words}
    jobs = {name: partial(_run_python, each) for name, each in words.items()}
    session.measure("one file, from the start of a process", jobs, most=5)

    motion = MotionSettings(session.folder / "short", clips=8, size=256, num_frames=48, workers=1)
    paths = list(itertools.islice(itertools.cycle(render_dataset(motion)), session.asked.files))
    how: dict[str, Any] = {"model": model, "processor": processor, "engine": "torch"}

    def read_all(read: Callable[[Path], object]) -> None:
        for path in paths:
            read(path)

    jobs = {"videomae torch": lambda: classify(paths, **how)}
    jobs |= {name: partial(read_all, read) for name, read in readers.items()}
    session.measure(f"{len(paths)} short files", jobs, most=3)


def _run_python(words: Sequence[object]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def scaling(session: Session) -> None:
    """Time and memory of one clip over its frames, its size, and the size of the model."""
    config = session.config
    patch, side = max(config.patch_hw), max(config.image_hw)
    sizes = {max(patch, round(side * by / patch) * patch) for by in (0.5, 0.7, 1, 1.4)}
    series: dict[str, dict[int, VideoMAEConfig]] = {
        "frames": {n: config.copy(num_frames=n) for n in (8, 16, 32, 64)},
        "height and width, px": {n: config.copy(image_size=n) for n in sorted(sizes)},
    }
    if session.place is None and session.asked.model != "tiny":
        presets = [VideoMAEConfig.preset(name) for name in ("small", "base", "large")]
        series["width of the model"] = {each.hidden_size: each for each in presets}
    build = partial(forward_job, session.device, session.dtype)
    for axis, configs in series.items():
        times = session.times({str(x): build(each) for x, each in configs.items()})
        rows = {
            str(x): {
                "seconds": times[str(x)]["total"],
                "peak_bytes": session.peak(f"{axis} {x}", build, each),
            }
            for x, each in configs.items()
        }
        xs, medians = list(configs), [row["seconds"].median for row in rows.values()]
        peaks = [row["peak_bytes"] for row in rows.values()]
        power = {"time": timing.exponent(xs, medians), "memory": timing.exponent(xs, peaks)}
        session.figures[axis] = {**rows, "exponents": power}
        curve = {"": (xs, [1e3 * median for median in medians])}
        growth = f"time ~ x^{power['time']:.2f}, memory ~ x^{power['memory']:.2f}"
        title = f"one clip over {axis}: {growth}"
        session.draw(axis.split()[0], curve, title=title, xlabel=axis)


Part = Callable[[Session], None]
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
    """Measure, print tables and one line of JSON, and return what that line holds.

    With `output`, a folder, bench.json and charts are written there. Raises ConfigError for what
    cannot be measured.

    ```python
    bench(Bench("process", repeats=3))["figures"]["list of arrays"]["videomae image"]["median"]
    ```
    """
    if min(asked.repeats, asked.files, len(asked.batch_sizes), *asked.batch_sizes) < 1:
        raise ConfigError(
            f"repeats={asked.repeats}, files={asked.files}, batch_sizes={asked.batch_sizes}: all "
            "must be at least 1"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(asked.threads or before)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            # Drawn between jobs alone: a thread that draws would take part in what is measured.
            Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live,
        ):
            session = Session(asked, Path(folder), partial(live.update, refresh=True))
            parts[asked.what](session)
            record = {
                "bench": asked.what,
                "command": " ".join([program, *sys.argv[1:]]),
                "clock": asked.clock,
                "machine": timing.about_machine(session.device),
                "figures": timing.as_plain(session.figures),
                "left_out": session.left_out,
            }
    finally:
        torch.set_num_threads(before)
    if asked.output is not None:
        write_json(asked.output / "bench.json", record)
    if not asked.json:
        out = Console(highlight=False, markup=False)
        out.width = out.width if out.is_terminal else max(out.width, 160)
        out.print(f"medians of {asked.repeats} rounds by the {asked.clock} clock")
        for case, rows in session.figures.items():
            out.print(f"\n{asked.what}: {case}", timing.table_of(rows), sep="\n", end="")
        for note in session.left_out:
            out.print(f"left out: {note}", soft_wrap=True)
    print(json.dumps(record, ensure_ascii=False), flush=True)
    return record
