"""Nearest videos: an index is a folder of features, as `videomae index` and `embed` write it.

N rows of an index, a video each or a window of one; M queries; D numbers of a feature.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.data.inputs import video_named
from videomae.data.manifest import Video, is_address
from videomae.errors import ConfigError, VideoError, WeightsError
from videomae.footage.batch import read_batch
from videomae.footage.jobs import Job, Loaded, compute_here
from videomae.hub import PathLike
from videomae.inference.exported import Log
from videomae.inference.predict import Floats

Numbers = NDArray[np.int64]

BLOCK = 512  # rows compared at once with all others, so that it takes little memory


@dataclass(frozen=True)
class Stretch:
    """A video by its name in tables (`inputs.name_of`), or a part of it in seconds."""

    path: str
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def video(self) -> Video:
        """As a row of a list, to be opened."""
        video = video_named(self.path)
        return replace(video, start_seconds=self.start_seconds, end_seconds=self.end_seconds)

    @property
    def is_remote(self) -> bool:
        """Whether to open it leads beyond this machine; a member of a tar of its own does not."""
        member, _, tar = self.path.rpartition("::")
        is_here = member.startswith("tar://") and "::" not in member and "://" not in tar
        return is_address(self.path) and not is_here

    def overlaps(self, other: "Stretch") -> bool:
        """Whether two stretches share a moment of one file."""
        if _place(self.path) != _place(other.path):
            return False
        start, end = self.start_seconds or 0.0, self.end_seconds
        other_start, other_end = other.start_seconds or 0.0, other.end_seconds
        return (other_end is None or start < other_end) and (end is None or other_start < end)


@dataclass(frozen=True)
class Match:
    """A stretch that is like another: `similarity` in -1..1, 1 for the same features."""

    stretch: Stretch
    similarity: float


@dataclass(frozen=True, eq=False)
class Index:
    """The rows of an index, to be compared.

    unit: (N, D) float32, features less their mean, over their spread, of length 1: their products
    are the similarities. videos: (N) the number of each row's video. facts: as `batch.Rows` has.
    """

    rows: list[Stretch]
    videos: Numbers
    unit: Floats
    mean: Floats
    spread: Floats
    facts: dict[str, Any]

    def scaled(self, features: Floats) -> Floats:
        """Features (M, D) on the scale of this index, of length 1."""
        return _of_length_1((features - self.mean) / self.spread)


def open_index(folder: PathLike) -> Index:
    """Read an index whole: 4 x D bytes a row. ConfigError for other folders and other features.

    Numbers of features differ in size and spread, and are much alike for all videos of a kind. So
    each has the mean of the index taken off and is divided by its standard deviation there.
    """
    found = read_batch(folder)
    features = found.features()
    if features.ndim != 2 or not len(features):
        raise ConfigError(
            f"{folder} has features of shape {features.shape}; an index has rows of one vector "
            "each, as `videomae index` writes them"
        )
    columns = (found.table[name].to_pylist() for name in ("path", "start_seconds", "end_seconds"))
    rows = [Stretch(*row) for row in zip(*columns, strict=True)]
    number_of: dict[str, int] = {}
    videos = np.array([number_of.setdefault(row.path, len(number_of)) for row in rows])
    mean, spread = features.mean(0), features.std(0)
    if np.linalg.norm(spread) <= 0.01 * np.linalg.norm(mean):
        # One row, or copies alone: less their mean only what is rounded would be left.
        mean, spread = np.zeros_like(mean), np.ones_like(spread)
    spread[spread < 1e-6 * (1 + np.abs(mean))] = 1  # always the same
    unit = _of_length_1((features - mean) / spread)
    return Index(rows, videos, unit, mean, spread, found.facts)


def load_model(
    index: Index, *, model: str = "", engine: str = "auto", device: str = "auto",
    whole: bool = False, tell: Log | None = None,
) -> Loaded:  # fmt: skip
    """Get the model of an index ready, with the settings of the index.

    model: where it lies now, if elsewhere. whole: take a video as one clip and not as windows.
    ConfigError where its weights are not those of the index.
    """
    facts, settings = index.facts, index.facts["settings"]
    job = Job(
        "embed",
        model=model or facts["model"],
        **{name: settings[name] for name in ("num_clips", "num_crops", "on_damage", "dtype")},
        frame_stride=settings["frame_stride"] or "uniform",
        fps=settings["fps"] or "own",
        window_seconds=None if whole else settings["window_seconds"],
        hop_seconds=None if whole else settings["hop_seconds"],
        engine=engine,
        device=device,
    )
    try:
        loaded = job.load(tell)
    except WeightsError as error:
        if model:
            raise
        raise WeightsError(
            f"{error} (the index was made with it; where it has moved, give its place as --model)"
        ) from error
    if loaded.facts()["weights_sha256"] != facts["weights_sha256"]:
        raise ConfigError(
            f"model {job.model} has other weights than the index was made with; give the same one "
            "as --model, or make the index anew"
        )
    return loaded


def search(
    index: Index, query: Stretch, loaded: Loaded, *, count: int = 10, mirrored: bool = False
) -> list[Match]:
    """The videos that are most like a video, or like a stretch of one, the nearest first.

    Of each video its best row is given. Rows of the query itself are left out. loaded: see
    `load_model`. mirrored: look for the query's mirror image as well.

    Raises VideoError where the query cannot be read.
    """
    queries = list(_features(loaded, query.video))
    if mirrored:
        flipped = replace(loaded, compute=lambda views: loaded.compute(views.flip(-1)))
        queries += _features(flipped, query.video)
    unit = index.scaled(np.stack(queries))
    best = np.full(len(index.rows), -np.inf, np.float32)
    for first in range(0, len(unit), BLOCK):
        np.maximum(best, (index.unit @ unit[first : first + BLOCK].T).max(1), out=best)
    found: dict[int, Match] = {}
    for row in np.argsort(-best, kind="stable").tolist():
        if len(found) == count:
            break
        number, stretch = int(index.videos[row]), index.rows[row]
        if number not in found and not query.overlaps(stretch):
            found[number] = Match(stretch, float(best[row]))
    return list(found.values())


def _features(loaded: Loaded, video: Video) -> Iterator[Floats]:
    """The features (D) of a video, or of each of its windows; VideoError where it is unreadable."""
    for each in compute_here(loaded, [(0, video)]):
        if isinstance(each.value, str):
            raise VideoError(each.value)
        yield each.value.mean(0).numpy()


def _place(path: str) -> str:
    return path if "::" in path else str(Path(path).resolve())


def _of_length_1(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12), np.float32)
