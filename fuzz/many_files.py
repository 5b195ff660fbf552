"""A data set of many small files, prepared with interruptions: whole, equal, in bounded memory.

    python -m fuzz.many_files --output /tmp/many                 # 100,000 files, ten interruptions

Small real videos of distinct bytes are prepared twice by the command line: left alone, and
interrupted by Ctrl-C and by SIGKILL in turn, at places drawn from the seed. What both leave behind
must be the same, byte by byte, and list every file. Takes about 0.5 GB of disk, and twenty minutes
on one core. Runs on Linux; the files are kept for the next call.
"""

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from videomae.rendering.actions import CLASSES, render_clip
from videomae.video.writer import write_video

NUM_CLASSES = 40
COMPARED = ("manifest.csv", "labels.txt", "report.json", "report.md")


def make_videos(folder: Path, count: int) -> None:
    """Write `count` videos of 16 px and 4 frames; a box that players skip makes each unlike all."""
    kinds = []
    for seed, motion in enumerate(CLASSES):
        path = folder.parent / "base.mp4"
        write_video(path, render_clip(motion, seed=seed, size=16, num_frames=4), fps=8)
        kinds.append(path.read_bytes())
    for number in range(count):
        path = folder / f"class{number % NUM_CLASSES:02d}" / f"{number:06d}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = struct.pack(">I4sQ", 16, b"free", number)
            path.write_bytes(kinds[number % len(kinds)] + own)


def run(videos: Path, output: Path, *, stop_at: int = 0, by: int = 0) -> tuple[int, float, float]:
    """Prepare the videos; stop once the journal has so many bytes: exit code, seconds, MB."""
    start = time.monotonic()
    command = [sys.executable, "-m", "videomae", "prepare", str(videos), "--output", str(output)]
    with (output.parent / "printed.txt").open("a") as printed:
        child = subprocess.Popen(command, stdout=printed, stderr=printed)
    journal = output / "done.jsonl"
    while True:
        done, status, used = os.wait4(child.pid, os.WNOHANG)
        if done:
            child.returncode = os.waitstatus_to_exitcode(status)  # it is gone, and asked for here
            return child.returncode, time.monotonic() - start, used.ru_maxrss / 1024
        if stop_at and journal.exists() and journal.stat().st_size >= stop_at:
            child.send_signal(by)
            stop_at = 0
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--megabytes", type=float, default=1200, help="memory a call may take")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    videos = asked.output / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    make_videos(videos, asked.count)
    plain, stopped = asked.output / "plain", asked.output / "stopped"
    for folder in (plain, stopped):
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    code, seconds, most = run(videos, plain)
    print(f"left alone: exit {code}, {seconds:.0f} s, {most:,.0f} MB", flush=True)
    size = (plain / "done.jsonl").stat().st_size
    draw = random.Random(asked.seed)
    for number, place in enumerate(sorted(draw.uniform(0, 1) for _ in range(asked.interruptions))):
        by = (signal.SIGINT, signal.SIGKILL)[number % 2]
        code, seconds, peak = run(videos, stopped, stop_at=int(place * size), by=by)
        most = max(most, peak)
        print(f"{by.name} at {place:.0%}: exit {code}, {seconds:.0f} s, {peak:,.0f} MB", flush=True)
    code, seconds, peak = run(videos, stopped)
    most = max(most, peak)
    print(f"to the end: exit {code}, {seconds:.0f} s, {peak:,.0f} MB", flush=True)
    same = [(plain / name).read_bytes() == (stopped / name).read_bytes() for name in COMPARED]
    usable = json.loads((stopped / "report.json").read_text())["num_usable"]
    rows = len((stopped / "manifest.csv").read_bytes().splitlines()) - 1
    leavings = [path.name for path in stopped.iterdir() if path.name.startswith(".")]
    print(f"{usable:,} usable, {rows:,} rows; equal: {dict(zip(COMPARED, same, strict=True))}")
    print(f"left behind: {leavings}; most memory: {most:,.0f} MB")
    good = all(same) and usable == rows == asked.count and not leavings and most < asked.megabytes
    return 0 if good and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
