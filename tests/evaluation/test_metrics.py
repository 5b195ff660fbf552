import builtins
import math
from typing import Any

import pytest
import torch

from videomae.errors import ConfigError
from videomae.evaluation import metrics

NAN = float("nan")


def test_ties_go_to_the_smaller_class_number() -> None:
    scores = torch.tensor([[0.3, 0.3, 0.4, 0.0], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]])
    # in order: 2 0 1 3, 0 1 2 3, 3 2 1 0
    assert metrics.true_ranks(scores, torch.tensor([1, 3, 0])).tolist() == [2, 3, 3]
    assert metrics.true_ranks(scores, torch.tensor([2, 0, 3])).tolist() == [0, 0, 0]
    assert metrics.top_classes(scores, 3).tolist() == [[2, 0, 1], [0, 1, 2], [3, 2, 1]]
    assert metrics.top_classes(scores, 9).shape == (3, 4)


def test_ranks_are_places_in_the_sorted_order() -> None:
    scores = torch.randint(0, 5, (200, 9)).float()  # many ties
    labels = torch.randint(0, 9, (200,))
    order = metrics.top_classes(scores, 9)
    places = (order == labels[:, None]).long().argmax(1)
    assert torch.equal(metrics.true_ranks(scores, labels), places)


def test_a_row_of_nan_is_in_no_top_5_even_of_three_classes() -> None:
    ranks = metrics.true_ranks(torch.full((1, 3), NAN), torch.tensor([0]))
    assert ranks.tolist() == [metrics.UNRANKED]


def test_confusions_are_counted_and_the_most_frequent_come_first() -> None:
    labels, predicted = torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 0, 0, 0])
    matrix = metrics.confusion_matrix(labels, predicted, 4)
    assert matrix.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert metrics.most_confused(matrix, 9) == [(0, 1, 2), (2, 0, 2), (1, 0, 1)]
    assert metrics.most_confused(matrix, 1) == [(0, 1, 2)]


def test_average_precision_by_hand() -> None:
    # Class 0, by score: right, wrong, right -> (1/1 + 2/3) / 2. Class 1 has no video, class 2 all.
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.6, 0.2, 0.9], [0.5, 0.3, 0.4]])
    targets = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    found = metrics.average_precisions(scores, targets)
    assert found.tolist() == pytest.approx([5 / 6, NAN, 1], nan_ok=True)
    assert metrics.mean_of(found) == pytest.approx((5 / 6 + 1) / 2)
    # The third video unreadable: found last, behind the wrong one.
    scores[2] = NAN
    assert metrics.average_precisions(scores, targets)[0] == pytest.approx((1 + 2 / 3) / 2)
    scores[0] = NAN  # both at the end together: 2 right of 3
    assert metrics.average_precisions(scores, targets)[0] == pytest.approx(2 / 3)


def test_regression_by_hand() -> None:
    predicted = torch.tensor([1.0, 2.0, 4.0, NAN])
    figures = metrics.regression_figures(predicted, torch.tensor([1.0, 2.0, 3.0, 9.0]))
    assert figures["mae"] == pytest.approx(1 / 3)
    assert figures["spearman"] == pytest.approx(1, abs=1e-5)  # torchmetrics divides by 1e-6 more
    assert figures["pearson"] == pytest.approx(3 / math.sqrt(2 * 14 / 3))
    assert figures["r2"] == pytest.approx(1 - 1 / 2)


@pytest.mark.parametrize("predicted", [[NAN, NAN], [2.0, NAN], [2.0, 2.0]])
def test_what_is_not_defined_is_nan(predicted: list[float]) -> None:
    figures = metrics.regression_figures(torch.tensor(predicted), torch.tensor([1.0, 1.0]))
    assert math.isnan(figures["pearson"])
    assert math.isnan(figures["r2"])
    assert math.isnan(figures["mae"]) == math.isnan(predicted[0])


def test_a_missing_torchmetrics_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return really(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r'pip install "videomae\[train\]"'):
        metrics.check_torchmetrics()
