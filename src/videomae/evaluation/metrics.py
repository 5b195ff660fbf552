"""Figures of a whole test set from the scores of its videos, and the table of these scores.

Scores are (N, K): N videos, K classes. Of equal scores the class with the smaller number comes
first, whatever a sort does on some device. A row of NaN is a video that could not be read.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videomae.data.manifest import LABEL_SEPARATOR, Videos
from videomae.data.rows import import_pyarrow, write_table
from videomae.errors import as_text, needing, to_json
from videomae.settings import Problem

TOP = 5

# The rank of the true class where nothing was said: not among the top 5 of 3 classes either.
UNRANKED = 2**31 - 1
# From this share on, a class of several is said to be there.
_THRESHOLD = 0.5


def true_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Count the classes before the true one: scores (N, K), class numbers (N) -> (N).

    0 is a right answer, below 5 one of the top 5; UNRANKED, above any number, for a row of NaN.

    >>> true_ranks(torch.tensor([[0.2, 0.4, 0.4], [0.2, 0.4, 0.4]]), torch.tensor([1, 2]))
    tensor([0, 1])
    """
    own = scores.gather(1, labels[:, None])  # (N, 1)
    before = torch.arange(scores.shape[1]) < labels[:, None]  # (N, K)
    ranks = ((scores > own) | ((scores == own) & before)).sum(1)
    return torch.where(own[:, 0].isnan(), UNRANKED, ranks)


def average_precisions(scores: Tensor, targets: Tensor) -> Tensor:
    """Average precision of each class: scores (N, K), 0 or 1 (N, K) -> (K).

    NaN for a class that no video has. A row of NaN counts as the score 0 in all classes.
    """
    classification = import_torchmetrics().classification
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive samples")  # NaN says so
        found: Tensor = classification.multilabel_average_precision(
            scores.nan_to_num(0), targets, num_labels=scores.shape[1], average="none"
        )
    return torch.where(targets.sum(0) > 0, found, torch.nan).reshape(-1)


def regression_figures(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """Mean absolute error, both correlations and R2 of values (N) against the true ones (N).

    Videos whose prediction is NaN are left out. What is not defined, as a correlation with values
    that are all alike, is NaN.
    """
    readable = ~predicted.isnan()
    predicted, targets = predicted[readable].double(), targets[readable].double()
    ask = import_torchmetrics()
    known = len(targets) > 1 and bool(targets.std() > 0)
    varied = known and bool(predicted.std() > 0)
    wanted = {
        "mae": (ask.mean_absolute_error, len(targets) > 0),
        "pearson": (ask.pearson_corrcoef, varied),
        "spearman": (ask.spearman_corrcoef, varied),
        "r2": (ask.r2_score, known),
    }
    return {
        name: float(figure(predicted, targets)) if defined else float("nan")
        for name, (figure, defined) in wanted.items()
    }


def write_predictions(
    path: Path,
    problem: Problem,
    videos: Videos,
    labels: Tensor,
    scores: Tensor,
    bad: Mapping[int, str],
) -> None:
    """Write predictions.parquet, a row per video in the order of the list, atomically.

    labels: class numbers (N), 0 or 1 (N, K), or values (N). All rows have path, part (null: all of
    the file), label, predicted and error; those of classes also scores; those of one class each
    also correct, rank (1: right), top5 and top5_scores. A video that could not be read has its
    reason in `error` and null for each answer of the model. The file's metadata names the classes
    in the order of the scores. ConfigError where pyarrow is missing.
    """
    arrow = import_pyarrow()
    text, number = arrow.string(), arrow.float32()

    def said(values: Iterable[Any], kind: Any) -> Any:
        """A column of the model's answers, null for videos that could not be read."""
        return arrow.array(
            [None if row in bad else value for row, value in enumerate(values)], kind
        )

    parts = [str(video)[len(video.path) :].strip(" ()") or None for video in videos.items]
    reasons = {row: as_text(reason) for row, reason in bad.items()}
    columns: dict[str, Any] = {
        "path": arrow.array([as_text(video.path) for video in videos.items], text),
        "part": arrow.array(parts, text),
    }
    if problem == "regression":
        columns["label"] = arrow.array(labels.numpy())
        columns["predicted"] = said(scores[:, 0].numpy(), number)
    else:
        columns["label"] = arrow.array([video.label for video in videos.items], text)
        names = np.array(videos.classes, dtype=object)
        if problem == "single_label":
            ranks = true_ranks(scores, labels).numpy()
            top = scores.sort(dim=1, descending=True, stable=True).indices[:, :TOP]  # (N, up to 5)
            best = names[top.numpy()]
            columns |= {
                "predicted": said(best[:, 0], text),
                "correct": arrow.array(ranks == 0),
                "rank": said(ranks + 1, arrow.int64()),
                "top5": said(best, arrow.list_(text)),
                "top5_scores": said(scores.gather(1, top).numpy(), arrow.list_(number)),
            }
        else:
            present = (scores >= _THRESHOLD).numpy()
            columns["predicted"] = said((LABEL_SEPARATOR.join(names[row]) for row in present), text)
        columns["scores"] = said(scores.numpy(), arrow.list_(number))
    columns["error"] = arrow.array([reasons.get(row) for row in range(len(videos))], text)
    write_table(path, columns, {"classes": to_json(videos.classes)})


def import_torchmetrics() -> Any:
    """torchmetrics.functional; ConfigError where it is missing, best raised before the work."""
    with needing("a figure of several labels or of values"):
        from torchmetrics import functional
    return functional
