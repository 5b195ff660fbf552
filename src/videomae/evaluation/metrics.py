"""Figures of a whole test set from the scores of its videos, exact to the last video.

Scores are (N, K): N videos, K classes. Of equal scores the class with the smaller number comes
first, whatever a sort does on some device. A row of NaN is a video that could not be read.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from videomae.errors import ConfigError

# The rank of the true class where nothing was said: not among the top 5 of 3 classes either.
UNRANKED = 2**31 - 1


def true_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the true one: scores (N, K), class numbers (N) -> (N).

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
    """How often each class (row) was taken for each (column): (N), (N) -> (K, K) whole numbers.

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


def mean_of(values: Tensor) -> float:
    """The mean of those values that are numbers; NaN where none is."""
    return float(values.nanmean())


def average_precisions(scores: Tensor, targets: Tensor) -> Tensor:
    """Average precision of each class: scores (N, K), 0 or 1 (N, K) -> (K).

    NaN for a class that no video has. A row of NaN counts as the score 0 in all classes.
    """
    ask = _torchmetrics().classification.multilabel_average_precision
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive samples")  # NaN says so
        found: Tensor = ask(
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
    if not len(targets):
        return dict.fromkeys(("mae", "pearson", "spearman", "r2"), float("nan"))
    metrics = _torchmetrics()
    figures = {"mae": float(metrics.mean_absolute_error(predicted, targets))}
    varied = len(targets) > 1 and bool(predicted.std() > 0) and bool(targets.std() > 0)
    for name, ask in (
        ("pearson", metrics.pearson_corrcoef),
        ("spearman", metrics.spearman_corrcoef),
    ):
        figures[name] = float(ask(predicted, targets)) if varied else float("nan")
    known = len(targets) > 1 and bool(targets.std() > 0)
    figures["r2"] = float(metrics.r2_score(predicted, targets)) if known else float("nan")
    return figures


def _torchmetrics() -> Any:
    try:
        from torchmetrics import functional
    except ImportError:
        raise ConfigError(
            'figures of labels and values need more packages: pip install "videomae[train]"'
        ) from None
    return functional


def check_torchmetrics() -> None:
    """ConfigError where torchmetrics is missing: before the work, not after it."""
    _torchmetrics()
