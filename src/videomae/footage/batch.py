"""What a model says of many videos, in a folder of Parquet parts that grows as they are done.

    out/part-1of1-00000-5f0c9a1e.parquet   path, start_seconds, end_seconds, labels, scores
    out/bad-1of1-00000-77ab03d2.parquet    path, reason

`embed` has features in the place of labels and scores.

A part is written whole or not at all, and names in its metadata the videos that it is about: that
is how interrupted work goes on. Metadata also has the facts, as JSON under the key `videomae`: the
task, the model and a checksum of its weights, the settings, the version of this package.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from videomae.claim import LOCK_NAME, held
from videomae.data.inputs import name_of
from videomae.data.manifest import Video
from videomae.data.rows import import_pyarrow, write_table
from videomae.errors import ConfigError, as_text, counted, to_json
from videomae.footage.jobs import Job, answer_of, compute_here
from videomae.hub import PathLike, check_writable
from videomae.inference.exported import Log
from videomae.inference.predict import Floats
from videomae.video.folder import natural_key

Progress = Callable[[int, int], None]  # (videos done, videos in all)

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
        """The features of all rows: (rows, ...) float32; ConfigError for labels."""
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
    facts = next(iter(parts.values()))[0]
    seen: dict[str, Path] = {}
    for path, (others, done) in parts.items():
        _check_same(others, facts, path)
        for video in done:
            if video in seen:
                raise ConfigError(
                    f"{path} and {seen[video].name} are about the same video; remove one of both, "
                    "and let --resume do again what is missing"
                )
            seen[video] = path

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


def key_of(video: Video) -> str:
    """What stands for a video, or its part, in metadata: 64 bits of a digest of its name."""
    return hashlib.sha256(as_text(video).encode()).hexdigest()[:16]


@dataclass
class _Part:
    """What goes into the next part: videos with their rows, or with the reason for none."""

    number: int
    answers: list[tuple[Video, Sequence[Row] | str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


@dataclass
class PartWriter(AbstractContextManager["PartWriter"]):
    """Adds the parts of one shard to a folder; at its end, also by an error, what is left over.

    facts: see `Rows`. shard: which of how many, from 1; each writes files of its own names. resume:
    go on where such files are there. part_size: videos per part; a part of a minute's work, or of
    64 MiB, is written before.

    ConfigError where the folder holds parts of other facts, or, without `resume`, of this shard,
    and where another process is at work on this shard.
    """

    folder: Path
    facts: dict[str, Any]
    shard: tuple[int, int] = (1, 1)
    resume: bool = False
    part_size: int = 500
    done: set[str] = field(default_factory=set, init=False)
    bad: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.facts = json.loads(to_json(self.facts))  # as they come back: tuples are lists
        with ExitStack() as stack:
            stack.enter_context(held(self.folder / f"{LOCK_NAME}-{self._name}"))
            self._look_round()
            self._lock = stack.pop_all()

    def _look_round(self) -> None:
        parts = find_parts(self.folder)
        for path, (facts, done) in parts.items():
            _check_same(self.facts, facts, path)
            self.done.update(done)
            if path.name.startswith("bad-"):
                self.bad.update(done)
        mine = [path for path in parts if path.name.split("-")[1] == self._name]
        if mine and not self.resume:
            raise ConfigError(
                f"{self.folder} holds the beginning of such a job, as {mine[0].name}; go on with "
                "--resume, or name another folder"
            )
        self._part = _Part(1 + max((int(path.name.split("-")[2]) for path in mine), default=-1))
        for path in self.folder.glob(f".*-{self._name}-*.parquet"):
            path.unlink(missing_ok=True)  # begun by a process that was killed

    @property
    def _name(self) -> str:
        return "{}of{}".format(*self.shard)

    def add(self, video: Video, answer: Sequence[Row] | str) -> None:
        """Add all rows of one video, or the reason why it has none; write a part that is full."""
        self._part.answers.append((video, answer))  # in one step, as Ctrl-C comes between any two
        rows = sum(len(each) for _, each in self._part.answers if not isinstance(each, str))
        size = math.prod(self.facts.get("feature_shape") or (16,)) * 4
        if (
            len(self._part.answers) >= self.part_size
            or rows * size >= _PART_BYTES
            or time.monotonic() - self._part.began >= _PART_SECONDS
        ):
            self.write()

    def write(self) -> None:
        """Write what was added since the last part; once more, it writes the same files."""
        good = [(v, rows) for v, rows in self._part.answers if not isinstance(rows, str)]
        bad = [(v, reason) for v, reason in self._part.answers if isinstance(reason, str)]
        rows = [row for _, each in good for row in each]
        reasons = [(name_of(v), reason) for v, reason in bad]
        for kind, videos, columns in (
            ("bad", [v for v, _ in bad], _complaints(reasons)),
            ("part", [v for v, _ in good], _answers(self.facts, rows)),
        ):
            if not videos:
                continue
            done = json.dumps(list(map(key_of, videos)))
            digest = hashlib.sha256(done.encode()).hexdigest()[:8]
            name = f"{kind}-{self._name}-{self._part.number:05d}-{digest}.parquet"
            stored = {"videomae": to_json(self.facts), "videomae.done": done}
            write_table(self.folder / name, columns, stored)
        self._part = _Part(self._part.number + 1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._part.answers:
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
    paths, reasons = ([as_text(pair[k]) for pair in bad] for k in (0, 1))
    text = arrow.string()
    return {"path": arrow.array(paths, text), "reason": arrow.array(reasons, text)}


def _check_same(facts: dict[str, Any], others: dict[str, Any], path: Path) -> None:
    """Raise ConfigError, naming the first difference, where parts would not belong together."""
    for name in _SHARED:
        one, other = facts.get(name), others.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            none = "not set"  # by another version, which knows of no such setting
            name = next(k for k in {**other, **one} if one.get(k, none) != other.get(k, none))
            one, other = one.get(name, none), other.get(name, none)
        if name == "weights_sha256":
            name, one, other = "model", f"{facts['model']} (other weights)", others["model"]
        raise ConfigError(
            f"{path} was made with {name}={other}, and not with {name}={one}; name another folder, "
            "or give the same model and settings"
        )


@dataclass(frozen=True)
class Summary:
    """What became of the videos of a job, or of its shard: those of earlier runs, and of this.

    num_bad: those that could not be read, in this run or before. first_reason: why the first one
    of this run could not.
    """

    num_before: int
    num_done: int
    num_bad: int
    num_rows: int
    seconds: float
    first_reason: str = ""

    def __str__(self) -> str:
        rate = self.num_done / max(self.seconds, 1e-9)
        text = f"{counted(self.num_done, 'video')} in {self.seconds:.1f} s ({rate:.1f} a second)"
        text += f", {counted(self.num_rows, 'row')}"
        if self.num_bad:
            text += f"; {counted(self.num_bad, 'video')} could not be read, see bad-*.parquet"
        return text + (f"; {self.num_before:,} were done before" if self.num_before else "")


def run_job(
    videos: Sequence[Video],
    folder: PathLike,
    job: Job,
    *,
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    part_size: int = 500,
    ray: str = "",
    tell: Log | None = None,
    on_progress: Progress | None = None,
) -> Summary:
    """Answer about each video of a list once, and write parts into a folder; see `batch`.

    Args:
        shard: (i, n) takes the i-th of n shares, from 1. Which videos those are depends on their
            names alone, so that shards on any machines may write into one folder.
        resume: leave out what the folder has already, of this or any other shard.
        part_size: videos per part.
        ray: compute on a Ray cluster: its address, or "auto"; "" computes here. See `cluster`.
        on_progress: takes (videos done, videos in all) at first and after each video.

    Raises ConfigError for settings that do not fit the folder, see `PartWriter`; WeightsError for
    models that cannot be loaded. A bad video is listed in the folder and ends nothing.
    """
    number, of = shard
    if not 1 <= number <= of:
        raise ConfigError(f"shard={number}/{of} is no share; expected 1/{of} to {of}/{of}")
    if part := job.has_windows and next(filter(_is_part, videos), None):
        raise ConfigError(f"{part} is a part of a video, and windows are cut from whole ones")
    check_writable(folder)  # and pyarrow is there: best known before the model is loaded
    import_pyarrow()
    mine = {key: v for v in videos if int(key := key_of(v), 16) % of == number - 1}
    if ray:
        from videomae.footage.cluster import Cluster

        cluster = Cluster(job, ray)
        facts, config = cluster.facts()
        compute = cluster.compute
    else:
        loaded = job.load(tell)
        facts, config = loaded.facts(), loaded.ready.config
        compute = partial(compute_here, loaded)
    began = time.monotonic()
    with PartWriter(Path(folder), facts, shard, resume, part_size) as parts:
        todo = dict(enumerate(v for key, v in mine.items() if key not in parts.done))
        before, bad, rows, reason = len(mine) - len(todo), len(parts.bad & mine.keys()), 0, ""
        if on_progress:
            on_progress(before, len(mine))
        open_rows: dict[int, dict[int, Row]] = {}
        for each in compute(list(todo.items())):
            video = todo.get(each.number)
            if video is None:
                continue  # known already: a window of a video that turned out to be bad
            answer: list[Row] | str | None = None
            if isinstance(each.value, str):
                answer = each.value
            elif not each.value.isfinite().all():
                answer = "the model's answer is no number; try dtype=float32"
            else:
                windows = open_rows.setdefault(each.number, {})
                windows[each.window] = Row(
                    name_of(video), each.start_seconds, each.end_seconds,
                    answer_of(each.value, job, config),
                )  # fmt: skip
                if len(windows) == each.num_windows:
                    answer = [row for _, row in sorted(windows.items())]
                    rows += each.num_windows
            if answer is not None:
                if isinstance(answer, str):
                    bad, reason = bad + 1, reason or answer
                parts.add(video, answer)
                del todo[each.number]
                open_rows.pop(each.number, None)
                if on_progress:
                    on_progress(len(mine) - len(todo), len(mine))
    if todo:
        raise ConfigError(f"{counted(len(todo), 'video')} got no answer; go on with --resume")
    done = len(mine) - before
    return Summary(before, done, bad, rows, time.monotonic() - began, reason)


def _is_part(video: Video) -> bool:
    part = video.start_seconds, video.end_seconds, video.first_frame, video.num_frames
    return any(number is not None for number in part)
