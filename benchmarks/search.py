"""How many copies a search finds, beside hashes of frames; and how long comparing takes.

    python -m benchmarks.search            # copies, some minutes
    python -m benchmarks.search --rows     # time and recall over the number of rows

Each of 60 videos is two rendered clips after each other, 8 s at 16 frames a second. A copy is a
cut of 3 s of one of them, changed. Found is the right video first, at an overlapping time. The hash
is the usual plain alternative (dHash: 64 signs of differences between neighbours in 8 x 9 pixels),
of every fourth frame; a place in a video is as far away as the mean of their differing bits.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reproduction import motion
from videomae.data.manifest import Video
from videomae.footage import duplicates
from videomae.footage.batch import run_job
from videomae.footage.duplicates import nearest_others
from videomae.footage.jobs import Job
from videomae.footage.search import Index, Stretch, load_model, open_index, search
from videomae.rendering import actions
from videomae.video.decoder import Frames
from videomae.video.reader import VideoReader
from videomae.video.writer import write_video

VIDEOS, FPS, CUT, EVERY = 60, 16, 48, 4


def resized(clip: Frames, side: int) -> Frames:
    return np.stack([np.asarray(Image.fromarray(frame).resize((side, side))) for frame in clip])


CHANGES: dict[str, Callable[[Frames], Frames]] = {
    "cut alone": lambda clip: clip,
    "3/4 of the size and back": lambda clip: resized(resized(clip, 48), 64),
    "darker": lambda clip: np.asarray(0.7 * clip, np.uint8),
    "cropped by a tenth": lambda clip: resized(clip[:, 3:-3, 3:-3], 64),
    "mirrored": lambda clip: np.ascontiguousarray(clip[:, :, ::-1]),
    "half as fast": lambda clip: clip.repeat(2, axis=0),
}


def rendered(kind: str) -> Iterator[Frames]:
    """Videos of two clips each, of people or of moving views."""
    made = {"actions": actions, "motion": motion}[kind]
    names = actions.CLASSES if kind == "actions" else motion.MOTIONS
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        chosen = rng.choice(len(names), 2)
        clips = [
            made.render_clip(names[name], seed=1000 * number + k, num_frames=64, size=64)
            for k, name in enumerate(chosen)
        ]
        yield np.concatenate(clips)


def hashes(clip: Frames) -> NDArray[np.bool_]:
    """dHash of every fourth frame: (frames, 64)."""
    small = [np.asarray(Image.fromarray(f).convert("L").resize((9, 8)), int) for f in clip[::EVERY]]
    return np.stack([(s[:, 1:] > s[:, :-1]).ravel() for s in small])


def by_hash(query: NDArray[np.bool_], known: list[NDArray[np.bool_]]) -> tuple[int, float]:
    """The nearest video, and at which second of it the query begins."""
    best = (2.0, 0, 0.0)
    for number, video in enumerate(known):
        length = min(len(query), len(video))
        for start in range(len(video) - length + 1):
            far = float((video[start : start + length] != query[:length]).mean())
            best = min(best, (far, number, start * EVERY / FPS))
    return best[1], best[2]


def copies(kind: str, model: str, folder: Path) -> None:
    """Print what share of the copies of each kind is found."""
    videos = list(rendered(kind))
    paths = [write_video(folder / kind / f"{k}.mp4", v, fps=FPS) for k, v in enumerate(videos)]
    known = []
    for path in paths:
        with VideoReader(path) as reader:
            known.append(hashes(reader.read(range(reader.info.num_frames))))
    job = Job("embed", model=model, window_seconds=2, hop_seconds=0.5)
    run_job([Video(str(path)) for path in paths], folder / f"{kind} {Path(model).name}", job)
    index = open_index(folder / f"{kind} {Path(model).name}")
    whole = load_model(index)
    starts = np.random.default_rng(1).integers(0, len(videos[0]) - CUT, VIDEOS)
    print(f"\n{kind}, {model}, {len(index.rows)} rows\n")
    print("| copy | found, % | with --mirrored | by hashes of frames |\n|---|---|---|---|")
    for change, function in CHANGES.items():
        right = np.zeros(3)
        for number, start in enumerate(starts.tolist()):
            copy = function(videos[number][start : start + CUT])
            path = write_video(folder / "copy.mp4", copy, fps=FPS)
            truth = Stretch(str(paths[number]), start / FPS, (start + CUT) / FPS)
            for column, mirrored in enumerate((False, True)):
                (match,) = search(index, Stretch(str(path)), whole, count=1, mirrored=mirrored)
                right[column] += match.stretch.overlaps(truth)
            with VideoReader(path) as reader:
                found, second = by_hash(hashes(reader.read(range(len(copy)))), known)
            place = Stretch(str(paths[found]), second, second + CUT / FPS)
            right[2] += place.overlaps(truth)
        cells = " | ".join(f"{100 * value / VIDEOS:.0f}" for value in right)
        print(f"| {change} | {cells} |")


def rows_table() -> None:
    """Print how long it takes to find one query among random rows, and all pairs of them."""
    print("| rows of 384 | one query, ms | all with all, s | by faiss, s | recall of faiss |")
    print("|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for count in (1_000, 10_000, 50_000, 100_000):
        centres = rng.normal(size=(count // 20, 384)).astype(np.float32)
        unit = centres[rng.integers(0, len(centres), count)]
        unit += 0.7 * rng.normal(size=unit.shape).astype(np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        index = Index([Stretch("")] * count, np.arange(count), unit, unit[0], unit[0], {})
        began = time.perf_counter()
        for query in unit[:20]:
            np.argpartition(-(unit @ query), 10)
        single = (time.perf_counter() - began) / 20
        began = time.perf_counter()
        exact = nearest_others(index)[1]
        whole = time.perf_counter() - began
        began = time.perf_counter()
        likely = duplicates._likely_others(index, 16)[1]
        fast = time.perf_counter() - began
        recall = float((exact[:, 0] == likely[:, 0]).mean())
        print(f"| {count:,} | {1000 * single:.1f} | {whole:.1f} | {fast:.1f} | {recall:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--model", nargs="+", default=["actions-tiny-pretrain", "actions-tiny"])
    arguments = parser.parse_args()
    if arguments.rows:
        rows_table()
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("actions", "motion"):
            for model in arguments.model:
                copies(kind, model, Path(folder))


if __name__ == "__main__":
    main()
