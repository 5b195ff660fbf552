"""The shipped model against the same network from scratch: three fine-tuning seeds of each.

    python -m benchmarks.motion_tiny            # renders, trains, evaluates
    python -m benchmarks.motion_tiny --jobs 2   # two fine-tunings at a time, a core each

    python -m benchmarks.motion_tiny --ship     # and make the package's models of seed 0

Everything lands in runs/motion-tiny; finished parts are not run again. Prints a table and writes
runs/motion-tiny/results.json.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from videomae.evaluation.evaluate import evaluate
from videomae.hub import write_json
from videomae.recipe import load_recipe
from videomae.rendering.motion import render_dataset
from videomae.settings import (
    EvaluateSettings,
    FinetuneSettings,
    MotionSettings,
    PretrainSettings,
)
from videomae.training.finetune import finetune
from videomae.training.pretrain import pretrain
from videomae.weights.checkpoint import read_checkpoint, save_safetensors
from videomae.weights.keys import to_hf_file_keys

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "src" / "videomae" / "assets"
# folder: clips, seed, whether each clip repeats its middle frame
DATA = {
    "unlabelled": (3000, 1, False),
    "labelled": (1000, 2, False),
    "heldout": (600, 7, False),
    "still": (600, 7, True),
}
SEEDS = (0, 1, 2)


def run_finetuning(folder: Path, start: str, seed: int, one_core: bool) -> dict[str, Any]:
    """One fine-tuning from `start` (pretrained or scratch); from disk where it has been run."""
    if one_core:
        torch.set_num_threads(1)
    output = folder / f"{start}-{seed}"
    settings = dataclasses.replace(
        load_recipe("motion-tiny-finetune", FinetuneSettings),
        data=folder / "labelled",
        eval_data=folder / "heldout",
        init=str(folder / "pretrain" / "model") if start == "pretrained" else None,
        output=output,
        seed=seed,
        resume=(output / "checkpoint.pt").exists(),
    )
    if not (output / "results.json").exists():
        began = time.perf_counter()
        finetune(settings)
        (output / "seconds.json").write_text(json.dumps(time.perf_counter() - began))
    figures = json.loads((output / "results.json").read_text())
    seconds = json.loads((output / "seconds.json").read_text())
    still = evaluate(EvaluateSettings(data=folder / "still", model=str(output / "model")))
    return {
        "start": start,
        "seed": seed,
        "top1": figures["top1"],
        "top5": figures["top5"],
        "still_top1": still.top1,
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/motion-tiny"))
    parser.add_argument("--jobs", type=int, default=1, help="fine-tunings at a time")
    parser.add_argument("--ship", action="store_true", help="write the models into the package")
    arguments = parser.parse_args()
    folder = arguments.folder
    for name, (clips, seed, still) in DATA.items():
        render_dataset(MotionSettings(folder / name, clips=clips, seed=seed, still=still))
    settings = load_recipe("motion-tiny-pretrain", PretrainSettings)
    output = folder / "pretrain"
    if not (output / "model").exists():
        resume = (output / "checkpoint.pt").exists()
        pretrain(
            dataclasses.replace(settings, data=folder / "unlabelled", output=output, resume=resume)
        )

    work = [(start, seed) for start in ("pretrained", "scratch") for seed in SEEDS]
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        tasks = [
            pool.submit(run_finetuning, folder, start, seed, arguments.jobs > 1)
            for start, seed in work
        ]
        rows = [task.result() for task in tasks]
    (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n")

    table = Table(title="600 held-out clips of 12 classes, top-1 in %; chance is 8.3")
    for column in ("start", *(f"seed {seed}" for seed in SEEDS), "mean", "spread", "one frame"):
        table.add_column(column, justify="left" if column == "start" else "right")
    for start in ("pretrained", "scratch"):
        top1 = [row["top1"] for row in rows if row["start"] == start]
        still_top1 = [row["still_top1"] for row in rows if row["start"] == start]
        table.add_row(
            start,
            *(f"{value:.1f}" for value in top1),
            f"{statistics.mean(top1):.1f}",
            f"{max(top1) - min(top1):.1f}",
            f"{statistics.mean(still_top1):.1f}",
        )
    Console().print(table)
    if arguments.ship:
        ship(folder, rows)


def ship(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Make the package's two models: those of seed 0, whichever seed came out best.

    Stored in half precision, which halves the wheel; they load and run in float32, and
    results.json beside the classifier says what exactly these files reach.
    """
    for source, name in (("pretrain", "motion-tiny-pretrain"), ("pretrained-0", "motion-tiny")):
        target = ASSETS / name
        shutil.copytree(folder / source / "model", target, dirs_exist_ok=True)
        state = read_checkpoint(target).state
        halves = {key: value.half() for key, value in to_hf_file_keys(state).items()}
        save_safetensors(target / "model.safetensors", halves)
    top1, still = (
        evaluate(EvaluateSettings(data=folder / data, model=str(ASSETS / "motion-tiny")))
        for data in ("heldout", "still")
    )
    figures = {
        "top1": top1.top1,
        "top5": top1.figures()["top5"],
        "num_videos": top1.num_videos,
        "still_top1": still.top1,
        "pretrained_top1": [row["top1"] for row in rows if row["start"] == "pretrained"],
        "scratch_top1": [row["top1"] for row in rows if row["start"] == "scratch"],
    }
    write_json(ASSETS / "motion-tiny" / "results.json", figures)
    Console().print(f"shipped: {top1}; one frame repeated: {still.top1:.1f} %")


if __name__ == "__main__":
    main()
