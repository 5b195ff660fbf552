"""What a user waits for: a classifier from labelled files, and pre-training from files.

    videomae actions clips --clips 1000 --test-clips 300
    python -m benchmarks.time_to_model finetune --train clips/train --test clips/test \
        --encoder actions-tiny-pretrain --epochs 20 --output results.jsonl
    python -m benchmarks.time_to_model pretrain --train clips/train --image-size 64 \
        --output results.jsonl
    python -m benchmarks.time_to_model page --output trainers.jsonl

`finetune`: `videomae finetune` beside the Trainer of transformers with its own model, from the same
weights, on the same files, with the same batch, epochs, peak learning rate, schedule, weight decay,
label smoothing and gradient clipping (`compare/transformers_trainer.py`). Each is a process of its
own, from its start to the saved and tested model. `--who "trainer bfloat16"` is that Trainer with
the classes of videomae; `page` writes what each reached with each seed into time_to_model.md.
`pretrain`: `videomae pretrain` beside a plain loop (`PlainModel`, files read by PyAV as the
published data set reads them by decord), in turns in one process.

Times are seconds of the clock and of all processors together (`cpu_seconds`), which other work on
the machine disturbs less. A line of JSON is appended per result.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.actions_tiny import fill
from benchmarks.compare.baselines import PlainModel
from videomae import hub
from videomae.commands.timing import about_machine, stopwatch
from videomae.compute.distributed import Machine
from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.masking import tube_mask
from videomae.settings import PretrainSettings
from videomae.training import pretrain as ours
from videomae.training.augment import crop_and_resize, random_crop_box

TRAINER = Path(__file__).parent / "compare" / "transformers_trainer.py"
# The table of `page` is written between these.
MARKS = ("<!-- figures of the trainers -->", "<!-- end of figures -->")


def finetune(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each contender from its start to the model."""
    encoder = Path(hub.fetch(asked.encoder, "config.json")).parent
    for who in asked.who:
        name, _, dtype = who.partition(" ")
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "run")
            numbers = ["--epochs", asked.epochs, "--batch-size", asked.batch_size]
            numbers += ["--seed", asked.seed]
            if name == "videomae":
                command = [sys.executable, "-m", "videomae", "finetune", "--data", asked.train]
                command += ["--eval-data", asked.test, "--init", encoder, "--output", output]
                # lr * batch / 256 is the peak, its floor 0, as with the Trainer
                command += [*numbers, "--lr", asked.lr * 256 / asked.batch_size, "--min-lr", 0]
                command += ["--dtype", dtype, "--tracker", "none"]
                if not asked.own_recipe:
                    command += ["--layer-decay", 1, "--drop-path-rate", 0, "--crop-scales", 1]
                    command += ["--clip-grad", 1]  # as the Trainer does
            else:
                command = [sys.executable, TRAINER, encoder, asked.train, asked.test, output]
                command += [*numbers, "--lr", asked.lr]
                command += ["--classes", "videomae"] if name == "trainer" else []
                command += ["--bf16"] if dtype == "bfloat16" else []
            before, start = os.times(), time.perf_counter()
            done = subprocess.run(
                [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True
            )
            after = os.times()
            cpu = after.children_user - before.children_user
            cpu += after.children_system - before.children_system
            found = {"who": who, "seconds": time.perf_counter() - start, "cpu_seconds": cpu}
            if name == "videomae":
                results = json.loads((output / "results.json").read_text())
                yield found | {"top_1": results["top1"]}
            else:
                yield found | json.loads(done.stdout.splitlines()[-1])


class Files(Dataset[tuple[Tensor, Tensor]]):
    """A clip and its mask of each file: decoded, cropped at one of four scales, normalised."""

    def __init__(self, folder: Path, config: VideoMAEConfig, stride: int) -> None:
        self.paths = sorted(folder.rglob("*.mp4"))
        self.config, self.stride = config, stride
        self.mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        config = self.config
        with av.open(str(self.paths[index])) as container:
            span = (config.num_frames - 1) * self.stride + 1
            start = random.randint(0, max(container.streams.video[0].frames - span, 0))
            wanted = range(start, start + span, self.stride)
            frames = []
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if number >= wanted[-1]:
                    break
        clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (T, C, H, W)
        scales = (1.0, 0.875, 0.75, 0.66)
        height, width = frames[0].shape[:2]
        box = random_crop_box(height, width, config.image_hw, scales, random.Random())
        pixels = crop_and_resize(clip, box, config.image_hw).float().div(255)
        return (pixels - self.mean) / self.std, tube_mask(config.grid, 0.9)[0]


def plain_epochs(asked: argparse.Namespace, config: VideoMAEConfig) -> Iterator[int]:
    """Train as one would write it down; how many clips after each epoch."""
    model = PlainModel(config, "pretrain").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    files = Files(asked.train, config, config.frame_stride or 4)
    loader = DataLoader(
        files, asked.batch_size, shuffle=True, drop_last=True, num_workers=asked.workers
    )
    while True:
        for pixels, mask in loader:
            enabled = asked.dtype == "bfloat16"
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = model(pixels, mask).loss
            loss.item()  # the published loop stops at a loss that is no number
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield len(loader) * asked.batch_size


def our_epochs(asked: argparse.Namespace, output: Path) -> Iterator[int]:
    """Train by `videomae pretrain`; how many clips after each epoch."""
    settings = PretrainSettings(
        data=asked.train,
        output=output,
        preset="tiny",
        image_size=asked.image_size,
        mask="tube",
        mask_ratio=0.9,
        decoder_mask_ratio=asked.decoder_mask_ratio,
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        lr=1e-4 * 256 / asked.batch_size,
        device="cpu",
        dtype=asked.dtype,
        num_workers=asked.workers,
        cache_gb=asked.cache_gb,
        tracker="none",
    )
    training, _ = ours.prepare(settings, Machine.start("cpu", asked.dtype))
    for _ in training.epochs():
        yield training.epoch_steps * training.clips_per_step


def pretrain(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Epochs in turns; the first of ours decodes, later ones take what it has kept."""
    config = VideoMAEConfig.preset("tiny", image_size=asked.image_size, use_mean_pooling=False)
    folder = Path(tempfile.mkdtemp())
    now = stopwatch("cpu", torch.device("cpu"))
    contenders = {
        "videomae": our_epochs(asked, folder / "run"),
        "plain loop": plain_epochs(asked, config),
    }
    try:
        for epoch in range(1, asked.epochs + 1):
            for who, epochs in contenders.items():
                before, start = now(), time.perf_counter()
                clips = next(epochs)
                yield {
                    "who": f"{who} {asked.dtype}",
                    "epoch": epoch,
                    "clips_per_second": clips / (time.perf_counter() - start),
                    "clips_per_cpu_second": clips / (now() - before),
                }
    finally:
        shutil.rmtree(folder)


def trainers_table(rows: list[dict[str, Any]]) -> str:
    """Of each contender top-1 and CPU seconds, each seed and their median.

    Of the rows it takes those in the precision of the last one.
    """
    precision = rows[-1]["who"].split()[-1]
    lines = [
        "| epochs | by | top-1, %, by seed | median | CPU seconds | median |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    contenders = {
        "transformers": "transformers' Trainer",
        "trainer": "the same, with the classes here",
        "videomae": "`videomae finetune`",
    }
    rows = [row for row in rows if "top_1" in row and row["who"].endswith(f" {precision}")]
    rows.sort(key=lambda row: int(row["settings"]["seed"]))
    for epochs in sorted({int(row["settings"]["epochs"]) for row in rows}):
        for who, name in contenders.items():
            asked = f"{who} {precision}", str(epochs)
            runs = [row for row in rows if (row["who"], row["settings"]["epochs"]) == asked]
            cells = [str(epochs), name]
            for key in ("top_1", "cpu_seconds"):
                values = [row[key] for row in runs]
                cells += [", ".join(f"{value:.1f}" for value in values)]
                cells += [f"{median(values):.1f}" if values else ""]
            lines += [f"| {' | '.join(cells)} |"] if runs else []
    machine = rows[-1]["machine"]
    about = f"{rows[-1]['date']}, {precision}, {machine['processor']}, torch {machine['torch']}."
    lines += ["", about]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=["finetune", "pretrain", "page"])
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--encoder", default="actions-tiny-pretrain")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--dtype", default="float32", help="of pretrain")
    parser.add_argument("--decoder-mask-ratio", type=float)
    parser.add_argument("--cache-gb", type=float, default=4.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--who",
        nargs="+",
        default=["videomae auto", "transformers float32", "transformers bfloat16"],
        help="contenders of finetune, with their precision",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--own-recipe", action="store_true", help="layer decay, drop path and crops, as by default"
    )
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    if asked.part == "page":
        rows = [json.loads(line) for line in asked.output.read_text().splitlines()]
        fill(Path(__file__).with_suffix(".md"), trainers_table(rows), MARKS)
        return
    settings = {name: str(value) for name, value in vars(asked).items()}
    for found in (finetune if asked.part == "finetune" else pretrain)(asked):
        print(json.dumps(found), flush=True)
        machine = about_machine(torch.device("cpu"))
        line = {"date": str(date.today()), "settings": settings, **found, "machine": machine}
        with asked.output.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
