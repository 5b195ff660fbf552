"""What a row of a manifest stands for: opened, its bytes, its part; and what an address holds."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import fsspec

from videomae.data.manifest import Video, is_address
from videomae.errors import ConfigError, VideoError
from videomae.settings import OnDamage
from videomae.video.limits import VideoInfo
from videomae.video.reader import VideoReader


def open_video(video: Video, on_damage: OnDamage = "refuse") -> VideoReader:
    """Open what a row of a manifest stands for: a file, frames, an address, a piece of a shard.

    Addresses are opened by fsspec: these rows are the user's own, unlike what is inside of files.
    For `on_damage` see `VideoReader`. Raises VideoError where it cannot be read, ConfigError where
    fsspec lacks a package for it.
    """
    if video.offset is None and not video.is_remote:
        return VideoReader(video.path, on_damage=on_damage)
    return VideoReader(str(video), data=read_bytes(video), on_damage=on_damage)


def read_bytes(video: Video) -> bytes:
    """The bytes of a video at an address or in a shard; for the errors see `open_video`."""
    start, place = video.offset or 0, video.path
    end = None if video.num_bytes is None else start + video.num_bytes
    if end is not None:  # what lies at a known place of tar://MEMBER::TAR is not searched for
        place = re.sub(r"^tar://.*?::(?=[/\\]|\w+:)", "", place)
    try:
        if is_address(place):
            system, path = fsspec.url_to_fs(place)
            data: bytes = system.cat_file(path, start=start, end=end)
        else:  # never by fsspec, which takes "::" in the name of a folder for a chain of addresses
            with Path(place).open("rb") as file:
                file.seek(start)
                data = file.read(video.num_bytes)
    except ImportError as error:  # so for all that lie there
        raise ConfigError(f"{video} cannot be opened: {error}") from error
    except Exception as error:  # each kind of store has errors of its own
        raise VideoError(f"{video}: cannot be read ({type(error).__name__}: {error})") from error
    if end is not None and len(data) < end - start:
        raise VideoError(f"{video}: the shard ends after {len(data)} bytes of it; make it anew")
    return data


def files_at(address: str) -> list[str]:
    """The addresses of the files below an address, or that its `*` stands for; of one, itself.

    Raises ConfigError where it cannot be searched.
    """
    try:
        system, path = fsspec.url_to_fs(address)
        is_pattern, is_folder = "*" in path, system.isdir(path)
        found = system.glob(path) if is_pattern else system.find(path) if is_folder else [path]
    except Exception as error:  # each kind of store has errors of its own
        raise ConfigError(
            f"{address} cannot be searched ({type(error).__name__}: {error})"
        ) from error
    places = [str(system.unstrip_protocol(place)) for place in sorted(found)]
    # zip://MEMBER needs its ::ARCHIVE; what lies behind a cache has an address of its own.
    first, link, archive = address.partition("::")
    kind = first.partition("://")[0]
    return [place + link + archive if place.startswith(f"{kind}://") else place for place in places]


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file, or what an address stands for, to read parts of it."""
    with fsspec.open(path, "rb") if is_address(path) else Path(path).open("rb") as file:
        yield file


Times = Sequence[float] | None  # seconds from the first frame to each


def part_of(video: Video, info: VideoInfo, times: Callable[[], Times] = lambda: None) -> range:
    """The numbers of the frames that count, all unless the manifest names a part.

    Seconds become the frames that are shown nearest to them: `times` gives when each is, as
    `VideoReader.times` does. Without, all are taken to be shown for as long.

    >>> info = VideoInfo(Path("x"), 100, 25.0, 4.0, 2, 2, "h264", 0)
    >>> part_of(Video("x", start_seconds=1, end_seconds=2), info)
    range(25, 50)
    """
    first, last = 0, info.num_frames
    if video.first_frame is not None or video.num_frames is not None:
        first = video.first_frame or 0
        last = last if video.num_frames is None else first + video.num_frames
    elif video.start_seconds is not None or video.end_seconds is not None:
        if info.fps is None:
            raise VideoError(f"{video}: folders of frames have no seconds; give first_frame")
        shown = times()
        first = _frame_at(video.start_seconds or 0, info.fps, shown)
        if video.end_seconds is not None:
            last = max(_frame_at(video.end_seconds, info.fps, shown), first + 1)
        if video.end_seconds is not None and video.end_seconds <= (video.start_seconds or 0):
            raise VideoError(f"{video}: that part ends before it begins; give a later end_seconds")
    part = range(first, min(last, info.num_frames))
    if not part:
        lasting = "" if info.fps is None else f" ({info.num_frames / info.fps:.4g} s)"
        raise VideoError(
            f"{video}: that part is empty, as it has {info.num_frames} frames{lasting}"
        )
    return part


def seconds_of(
    part: range, info: VideoInfo, times: Times
) -> tuple[float, float] | tuple[None, None]:
    """When a part of the frames begins and ends; None and None where there are no seconds."""
    if info.fps is None:
        return None, None
    if not times:
        return part.start / info.fps, part.stop / info.fps
    ends = times[part.stop] if part.stop < len(times) else times[-1] + 1 / info.fps
    return times[part.start], ends


def _frame_at(seconds: float, fps: float, times: Times) -> int:
    """The number of the frame that begins nearest to these seconds, also past the last one."""
    if not times:
        return round(seconds * fps)
    if seconds >= times[-1]:
        return len(times) - 1 + round((seconds - times[-1]) * fps)
    after = bisect_left(times, seconds)
    return min(range(max(after - 1, 0), after + 1), key=lambda number: abs(times[number] - seconds))
