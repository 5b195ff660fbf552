"""Open what a row of a manifest stands for: a file, frames, an address, a piece of a shard."""

import fsspec

from videomae.data.manifest import Video
from videomae.errors import ConfigError, VideoError
from videomae.video.reader import VideoInfo, VideoReader


def open_video(video: Video) -> VideoReader:
    """Open what a row of a manifest stands for: a file, frames, an address, a piece of a shard.

    Addresses are opened by fsspec: these rows are the user's own, unlike what is inside of files.
    Raises VideoError where it cannot be read, ConfigError where fsspec lacks a package for it.
    """
    if video.offset is None and not video.is_remote:
        return VideoReader(video.path)
    start = video.offset or 0
    end = None if video.num_bytes is None else start + video.num_bytes
    try:
        system, path = fsspec.url_to_fs(video.path)
        data = system.cat_file(path, start=start, end=end)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{video} cannot be opened: {error}") from error
    except Exception as error:  # each kind of store has errors of its own
        raise VideoError(f"{video}: cannot be read ({type(error).__name__}: {error})") from error
    if end is not None and len(data) < end - start:
        raise VideoError(f"{video}: the shard ends after {len(data)} bytes of it; make it anew")
    return VideoReader(str(video), data=data)


def part_of(video: Video, info: VideoInfo) -> range:
    """The numbers of the frames that count, all unless the manifest names a part.

    >>> info = VideoInfo(Path("x"), 100, 25.0, 4.0, 2, 2, "h264", 0)
    >>> part_of(Video("x", start_seconds=1, end_seconds=2), info)
    range(25, 50)
    """
    first, last = 0, info.num_frames
    if video.first_frame is not None:
        first = video.first_frame
        last = first + (video.num_frames or info.num_frames)
    elif video.start_seconds is not None or video.end_seconds is not None:
        if info.fps is None:
            raise VideoError(f"{video}: folders of frames have no seconds; give first_frame")
        first = round((video.start_seconds or 0) * info.fps)
        if video.end_seconds is not None:
            last = max(round(video.end_seconds * info.fps), first + 1)
    part = range(first, min(last, info.num_frames))
    if not part:
        raise VideoError(f"{video}: that part is empty, as it has {info.num_frames} frames")
    return part
