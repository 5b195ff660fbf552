"""Figures of a whole test set from the scores of its videos, and the table of these scores.

Scores are (N, K): N videos, K classes. Of equal scores the class with the smaller number comes
first, whatever a sort does on some device. A row of NaN is a video that could not be read.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.manifest import LABEL_SEPARATOR, Videos
from videomae.errors import ConfigError
from videomae.hub import atomic_path
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


def top_classes(scores: Tensor, count: int) -> Tensor:
    """The numbers of the best classes, the best first: (N, K) -> (N, min(count, K)).

    >>> top_classes(torch.tensor([[0.4, 0.2, 0.4]]), 2)
    tensor([[0, 2]])
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count how often each class (row) was taken for each (column): (N), (N) -> (K, K).

    >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    places = labels * num_classes + predicted
    return places.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def most_confused(matrix: Tensor, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (true class, class taken for it, videos), none that never were.

    >>> most_confused(torch.tensor([[9, 1, 0], [3, 5, 0], [0, 0, 7]]), 2)
    [(1, 0, 3), (0, 1, 1)]
    """
    wrong = matrix.clone().fill_diagonal_(0).flatten()
    found = wrong.sort(descending=True, stable=True).indices[:count].tolist()
    size = len(matrix)
    return [(k // size, k % size, int(wrong[k])) for k in found if wrong[k]]


def average_precisions(scores: Tensor, targets: Tensor) -> Tensor:
    """Average precision of each class: scores (N, K), 0 or 1 (N, K) -> (K).

    NaN for a class that no video has. A row of NaN counts as the score 0 in all classes.
    """
    classification = import_torchmetrics().classification
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive samples")  # NaN says so
        found: Tensor = classification.multilabel_average_precision(
            scores.nan_to_num(0), targets.long(), num_labels=scores.shape[1], average="none"
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
    the file), label, predicted and error; those of classes also scores, of one class each also
    correct, rank (1: right), top5 and top5_scores. A video that could not be read has its reason in
    `error` and nulls in what was to be said of it. The file's metadata names the classes in the
    order of the scores. ConfigError where pyarrow is missing.
    """
    arrow = import_pyarrow()
    lost = scores[:, 0].isnan().numpy()
    parts = [str(video)[len(video.path) :].strip(" ()") or None for video in videos.items]
    columns: dict[str, Any] = {
        "path": arrow.array([video.path for video in videos.items], arrow.string()),
        "part": arrow.array(parts, arrow.string()),
    }
    if problem == "regression":
        columns["label"] = arrow.array(labels.numpy())
        columns["predicted"] = arrow.array(scores[:, 0].numpy(), mask=lost)
    else:
        columns["label"] = arrow.array([video.label for video in videos.items], arrow.string())
        if problem == "single_label":
            columns |= _single_columns(videos.classes, labels, scores, lost)
        else:
            said = [
                LABEL_SEPARATOR.join(videos.classes[number] for number in row.nonzero()[:, 0])
                for row in scores >= _THRESHOLD
            ]
            columns["predicted"] = arrow.array(said, arrow.string(), mask=lost)
        columns["scores"] = _lists(scores.numpy(), lost)
    reasons = [bad.get(row) for row in range(len(videos))]
    columns["error"] = arrow.array(reasons, arrow.string())
    named = {"classes": json.dumps(videos.classes, ensure_ascii=False)}
    with atomic_path(path) as temporary:
        arrow.parquet.write_table(arrow.table(columns).replace_schema_metadata(named), temporary)


def _single_columns(
    classes: tuple[str, ...], labels: Tensor, scores: Tensor, lost: NDArray[np.bool_]
) -> dict[str, Any]:
    arrow = import_pyarrow()
    ranks = true_ranks(scores, labels).numpy()
    top = top_classes(scores, TOP)  # (N, up to 5)
    found = np.array(classes, dtype=object)[top.numpy()]
    return {
        "predicted": arrow.array(found[:, 0], arrow.string(), mask=lost),
        "correct": arrow.array(ranks == 0),
        "rank": arrow.array(ranks + 1, mask=lost),
        "top5": _lists(found, lost),
        "top5_scores": _lists(scores.gather(1, top).numpy(), lost),
    }


def _lists(rows: NDArray[Any], lost: NDArray[np.bool_]) -> Any:
    """Rows (N, M) as a column of lists, null where lost, without a Python object per number."""
    arrow = import_pyarrow()
    ends = np.concatenate([[0], np.cumsum(np.where(lost, 0, rows.shape[1]))]).astype(np.int32)
    return arrow.ListArray.from_arrays(
        ends, arrow.array(rows[~lost].ravel()), mask=arrow.array(lost)
    )


def import_torchmetrics() -> Any:
    """torchmetrics.functional; ConfigError where it is missing, best raised before the work."""
    try:
        from torchmetrics import functional
    except ImportError:
        raise ConfigError(
            'figures of labels and values need more packages: pip install "videomae[train]"'
        ) from None
    return functional


def import_pyarrow() -> Any:
    """pyarrow; ConfigError where it is missing, best raised before the work."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            'predictions.parquet needs more packages to be written: pip install "videomae[train]"'
        ) from None
    return pyarrow
