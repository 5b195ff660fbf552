"""What a model says of many videos, in a folder of Parquet parts that grows as they are done.

out/part-1of1-00000-5f0c9a1e.parquet   path, start_seconds, end_seconds, then labels and scores, or
                                       features
out/bad-1of1-00000-77ab03d2.parquet    path, reason

A part is written whole or not at all, and names in its metadata the videos that it is about: that
is how interrupted work goes on. Metadata also has the facts, as JSON under the key `videomae`: the
task, the model and a checksum of its weights, the settings, the version of this package.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from videomae.data.parquet import import_pyarrow, write_table
from videomae.errors import ConfigError, as_text, to_json
from videomae.hub import PathLike, check_writable
from videomae.inference.predict import Floats
from videomae.video.folder import natural_key

# What all parts of a folder must share; the rest, such as the engine, may differ by machine.
_SHARED = ("task", "settings", "feature_shape", "processor", "weights_sha256")
# A part is written at the first of these, so that little work is lost and little memory is held.
_PART_SECONDS, _PART_BYTES = 60.0, 2**26


@dataclass(frozen=True, eq=False)
class Rows:
    """A folder of parts as one table, with what it was made by, and the table of bad videos.

    table: a row per video or window of one, see `read_batch`. facts: `task` ("classify" or
    "embed"), `model`, `weights_sha256`, `settings`, `feature_shape`, `processor`, `engine`,
    `version`. bad: `path` and `reason` of each video that could not be read.
    """

    table: Any
    facts: dict[str, Any]
    bad: Any

    def features(self) -> Floats:
        """The features of all rows: (rows, *feature_shape) float32; ConfigError for labels."""
        if self.facts["task"] != "embed":
            raise ConfigError("these rows are labels, not features; `videomae embed` writes those")
        values = [chunk.flatten().to_numpy() for chunk in self.table["features"].chunks]
        flat = np.concatenate(values) if values else np.empty(0, np.float32)
        return flat.reshape(-1, *self.facts["feature_shape"])


@dataclass(frozen=True)
class Row:
    """What is said of a video, or of a window of one from start to end, in seconds.

    answer: a Classification or an Embedding.
    """

    path: str
    start_seconds: float | None
    end_seconds: float | None
    answer: Any


def read_batch(folder: PathLike) -> Rows:
    """Read a folder of parts back, in the order they were written, shard by shard.

    The table has `path`, `start_seconds` and `end_seconds` (null where a video is a folder of
    frames), then `labels` (list of strings, best first) and `scores` (list of float32), or
    `features` (fixed-size list of float32, of `feature_shape` laid flat). ConfigError where there
    are no parts, and where they do not belong together.

    ```python
    rows = read_batch("out")
    rows.features().shape, rows.facts["model"]  # ((1000, 384), 'MCG-NJU/videomae-small')
    ```
    """
    arrow = import_pyarrow()
    folder = Path(folder)
    parts = find_parts(folder)
    if not parts:
        raise ConfigError(
            f"{folder} holds no parts; expected a folder that `videomae classify` or `videomae "
            "embed` has written with --output"
        )
    seen: dict[str, Path] = {}
    for path, (facts, done) in parts.items():
        _check_same(facts, next(iter(parts.values()))[0], path)
        for video in done:
            if video in seen:
                raise ConfigError(
                    f"{path} and {seen[video].name} are about the same video; remove one of both, "
                    "and let --resume do again what is missing"
                )
            seen[video] = path

    facts = next(iter(parts.values()))[0]
    empty = {"part": _answers(facts, []), "bad": _complaints([])}
    tables = {kind: [arrow.table(columns)] for kind, columns in empty.items()}
    for path in parts:
        tables[path.name.split("-")[0]].append(arrow.parquet.read_table(path))
    table, bad = (
        arrow.concat_tables(each.replace_schema_metadata(None) for each in tables[kind])
        for kind in ("part", "bad")
    )
    return Rows(table, facts, bad)


def find_parts(folder: Path) -> dict[Path, tuple[dict[str, Any], list[str]]]:
    """The parts and bad tables of a folder in order, the facts of each and the videos it is about.

    Reads their last bytes alone. ConfigError for one that cannot be read.
    """
    arrow = import_pyarrow()
    found = {}
    names = [path for kind in ("bad", "part") for path in folder.glob(f"{kind}-*.parquet")]
    for path in sorted(names, key=lambda path: natural_key(path.name)):
        try:
            stored = arrow.parquet.read_metadata(path).metadata or {}
            found[path] = json.loads(stored[b"videomae"]), json.loads(stored[b"videomae.done"])
        except (OSError, KeyError, ValueError, arrow.ArrowException) as error:
            raise ConfigError(
                f"{path} is no part of a batch job, or damaged ({type(error).__name__}: {error}); "
                "remove it, and let --resume do again what is missing"
            ) from error
    return found


def key_of(video: object) -> str:
    """What stands for a video in the metadata of a part: 64 bits of a digest of its name."""
    return hashlib.sha256(as_text(video).encode()).hexdigest()[:16]


@dataclass
class PartWriter(AbstractContextManager["PartWriter"]):
    """Adds the parts of one shard to a folder; at its end, also by an error, what is left over.

    facts: see `Rows`. shard: which of how many, from 1; each writes files of its own names. resume:
    go on where such files are there. part_size: videos per part; a part of a minute's work, or of
    64 MiB, is written before.

    ConfigError where the folder cannot be written, holds parts of other facts, or, without
    `resume`, parts of this shard.
    """

    folder: Path
    facts: dict[str, Any]
    shard: tuple[int, int] = (1, 1)
    resume: bool = False
    part_size: int = 500
    done: set[str] = field(default_factory=set, init=False)
    _rows: list[Row] = field(default_factory=list, init=False)
    _bad: list[tuple[str, str]] = field(default_factory=list, init=False)
    _keys: dict[str, list[str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_writable(self.folder)
        parts = find_parts(self.folder)
        for path, (facts, done) in parts.items():
            _check_same(self.facts, facts, path)
            self.done.update(done)
        mine = [path for path in parts if path.name.split("-")[1] == self._name]
        if mine and not self.resume:
            raise ConfigError(
                f"{self.folder} holds the beginning of such a job, as {mine[0].name}; go on with "
                "--resume, or name another folder"
            )
        self._number = 1 + max((int(path.name.split("-")[2]) for path in mine), default=-1)
        self._since = time.monotonic()

    @property
    def _name(self) -> str:
        return "{}of{}".format(*self.shard)

    def add(self, video: object, rows: Iterable[Row]) -> None:
        """Add all rows of one video; a part is written when it is full."""
        self._rows.extend(rows)
        self._count(video, "part")

    def add_bad(self, video: object, reason: str) -> None:
        """Add a video that could not be read, and why."""
        self._bad.append((as_text(video), as_text(reason)))
        self._count(video, "bad")

    def _count(self, video: object, kind: str) -> None:
        self._keys.setdefault(kind, []).append(key_of(video))
        size = math.prod(self.facts.get("feature_shape") or (16,)) * 4
        if (
            sum(map(len, self._keys.values())) >= self.part_size
            or len(self._rows) * size >= _PART_BYTES
            or time.monotonic() - self._since >= _PART_SECONDS
        ):
            self.write()

    def write(self) -> None:
        """Write what was added since the last part."""
        for kind, keys in self._keys.items():
            is_part = kind == "part"
            columns = _answers(self.facts, self._rows) if is_part else _complaints(self._bad)
            stored = {"videomae": to_json(self.facts), "videomae.done": json.dumps(keys)}
            digest = hashlib.sha256(stored["videomae.done"].encode()).hexdigest()[:8]
            name = f"{kind}-{self._name}-{self._number:05d}-{digest}.parquet"
            write_table(self.folder / name, columns, stored)
            self.done.update(keys)
        self._number += 1
        self._rows, self._bad, self._keys = [], [], {}
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if self._keys:
            self.write()


def _answers(facts: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The columns of a part."""
    arrow = import_pyarrow()
    text, number, seconds = arrow.string(), arrow.float32(), arrow.float64()
    columns = {
        "path": arrow.array([as_text(row.path) for row in rows], text),
        "start_seconds": arrow.array([row.start_seconds for row in rows], seconds),
        "end_seconds": arrow.array([row.end_seconds for row in rows], seconds),
    }
    answers = [row.answer for row in rows]
    if facts["task"] == "classify":
        columns["labels"] = arrow.array([each.labels for each in answers], arrow.list_(text))
        columns["scores"] = arrow.array([each.scores for each in answers], arrow.list_(number))
        return columns
    flat = np.concatenate([np.empty(0, np.float32), *(each.features.ravel() for each in answers)])
    size = math.prod(facts["feature_shape"])
    columns["features"] = arrow.FixedSizeListArray.from_arrays(arrow.array(flat), size)
    return columns


def _complaints(bad: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The columns of a table of bad videos."""
    arrow = import_pyarrow()
    paths, reasons = ([pair[k] for pair in bad] for k in (0, 1))
    return {
        name: arrow.array(values, arrow.string())
        for name, values in (("path", paths), ("reason", reasons))
    }


def _check_same(facts: dict[str, Any], others: dict[str, Any], path: Path) -> None:
    """Raise ConfigError, naming the first difference, where parts would not belong together."""
    for name in _SHARED:
        one, other = facts.get(name), others.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            name = next(key for key in {**other, **one} if one.get(key) != other.get(key))
            one, other = one.get(name), other.get(name)
        if name == "weights_sha256":
            name, one, other = "model", f"{facts['model']} (other weights)", others["model"]
        raise ConfigError(
            f"{path} was made with {name}={other}, and not with {name}={one}; name another folder, "
            "or give the same model and settings"
        )
