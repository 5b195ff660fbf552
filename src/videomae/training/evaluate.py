"""The paper's test protocol: several clips and crops of each video, softmax averaged."""

import dataclasses
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae.errors import VideoError
from videomae.hub import atomic_path, write_json
from videomae.modeling import VideoMAEForVideoClassification
from videomae.training.data import ClipSource, Videos, list_videos, normalize
from videomae.training.settings import EvaluateSettings
from videomae.training.setup import Machine


@dataclass(frozen=True)
class Prediction:
    """Of one video: its class, and the averaged scores of all classes; no scores if unreadable."""

    path: str
    label: str
    scores: tuple[float, ...]
    error: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent over every video of the list; unreadable ones count as wrong."""

    top1: float
    top5: float
    num_videos: int
    num_views: int
    per_class: dict[str, float]
    bad: dict[str, str]
    predictions: tuple[Prediction, ...]

    def __str__(self) -> str:
        text = (
            f"top-1 {self.top1:.1f} %, top-5 {self.top5:.1f} % on {self.num_videos} videos, "
            f"{self.num_views} view{'s' if self.num_views > 1 else ''} each"
        )
        return text + (f"; {len(self.bad)} unreadable, counted as wrong" if self.bad else "")

    def write(self, output: Path) -> None:
        """Write results.json (the figures) and predictions.jsonl (a line per video)."""
        output = Path(output)
        output.mkdir(parents=True, exist_ok=True)
        figures = dataclasses.asdict(self)
        del figures["predictions"]
        write_json(output / "results.json", figures)
        with atomic_path(output / "predictions.jsonl") as temporary:
            lines = (json.dumps(dataclasses.asdict(p)) + "\n" for p in self.predictions)
            Path(temporary).write_text("".join(lines))


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Evaluate a classifier on a folder per class, named as the model names its classes.

    With `settings.output`, writes results.json and predictions.jsonl there.
    """
    machine = Machine.choose(settings.device, settings.dtype)
    model = VideoMAEForVideoClassification.from_pretrained(settings.model).to(machine.device)
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    evaluation = evaluate_model(
        model,
        list_videos(settings.data, classes=names),
        machine=machine,
        num_clips=settings.num_clips,
        num_crops=settings.num_crops,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
    )
    if settings.output is not None:
        evaluation.write(settings.output)
    return evaluation


@torch.no_grad()
def evaluate_model(
    model: VideoMAEForVideoClassification,
    videos: Videos,
    *,
    machine: Machine,
    num_clips: int = 1,
    num_crops: int = 1,
    batch_size: int = 32,
    num_workers: int = 2,
) -> Evaluation:
    """Evaluate a loaded model, leaving it in the mode it was in. Every video counts once."""
    was_training = model.training
    model.eval()
    source = ClipSource(videos, model.config)
    predictions = []
    try:
        for first, results in _view_batches(source, num_clips, num_crops, batch_size, num_workers):
            views = [x for x in results if isinstance(x, Tensor)]
            scores = _scores(model, views, machine) if views else []
            remaining = iter(scores)
            for index, result in enumerate(results, start=first):
                predictions.append(
                    Prediction(
                        path=str(videos.paths[index]),
                        label=videos.classes[videos.labels[index]],
                        scores=(
                            tuple(round(s, 6) for s in next(remaining).tolist())
                            if isinstance(result, Tensor)
                            else ()
                        ),
                        error=None if isinstance(result, Tensor) else str(result),
                    )
                )
    finally:
        model.train(was_training)
    return _summary(predictions, videos, num_clips * num_crops)


def _view_batches(
    source: ClipSource, num_clips: int, num_crops: int, batch_size: int, num_workers: int
) -> Iterator[tuple[int, list[Tensor | VideoError]]]:
    """Views of as many videos at a time as make `batch_size` views, decoded ahead by threads."""

    def read(index: int) -> Tensor | VideoError:
        try:
            return source.view_clips(index, num_clips=num_clips, num_crops=num_crops)
        except VideoError as error:
            return error

    count = len(source.videos)
    at_once = max(batch_size // (num_clips * num_crops), 1)
    with ThreadPoolExecutor(num_workers) as pool:
        ahead: deque[Future[Tensor | VideoError]] = deque()
        submitted = 0
        for first in range(0, count, at_once):
            wanted = min(first + 2 * at_once, count)
            while submitted < wanted:
                ahead.append(pool.submit(read, submitted))
                submitted += 1
            yield first, [ahead.popleft().result() for _ in range(min(at_once, count - first))]


def _scores(
    model: VideoMAEForVideoClassification, views: list[Tensor], machine: Machine
) -> list[Tensor]:
    """Softmax averaged over the views of each video: one (num_labels,) each."""
    with machine.autocast():
        logits: Any = model(normalize(torch.cat(views), machine.device)).logits
    shares = logits.float().softmax(-1).cpu().split([len(v) for v in views])
    return [share.mean(0) for share in shares]


def _summary(predictions: list[Prediction], videos: Videos, num_views: int) -> Evaluation:
    hits1 = hits5 = 0
    per_class = {name: [0, 0] for name in videos.classes}
    for prediction, label in zip(predictions, videos.labels, strict=True):
        # Ties go to the class with the smaller number, whatever the order of a sort.
        ranked = sorted(range(len(prediction.scores)), key=lambda i: (-prediction.scores[i], i))
        hit = ranked[:1] == [label]
        hits1 += hit
        hits5 += label in ranked[:5]
        per_class[prediction.label][0] += hit
        per_class[prediction.label][1] += 1
    count = len(predictions)
    return Evaluation(
        top1=100 * hits1 / count,
        top5=100 * hits5 / count,
        num_videos=count,
        num_views=num_views,
        per_class={n: round(100 * h / c, 2) for n, (h, c) in per_class.items() if c},
        bad={p.path: p.error for p in predictions if p.error is not None},
        predictions=tuple(predictions),
    )
