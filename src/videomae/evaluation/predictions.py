"""predictions.parquet: what a model said of each video, a row for each row of the list.

A video that could not be read has its reason in `error` and nulls in what was to be said of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.manifest import LABEL_SEPARATOR, Videos
from videomae.errors import ConfigError
from videomae.evaluation.metrics import top_classes, true_ranks
from videomae.hub import atomic_path
from videomae.settings import Problem

_TOP = 5
# From this share on, a class of several is said to be there.
_THRESHOLD = 0.5


def write_predictions(
    path: Path,
    problem: Problem,
    videos: Videos,
    labels: Tensor,
    scores: Tensor,
    bad: Mapping[int, str],
) -> None:
    """Write a row per video, in the order of the list, atomically.

    labels: class numbers (N), 0 or 1 (N, K), or values (N); scores (N, K), NaN where unreadable.
    All rows have path, part (null: all of the file), label, predicted and error; those of classes
    also scores, of one class each also correct, rank (1: right), top5 and top5_scores. The file's
    metadata names the classes in the order of the scores. ConfigError where pyarrow is missing.
    """
    arrow = _pyarrow()
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
    arrow = _pyarrow()
    names = np.array(classes, dtype=object)
    ranks = true_ranks(scores, labels).numpy()
    top = top_classes(scores, _TOP)  # (N, up to 5)
    found = names[top.numpy()]
    return {
        "predicted": arrow.array(found[:, 0], arrow.string(), mask=lost),
        "correct": arrow.array(ranks == 0),
        "rank": arrow.array(ranks + 1, mask=lost),
        "top5": _lists(found, lost),
        "top5_scores": _lists(scores.gather(1, top).numpy(), lost),
    }


def _lists(rows: NDArray[Any], lost: NDArray[np.bool_]) -> Any:
    """Rows (N, M) as a column of lists, null where lost, without a Python object per number."""
    arrow = _pyarrow()
    ends = np.concatenate([[0], np.cumsum(np.where(lost, 0, rows.shape[1]))]).astype(np.int32)
    return arrow.ListArray.from_arrays(
        ends, arrow.array(rows[~lost].ravel()), mask=arrow.array(lost)
    )


def check_pyarrow() -> None:
    """ConfigError where pyarrow is missing: before the work, not after it."""
    _pyarrow()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            'predictions.parquet needs more packages to be written: pip install "videomae[train]"'
        ) from None
    return pyarrow
