"""Facts about a video (VideoInfo), and limits on what is read of one (VideoLimits)."""

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from videomae.errors import ConfigError, VideoError

# The containers that are read, by FFmpeg's names, and how their files are called: a folder is
# searched for these suffixes, and a file is read by its content, whatever it is called. All hold
# pictures themselves. Not among them, on purpose: playlists and scripts that name further files or
# addresses (hls, dash, concat, sdp, image2 patterns, asx, rtsp, ...).
CONTAINERS = {
    "mov": ".mp4 .m4v .mov .qt .3gp .3g2 .f4v .mj2 .ismv",
    "matroska": ".mkv .webm .mk3d",
    "avi": ".avi .divx",
    "mpegts": ".ts .mts .m2ts .m2t",
    "mpeg": ".mpg .mpeg .vob",
    "mpegvideo": ".m1v .m2v",
    "flv": ".flv",
    "ogg": ".ogv .ogm .ogg",
    "asf": ".wmv .asf",
    "mxf": ".mxf",
    "dv": ".dv .dif",
    "ivf": ".ivf",
    "gif": ".gif",
    "apng": ".apng",
    "yuv4mpegpipe": ".y4m",
    "h264": ".h264 .264 .avc",
    "hevc": ".hevc .h265 .265",
}
VIDEO_SUFFIXES = frozenset(" ".join(CONTAINERS.values()).split())


# As in `settings`, where it is explained, and which stands above this room.
OnDamage = Literal["refuse", "use_readable"]


@dataclass(frozen=True)
class VideoLimits:
    """How large a video may be; a video file from a stranger can be made to eat a machine.

    The defaults let pass whatever a camera makes. The file's size in bytes has no limit: what costs
    memory is pixels, what costs time is bounded by `max_decode_seconds`.

    max_pixels: height x width of one frame. max_duration_seconds, max_frames: of the video.
    max_decode_seconds: wall-clock seconds that one call (opening, or one `read`) may take, with the
    reading of the file; where a video is written anew, each frame. max_memory_bytes: of the large
    videos that are open at once in a process, as estimated from their pixels; a thread waits until
    those of others leave room.

    >>> VideoLimits(max_frames=1_000_000).max_pixels
    35389440
    """

    max_pixels: int = 8192 * 4320  # 8K cinema
    max_duration_seconds: float = 6 * 3600.0
    max_frames: int = 6 * 3600 * 60  # six hours at 60 frames a second
    max_decode_seconds: float = 300.0
    max_memory_bytes: int = 4 * 2**30  # two of 8K, nine of 4K

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(
                    f"{field.name}={getattr(self, field.name)} is not above 0; "
                    f"leave it out for the default of {field.default}"
                )

    def check(self, path: Path, **got: float | None) -> None:
        """Raise VideoError where a value is above the limit of that name; None is unknown, fine."""
        for name, value in got.items():
            if value is not None and value > getattr(self, name):
                what = _LIMIT_WORDS[name]
                # rounded up, so that the advice really suffices
                raise VideoError(
                    f"{path}: {what.format(f'{value:,.0f}')}, above the limit of "
                    f"{getattr(self, name):,.0f}; if you trust the file, "
                    f"raise it: limits=VideoLimits({name}={-int(-value // 1)})"
                )


_LIMIT_WORDS = {
    "max_pixels": "its frames have {} pixels",
    "max_duration_seconds": "it lasts {} seconds",
    "max_frames": "it has {} frames or more",
}


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video, known without reading it again.

    path: the file or folder. num_frames: how many frames a full decode shows, counted, not
    believed. fps: mean frames per second, None for a folder of frames. duration_seconds: None for
    a folder. height, width: in pixels, as shown, that is after rotation. codec: FFmpeg's name, or
    "images". rotation_degrees: by how much the stored picture is turned clockwise to be shown (0,
    90, 180 or 270); it is already applied to every frame read.

    Not applied, as the published code does not either: pixel_aspect, width by height of one pixel
    (1 is square); hdr, "PQ" or "HLG" for pictures of high dynamic range, which look pale as RGB.

    num_gaps: damaged places whose frames are left out (on_damage="use_readable"); 0: none is.
    """

    path: Path
    num_frames: int
    fps: float | None
    duration_seconds: float | None
    height: int
    width: int
    codec: str
    rotation_degrees: int
    pixel_aspect: float = 1.0
    hdr: str = ""
    num_gaps: int = 0


# A decoder holds up to 17 pictures of 1.5 bytes a pixel, and a reader some more as RGB.
_PIXEL_BYTES = 48
_SMALL_BYTES = 64 * 2**20  # videos that need less, up to 1.4 megapixels, are not counted


class DecodeMemory:
    """Counts the memory of the large videos that are open in this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[object, tuple[int, int]] = {}  # the thread that opened it, bytes

    def take(
        self, video: object, num_pixels: int, limits: VideoLimits, clock: "DecodeClock"
    ) -> Callable[[], object]:
        """Wait until there is room for a video; return what gives it back, as does its end.

        A thread that has a video open does not wait for another, as each might for the other. Nor
        does one without which nothing is open. Raises VideoError once the time is up.
        """
        num_bytes = num_pixels * _PIXEL_BYTES
        if num_bytes < _SMALL_BYTES:
            return lambda: None
        thread, key = threading.get_ident(), object()

        def has_room() -> bool:
            held = list(self._held.values())
            total = sum(each for _, each in held) + num_bytes
            return not held or thread in dict(held) or total <= limits.max_memory_bytes

        with self._changed:
            if not self._changed.wait_for(has_room, clock.seconds_left()):
                raise VideoError(
                    f"{clock.path}: waited {limits.max_decode_seconds:g} seconds for other large "
                    "videos to be closed; use fewer threads, or raise the limit: "
                    f"limits=VideoLimits(max_memory_bytes={2 * limits.max_memory_bytes})"
                )
            self._held[key] = thread, num_bytes
        clock.restart()
        end = weakref.finalize(video, self._give_back, key)
        end.atexit = False
        return end

    def _give_back(self, key: object) -> None:
        with self._changed:
            del self._held[key]
            self._changed.notify_all()


# One for the process, as its memory is: what other threads have open decides how long one waits.
DECODE_MEMORY = DecodeMemory()


class DecodeClock:
    """Counts the seconds of one call against max_decode_seconds."""

    def __init__(self, path: Path, limits: VideoLimits) -> None:
        self.path, self._seconds = path, limits.max_decode_seconds
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + self._seconds

    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise VideoError once the time is up."""
        if time.monotonic() > self._end:
            raise VideoError(
                f"{self.path}: reading took more than {self._seconds:g} seconds; read fewer "
                f"frames at a time, or raise the limit: limits=VideoLimits("
                f"max_decode_seconds={2 * self._seconds:g})"
            )
