from pathlib import Path
from typing import Any

import fsspec
import pytest

from videomae.data.manifest import Video
from videomae.data.opening import open_video, part_of
from videomae.errors import ConfigError, VideoError
from videomae.video.reader import VideoInfo


def test_what_an_address_lacks_is_said() -> None:
    with pytest.raises(VideoError, match=r"memory://test/no\.mp4: cannot be read \(FileNotFound"):
        open_video(Video("memory://test/no.mp4"))
    with pytest.raises(ConfigError, match="nosuch://x cannot be opened"):
        open_video(Video("nosuch://x"))
    fsspec.filesystem("memory").pipe_file("/test/short.tar", b"12345")
    with pytest.raises(VideoError, match="the shard ends after 3 bytes of it"):
        open_video(Video("memory://test/short.tar", offset=2, num_bytes=10))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, range(100)),
        ({"start_seconds": 1.0, "end_seconds": 2.0}, range(25, 50)),
        ({"start_seconds": 3.9}, range(98, 100)),
        ({"end_seconds": 0.001}, range(1)),
        ({"first_frame": 90, "num_frames": 20}, range(90, 100)),
        ({"first_frame": 3}, range(3, 100)),
    ],
)
def test_parts_of_a_video(values: dict[str, Any], expected: range) -> None:
    info = VideoInfo(Path("x"), 100, 25.0, 4.0, 2, 2, "h264", 0)
    assert part_of(Video("x", **values), info) == expected


def test_empty_parts_are_errors() -> None:
    info = VideoInfo(Path("x"), 100, 25.0, 4.0, 2, 2, "h264", 0)
    with pytest.raises(VideoError, match="that part is empty, as it has 100 frames"):
        part_of(Video("x", start_seconds=4.0), info)
    frames = VideoInfo(Path("x"), 100, None, None, 2, 2, "images", 0)
    with pytest.raises(VideoError, match="folders of frames have no seconds; give first_frame"):
        part_of(Video("x", start_seconds=1.0), frames)
