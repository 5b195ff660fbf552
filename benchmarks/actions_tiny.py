"""The models that come with the package: their files, what they reach, and the same from scratch.

    python -m benchmarks.actions_tiny                             # everything, in a day of a core
    python -m benchmarks.actions_tiny encoder --pretrained MODEL  # one part: ship this encoder
    python -m benchmarks.actions_tiny pretrained-0 ship page      # some, in this order

A part that is finished is taken from runs/actions-tiny, one that was stopped goes on, and the page
shows what is there. Parts may run beside each other, each on `--threads` of its own:

    encoder        pre-train by the recipe, unless --pretrained names a model; into the package
    pretrained-N   fine-tune the package's encoder by the recipe, with seed N of 0, 1, 2
    scratch-N      the same from random weights
    probe          a linear probe of the package's encoder
    ship           the classifier of seed 0 into the package, whichever seed came out best
    page           benchmarks/actions_tiny.md, the README's table, the picture above it

Files of the package are in half precision, which halves the wheel; they load and run in float32.
"""

import argparse
import dataclasses
import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from videomae.commands.doctor import KNOWN_CLIP
from videomae.compute.environment import environment
from videomae.evaluation.evaluate import evaluate
from videomae.evaluation.probe import linear_probe
from videomae.hub import atomic_path, read_json, write_json
from videomae.inference.predict import classify
from videomae.inference.reconstruct import reconstruct
from videomae.recipe import load_recipe
from videomae.rendering.actions import CLASSES, render_clip, render_dataset
from videomae.settings import (
    ActionsSettings,
    EvaluateSettings,
    FinetuneSettings,
    LinearProbeSettings,
    PretrainSettings,
)
from videomae.training.finetune import finetune
from videomae.training.pretrain import pretrain
from videomae.video.decoder import Frames
from videomae.video.reader import read_frames
from videomae.weights.checkpoint import read_checkpoint, save_safetensors
from videomae.weights.keys import to_hf_file_keys

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "src" / "videomae" / "assets"
ENCODER, CLASSIFIER = "actions-tiny-pretrain", "actions-tiny"
SEEDS = (0, 1, 2)
STARTS = ("pretrained", "scratch")
FINETUNINGS = tuple(f"{start}-{seed}" for start in STARTS for seed in SEEDS)
PARTS = ("encoder", *FINETUNINGS, "probe", "ship", "page")
RESULTS = ASSETS / CLASSIFIER / "results.json"
README, PAGE = ROOT / "README.md", Path(__file__).with_suffix(".md")
PICTURE = ROOT / "docs" / "images" / "reconstruction.png"
# What is written into both pages stands between these.
MARKS = ("<!-- figures of actions-tiny -->", "<!-- end of figures -->")


@dataclasses.dataclass(frozen=True)
class Work:
    """Where everything lies."""

    folder: Path
    data: Path
    pretrained: Path
    note: str

    def render(self) -> Path:
        """The folder of the set, whole: 10,000 clips to learn from, 600 to test on."""
        # A whole one is not claimed, as other parts may read it at the same time.
        if len(list(self.data.glob("*/*/*.mp4"))) < 10_600:
            render_dataset(ActionsSettings(self.data, clips=10_000, test_clips=600, seed=1))
        return self.data


def make_encoder(work: Work) -> None:
    """Pre-train, where there is no model, and put it into the package."""
    if not (work.pretrained / "config.json").exists():
        settings = dataclasses.replace(
            load_recipe("actions-tiny-pretrain", PretrainSettings),
            data=work.render(),
            output=work.folder / "pretrain",
            resume=True,
        )
        pretrain(settings)
    put_into_package(work.pretrained, ENCODER)


def put_into_package(source: Path, name: str) -> None:
    """Copy a model in half precision, without the card of its run."""
    target = ASSETS / name
    target.mkdir(exist_ok=True)
    for path in source.glob("*.json"):
        shutil.copy(path, target)
    state = to_hf_file_keys(read_checkpoint(source).state)
    halves = {key: value.half() for key, value in state.items()}
    save_safetensors(target / "model.safetensors", halves)


def run_finetuning(work: Work, name: str) -> None:
    """Fine-tune from the package's encoder, or from scratch, and test on the 600 clips."""
    start, _, seed = name.partition("-")
    output = work.folder / name
    if (output / "figures.json").exists():
        return
    settings = dataclasses.replace(
        load_recipe("actions-tiny-finetune", FinetuneSettings),
        data=work.render(),
        init=ENCODER if start == "pretrained" else None,
        output=output,
        seed=int(seed),
        resume=True,
    )
    finetune(settings)
    write_json(output / "figures.json", tested(work, str(output / "model")))


def tested(work: Work, model: str) -> dict[str, Any]:
    """What a model reaches on the held-out clips, and on those with their middle frame repeated."""
    data = work.render()
    found = evaluate(EvaluateSettings(data=data, split="test", model=model, dtype="float32"))
    paths = sorted((data / "test").glob("*/*.mp4"))
    answers = classify(stills(paths), model=model, dtype="float32")
    right = [a.labels[0] == path.parent.name for a, path in zip(answers, paths, strict=True)]
    return {
        "top1": found.top1,
        "top5": found.figures()["top5"],
        "num_videos": found.num_videos,
        "still_top1": 100 * mean(right),
    }


def stills(paths: list[Path]) -> Iterator[Frames]:
    for path in paths:
        yield read_frames(path, [16] * 32)


def run_probe(work: Work) -> None:
    """Fit linear maps to the features of the package's encoder."""
    output = work.folder / "probe"
    data = work.render()
    linear_probe(LinearProbeSettings(data=data, model=ENCODER, output=output))


def ship(work: Work) -> None:
    """Put the classifier into the package, and beside it what exactly these files reach."""
    put_into_package(work.folder / "pretrained-0" / "model", CLASSIFIER)
    figures = tested(work, CLASSIFIER)
    for start in STARTS:
        figures[f"{start}_top1"] = [read_json(path)["top1"] for path in runs(work, start)]
    if (probe := work.folder / "probe" / "results.json").exists():
        figures["probe_top1"] = read_json(probe)["linear"]["top1"]
    known = classify(render_clip(**KNOWN_CLIP), model=CLASSIFIER, dtype="float32")
    figures["known_clip"] = {"label": known.labels[0], "score": round(known.scores[0], 4)}
    if work.note:
        figures["note"] = work.note
    write_json(RESULTS, figures)
    print(json.dumps(figures, indent=1))


def runs(work: Work, start: str) -> list[Path]:
    return sorted(work.folder.glob(f"{start}-[0-9]/figures.json"))


def summary(figures: dict[str, Any]) -> str:
    """What the README and the page say first: a table of top-1, and a sentence."""
    lines = ["| start | seed 0, 1, 2 | mean |", "|---|--:|--:|"]
    for name, key in (("pre-trained", "pretrained_top1"), ("from scratch", "scratch_top1")):
        if values := figures.get(key):
            each = ", ".join(f"{value:.1f} %" for value in values)
            lines.append(f"| {name} | {each} | **{mean(values):.1f} %** |")
    if "probe_top1" in figures:
        lines.append(
            f"| pre-trained, a linear map on its features | | {figures['probe_top1']:.1f} % |"
        )
    still = f"{figures['still_top1']:.1f} %"
    lines += [
        f"| guessing one of {len(CLASSES)} | | {100 / len(CLASSES):.1f} % |",
        "",
        f"Shown one frame sixteen times, the shipped model is right in {still}.",
    ]
    return "\n".join([*lines, *([figures["note"]] if "note" in figures else [])])


def details(work: Work, figures: dict[str, Any]) -> str:
    """What the page says on top: every run, the shipped files, and the machine."""
    lines = ["| run | top-1, % | top-5, % | one frame, % |", "|---|--:|--:|--:|"]
    every = [(path.parent.name, read_json(path)) for start in STARTS for path in runs(work, start)]
    for name, row in [*every, ("shipped (pretrained-0, halved)", figures)]:
        values = (f"{row[key]:.1f}" for key in ("top1", "top5", "still_top1"))
        lines.append(f"| {' | '.join([name, *values])} |")
    facts = environment()
    machine = f"{facts['processor']}, torch {facts['torch']}"
    return "\n".join([*lines, "", f"{date.today()}, one thread of an {machine}."])


def fill(path: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Put a text between the two marks of a page."""
    before, rest = path.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    with atomic_path(path) as temporary:
        temporary.write_text(f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}", "utf-8")


def write_page(work: Work) -> None:
    """Write the figures for people, and the picture of the README."""
    figures = read_json(RESULTS)
    fill(PAGE, f"{summary(figures)}\n\n{details(work, figures)}")
    fill(README, summary(figures))
    reconstruct(render_clip(**KNOWN_CLIP), model=ENCODER).save(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="; ".join(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("runs/actions-tiny"))
    parser.add_argument("--data", type=Path, help="where the set is or goes; else in the folder")
    parser.add_argument("--pretrained", type=Path, help="a model's folder, or where it will be")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="a sentence below the figures")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(PARTS)}")
    torch.set_num_threads(asked.threads)
    work = Work(
        asked.folder,
        asked.data or asked.folder / "data",
        asked.pretrained or asked.folder / "pretrain" / "model",
        asked.note,
    )
    acts = {"encoder": make_encoder, "probe": run_probe, "ship": ship, "page": write_page}
    for part in asked.parts or PARTS:
        if part in acts:
            acts[part](work)
        else:
            run_finetuning(work, part)


if __name__ == "__main__":
    main()
