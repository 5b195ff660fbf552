"""Classifiers on features that scikit-learn fits: nearest neighbours, and linear maps.

M rows to learn from, N to test on, D features, K classes.
"""

import functools
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.errors import ConfigError, needing

# Of the neighbours' votes: exp(cosine / temperature), as in DINO (Caron et al. 2021, appendix F).
_TEMPERATURE = 0.07
# Strengths of the penalty that are tried, the strongest first: each fit starts from the last.
_L2 = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
HELD_OUT = 5  # one in so many
_USUAL_L2 = 1e-2  # where there are too few videos to choose by
_MAX_ITERATIONS = 1000
_NEVER = 20.0  # logits below the others: a share of 2e-9
_LEAST_SHARE = 1e-12  # of a class that only the held-out fifth has


@contextmanager
def _numbers_are_classes() -> Iterator[None]:
    """Silence scikit-learn where few videos per class make it doubt that these are classes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


def fit_neighbours(features: Tensor, labels: Tensor, num_neighbours: int) -> Any:
    """Features (M, D) and their class numbers (M) as a classifier by the votes of the nearest.

    Near is a large cosine, and a vote weighs exp(cosine / 0.07).
    """
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = KNeighborsClassifier(
        min(num_neighbours, len(labels)),
        metric="cosine",  # as a distance: 1 - cosine
        weights=lambda distances: np.exp(-distances / _TEMPERATURE),
    )
    with _numbers_are_classes():
        return neighbours.fit(features.double().numpy(), labels.numpy())


def new_linear(*, balanced: bool = False) -> Any:
    """A pipeline of scikit-learn: standardised features, then multinomial logistic regression.

    balanced: all classes count alike, however many videos they have.
    """
    with needing("a linear map on features"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    regression = LogisticRegression(
        tol=1e-6,
        max_iter=_MAX_ITERATIONS,
        warm_start=True,
        class_weight="balanced" if balanced else None,
    )
    return make_pipeline(StandardScaler(), regression)


def fit_linear(features: Tensor, labels: Tensor, *, l2: float, linear: Any = None) -> Any:
    """Fit a linear map on features (M, D) to class numbers (M), and return it.

    The minimum of the mean cross entropy + l2 / 2 * sum of squared weights, the bias being free,
    found by L-BFGS in float64. `linear`: a fitted one to go on from; by default it starts anew.
    """
    linear = new_linear() if linear is None else linear
    if len(labels.bincount().nonzero()) == 2:
        l2 /= 2  # its one column of weights is the difference of two, which have half the penalty
    linear.set_params(logisticregression__C=1 / (l2 * len(labels)))
    with _numbers_are_classes():
        return linear.fit(features.double().numpy(), labels.numpy())


def class_shares(classifier: Any, features: Tensor, num_classes: int) -> Tensor:
    """Shares of all classes: (N, D) -> (N, K) float64; 0 for one that was not learned from.

    A row of NaN, which is a video that could not be read, stays one.
    """
    readable = ~features[:, 0].isnan()
    shares = torch.full((len(features), num_classes), torch.nan, dtype=torch.float64)
    if readable.any():
        found = np.zeros((int(readable.sum()), num_classes))
        found[:, classifier.classes_] = classifier.predict_proba(
            features[readable].double().numpy()
        )
        shares[readable] = torch.from_numpy(found)
    return shares


def choose_l2(
    features: Tensor, labels: Tensor, videos: Tensor, num_classes: int, *, linear: Any = None
) -> tuple[list[tuple[float, float]], float]:
    """The penalty with the lowest cross entropy on a fifth of the videos, learned from the others.

    Returns ([(l2, accuracy in percent on the fifth), ...], the best l2). Accuracy does not choose:
    on a few hundred videos it goes up and down from one penalty to the next. All clips of a video
    (its number in `videos` (M)) are on the same side, and each class keeps its share. `linear`: the
    map to begin with, by default a new one. With fewer than two classes in the others, nothing is
    tried.
    """
    held = torch.isin(videos, torch.tensor(_held_out(labels, videos)))
    if len(labels[~held].bincount().nonzero()) < 2:
        return [], _USUAL_L2
    tried, losses = [], []
    for l2 in _L2:
        linear = fit_linear(features[~held], labels[~held], l2=l2, linear=linear)
        shares, wanted = class_shares(linear, features[held], num_classes), labels[held]
        tried.append((l2, 100 * float((shares.argmax(1) == wanted).double().mean())))
        losses.append((float(F.nll_loss(shares.clamp(min=_LEAST_SHARE).log(), wanted)), l2))
    return tried, min(losses)[1]


def _held_out(labels: Tensor, videos: Tensor) -> list[int]:
    """The numbers of a fifth of the videos, evenly from all classes, the same ones each time."""
    of_video = dict(zip(videos.tolist(), labels.tolist(), strict=True))
    order = sorted(of_video)
    random.Random("held out").shuffle(order)
    order.sort(key=lambda video: of_video[video])
    return order[::HELD_OUT]


def check_two_classes(labels: Tensor) -> None:
    """ConfigError where the class numbers to learn from are not of two classes at least."""
    if len(labels.bincount().nonzero()) < 2:
        raise ConfigError(
            f"the {len(labels)} clips to learn from are all of one class, and a linear map needs "
            "at least 2; add videos of the others, or see which could not be read"
        )


def fit_weights(
    features: Tensor, labels: Tensor, videos: Tensor, num_classes: int, *, balanced: bool = False
) -> tuple[Tensor, Tensor]:
    """The best linear map as weight (K, D) and bias (K) of plain features.

    A softmax over its outputs is what `class_shares` gives; a class that is not learned from has
    next to none. `videos` (M): see `choose_l2`.
    """
    new = functools.partial(new_linear, balanced=balanced)
    _, l2 = choose_l2(features, labels, videos, num_classes, linear=new())
    linear = fit_linear(features, labels, l2=l2, linear=new())
    fitted, bias = _unscaled(linear)
    classes = torch.from_numpy(linear[-1].classes_)
    if len(classes) == 2:  # scikit-learn has the difference of the two columns
        fitted, bias = torch.cat([-fitted, fitted]) / 2, torch.cat([-bias, bias]) / 2
    weight = torch.zeros(num_classes, features.shape[1])
    weight[classes] = fitted
    every = torch.full((num_classes,), float(bias.min()) - _NEVER)
    every[classes] = bias
    return weight, every


def fit_several(
    features: Tensor, targets: Tensor, videos: Tensor, *, balanced: bool = False
) -> tuple[Tensor, Tensor]:
    """A yes or no for each class: targets (M, K) of 0 and 1 -> weight (K, D) and bias (K).

    A class that no video has, or all have, is answered by its bias alone.
    """
    maps = []
    for wanted in targets.long().T:
        if wanted.min() == wanted.max():
            maps.append((torch.zeros(features.shape[1]), _NEVER * (2.0 * wanted[:1] - 1)))
            continue
        weight, bias = fit_weights(features, wanted, videos, 2, balanced=balanced)
        maps.append((weight[1] - weight[0], bias[1:] - bias[:1]))
    return torch.stack([weight for weight, _ in maps]), torch.cat([bias for _, bias in maps])


def fit_values(features: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of values (M): weight (1, D) and bias (1), the penalty by leave-one-out."""
    with needing("a linear map on features"):
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 5, 17)))
    return _unscaled(ridge.fit(features.double().numpy(), values.double().numpy()))


def _unscaled(pipeline: Any) -> tuple[Tensor, Tensor]:
    """The map of a pipeline as one of features that are not standardised: float32."""
    scaler, linear = pipeline
    weight = np.atleast_2d(linear.coef_) / scaler.scale_
    bias = np.atleast_1d(linear.intercept_) - weight @ scaler.mean_
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
