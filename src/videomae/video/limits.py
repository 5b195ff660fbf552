"""Facts about a video (VideoInfo), and limits on what is read of one (VideoLimits)."""

import time
from dataclasses import dataclass, fields
from pathlib import Path

from videomae.errors import ConfigError, VideoError


@dataclass(frozen=True)
class VideoLimits:
    """How large a video may be; a video file from a stranger can be made to eat a machine.

    The defaults let pass whatever a camera makes. The file's size in bytes has no limit: what costs
    memory is pixels, what costs time is bounded by `max_decode_seconds`.

    max_pixels: height x width of one frame. max_duration_seconds, max_frames: of the video.
    max_decode_seconds: wall-clock seconds that one call (opening, or one `read`) may take, with the
    reading of the file.

    >>> VideoLimits(max_frames=1_000_000).max_pixels
    35389440
    """

    max_pixels: int = 8192 * 4320  # 8K cinema
    max_duration_seconds: float = 6 * 3600.0
    max_frames: int = 6 * 3600 * 60  # six hours at 60 frames a second
    max_decode_seconds: float = 300.0

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
    """

    path: Path
    num_frames: int
    fps: float | None
    duration_seconds: float | None
    height: int
    width: int
    codec: str
    rotation_degrees: int


class DecodeClock:
    """Counts the seconds of one call against max_decode_seconds."""

    def __init__(self, path: Path, limits: VideoLimits) -> None:
        self._path, self._seconds = path, limits.max_decode_seconds
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + self._seconds

    def check(self) -> None:
        """Raise VideoError once the time is up."""
        if time.monotonic() > self._end:
            raise VideoError(
                f"{self._path}: reading took more than {self._seconds:g} seconds; read fewer "
                f"frames at a time, or raise the limit: limits=VideoLimits("
                f"max_decode_seconds={2 * self._seconds:g})"
            )


# Names of video files where a folder is searched. Its content says what a file really is.
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".flv",
    ".wmv", ".ogv", ".3gp", ".y4m",
})  # fmt: skip
