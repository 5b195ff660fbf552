"""One process of `benchmarks.before_after`: does what it is told, by whichever videomae it finds.

    PYTHONPATH=CHECKOUT/src python benchmarks/compare/worker.py FOLDER MODEL

It prints a line of JSON, the names of its jobs and why it cannot do others. Then it reads names, a
line each, does the job, and prints an empty line. Every job is tried once before.
"""

import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Job = Callable[[], object]


def processing(folder: Path) -> dict[str, Job]:
    """16 frames to pixel values, in five forms, by both processors."""
    from videomae import VideoMAEImageProcessor, VideoMAEVideoProcessor

    frames = np.load(folder / "frames.npy")
    turned = torch.from_numpy(frames).permute(0, 3, 1, 2)
    forms: dict[str, Any] = {
        "list of arrays": list(frames),
        "list of PIL images": [Image.fromarray(frame) for frame in frames],
        "array T H W C": frames,
        "tensor T C H W": turned.contiguous(),
        "tensor T C H W, turned": turned,
    }
    processors: dict[str, Callable[..., Any]] = {
        "image": VideoMAEImageProcessor(),
        "video": VideoMAEVideoProcessor(),
    }
    return {
        f"{kind} processor, {form}": partial(processor, given, return_tensors="pt")
        for form, given in forms.items()
        for kind, processor in processors.items()
    }


def classifying(folder: Path, place: Path) -> dict[str, Job]:
    """From a file to its labels, the model loaded."""
    from videomae import VideoMAEForVideoClassification, classify

    model = VideoMAEForVideoClassification.from_pretrained(place)
    return {"classify, the model loaded": partial(classify, folder / "film.mp4", model=model)}


def loading(folder: Path) -> dict[str, Job]:
    """A training clip of each short video, by one thread."""
    from videomae import VideoMAEConfig
    from videomae.data.manifest import load_videos
    from videomae.settings import TrainSettings
    from videomae.training.data import ClipSource

    videos = load_videos(folder / "videos", labelled=False)
    source = ClipSource(videos, VideoMAEConfig.preset("base"), TrainSettings(cache_gb=0))
    epochs = itertools.count()

    def load() -> None:
        epoch = next(epochs)
        for index in range(len(videos)):
            source.train_clips(epoch, index)

    return {f"load {len(videos)} training clips": load}


def training(place: Path) -> dict[str, Job]:
    """A step of fine-tuning on noise."""
    from videomae import VideoMAEForVideoClassification

    model = VideoMAEForVideoClassification.from_pretrained(place).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    config = model.config
    clips = torch.randn(8, config.num_frames, config.num_channels, *config.image_hw)
    labels = torch.arange(8) % config.num_labels

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss: Any = model(clips, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"a step of fine-tuning, 8 clips, bfloat16": step}


def able_of(folder: Path, place: Path) -> tuple[dict[str, Job], dict[str, str]]:
    """The jobs that this package can do, and why it cannot do others."""
    able: dict[str, Job] = {}
    failed: dict[str, str] = {}
    makers: dict[str, Callable[[], dict[str, Job]]] = {
        "processors": partial(processing, folder),
        "classify": partial(classifying, folder, place),
        "loader": partial(loading, folder),
        "training": partial(training, place),
    }
    for what, make in makers.items():
        try:
            jobs = make()
            for job in jobs.values():
                job()
        except Exception as error:  # an older package may lack anything
            failed[what] = f"{type(error).__name__}: {error}".partition("\n")[0]
        else:
            able |= jobs
    return able, failed


def main() -> None:
    able, failed = able_of(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps([list(able), failed]), flush=True)
    for line in sys.stdin:
        able[line.strip()]()
        print(flush=True)


if __name__ == "__main__":
    main()
