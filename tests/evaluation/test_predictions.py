import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from videomae.data.manifest import Video, Videos
from videomae.errors import ConfigError
from videomae.evaluation.predictions import check_pyarrow, write_predictions

NAN = float("nan")
BAD = {1: "x.mp4: broken"}


def written(
    folder: Path, problem: Any, videos: Videos, labels: Tensor, scores: Tensor
) -> list[dict[str, Any]]:
    path = folder / "new" / "predictions.parquet"
    write_predictions(path, problem, videos, labels, scores, BAD)
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


def test_a_missing_pyarrow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_pyarrow()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "videomae\[train\]"'):
        check_pyarrow()
