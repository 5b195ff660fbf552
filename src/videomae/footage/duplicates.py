"""Near-duplicates: pairs of videos whose features in an index are as alike as those of copies.

N rows of an index; D numbers of a feature; K nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videomae.data.groups import connected
from videomae.data.opening import open_video, part_of
from videomae.errors import VideoError, needing
from videomae.footage.jobs import Loaded
from videomae.footage.search import BLOCK, Index, Numbers
from videomae.inference.predict import Floats
from videomae.video.decoder import Frames
from videomae.video.reader import VideoReader

# Above so many rows not all are compared with all: the time grows with the square of their number.
_MOST_EXACT = 100_000
_MOST_AT_ONCE = 256  # neighbours of a row
_NUM_COPIES = 48


def nearest_others(index: Index, count: int = 16) -> tuple[Floats, Numbers]:
    """For each row the rows of other videos that are most like it: similarities, numbers (N, K).

    The most like stands first; where there are fewer, the similarity is -inf. Exact up to 100,000
    rows; above, by faiss (extra `search`), which looks where the nearest are likely to be.
    """
    if len(index.rows) > _MOST_EXACT:
        return _likely_others(index, count)
    count = min(count, len(index.rows))
    found = []
    for first in range(0, len(index.rows), BLOCK):
        part = slice(first, first + BLOCK)
        like = index.unit[part] @ index.unit.T  # (block, N)
        like[index.videos[part, None] == index.videos] = -np.inf
        rows = np.argpartition(-like, count - 1, axis=1)[:, :count]
        found.append(_sorted(np.take_along_axis(like, rows, 1), rows))
    similarities, numbers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return similarities, numbers


def _likely_others(index: Index, count: int) -> tuple[Floats, Numbers]:
    with needing(f"comparing {len(index.rows):,} rows with each other", extra="search"):
        import faiss
    width = index.unit.shape[1]
    lists = int(4 * len(index.rows) ** 0.5)
    flat = faiss.IndexFlatIP(width)
    table = faiss.IndexIVFFlat(flat, width, lists, faiss.METRIC_INNER_PRODUCT)
    table.train(index.unit[:: max(len(index.rows) // (64 * lists), 1)])
    table.add(index.unit)
    table.nprobe = 32
    # More than asked for, since rows of the same video stand before those of others.
    lengths = np.bincount(index.videos)
    more = min(count + int(lengths.max()), _MOST_AT_ONCE)
    like, rows = table.search(index.unit, more)
    like[(rows < 0) | (index.videos[rows] == index.videos[:, None])] = -np.inf
    like, rows = _sorted(like, rows)
    like, rows = like[:, :count], rows[:, :count]
    # Of a longer video that may be all there is: it is searched again without its own rows.
    for video in np.flatnonzero(lengths > more - count):
        own = np.flatnonzero(index.videos == video)
        others = faiss.IDSelectorNot(faiss.IDSelectorBatch(own))
        how: Any = faiss.SearchParametersIVF()
        how.sel, how.nprobe = others, table.nprobe
        found, near = table.search(index.unit[own], count, params=how)
        like[own], rows[own] = np.where(near < 0, -np.inf, found), near
    return like, rows


def _sorted(like: Floats, rows: Numbers) -> tuple[Floats, Numbers]:
    order = np.argsort(-like, axis=1, kind="stable")
    return np.take_along_axis(like, order, 1), np.take_along_axis(rows, order, 1)


@dataclass(frozen=True)
class Pair:
    """Two videos that are alike: the best pair of their rows, numbers in an index."""

    similarity: float
    first: int
    second: int


def similar_pairs(index: Index, others: tuple[Floats, Numbers], threshold: float) -> list[Pair]:
    """Pairs of videos with rows at least so similar, the most similar first.

    others: see `nearest_others`; a row that has more neighbours above the threshold than these is
    paired with these alone.
    """
    similarities, numbers = others
    every = [
        Pair(float(similarities[row, place]), *sorted((row, int(numbers[row, place]))))
        for row, place in np.argwhere(similarities >= threshold).tolist()
    ]
    found: dict[frozenset[int], Pair] = {}
    for pair in sorted(every, key=lambda pair: (-pair.similarity, pair.first, pair.second)):
        videos = frozenset((int(index.videos[pair.first]), int(index.videos[pair.second])))
        found.setdefault(videos, pair)
    return list(found.values())


def joined(index: Index, pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs that share videos, together, in the order of their first ones.

    >>> from types import SimpleNamespace
    >>> index = SimpleNamespace(videos=[0, 1, 2, 3, 4])
    >>> [len(g) for g in joined(index, [Pair(0.9, 0, 1), Pair(0.8, 3, 4), Pair(0.7, 1, 2)])]
    [2, 1]
    """
    videos = [(int(index.videos[pair.first]), int(index.videos[pair.second])) for pair in pairs]
    one_of = connected(videos)
    groups: dict[int, list[Pair]] = {}
    for pair, (first, _) in zip(pairs, videos, strict=True):
        groups.setdefault(one_of(first), []).append(pair)
    return list(groups.values())


def similarity_of_copies(index: Index, loaded: Loaded, *, allow_addresses: bool = False) -> Floats:
    """How like their originals re-encoded copies of some of an index's rows are: (up to 48).

    The copies are made in memory: 3/4 of the size and back, as JPEG of quality 40. loaded: of
    `load_model(..., whole=True)`. Rows that cannot be read any more are passed over, and addresses,
    unless allowed: an index may come from anybody.
    """
    found = []
    able = [k for k, row in enumerate(index.rows) if allow_addresses or not row.is_remote]
    for row in np.random.default_rng(0).permutation(able)[:_NUM_COPIES].tolist():
        video = index.rows[row].video
        try:
            with open_video(video, loaded.job.on_damage) as reader:
                copy: Any = _Copy(reader)
                part = part_of(video, reader.info, reader.times)
                views = loaded.maker.read_views(copy, part)
        except VideoError:
            continue
        features = loaded.compute(views).mean(0, keepdim=True).numpy()
        found.append(float((index.scaled(features) @ index.unit[row])[0]))
    return np.array(found, np.float32)


def usual_threshold(copies: Floats, nearest: Floats) -> float:
    """A similarity that few videos reach with another one, and copies do.

    Half-way, as angles grow, from what other videos reach at most to what 95 % of copies reach at
    least. At most: the median of the nearest ones + 3 of their standard deviations, taken from the
    median deviation, which many copies among the others do not change. Where copies reach less than
    that, as with features that do not fit the videos, it is the threshold. It lies in 0..0.999: the
    features of equal files differ by rounding, and few videos may all be unlike each other.

    copies: of `similarity_of_copies`; nearest: (N) of each row to its nearest other.
    """
    others = _spread(nearest[np.isfinite(nearest)])
    if not len(others):
        return 1.0  # there is nothing to compare with
    middle = np.median(others)
    most = middle + 3 * 1.4826 * np.median(np.abs(others - middle))
    reached = np.quantile(_spread(copies), 0.05) if len(copies) else most
    return min(float(np.tanh((most + max(most, reached)) / 2)), 0.999)


def _spread(similarities: Floats) -> NDArray[np.float64]:
    """Similarities of 0..0.999 as Fisher's z, which does not crowd them below 1."""
    return np.asarray(np.arctanh(similarities.astype(np.float64).clip(0, 0.999)))


class _Copy:
    """An open video whose frames are as from a file of less quality."""

    def __init__(self, reader: VideoReader) -> None:
        self.info, self.times, self._reader = reader.info, reader.times, reader

    def read(self, indices: Sequence[int]) -> Frames:
        return np.stack([_degraded(frame) for frame in self._reader.read(indices)])


def _degraded(frame: Frames) -> Frames:
    """A frame (H, W, 3) at 3/4 of its size and back, through JPEG."""
    image, packed = Image.fromarray(frame), BytesIO()
    small = image.resize([max(3 * side // 4, 1) for side in image.size])
    small.save(packed, "JPEG", quality=40)
    return np.asarray(Image.open(packed).resize(image.size))
