"""The speed figures of the README and of benchmarks/speed.md: measured, kept, written down there.

    python -m benchmarks.speed 2026-11-26-epyc cold busy   # measure these
    python -m benchmarks.speed 2026-11-26-epyc             # all that this file does not have yet
    python -m benchmarks.speed                             # only write tables and chart anew

Each run is a line of JSON at the end of benchmarks/speed/NAME.jsonl: when, by which command, on
what machine, and the figures, case -> way -> median and quartiles in seconds. Pages have between
two marks what the newest lines say that have all that is compared. `--before CHECKOUT` is for cold
and warm; `--flags="--threads 1 --clock cpu"` go to the commands of all runs that are measured.
"""

import argparse
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from videomae.hub import atomic_path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "speed"
CHART = ROOT / "docs" / "images" / "speed.svg"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "speed.md")
BEFORE_AFTER = ("cold", "warm")
RUNS = {
    "cold": "before_after cold",
    "warm": "before_after warm --busy 0 1 2",
    "process": "compare.run process",
    "busy": "compare.run process --busy 0 1 2 --repeats 9",
    "decode": "compare.run decode",
    "loader": "loader --videos 6 --rounds 3 --output runs/loader",
    "train-tiny": "compare.run train --model actions-tiny --busy 0 1 2",
    "end-to-end-tiny": "compare.run end-to-end --model actions-tiny --files 1000 --repeats 3",
    "train": "compare.run train --repeats 5",
    "forward": "compare.run forward --batch-sizes 1",
    "forward-small": "compare.run forward --model small --repeats 3",
    "forward-tiny": "compare.run forward --model actions-tiny --repeats 30",
    "end-to-end": "compare.run end-to-end --files 8 --repeats 5",
    "scaling": "compare.run scaling --repeats 3",
}
# Above this load average the machine was somebody else's: such figures stay out of the README.
MOST_LOAD = 8.0

Record = dict[str, Any]
Records = dict[str, list[Record]]  # of each run, the newest first


class Job(NamedTuple):
    """A row of the README: where ours and theirs stand, and what to call it."""

    name: str
    run: str
    case: str
    ours: str
    theirs: tuple[str, ...]  # the fastest of these that are there


IMAGE = ("transformers image, torchvision", "transformers image, PIL")
TRANSFORMERS = ("transformers",)
FILE, START = "one file, the model loaded", "one file, from the start of a process"
JOBS = [
    Job("16 frames of 720p to pixel values", "process", "list of arrays", "videomae image", IMAGE),
    Job(
        "the same beside a busy process",
        "busy",
        "list of arrays, beside 1 busy loop",
        "videomae image",
        IMAGE,
    ),
    Job("16 frames out of a 720p file", "decode", "1280x720", "videomae", ("decord", "torchcodec")),
    Job("ViT-B forward", "forward", "batch 1", "sdpa", ("transformers eager", "transformers sdpa")),
    Job("ViT-B pre-training step", "train", "pretrain", "videomae", TRANSFORMERS),
    Job("ViT-B fine-tuning step", "train", "finetune", "videomae", TRANSFORMERS),
    Job("720p file to labels, ViT-B", "end-to-end", FILE, "videomae torch", TRANSFORMERS),
    Job(
        "the same from the start of a process",
        "end-to-end",
        START,
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


class Row(NamedTuple):
    """A job that was measured, in seconds, against whom."""

    name: str
    ours: float
    theirs: float
    best: str
    record: Record


def measure(name: str, runs: list[str], before: Path | None, flags: list[str]) -> None:
    """Append a line per run to a file; without any named, per run that it does not have."""
    place = FOLDER / f"{name}.jsonl"
    lines = place.read_text().splitlines() if place.exists() else []
    there = {json.loads(line)["run"] for line in lines}
    for run in runs or [run for run in RUNS if run not in there]:
        print(f"== {run}", file=sys.stderr, flush=True)
        module, *words = RUNS[run].split()
        words += ["--before", str(before)] if before and run in BEFORE_AFTER else []
        command = [sys.executable, "-m", f"benchmarks.{module}", *words, *flags, "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        record = json.loads(done.stdout.splitlines()[-1])
        # the record names the commits; where this machine keeps them is nobody's business
        record["command"] = record["command"].replace(f"--before {before}", "--before CHECKOUT")
        with place.open("a") as file:
            file.write(json.dumps({"run": run, "date": str(date.today()), **record}) + "\n")


def read(folder: Path = FOLDER) -> Records:
    """The records of each run, the newest first."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.open()]
    found: Records = {run: [] for run in RUNS}
    for record in sorted(map(json.loads, lines), key=lambda record: record["date"]):
        if record.get("run") in found:  # other files have lines of other kinds
            found[record["run"]].insert(0, record)
    return found


def compared(records: Records) -> Iterator[Row]:
    """Every job by its newest record with others in it, made where nobody else computed much."""
    for job in JOBS:
        for record in records[job.run]:
            figures = record["figures"].get(job.case, {})
            medians = {who: each.get("total", each)["median"] for who, each in figures.items()}
            theirs = {who: median for who, median in medians.items() if who in job.theirs}
            if theirs and record["machine"].get("load", 0) <= MOST_LOAD:
                best = min(theirs, key=lambda who: theirs[who])
                yield Row(job.name, medians[job.ours], theirs[best], best, record)
                break


def in_words(seconds: float) -> str:
    """A time with as many digits as it is worth.

    >>> in_words(0.0182), in_words(2.345)
    ('18 ms', '2.35 s')
    """
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def machine_of(record: Record) -> str:
    """Where a record was made."""
    facts = record["machine"]
    return f"{facts['cores']} cores of an {facts['processor']} ({facts['cpu_capability']})"


def taken(record: Record) -> str:
    """When, where, with what, and how a record was made: what stands above a table."""
    facts = record["machine"]
    names = ("torch", "transformers", "openvino", "onnxruntime")
    versions = ", ".join(f"{name} {facts[name]}" for name in names if name in facts)
    load = f", load average {facts['load']:g}" if "load" in facts else ""
    clock = {"wall": "by the clock", "cpu": "CPU time"}[record["clock"]]
    left_out = "".join(f" Left out: {each}." for each in record["left_out"])
    older = record.get("commits", {}).get("before")
    before = f" Before is commit {older}." if older else ""
    where = f"{record['date']}, {machine_of(record)}{load}"
    return flowing(f"{where}; {versions}; {clock}.{before}{left_out}")


def flowing(text: str) -> str:
    """A paragraph in lines as long as those of other pages."""
    return textwrap.fill(text, 116, break_long_words=False, break_on_hyphens=False)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, its numbers to the right."""
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|---" + "|--:" * (len(head) - 1) + "|", *lines[1:]])


def jobs_text(records: Records) -> str:
    """Ours beside the best of the others."""
    rows = list(compared(records))
    cells = [
        [row.name, in_words(row.ours), f"{in_words(row.theirs)} ({row.best})",
         f"{row.theirs / row.ours:.2f}×", row.record["date"]]
        for row in rows
    ]  # fmt: skip
    days: dict[str, set[str]] = {}
    for row in rows:
        days.setdefault(machine_of(row.record), set()).add(row.record["date"])
    places = "; ".join(f"{', '.join(sorted(on))} on {machine}" for machine, on in days.items())
    how = "Medians of one run each, in float32, against the fastest of the settings of the others: "
    head = ["job", "videomae", "best of the others", "ratio", "measured"]
    return f"{table(head, cells)}\n\n{flowing(how + places)}."


def loading_text(records: Records) -> str:
    """How many clips a core loads."""
    both = {"decord, raw", "torchcodec, raw"}
    record = next(each for each in records["loader"] if both <= each["figures"]["1280x720"].keys())
    figures = record["figures"]["1280x720"]

    def times(ours: str, theirs: str) -> str:
        ratio = figures[theirs]["median"] / figures[ours]["median"]
        return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"

    return flowing(
        f"On the same ten-second 720p files, one core loads {times('ours, raw', 'decord, raw')} "
        f"times as many clips as decord, {times('ours, raw', 'torchcodec, raw')} times as many as "
        f"torchcodec, and after `videomae prepare --resize-short 320` "
        f"{times('ours, prepared', 'decord, raw')} times as many as decord from the originals "
        f"({record['date']}, {machine_of(record)})."
    )


def busy_text(records: Records) -> str:
    """The processors in all forms, idle and beside busy processes, and the least ratio."""
    record = records["busy"][0]
    ways = list(next(iter(record["figures"].values())))
    rows, ratios = [], {}
    for case, found in record["figures"].items():
        times = [found[way]["median"] if way in found else None for way in ways]
        ours = max(each["median"] for way, each in found.items() if way.startswith("videomae"))
        theirs = min(each["median"] for way, each in found.items() if way.startswith("transf"))
        ratios[case] = theirs / ours
        cells = ["" if each is None else f"{1e3 * each:,.0f}" for each in times]
        rows.append([case, *cells, f"{ratios[case]:.1f}×"])
    least = min(ratios, key=lambda case: ratios[case])
    return "\n".join(
        [
            taken(record),
            "",
            table(["16 frames of 720p, ms", *ways, "ratio"], rows),
            "",
            "Ratio: the fastest of theirs to the slower of ours; the smallest is "
            f"{ratios[least]:.1f} ({least}).",
        ]
    )


def before_text(run: str, records: Records) -> str:
    """An older checkout beside this one."""
    if not records[run]:
        return "Not measured yet."
    record, rows = records[run][0], []
    for case, found in record["figures"].items():
        before, now = (found.get(who, {}).get("median") for who in ("before", "now"))
        cells = [in_words(each) if each else "" for each in (before, now)]
        rows.append([case, *cells, f"{before / now:.2f}×" if before and now else ""])
    return "\n".join([taken(record), "", table(["", "before", "now", "ratio"], rows)])


TEXTS: dict[str, Callable[[Records], str]] = {
    "jobs": jobs_text,
    "loading": loading_text,
    "busy": busy_text,
    "cold": lambda records: before_text("cold", records),
    "warm": lambda records: before_text("warm", records),
}


def filled(page: str, records: Records) -> str:
    """A page with what belongs between its marks, `<!-- speed: NAME -->` and the end of it."""
    return re.sub(
        r"(<!-- speed: (\w+) -->\n).*?(<!-- end of speed -->)",
        lambda found: f"{found[1]}\n{TEXTS[found[2]](records)}\n\n{found[3]}",
        page,
        flags=re.S,
    )


def described(rows: list[Row]) -> str:
    """What the chart shows, in words; it is kept in its file."""
    return "; ".join(f"{row.name}: {row.theirs / row.ours:.1f}×" for row in rows)


def draw(rows: list[Row], path: Path) -> None:
    """Bars: how many times as long the others take; the line is where both take as long."""
    ratios = {row.name: row.theirs / row.ours for row in reversed(rows)}
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
        figure.savefig(path, metadata={"Date": None, "Description": described(rows)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="date and machine, the name of the file")
    parser.add_argument("runs", nargs="*", help=", ".join(RUNS))
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    parser.add_argument("--flags", default="", help="for each command that measures")
    asked = parser.parse_args()
    if unknown := set(asked.runs) - set(RUNS):
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(RUNS)}")
    if asked.name is not None:
        measure(asked.name, asked.runs, asked.before, asked.flags.split())
    records = read()
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"), records)
        with atomic_path(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    draw(list(compared(records)), CHART)


if __name__ == "__main__":
    main()
