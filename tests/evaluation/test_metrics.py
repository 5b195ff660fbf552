import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from videomae.data.manifest import Video, Videos
from videomae.data.rows import import_pyarrow
from videomae.errors import ConfigError
from videomae.evaluation import metrics

NAN = float("nan")
BAD = {1: "x.mp4: broken"}


def test_ties_go_to_the_smaller_class_number() -> None:
    scores = torch.tensor([[0.3, 0.3, 0.4, 0.0], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]])
    # in order: 2 0 1 3, 0 1 2 3, 3 2 1 0
    assert metrics.true_ranks(scores, torch.tensor([1, 3, 0])).tolist() == [2, 3, 3]
    assert metrics.true_ranks(scores, torch.tensor([2, 0, 3])).tolist() == [0, 0, 0]


def test_ranks_are_places_in_the_sorted_order() -> None:
    scores = torch.randint(0, 5, (200, 9)).float()  # many ties
    labels = torch.randint(0, 9, (200,))
    order = scores.sort(dim=1, descending=True, stable=True).indices
    places = (order == labels[:, None]).long().argmax(1)
    assert torch.equal(metrics.true_ranks(scores, labels), places)


def test_a_row_of_nan_is_in_no_top_5_even_of_three_classes() -> None:
    ranks = metrics.true_ranks(torch.full((1, 3), NAN), torch.tensor([0]))
    assert ranks.tolist() == [metrics.UNRANKED]


def test_average_precision_by_hand() -> None:
    # Class 0, by score: right, wrong, right -> (1/1 + 2/3) / 2. Class 1 has no video, class 2 all.
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.6, 0.2, 0.9], [0.5, 0.3, 0.4]])
    targets = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    found = metrics.average_precisions(scores, targets)
    assert found.tolist() == pytest.approx([5 / 6, NAN, 1], nan_ok=True)
    assert float(found.nanmean()) == pytest.approx((5 / 6 + 1) / 2)
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


def written(
    folder: Path, problem: Any, videos: Videos, labels: Tensor, scores: Tensor
) -> list[dict[str, Any]]:
    path = folder / "new" / "predictions.parquet"
    metrics.write_predictions(path, problem, videos, labels, scores, BAD)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    table = pq.read_table(path)
    assert json.loads(table.schema.metadata[b"classes"]) == list(videos.classes)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_one_class_each(tmp_path: Path) -> None:
    videos = Videos(
        (
            Video("a/x.mp4", "b"),
            Video("b/x.mp4", "a"),
            Video("a/x.mp4", "c", start_seconds=1.5, end_seconds=2.0),
        ),
        ("a", "b", "c"),
    )
    scores = torch.tensor([[0.25, 0.5, 0.25], [NAN] * 3, [0.25, 0.5, 0.25]])
    first, second, third = written(
        tmp_path, "single_label", videos, torch.tensor([1, 0, 2]), scores
    )
    assert first == {
        "path": "a/x.mp4",
        "part": None,
        "label": "b",
        "predicted": "b",
        "correct": True,
        "rank": 1,
        "top5": ["b", "a", "c"],
        "top5_scores": [0.5, 0.25, 0.25],
        "scores": [0.25, 0.5, 0.25],
        "error": None,
    }
    assert second["error"] == BAD[1]
    assert second["correct"] is False
    assert {second[k] for k in ("predicted", "rank", "top5", "top5_scores", "scores")} == {None}
    assert third["part"] == "start_seconds=1.5, end_seconds=2.0"
    assert (third["predicted"], third["rank"], third["correct"]) == ("b", 3, False)


def test_several_classes_and_values(tmp_path: Path) -> None:
    videos = Videos(tuple(Video(f"{k}.mp4", "a|b") for k in range(3)), ("a", "b"))
    scores = torch.tensor([[0.5, 0.75], [NAN, NAN], [0.25, 0.125]])
    rows = written(tmp_path, "multi_label", videos, torch.ones(3, 2), scores)
    assert [row["predicted"] for row in rows] == ["a|b", None, ""]
    assert rows[2]["scores"] == [0.25, 0.125]
    values = Videos(tuple(Video(f"{k}.mp4", f"{k}.5") for k in range(3)))
    rows = written(tmp_path, "regression", values, torch.tensor([0.5, 1.5, 2.5]), scores[:, :1])
    assert [row["label"] for row in rows] == [0.5, 1.5, 2.5]
    assert [row["predicted"] for row in rows] == [0.5, None, 0.25]
    assert list(rows[0]) == ["path", "part", "label", "predicted", "error"]


@pytest.mark.parametrize(
    ("package", "ask", "extra"),
    [
        ("torchmetrics", metrics.import_torchmetrics, "train"),
        ("pyarrow", import_pyarrow, "batch"),
    ],
)
def test_a_missing_package_is_named(
    package: str, ask: Callable[[], Any], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'pip install "videomae\[{extra}\]"'):
        ask()
