"""Whether each listed video is there, whole and unique: found, probed in parallel, remembered.

What was learnt of a file is written down at once, under its path, size and time of change, so that
interrupted work goes on where it stopped, and a file that changed is looked at anew.
"""

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from videomae.data.lists import Listed
from videomae.data.manifest import Video, is_address
from videomae.data.opening import open_video, part_of
from videomae.data.sources import image_numbers
from videomae.errors import VideoMAEError
from videomae.settings import Check
from videomae.video.folder import IMAGE_SUFFIXES
from videomae.video.limits import VIDEO_SUFFIXES
from videomae.video.reader import VideoInfo

Progress = Callable[[int, int], None]
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

# Decoded frames that a full check holds at once.
_CHECKED_BYTES = 64 << 20


@dataclass(frozen=True)
class Checked:
    """A row of the manifest to be, and what is known of its video.

    info: None for what was not looked at (an address) or cannot be read. num_frames: frames of the
    part that counts. reason: why it is left out, "" if it is not. origin: which line lists it.
    content: the same for files of the same bytes, "" where it was not looked at.
    """

    video: Video
    origin: str
    info: VideoInfo | None = None
    num_frames: int = 0
    reason: str = ""
    content: str = ""


class Journal:
    """What is known of files: JSON lines, each appended as soon as it is true.

    A value counts for a file as it was: `stamp` is its size and time of change.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Any, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.seek(0)
        line = b"\n"
        for line in self._file:
            try:
                key, stamp, value = json.loads(line)
                self._known[key] = stamp, value
            except ValueError:
                continue  # cut off when the work was interrupted
        # so that what follows an unfinished line stands on a line of its own
        self._file.write(b"" if line.endswith(b"\n") else b"\n")

    def get(self, key: str, stamp: Any) -> Any:
        """The value written for a file as it is now, or None."""
        known = self._known.get(key)
        return known[1] if known and known[0] == stamp else None

    def knows(self, key: str) -> bool:
        """Whether anything was ever written under a key."""
        return key in self._known

    def put(self, key: str, stamp: Any, value: Any) -> None:
        line = json.dumps([key, stamp, value])  # ASCII, so that any file name can be written
        with self._lock:
            self._known[key] = stamp, value
            self._file.write(line.encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def in_parallel(
    act: Callable[[Key], Result],
    jobs: Iterable[Key],
    *,
    workers: int,
    on_progress: Progress | None = None,
) -> dict[Key, Result]:
    """Do each job once in threads; decoding and encoding leave the interpreter's lock alone."""
    every = list(dict.fromkeys(jobs))
    done: dict[Key, Result] = {}
    pool = ThreadPoolExecutor(workers, thread_name_prefix="videomae-prepare")
    try:
        tasks = {pool.submit(act, job): job for job in every}
        for task in as_completed(tasks):
            done[tasks[task]] = task.result()
            if on_progress:
                on_progress(len(done), len(every))
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def find_files(items: Sequence[Listed], root: Path) -> tuple[list[Checked], list[Listed]]:
    """The rows whose files are there, and those that are missing; parts counted from frame 0."""
    found: list[Checked] = []
    missing: list[Listed] = []
    exact = [_exact(item, root) for item in items]
    wanted = {
        _stem(item.path)
        for item, path in zip(items, exact, strict=True)
        if path is None and item.by_name
    }
    named = _by_stem(root, wanted) if wanted else {}
    for item, path in zip(items, exact, strict=True):
        if path is None and item.by_name:
            path = _best(item, named.get(_stem(item.path), []))
        if path is None:
            missing.append(item)
        else:
            found.append(_row(item, path))
    return found, missing


def _exact(item: Listed, root: Path) -> str | None:
    if is_address(item.path):
        return item.path
    path = root.absolute() / item.path
    try:
        if path.exists():
            return str(path)
        # A name without suffix was taken for an mp4; it may be a folder of frames.
        if path.suffix == ".mp4" and path.with_suffix("").is_dir():
            return str(path.with_suffix(""))
    except (OSError, ValueError):  # too long, a zero byte
        return None
    return None


def _stem(name: str) -> str:
    """The name of a file without folders and a video's suffix.

    >>> _stem("a/b.c.mp4"), _stem("-x.1")
    ('b.c', '-x.1')
    """
    base = name.rpartition("/")[2]
    stem, dot, suffix = base.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else base


def _by_stem(root: Path, wanted: set[str]) -> dict[str, list[str]]:
    """All files and folders below the root that have one of these names."""
    found = defaultdict(list)
    for folder, subfolders, names in os.walk(root.absolute()):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in [*sorted(names), *subfolders]:
            if (stem := _stem(name)) in wanted and (stem != name or name in subfolders):
                found[stem].append(str(Path(folder, name)))
    return found


def _best(item: Listed, paths: Sequence[str]) -> str | None:
    """Of several files of one name, that in the folder of its split and class."""
    likely = {item.split, item.label, item.label.replace(" ", "_")} - {""}
    return max(paths, key=lambda path: len(likely & set(Path(path).parts)), default=None)


def _row(item: Listed, path: str) -> Checked:
    names = {field.name for field in fields(Video)}
    values = {name: value for name, value in vars(item).items() if name in names}
    video = Video(**values | {"path": path})
    row = Checked(video, item.origin)
    if video.num_frames is None or video.offset is not None or video.is_remote:
        return row
    images = image_numbers(Path(path))
    if images is None:  # a video file, or a folder without images, which probing will tell of
        return replace(row, video=replace(video, first_frame=None, num_frames=None))
    first = item.first_frame or 0
    if item.first_number is not None:
        if item.first_number not in images:
            reason = (
                f"{path}: has no image number {item.first_number}; its images are numbered "
                f"{min(images)} to {max(images)}"
            )
            return replace(row, reason=reason)
        first = images.index(item.first_number)
    whole = first == 0 and video.num_frames == len(images)
    part = {"first_frame": None, "num_frames": None} if whole else {"first_frame": first}
    return replace(row, video=replace(video, **part))


def check(
    rows: Sequence[Checked],
    journal: Journal,
    *,
    how: Check = "quick",
    workers: int = 1,
    on_progress: Progress | None = None,
) -> list[Checked]:
    """Open every video once and read its first, middle and last frame, or with "decode" all.

    Rows that cannot be read get a reason; addresses are passed over.
    """

    def probe(place: tuple[str, int | None, int | None]) -> VideoInfo | str:
        video = Video(place[0], offset=place[1], num_bytes=place[2])
        try:
            stamp, name = [how, *stamp_of(video)], f"probe {place[0]} {place[1]}"
            known = journal.get(name, stamp)
            if known is None:
                known = _probe(video, how)
                journal.put(name, stamp, known)
            return VideoInfo(path=Path(place[0]), **known)
        except (VideoMAEError, OSError) as error:
            return str(error)
        except Exception as error:  # a decoder's accident with one file must not end hours of work
            return f"{video}: cannot be read ({type(error).__name__}: {error})"

    local = [row for row in rows if not row.reason and not row.video.is_remote]
    places = [(row.video.path, row.video.offset, row.video.num_bytes) for row in local]
    results = in_parallel(probe, places, workers=workers, on_progress=on_progress)
    checked = []
    for row in rows:
        video = row.video
        result = results.get((video.path, video.offset, video.num_bytes))
        if row.reason or result is None:
            checked.append(row)
        elif isinstance(result, str):
            checked.append(replace(row, reason=result))
        else:
            try:
                length = len(part_of(video, result))
                checked.append(replace(row, info=result, num_frames=length))
            except VideoMAEError as error:
                checked.append(replace(row, reason=str(error)))
    return checked


def _probe(video: Video, how: Check) -> dict[str, Any]:
    """The VideoInfo of a file, but for its path, once its frames were read."""
    if video.offset is None and (mixed := _mixed_names(Path(video.path))):
        raise VideoMAEError(
            f"{video.path}: the folder holds images of several kinds ({mixed}); a folder of frames "
            "holds those of one video alone"
        )
    with open_video(video) as reader:
        info = reader.info
        if how == "decode":
            size = max(_CHECKED_BYTES // (info.height * info.width * 3), 1)
            for first in range(0, info.num_frames, size):
                reader.read(range(first, min(first + size, info.num_frames)))
        else:
            reader.read(sorted({0, info.num_frames // 2, info.num_frames - 1}))
    return {name: value for name, value in asdict(info).items() if name != "path"}


def _mixed_names(folder: Path) -> str:
    """The first names of images where a folder has several of one number: img_1.jpg, flow_1.jpg."""
    numbers = image_numbers(folder)
    if numbers is None or len(set(numbers)) == len(numbers) or -1 in numbers:
        return ""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    return f"{names[0]} ... {names[-1]}"


def stamp_of(video: Video) -> tuple[int, int]:
    """Size in bytes and time of change; of a folder, those of its images together."""
    path = Path(video.path)
    status = path.stat()
    if not path.is_dir():
        return video.num_bytes or status.st_size, status.st_mtime_ns
    statuses = [image.stat() for image in _images(path)]
    times = (each.st_mtime_ns for each in statuses)
    return sum(each.st_size for each in statuses), max(times, default=status.st_mtime_ns)


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES)


def compare(
    rows: Sequence[Checked],
    journal: Journal,
    *,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> list[Checked]:
    """Tell of each readable video which content it has. Only files of one size are read for it."""

    def place(row: Checked) -> tuple[str, int | None, int | None]:
        return row.video.path, row.video.offset, row.video.num_bytes

    sizes: dict[int, set[tuple[str, int | None, int | None]]] = defaultdict(set)
    size_of = {place(row): stamp_of(row.video)[0] for row in rows if row.info}
    for where, size in size_of.items():
        sizes[size].add(where)

    def digest(where: tuple[str, int | None, int | None]) -> str:
        video = Video(where[0], offset=where[1], num_bytes=where[2])
        stamp, name = stamp_of(video), f"sha256 {where[0]} {where[1]}"
        known = journal.get(name, list(stamp))
        if known is None:
            known = _sha256(video)
            journal.put(name, list(stamp), known)
        return str(known)

    alike = [where for places in sizes.values() if len(places) > 1 for where in sorted(places)]
    digests = in_parallel(digest, alike, workers=workers, on_progress=on_progress)
    return [
        replace(row, content=digests.get(place(row), f"{place(row)}")) if row.info else row
        for row in rows
    ]


def _sha256(video: Video) -> str:
    path = Path(video.path)
    digest = hashlib.sha256()
    for part in _images(path) if path.is_dir() else [path]:
        with part.open("rb") as file:
            file.seek(video.offset or 0)
            left = video.num_bytes if video.num_bytes is not None else part.stat().st_size
            while left and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()
