"""Features of the videos of a list by a frozen model, computed once and kept in a file.

N videos, V views of each, D features.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.data.manifest import Videos
from videomae.errors import keeping
from videomae.evaluation.partial import Partial
from videomae.evaluation.sharding import Progress, compute_videos
from videomae.hub import atomic_path
from videomae.processing.views import ViewMaker

FEATURES_NAME = "features.npz"
_SETS = ("train", "test")  # their names in the file


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the videos of a list: values (N, V, D) float32, NaN for an unreadable one."""

    videos: Videos
    values: Tensor
    bad: dict[int, str]


def compute_features(
    model: nn.Module,
    videos: Videos,
    maker: ViewMaker,
    features_of: Callable[[Any], Tensor],
    *,
    machine: Machine,
    batch_size: int,
    num_workers: int | None,
    on_progress: Progress | None = None,
    partial: Partial | None = None,
) -> Features:
    """What `features_of` makes of the model's output, (B, D), for each view of `maker`."""
    values, bad = compute_videos(
        model,
        videos,
        maker,
        features_of,
        lambda clips: clips,
        shape=(maker.num_views, maker.config.hidden_size),
        machine=machine,
        batch_size=batch_size,
        num_workers=num_workers,
        on_progress=on_progress,
        partial=partial,
    )
    return Features(videos, values, bad)


def stored_or_computed(
    path: Path,
    key: str,
    lists: Sequence[Videos],
    machine: Machine,
    compute: Callable[[list[Partial]], list[Features]],
) -> tuple[list[Features], bool]:
    """The features that all processes find at `path` for this key, or computed and written there.

    Also whether they were found. Broken off, the same call goes on with what there is of them.
    """
    partials = [Partial(path.parent, name, key) for name in _SETS[: len(lists)]]
    found = read_features(path, key, *lists)
    reused = all(machine.gather([found is not None]))
    if found is None or not reused:
        with keeping(lambda: str(partials[0])):
            found = compute(partials)
            if machine.is_main:
                write_features(path, key, *found)
                for partial in partials:
                    partial.remove()
    return found, reused


def write_features(path: Path, key: str, *sets: Features) -> None:
    """Write the features of the videos to learn from, and where given of those to test on."""
    arrays: dict[str, Any] = {"key": np.array(key)}
    for name, part in zip(_SETS, sets, strict=False):
        arrays[name] = part.values.numpy()
        arrays[f"{name}_paths"] = np.array([str(video) for video in part.videos.items])
        arrays[f"{name}_labels"] = np.array([video.label for video in part.videos.items])
        arrays[f"{name}_bad"] = np.array(json.dumps(part.bad))
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def read_features(path: Path, key: str, *lists: Videos) -> list[Features] | None:
    """Features written for the same key; None where others lie there, or none."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            return [
                Features(
                    videos,
                    torch.from_numpy(arrays[name]),
                    {int(row): why for row, why in json.loads(str(arrays[f"{name}_bad"])).items()},
                )
                for name, videos in zip(_SETS, lists, strict=False)
            ]
    except Exception:  # of a damaged file, numpy raises all kinds
        return None  # none, or damaged: they are computed again
