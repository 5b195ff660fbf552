"""Checks that each listed video is there, whole and unique: found, probed, remembered."""

import hashlib
import json
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from videomae.compute.cores import without_collector
from videomae.data.lists import Listed
from videomae.data.manifest import Video
from videomae.data.opening import open_video, part_of, read_bytes
from videomae.errors import VideoError, VideoMAEError, parse_json
from videomae.settings import Check, OnDamage
from videomae.video.folder import image_files, image_numbers
from videomae.video.limits import VIDEO_SUFFIXES, VideoInfo

Progress = Callable[[str, int, int], None]
Job = TypeVar("Job", bound=Hashable)
Made = TypeVar("Made")

# Decoded frames that a full check holds at once.
_CHECKED_BYTES = 64 << 20
_FACTS = get_type_hints(VideoInfo)
# An absolute path that is kept as it is, with nothing to be tidied up.
_TIDY = re.compile(r"(/[^/.][^/]*)+" if os.sep == "/" else "(?!)")


class Work:
    """Jobs on many files, done in threads; their results are kept in a journal on disk.

    The journal has a line of JSON per result, appended at once, so that interrupted work goes on
    where it stopped. A result counts for a file as it was: its stamp is size and time of change.
    `on_progress(what, done, of)` is called after each job.
    """

    def __init__(self, journal: Path, *, workers: int, on_progress: Progress | None) -> None:
        self._journal, self._workers, self._on_progress = journal, workers, on_progress
        self._lock = threading.Lock()
        self._unwritten: OSError | None = None
        self._known: dict[str, bytes] = {}  # [stamp, value] as text, which takes less memory
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("a+b") as file:
            file.seek(0)
            line = b"\n"
            for line in file:
                # one may be cut off, as the work was interrupted
                with suppress(ValueError, TypeError):
                    key, stamp, value = parse_json(line)
                    self._known[key] = json.dumps([stamp, value]).encode()
            # so that what follows an unfinished line stands on a line of its own
            file.write(b"" if line.endswith(b"\n") else b"\n")

    def knows(self, key: str) -> bool:
        """Whether the journal has a result under a key, for whatever stamp."""
        return key in self._known

    def once(
        self,
        key: str,
        stamp: Any,
        act: Callable[[], Any],
        read: Callable[[Any], Made],
        output: Path | None = None,
    ) -> Made:
        """The result of a job, done only where it is not known or its file is gone.

        `act` gives it as JSON has it, `read` makes of that what is returned; where it cannot, as
        the journal was changed, the job is done again. An error of the job is raised, and nothing
        written down.
        """
        before, known = parse_json(self._known.get(key, b"[null, null]"))
        if before == stamp and (output is None or output.is_file()):
            with suppress(ValueError, TypeError, KeyError):
                return read(known)
        value = act()
        line = json.dumps([key, stamp, value])  # ASCII, so that any file name can be written
        try:
            with self._lock, self._journal.open("a") as file:
                file.write(f"{line}\n")
        except OSError as error:
            self._unwritten = error  # of the output, and no fault of the video
            raise
        self._known[key] = json.dumps([stamp, value]).encode()
        return read(value)

    def each(self, what: str, act: Callable[[Job], Made], jobs: Iterable[Job]) -> dict[Job, Made]:
        """Do each job once in threads; decoding and encoding leave the interpreter's lock alone."""
        every = list(dict.fromkeys(jobs))
        waiting = iter(every)
        done: dict[Job, Made] = {}
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="videomae-prepare")
        try:
            # Few at once: a task that waits takes more memory than what it finds out.
            tasks = {pool.submit(act, job): job for job in islice(waiting, 4 * self._workers)}
            while tasks:
                for task in wait(tasks, return_when=FIRST_COMPLETED).done:
                    done[tasks.pop(task)] = task.result()
                    if self._unwritten:
                        raise self._unwritten
                    for job in islice(waiting, 1):
                        tasks[pool.submit(act, job)] = job
                    if self._on_progress:
                        self._on_progress(what, len(done), len(every))
        finally:
            pool.shutdown(cancel_futures=True)
        return done


@without_collector()
def find_files(items: Sequence[Listed], root: Path) -> tuple[list[Listed], list[Listed]]:
    """The videos whose files are there, and those that are missing; parts counted from frame 0."""
    root = root.absolute()
    # By place: a list may have a million rows, each of which takes long to hash.
    paths = [item.path if item.reason else _exact(item, root) for item in items]
    lost = [k for k, item in enumerate(items) if paths[k] is None and item.by_name]
    named = _by_stem(root, {_stem(items[k].path) for k in lost}) if lost else {}
    for k in lost:
        paths[k] = _best(items[k], named.get(_stem(items[k].path), []))
    found, missing = [], []
    for item, path in zip(items, paths, strict=True):
        if path is None:
            missing.append(item)
        else:
            found.append(_from_frame_0(item if path == item.path else replace(item, path=path)))
    return found, missing


def _exact(item: Listed, root: Path) -> str | None:
    if item.is_remote:
        return item.path
    # Not by Path, which takes three times as long: a list may have a million rows.
    place = os.path.join(root, item.path)  # noqa: PTH118
    if os.path.exists(place):  # noqa: PTH110
        return place if _TIDY.fullmatch(place) else str(Path(place))
    path = Path(place)
    with suppress(OSError, ValueError):  # too long, a zero byte
        # A name without suffix was taken for an mp4; it may be a folder of frames.
        if path.suffix == ".mp4" and path.with_suffix("").is_dir():
            return str(path.with_suffix(""))
    return None


def _stem(name: str) -> str:
    """The name of a file without folders and a video's suffix.

    >>> _stem("a/b.c.mp4"), _stem("-x.1")
    ('b.c', '-x.1')
    """
    path = Path(name)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def _by_stem(root: Path, wanted: set[str]) -> dict[str, list[str]]:
    """All files and folders below the root that have one of these names."""
    found = defaultdict(list)
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in [*sorted(names), *subfolders]:
            if (stem := _stem(name)) in wanted and (stem != name or name in subfolders):
                found[stem].append(str(Path(folder, name)))
    return found


def _best(item: Listed, paths: Sequence[str]) -> str | None:
    """The one of several files of one name that lies in the folder of its split and class."""
    likely = {item.split, item.label, item.label.replace(" ", "_")} - {""}
    return max(paths, key=lambda path: len(likely & set(Path(path).parts)), default=None)


def _from_frame_0(row: Listed) -> Listed:
    """The same video, the part of a folder of frames in numbers from 0."""
    if row.reason or row.num_frames is None or row.offset is not None or row.is_remote:
        return row
    try:
        images = image_numbers(Path(row.path))
    except OSError as error:
        return replace(row, reason=f"{row.path}: cannot be opened ({error.strerror})")
    if images is None:  # a video file, or a folder without images, which probing will find
        return row if row.first_number is None else replace(row, num_frames=None)
    first = row.first_frame or 0
    if row.first_number is not None:
        if row.first_number not in images:
            reason = (
                f"{row.path}: has no image number {row.first_number}; its images are numbered "
                f"{min(images)} to {max(images)}"
            )
            return replace(row, reason=reason)
        first = images.index(row.first_number)
    if first == 0 and row.num_frames == len(images):
        return replace(row, first_frame=None, num_frames=None)
    return replace(row, first_frame=first)


def check(rows: Sequence[Listed], work: Work, how: Check, on_damage: OnDamage) -> list[Listed]:
    """Open every video once and read its first, middle and last frame, or with "decode" all.

    Rows that cannot be read get a reason; addresses are passed over.
    """
    asked = [] if on_damage == "refuse" else [on_damage]

    def probe(file: Video) -> VideoInfo | str:
        try:
            key, stamp = f"probe {file.path} {file.offset}", [how, *stamp_of(file), *asked]
            read = partial(info_of, Path(file.path))
            return work.once(key, stamp, lambda: _probe(file, how, on_damage), read)
        except (VideoMAEError, OSError) as error:
            return str(error)
        except Exception as error:  # a decoder's accident with one file must not end hours of work
            return f"{file}: cannot be read ({type(error).__name__}: {error})"

    with without_collector():
        local = [row.file for row in rows if not row.reason and not row.is_remote]
    infos = work.each("checking", probe, local)
    return [row if row.reason else _checked(row, infos.get(row.file)) for row in rows]


def _checked(row: Listed, info: VideoInfo | str | None) -> Listed:
    if info is None:
        return row
    if isinstance(info, str):
        return replace(row, reason=info)
    try:
        return replace(row, info=info, num_part_frames=len(part_of(row, info)))
    except VideoMAEError as error:
        return replace(row, reason=str(error))


def _probe(video: Video, how: Check, on_damage: OnDamage) -> dict[str, Any]:
    """The VideoInfo of a file, but for its path, once its frames were read."""
    if video.offset is None and (mixed := _mixed_names(Path(video.path))):
        raise VideoMAEError(
            f"{video.path}: the folder holds images of several kinds ({mixed}); a folder of frames "
            "holds those of one video alone"
        )
    with open_video(video, on_damage) as reader:
        info = reader.info
        if how == "decode":
            size = max(_CHECKED_BYTES // (info.height * info.width * 3), 1)
            for first in range(0, info.num_frames, size):
                reader.read(range(first, min(first + size, info.num_frames)))
        else:
            reader.read(sorted({0, info.num_frames // 2, info.num_frames - 1}))
    return as_json(info)


def as_json(info: VideoInfo) -> dict[str, Any]:
    """A VideoInfo but for its path, which the journal has in its key."""
    return {name: value for name, value in asdict(info).items() if name != "path"}


def info_of(path: Path, values: dict[str, Any]) -> VideoInfo:
    """A VideoInfo out of the journal; ValueError or TypeError where it is none."""
    info = VideoInfo(path=path, **values)
    if not all(isinstance(value, _FACTS[name]) for name, value in values.items()):
        raise ValueError(f"{values} are no facts of a video")
    return info


def _mixed_names(folder: Path) -> str:
    """The first and last name where several images have one number: flow_1.jpg ... img_9.jpg."""
    numbers = image_numbers(folder)
    if numbers is None or len(set(numbers)) == len(numbers) or -1 in numbers:
        return ""
    names = sorted(path.name for path in image_files(folder))
    return f"{names[0]} ... {names[-1]}"


def stamp_of(video: Video) -> list[int]:
    """Size in bytes and time of change; of a folder, those of its images together.

    Raises VideoError where it cannot be read.
    """
    path = Path(video.path)
    with _readable(video):
        status = path.stat()
        if not path.is_dir():
            return [video.num_bytes or status.st_size, status.st_mtime_ns]
        statuses = [image.stat() for image in image_files(path)]
    times = (each.st_mtime_ns for each in statuses)
    return [sum(each.st_size for each in statuses), max(times, default=status.st_mtime_ns)]


def compare(rows: Sequence[Listed], work: Work) -> list[Listed]:
    """Give each readable video a name for its content; only files of one size are read for it.

    One that cannot be read any more gets a reason.
    """
    gone: dict[Video, str] = {}
    size_of: dict[Video, int] = {}

    def content(file: Video) -> str:
        key = f"sha256 {file.path} {file.offset}"
        try:
            return work.once(key, stamp_of(file), lambda: _sha256(file), str)
        except VideoError as error:
            gone[file] = str(error)
            return ""

    for file in dict.fromkeys(row.file for row in rows if row.info):
        try:
            size_of[file] = stamp_of(file)[0]
        except VideoError as error:
            gone[file] = str(error)
    times = Counter(size_of.values())
    alike = [file for file, size in size_of.items() if times[size] > 1]
    found = work.each("comparing contents", content, alike)
    name_of = {file: found.get(file, str(file)) for file in size_of}
    return [
        replace(row, content=name_of.get(row.file, ""), reason=row.reason or gone.get(row.file, ""))
        for row in rows
    ]


def _sha256(video: Video) -> str:
    if video.offset is not None:
        return hashlib.sha256(read_bytes(video)).hexdigest()
    path, digest = Path(video.path), hashlib.sha256()
    with _readable(video):
        for part in sorted(image_files(path)) if path.is_dir() else [path]:
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)  # adds to what it has
    return digest.hexdigest()


@contextmanager
def _readable(video: Video) -> Iterator[None]:
    """Make VideoError of what the system says of a file that is gone or closed since."""
    try:
        yield
    except OSError as error:
        raise VideoError(f"{video}: cannot be read any more ({error.strerror or error})") from error


def common_folder(paths: Iterable[str]) -> Path:
    """The folder that all files lie in; links are left as they are."""
    folders = [Path(os.path.abspath(path)).parent for path in paths]  # noqa: PTH100
    return Path(os.path.commonpath(folders or [Path.cwd()]))
