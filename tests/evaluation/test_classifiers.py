"""Nearest neighbours and linear maps, by hand and at their minimum."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.evaluation import classifiers
from videomae.evaluation.classifiers import (
    choose_l2,
    class_shares,
    fit_linear,
    fit_neighbours,
    fit_several,
    fit_values,
    fit_weights,
)


def clusters(num_videos: int, num_clips: int = 1, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features (N, V, 4) around one point for each of 3 classes, and the classes (N)."""
    labels = torch.arange(num_videos) % 3
    centres = 3 * torch.eye(3, 4)[labels][:, None]
    return centres + noise * torch.randn(num_videos, num_clips, 4), labels


def test_neighbours_vote_by_hand() -> None:
    train = torch.tensor([[2.0, 0.0], [0.8, 0.6], [4.8, 1.4], [-1.0, 0.0]])
    labels, test = torch.tensor([0, 1, 1, 3]), torch.tensor([[3.0, 0.0], [math.nan] * 2])
    scores = class_shares(fit_neighbours(train, labels, 3), test, 5)
    # Cosines 1, 0.8, 0.96 of the nearest three.
    votes = [math.exp(1 / 0.07), math.exp(0.8 / 0.07) + math.exp(0.96 / 0.07), 0, 0, 0]
    assert scores[0].tolist() == pytest.approx([vote / sum(votes) for vote in votes])
    assert scores[1].isnan().all()
    fewer = class_shares(fit_neighbours(train, labels, 99), test[:1], 5)
    assert float(fewer.sum()) == pytest.approx(1)
    assert class_shares(fit_neighbours(train, labels, 3), torch.zeros(0, 2), 3).shape == (0, 3)


@pytest.mark.filterwarnings("error")
def test_few_videos_per_class_are_no_reason_to_warn() -> None:
    x, labels = torch.randn(22, 4), torch.arange(22) % 12  # scikit-learn warns from 21 rows on
    for classifier in (fit_neighbours(x, labels, 3), fit_linear(x, labels, l2=1.0)):
        assert list(classifier.classes_) == list(range(12))


def slopes(linear: Any, x: Tensor, labels: Tensor, num_classes: int, l2: float) -> list[float]:
    """The largest gradient of the loss in weights and bias, as torch sees it."""
    regression = linear[-1]
    weight, bias = (torch.tensor(values) for values in (regression.coef_, regression.intercept_))
    if num_classes == 2:  # scikit-learn has the difference of the two columns
        weight, bias = (torch.cat([-half, half]) for half in (weight / 2, bias / 2))
    weight, bias = weight.T.clone().requires_grad_(), bias.clone().requires_grad_()
    standard = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    logits = standard @ weight + bias
    loss = F.cross_entropy(logits, labels) + l2 / 2 * weight.square().sum()
    torch.testing.assert_close(class_shares(linear, x, num_classes), logits.softmax(1).detach())
    return [float(slope.abs().max()) for slope in torch.autograd.grad(loss, (weight, bias))]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_linear_map_is_where_the_gradient_vanishes(num_classes: int) -> None:
    values, labels = clusters(60, noise=2.0)
    x, l2 = values[:, 0] * torch.tensor([1.0, 100.0, 0.01, 1.0]) + 7, 0.05
    x, labels = x[labels < num_classes], labels[labels < num_classes]
    assert max(slopes(fit_linear(x, labels, l2=l2), x, labels, num_classes, l2)) < 1e-5


def test_the_units_of_features_change_nothing_and_constant_ones_do_no_harm() -> None:
    values, labels = clusters(30, noise=1.0)
    x = values[:, 0]

    def scores(x: Tensor) -> Tensor:
        return class_shares(fit_linear(x, labels, l2=0.1), x, 3)

    torch.testing.assert_close(scores(1000 * x - 5), scores(x), atol=1e-4, rtol=0)
    more = torch.cat([x, torch.full((30, 1), 0.1)], 1)
    torch.testing.assert_close(scores(more), scores(x), atol=1e-6, rtol=0)


def test_it_is_the_same_each_time_and_from_any_start() -> None:
    values, labels = clusters(60, noise=2.0)
    x = values[:, 0]
    first, again = (class_shares(fit_linear(x, labels, l2=0.01), x, 3) for _ in range(2))
    assert torch.equal(first, again)
    warm = fit_linear(x, labels, l2=0.01, linear=fit_linear(x, labels, l2=1.0))
    torch.testing.assert_close(class_shares(warm, x, 3), first, atol=1e-4, rtol=0)


def test_a_class_without_videos_to_learn_from_is_never_named() -> None:
    values, labels = clusters(60, noise=0.5)
    linear = fit_linear(values[labels != 1][:, 0], labels[labels != 1], l2=0.1)
    scores = class_shares(linear, values[:, 0], 4)
    assert scores.shape == (60, 4)
    assert not scores[:, [1, 3]].any()
    torch.testing.assert_close(scores.sum(1), torch.ones(60).double())
    assert class_shares(linear, torch.zeros(0, 4), 4).shape == (0, 4)
    tried, _ = choose_l2(values[:3, 0], labels[:3], torch.arange(3), 3)  # one video of each class
    assert [accuracy for _, accuracy in tried] == [0] * 7


def test_the_fifth_held_out_has_whole_videos_of_all_classes() -> None:
    _, labels = clusters(45, num_clips=2)
    videos = torch.arange(45).repeat_interleave(2)
    held = classifiers._held_out(labels.repeat_interleave(2), videos)
    assert len(held) == len(set(held)) == 9
    assert labels[held].bincount().tolist() == [3, 3, 3]
    assert held == classifiers._held_out(labels.repeat_interleave(2), videos)


def test_noise_asks_for_a_strong_penalty_and_clear_classes_for_a_weak_one() -> None:
    values, labels = clusters(60, noise=0.1)
    videos = torch.arange(60)
    tried, weak = choose_l2(values[:, 0], labels, videos, 3)
    assert [l2 for l2, _ in tried] == list(classifiers._L2)
    assert tried[-1][1] == 100
    _, strong = choose_l2(torch.randn(60, 20), labels, videos, 3)
    assert weak < 1e-3 < 1 <= strong


@pytest.mark.parametrize("num_classes", [2, 3])
def test_weights_of_plain_features_give_the_same_shares(num_classes: int) -> None:
    values, labels = clusters(60, noise=2.0)
    x = values[:, 0] * torch.tensor([1.0, 100.0, 0.01, 1.0]) + 7
    x, labels = x[labels < num_classes], labels[labels < num_classes]
    weight, bias = fit_weights(x, labels, torch.arange(len(x)), num_classes)
    _, l2 = choose_l2(x, labels, torch.arange(len(x)), num_classes)
    expected = class_shares(fit_linear(x, labels, l2=l2), x, num_classes)
    torch.testing.assert_close(
        (x @ weight.T + bias).softmax(1).double(), expected, atol=1e-4, rtol=0
    )


def test_a_class_of_no_video_gets_next_to_no_share() -> None:
    values, labels = clusters(60)
    weight, bias = fit_weights(values[:, 0], labels + (labels > 0), torch.arange(60), 5)
    shares = (values[:, 0] @ weight.T + bias).softmax(1)
    assert shares[:, [1, 4]].max() < 1e-6
    assert shares.argmax(1).tolist() == (labels + (labels > 0)).tolist()


def test_balanced_classes_count_alike() -> None:
    x = torch.cat([torch.randn(90, 1), torch.randn(10, 1) + 1])
    labels = (torch.arange(100) >= 90).long()
    plain, even = (
        fit_weights(x, labels, torch.arange(100), 2, balanced=balanced)
        for balanced in (False, True)
    )
    found = [int((x @ weight.T + bias).argmax(1).sum()) for weight, bias in (plain, even)]
    assert found[0] < 10 < 25 < found[1]


def test_too_few_videos_to_choose_by_get_the_usual_penalty() -> None:
    assert choose_l2(torch.randn(2, 3), torch.arange(2), torch.arange(2), 2) == ([], 1e-2)


def test_several_classes_are_answered_each_by_itself() -> None:
    values, labels = clusters(60)
    targets = F.one_hot(labels, 3)
    targets[labels == 1, 0] = 1
    targets = torch.cat([targets, torch.ones(60, 1), torch.zeros(60, 1)], 1)  # always, never
    weight, bias = fit_several(values[:, 0], targets, torch.arange(60))
    found = values[:, 0] @ weight.T + bias
    assert torch.equal((found > 0).long(), targets.long())
    assert found[0, 3:].tolist() == [20, -20]


def test_values_are_fitted_by_ridge_regression() -> None:
    x = torch.randn(200, 3) * torch.tensor([1.0, 50.0, 0.1]) + 4
    values = x @ torch.tensor([2.0, -0.1, 30.0]) + 5
    weight, bias = fit_values(x, values)
    torch.testing.assert_close((x @ weight.T + bias)[:, 0], values, atol=1e-2, rtol=1e-3)
