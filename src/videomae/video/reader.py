"""Videos read: probe one, or read exactly the frames asked for.

Frame number k of a file is the k-th picture that a plain decode from beginning to end shows; that
holds with B-frames, variable frame rate and edit lists.
"""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np

from videomae.config import check_choice
from videomae.errors import ConfigError, VideoError, as_text, counted
from videomae.hub import PathLike
from videomae.video.decoder import Frames, VideoFile
from videomae.video.folder import FrameFolder
from videomae.video.limits import OnDamage, VideoInfo, VideoLimits
from videomae.video.torchcodec import DecoderFrames

# What stands for a video that is still to be decoded; VideoReader explains each. A mapping is a
# value of the `datasets` library; a torchcodec decoder cannot be named without importing it.
VideoSource = PathLike | bytes | bytearray | memoryview | BinaryIO | Mapping[str, Any]

_IN_MEMORY = Path("video in memory")  # the name of one that has none, in errors


def is_source(value: Any) -> bool:
    """Whether a value stands for a video that is still to be decoded, whatever it holds.

    >>> is_source("clip.mp4"), is_source(b"..."), is_source(np.zeros((16, 9, 9, 3)))
    (True, True, False)
    """
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview):
        return True
    if isinstance(value, Mapping):
        return "path" in value or "bytes" in value
    return hasattr(value, "read") or hasattr(value, "get_frames_at")


def source_path(source: Any) -> Path | None:
    """The path of a source, None for what is in memory alone."""
    if isinstance(source, Mapping):
        source = source.get("path")
    elif hasattr(source, "read"):
        source = getattr(source, "name", None)  # of an open file; a number for temporary ones
    return Path(source) if isinstance(source, str | os.PathLike) else None


def probe(
    source: VideoSource, *, limits: VideoLimits | None = None, on_damage: OnDamage = "refuse"
) -> VideoInfo:
    """Count the frames of a video and find its size, rate and codec; for sources see `VideoReader`.

    The count is that of a full decode, whatever the file's header says; mp4, mov, mkv and webm
    are counted without. Raises VideoError where the file cannot be read whole or exceeds a limit.
    For `on_damage` see `VideoReader`.

    >>> probe("clip.mp4").num_frames  # doctest: +SKIP
    250
    """
    with VideoReader(source, limits=limits, on_damage=on_damage) as reader:
        return reader.info


def read_frames(
    source: VideoSource, indices: Sequence[int], *, limits: VideoLimits | None = None
) -> Frames:
    """Read the frames of these numbers: uint8 RGB (len(indices), height, width, 3), upright.

    For the arguments and errors see `VideoReader`.

    >>> read_frames("clip.mp4", [0, 4, 8]).shape  # doctest: +SKIP
    (3, 272, 640, 3)
    """
    with VideoReader(source, limits=limits) as reader:
        return reader.read(indices)


class VideoReader(AbstractContextManager["VideoReader"]):
    """A video file, GIF or folder of images, opened once for several reads.

    source: the path of a local file or folder, never an address; the bytes of a file; a file opened
    in binary mode, which is read whole from its beginning; a dict of `path` and `bytes`, as the
    `datasets` library has it; or a torchcodec VideoDecoder, whose own frames are taken. limits: see
    VideoLimits; None is the defaults. data: the bytes of a file, `source` then only names them.

    on_damage: "refuse", or "use_readable" for what can be decoded of a damaged file: after a
    damaged place its frames go on with the next key frame, `info.num_gaps` counts such places, and
    opening decodes the file to its end.

    Grey, alpha (dropped), more than 8 bits, interlaced (both fields woven into one picture) and
    odd sizes all come out as RGB uint8; rotation and mirroring in the metadata are applied.

    Raises VideoError where the path is no plain local video, the file is damaged (with the number
    of frames that can be read) or exceeds a limit, ConfigError where the source is none of these.

    >>> with VideoReader("clip.mp4") as reader:  # doctest: +SKIP
    ...     clip = reader.read(clip_indices(reader.info.num_frames))  # (16, H, W, 3)
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        limits: VideoLimits | None = None,
        data: bytes | None = None,
        on_damage: OnDamage = "refuse",
    ) -> None:
        check_choice("on_damage", on_damage, get_args(OnDamage))
        limits = limits or VideoLimits()
        self._source: FrameFolder | VideoFile | DecoderFrames
        if hasattr(source, "get_frames_at"):
            self._source = DecoderFrames(source, limits)
        else:
            data = _bytes_of(source) if data is None else data
            path = (source_path(source) or _IN_MEMORY) if data is not None else _local_path(source)
            self._source = open_video(path, limits, data, on_damage)
        self.info = self._source.info

    def read(self, indices: Sequence[int]) -> Frames:
        """Read frames: uint8 RGB (len(indices), height, width, 3), in the order asked for.

        Indices run from 0 to num_frames - 1, in any order, repeated or not; each frame is decoded
        once. Raises VideoError for an index outside, for damage on the way, and past the limit of
        seconds.
        """
        for index in indices:
            if index % 1 or not 0 <= index < self.info.num_frames:
                raise VideoError(
                    f"{self.info.path}: no frame {index}; it has {self.info.num_frames} frames, "
                    f"so expected whole numbers from 0 to {self.info.num_frames - 1}"
                )
        self._source.clock.restart()
        out = np.empty((len(indices), self.info.height, self.info.width, 3), np.uint8)
        numbers = np.asarray(indices, int)
        wanted = np.unique(numbers).tolist()
        for index, image in zip(wanted, self._source.frames(wanted), strict=True):
            out[numbers == index] = image
        return out

    def times(self) -> list[float] | None:
        """Seconds from the first frame to each, where the file says when they are shown."""
        return self._source.seconds() if isinstance(self._source, VideoFile) else None

    def close(self) -> None:
        """Close the file; the info stays."""
        self._source.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def open_video(
    path: Path, limits: VideoLimits, data: bytes | None, on_damage: OnDamage
) -> FrameFolder | VideoFile:
    """Open a folder of images, a video file, or the bytes of one, which `path` then only names."""
    if data is None and path.is_dir():
        return FrameFolder(path, limits)
    return VideoFile(path, limits, data, on_damage)


def warn_of_gaps(info: VideoInfo) -> None:
    """Warn that a video is used in part, where it is damaged."""
    if info.num_gaps:
        warnings.warn(
            f"{as_text(info.path)}: is damaged in {counted(info.num_gaps, 'place')}; the "
            f"{info.num_frames} frames that can be decoded are used",
            stacklevel=3,
        )


@dataclass(frozen=True)
class BadVideo:
    """A video that was left out, and why. path: None for one that was in memory."""

    path: Path | None
    reason: str


def _bytes_of(source: Any) -> bytes | None:
    """The bytes that a source holds, None where it is a path."""
    if isinstance(source, Mapping):
        source = source.get("bytes") or source.get("path")
    if hasattr(source, "read"):
        if getattr(source, "closed", False):
            raise ConfigError("a video cannot be a closed file; open it anew: open(path, 'rb')")
        with suppress(AttributeError, OSError):  # of a pipe, what is left of it
            source.seek(0)  # a file that was just written stands at its end
        source = source.read()
        if isinstance(source, str):
            raise ConfigError(
                "a video was opened as text; open it in binary mode: open(path, 'rb')"
            )
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return None
    raise ConfigError(
        f"a video cannot be a {type(source).__name__}; expected a path, bytes, a file opened in "
        "binary mode, a dict of path and bytes, or a torchcodec decoder"
    )


def _local_path(source: Any) -> Path:
    """The path of an existing folder or plain file, or a VideoError that says what it is."""
    path = source["path"] if isinstance(source, Mapping) else source
    local = Path(path)
    try:
        if local.is_file() or local.is_dir():
            return local
        exists = local.exists()
    except (OSError, ValueError) as error:  # too long, a zero byte, no permission
        raise VideoError(f"{path!r}: is no usable path ({error})") from error
    if exists:
        raise VideoError(f"{path}: is a device or pipe; expected a file or a folder of images")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", str(path)):
        raise VideoError(
            f"{path}: is an address, not a file; only local files are read, so download it first"
        )
    if local.is_symlink():
        raise VideoError(
            f"{path}: is a link to {local.readlink()}, which is not there or leads back to itself"
        )
    raise VideoError(f"{path}: there is no such file or folder")
