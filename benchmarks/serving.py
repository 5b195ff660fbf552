"""The service under load, beside one client and beside a service without batches or limits.

python -m benchmarks.serving [--seconds 120] [--uploads 5000] [--preset small]; needs locust beside
the packages of the tests, and writes benchmarks/serving_PRESET.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from videomae.commands.timing import about_machine
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

HERE = Path(__file__).parent
PORT = 8765
URL = f"http://127.0.0.1:{PORT}"


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service in a process of its own, ready for requests."""
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        for _ in range(1200):
            time.sleep(0.1)
            try:
                urllib.request.urlopen(f"{URL}/readyz", timeout=1)
                break
            except OSError:
                assert process.poll() is None, "the service ended"
        yield process
    finally:
        process.terminate()
        process.wait(60)


def load(clip: Path, *, users: int, seconds: float, rate: float = 0) -> dict[str, Any]:
    """Let users post a clip for so many seconds; counts and times in ms of answers by status."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless"),
            *("--host", URL, "-u", str(users), "-r", str(users), "-t", f"{seconds:g}s"),
            *("--stop-timeout", "60", "--json", "--only-summary", "--loglevel", "ERROR"),
        ],
        env={**os.environ, "CLIP": str(clip), "RATE": str(rate)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[str, Any] = {"users": users, "seconds": seconds, "offered_per_second": users * rate}
    for row in json.loads(result.stdout):
        times = sorted(
            float(ms) for ms, count in row["response_times"].items() for _ in range(count)
        )
        found[row["name"]] = {
            "count": row["num_requests"],
            "failures": row["num_failures"],
            "per_second": round(row["num_requests"] / seconds, 2),
            **{f"p{q}_ms": times[int(q / 100 * (len(times) - 1))] for q in (50, 95, 99)},
        }
    return found


def counted(status: int) -> int:
    """Requests that the service says it answered with a status."""
    text = urllib.request.urlopen(f"{URL}/metrics", timeout=5).read().decode()
    found = re.search(rf'requests_total{{job="classify",outcome="{status}"}} (\d+)', text)
    return int(found[1]) if found else 0


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """Memory of a process and its children, in MB."""
    total, waiting = 0, [process.pid]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/smaps_rollup").read_text()
            tasks = Path(f"/proc/{pid}/task").iterdir()
            waiting += [int(x) for t in tasks for x in (t / "children").read_text().split()]
        except OSError:
            continue
        found = re.search(r"^Pss: +(\d+)", status, re.M)
        total += int(found[1]) if found else 0
    return total / 1024


def main() -> None:
    """Run all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--uploads", type=int, default=5000)
    parser.add_argument("--preset", default="small")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        write_video(clip, render_clip("throw", seed=0, size=256, num_frames=64), fps=25)
        torch.manual_seed(0)
        config = VideoMAEConfig.preset(options.preset, num_labels=400)
        VideoMAEForVideoClassification(config).save_pretrained(Path(folder, "model"))
        model = str(Path(folder, "model"))
        serve = [
            *(sys.executable, "-m", "videomae", "serve", model, "--port", str(PORT)),
            *("--dtype", "float32", "--engine", "torch", "--max-requests", "32"),
        ]
        plain = [sys.executable, "-m", "uvicorn", "benchmarks.plain_app:app", "--port", str(PORT)]
        found: dict[str, Any] = {
            "machine": about_machine(torch.device("cpu")),
            "preset": options.preset,
        }
        with running([*plain, "--log-level", "warning"], MODEL=model):
            found["plain, one client"] = load(clip, users=1, seconds=options.seconds / 4)
            found["plain, 16 clients"] = load(clip, users=16, seconds=options.seconds / 2)
        with running(serve):
            found["one client"] = load(clip, users=1, seconds=options.seconds / 4)
            full = found["16 clients"] = load(clip, users=16, seconds=options.seconds / 2)
        capacity = full["200"]["per_second"]
        with running(serve):
            rate = 4 * capacity / 64
            over = load(clip, users=64, seconds=options.seconds, rate=rate)
            found["4 x capacity"] = over
            found["answered as the service counts"] = counted(200)
        tiny = [*serve[:4], "actions-tiny", *serve[5:]]
        with running(tiny) as process:
            found["memory"] = []
            done = 0
            while done < options.uploads:
                done += load(clip, users=8, seconds=10)["200"]["count"]
                found["memory"].append({"uploads": done, "mb": round(memory_mb(process))})
    (HERE / f"serving_{options.preset}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
