"""Less work for nearly the same answer: what each way saves, and what it costs.

    videomae actions clips --clips 200 --test-clips 600
    python -m benchmarks.less_work --model actions-tiny --data clips --output results.jsonl

Merged tokens: top-1 of one centred clip per video, and CPU time of a forward and of a fine-tuning
step, all numbers of tokens in turns. Early exit: top-1 of several clips per video, and how many
views are looked at. Dual masking: CPU time of a pre-training step of the same encoder. One thread,
float32. Prints tables, and appends a line of JSON.
"""

import argparse
import json
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae.commands.timing import about_machine, stopwatch, take_turns
from videomae.data.manifest import load_videos
from videomae.evaluation.evaluate import chosen_split
from videomae.evaluation.sharding import views_of
from videomae.masking import running_cell_mask, tube_mask
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor, run_views

CPU = torch.device("cpu")


def logits_of(model: VideoMAEForVideoClassification, clips: Tensor, merged: int) -> Tensor:
    """The logits (B, K) with so many tokens merged in each layer."""
    model.set_merge_tokens(merged)
    with torch.inference_mode():
        return torch.cat([model(part).logits for part in torch.split(clips, 8)])


def train_step(
    model: VideoMAEForVideoClassification, clips: Tensor, labels: Tensor, merged: int
) -> None:
    """Forward and backward with so many tokens merged in each layer."""
    model.set_merge_tokens(merged)
    model.zero_grad()
    loss: Any = model(clips, labels=labels).loss
    loss.backward()


def top1(logits: Tensor, labels: Tensor) -> float:
    """Percent of right answers."""
    return 100 * float((logits.argmax(-1) == labels).float().mean())


def merging(
    model: VideoMAEForVideoClassification, centred: Tensor, labels: Tensor, rounds: int
) -> list[dict[str, Any]]:
    """A row per number of tokens that each layer merges, up to what halves them over all layers."""
    num_tokens, num_layers = model.config.grid.num_tokens, model.config.num_hidden_layers
    counts = [round(num_tokens / num_layers * share) for share in (0, 0.125, 0.25, 0.5, 0.75)]
    now = stopwatch("cpu", CPU)
    forward: dict[str, Callable[[], Any]] = {
        str(count): partial(logits_of, model, centred[:32], count) for count in counts
    }
    steps: dict[str, Callable[[], Any]] = {
        str(count): partial(train_step, model, centred[:8], labels[:8], count) for count in counts
    }
    found = [take_turns(jobs, now, repeats=rounds) for jobs in (forward, steps)]
    return [
        {
            "merged in each layer": count,
            "top-1, %": top1(logits_of(model, centred, count), labels),
            "forward": found[0]["0"]["median"] / found[0][str(count)]["median"],
            "fine-tuning step": found[1]["0"]["median"] / found[1][str(count)]["median"],
        }
        for count in counts
    ]


def early_exit(logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """A row per number of views (N, V, K) that must agree."""
    rows = []
    for count in (0, 2, 3):
        videos = list(enumerate(logits.softmax(-1)))
        found = [views for _, views in run_views(iter(videos), lambda views: views, 32, count)]
        assert all(isinstance(views, Tensor) for views in found)
        rows.append(
            {
                "views that must agree": count or "all are looked at",
                "top-1, %": top1(torch.stack([views.mean(0) for views in found]), labels),
                "views per video": sum(map(len, found)) / len(found),
            }
        )
    return rows


def dual_masking(
    model: VideoMAEForVideoClassification, clips: Tensor, rounds: int
) -> list[dict[str, Any]]:
    """A row per share that is not decoded."""
    config = model.config.copy(use_mean_pooling=False)
    learner = VideoMAEForPreTraining(config).train()
    generator = torch.Generator().manual_seed(0)
    size, grid = len(clips), config.grid
    hidden = tube_mask(grid, 0.9, batch_size=size, generator=generator)
    half = running_cell_mask(grid, 0.5, batch_size=size, generator=generator)

    def step(undecoded: Tensor | None) -> None:
        learner.zero_grad()
        loss: Any = learner(clips, hidden, decoder_bool_masked_pos=undecoded).loss
        loss.backward()

    jobs = {"0": partial(step, None), "0.5": partial(step, half)}
    times = take_turns(jobs, stopwatch("cpu", CPU), repeats=rounds)
    return [
        {"not decoded": share, "pre-training step": times["0"]["median"] / times[share]["median"]}
        for share in jobs
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    """A table in Markdown; ratios of time are how many times as fast."""
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "--:|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(written(name, value) for name, value in row.items()) + " |")


def written(name: str, value: Any) -> str:
    """A cell."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if "%" in name or "views" in name else f"{value:.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="actions-tiny")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=5, help="of each video, for early exit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification.from_pretrained(asked.model, dtype="float32")
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    videos = load_videos(asked.data, chosen_split(asked.data, None), classes=names)
    maker = ViewMaker(model.config, find_processor(asked.model, model.config))
    several = ViewMaker(maker.config, maker.processor, num_clips=asked.clips)
    labels = torch.tensor(videos.class_numbers())
    centred = torch.cat([views_of(video, maker) for video in videos.items])
    logits = torch.stack([logits_of(model, views_of(v, several), 0) for v in videos.items])
    tables = {
        "merged tokens": merging(model, centred, labels, asked.rounds),
        "early exit": early_exit(logits, labels),
        "dual masking": dual_masking(model, centred[:16], asked.rounds),
    }
    print(f"{asked.model}, {len(videos)} videos, {model.config.grid.num_tokens} tokens")
    for rows in tables.values():
        print_table(rows)
    settings = {name: str(value) for name, value in vars(asked).items()}
    line = {"date": str(date.today()), "settings": settings, **tables}
    with asked.output.open("a") as file:
        file.write(json.dumps(line | {"machine": about_machine(CPU)}) + "\n")


if __name__ == "__main__":
    main()
