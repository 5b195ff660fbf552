"""Every comparison that the README and docs/speed.md quote, and their table and chart.

    python -m benchmarks.speed 2026-11-22-epyc              # about an hour on two quiet cores
    python -m benchmarks.speed 2026-11-22-epyc --only train # one of them again
    python -m benchmarks.speed 2026-11-22-epyc --draw       # nothing is measured

The results are lines of JSON in benchmarks/speed/NAME.jsonl, one per command; a line that is there
is not measured again, unless asked for by --only. Further flags go to `benchmarks.compare.run`:
`--threads 1 --clock cpu` on a machine that others use as well.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RUNS = {
    "process": ["process"],
    "decode": ["decode"],
    "train": ["train", "--repeats", "5"],
    "forward": ["forward", "--batch-sizes", "1"],
    "forward-small": ["forward", "--model", "small", "--repeats", "3"],
    "forward-tiny": ["forward", "--model", "actions-tiny", "--repeats", "30"],
    "end-to-end": ["end-to-end", "--files", "8", "--repeats", "5"],
    "end-to-end-tiny": [
        "end-to-end",
        "--model",
        "actions-tiny",
        "--files",
        "1000",
        "--repeats",
        "3",
    ],
    "scaling": ["scaling", "--repeats", "3"],
}


class Job(NamedTuple):
    """One line of the table: where ours and theirs stand, and what to call it."""

    name: str
    run: str
    figure: str
    ours: str
    theirs: tuple[str, ...]  # the fastest of these that are there


IMAGE = ("transformers image, torchvision", "transformers image, PIL")
TRANSFORMERS = ("transformers",)
JOBS = [
    Job("16 frames of 720p to pixel values", "process", "list of arrays", "videomae image", IMAGE),
    Job("16 frames out of a 720p file", "decode", "1280x720", "videomae", ("decord", "torchcodec")),
    Job("ViT-B forward", "forward", "batch 1", "sdpa", ("transformers eager", "transformers sdpa")),
    Job("ViT-B pre-training step", "train", "pretrain", "videomae", TRANSFORMERS),
    Job("ViT-B fine-tuning step", "train", "finetune", "videomae", TRANSFORMERS),
    Job(
        "720p file to labels, ViT-B",
        "end-to-end",
        "one file, the model loaded",
        "videomae torch",
        TRANSFORMERS,
    ),
    Job(
        "the same from the start of a process",
        "end-to-end",
        "one file, from the start of a process",
        "videomae torch",
        TRANSFORMERS,
    ),
    Job(
        "1,000 short files, small model",
        "end-to-end-tiny",
        "1000 short files",
        "videomae torch",
        TRANSFORMERS,
    ),
]


def measure(place: Path, only: str | None, flags: list[str]) -> dict[str, Any]:
    """The records by the name of their run; those not there yet are measured and appended."""
    records = read(place)
    for name, words in RUNS.items():
        if only not in (None, name) or (only is None and name in records):
            continue
        print(f"== {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.compare.run", *words, *flags, "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        records[name] = {"run": name, **json.loads(done.stdout)}
        place.parent.mkdir(exist_ok=True)
        place.write_text("".join(json.dumps(record) + "\n" for record in records.values()))
    return records


def read(place: Path) -> dict[str, Any]:
    lines = place.read_text().splitlines() if place.exists() else []
    return {record["run"]: record for record in map(json.loads, lines)}


def compared(records: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """(job, our seconds, theirs, who they are) of every job that was measured."""
    rows = []
    for job in JOBS:
        figures = records.get(job.run, {}).get("figures", {}).get(job.figure)
        if not figures:
            continue
        own = figures[job.ours]
        medians = {
            who: each.get("total", each)["median"]
            for who, each in figures.items()
            if who in job.theirs
        }
        best = min(medians, key=lambda who: medians[who])
        rows.append((job.name, own.get("total", own)["median"], medians[best], best))
    return rows


def in_words(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def draw(rows: list[tuple[str, float, float, str]], path: Path) -> None:
    """Bars: how many times as long the others take; the line is where both take as long."""
    ratios = {name: theirs / ours for name, ours, theirs, _ in reversed(rows)}
    figure = Figure(figsize=(7.2, 0.34 * len(rows) + 0.3), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(ratios), list(ratios.values()), height=0.62, color="#0072b2")
    for place, ratio in enumerate(ratios.values()):
        axes.text(ratio + 0.06, place, f"{ratio:.1f}×", va="center", fontsize=9, color="#202124")
    axes.axvline(1, color="#202124", linewidth=0.8)
    axes.set_xlim(0, 1.1 * max(ratios.values()))
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    # Neither a date nor random names: the same figures give the same file.
    with rc_context({"svg.hashsalt": "videomae"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    today = f"{date.today()}-{platform.node()}"
    parser.add_argument("name", nargs="?", default=today, help="date and machine")
    parser.add_argument("--only", choices=list(RUNS), help="measure this, even if it is there")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    known, flags = parser.parse_known_args()
    place = ROOT / "benchmarks" / "speed" / f"{known.name}.jsonl"
    records = read(place) if known.draw else measure(place, known.only, flags)
    rows = compared(records)
    print("| job | videomae | best of the others | ratio |\n|---|--:|--:|--:|")
    for name, ours, theirs, who in rows:
        other = f"{in_words(theirs)} ({who})"
        print(f"| {name} | {in_words(ours)} | {other} | {theirs / ours:.2f}× |")
    draw(rows, ROOT / "docs" / "images" / "speed.svg")


if __name__ == "__main__":
    main()
