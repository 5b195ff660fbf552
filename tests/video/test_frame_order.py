"""Files whose times are not those of their pictures: still each frame is that of a plain decode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from made_videos import copy, encode, full_decode, numbers, scene
from videomae.errors import VideoError
from videomae.video.index import _keys_divide
from videomae.video.reader import VideoReader

STEP = 512  # units of time from one frame to the next, in the files written here


def as_decoded(packets: list[Any]) -> list[Any]:
    """Show pictures in the order of decoding, as files have it that store one time for each."""
    for number, packet in enumerate(packets):
        packet.pts = packet.dts = number * STEP
    return packets


def half_as_decoded(packets: list[Any]) -> list[Any]:
    """As `as_decoded` from the middle on."""
    middle = len(packets) // 2
    start = packets[middle].dts
    for number, packet in enumerate(packets[middle:]):
        packet.pts = packet.dts = start + number * STEP
    return packets


def all_keys(packets: list[Any]) -> list[Any]:
    for packet in packets:
        packet.is_keyframe = True
    return packets


def jump(packets: list[Any]) -> list[Any]:
    for packet in packets[len(packets) // 2 :]:
        packet.pts += 1000 * STEP
        packet.dts += 1000 * STEP
    return packets


def without_first_key(packets: list[Any]) -> list[Any]:
    """Begin at the second key frame, as a cut without decoding does."""
    second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
    return packets[second:]


OPEN, CLOSED = {"x264-params": "open-gop=1:keyint=12:bframes=3"}, {"g": "12", "bf": "3"}
NO_B = {"g": "12", "bf": "0"}
CASES: list[tuple[str, str, dict[str, str], Callable[[list[Any]], list[Any]]]] = [
    ("x.mp4", "libx264", CLOSED, as_decoded),
    ("x.mkv", "libx264", CLOSED, as_decoded),
    ("x.mkv", "libx264", OPEN, as_decoded),
    ("x.mp4", "mpeg4", CLOSED, as_decoded),
    ("x.mkv", "mpeg2video", CLOSED, as_decoded),  # whose groups are open
    ("x.mkv", "mpeg2video", CLOSED, half_as_decoded),
    ("x.mp4", "libx264", CLOSED, half_as_decoded),
    ("x.mkv", "libx264", CLOSED, all_keys),
    ("x.mkv", "libx264", NO_B, all_keys),
    ("x.mp4", "libx264", CLOSED, jump),
    ("x.mkv", "libx264", OPEN, without_first_key),
    ("x.mkv", "mpeg2video", CLOSED, without_first_key),
]


@pytest.mark.parametrize(("name", "codec", "options", "change"), CASES)
def test_each_frame_is_that_of_a_plain_decode(
    name: str,
    codec: str,
    options: dict[str, str],
    change: Callable[[list[Any]], list[Any]],
    tmp_path: Path,
) -> None:
    source = encode(
        tmp_path / f"source{Path(name).suffix}", scene(40), codec=codec, codec_options=options
    )
    path = copy(source, tmp_path / name, change)
    expected = full_decode(path)
    for index in range(len(expected)):
        with VideoReader(path) as reader:
            assert reader.info.num_frames == len(expected)
            np.testing.assert_array_equal(reader.read([index])[0], expected[index])
    with VideoReader(path) as reader:
        for indices in (
            range(1, len(expected), 4),
            range(0, len(expected), 2),
            [25, 3, 12, 13, 24],
        ):
            assert numbers(reader.read(indices)) == numbers(expected[list(indices)])


@pytest.mark.parametrize(
    ("times", "keys", "expected"),
    [
        ([0, 3, 1, 2, 4], [0], True),
        ([0, 3, 1, 2, 7, 5, 6], [0, 4], True),  # pictures before a key frame come right after it
        ([0, 1, 2, 3], [0, 1, 2, 3], True),
        ([4, 5, 0, 1], [0, 2], False),  # a key frame before what is stored before it
        ([0, 4, 5, 3, 6], [0, 1], False),  # not right after it
        ([], [], True),
    ],
)
def test_where_decoding_can_start(times: list[int], keys: list[int], expected: bool) -> None:
    shown = [(time, number in keys) for number, time in enumerate(times)]
    assert _keys_divide(shown) is expected


# A picture of MPEG-4 that shows nothing new (ISO 14496-2, vop_coded is 0)
NOTHING = b"\0\0\1\xb6" + bytes([0b01010000, 0b01011111])


def emptied(packets: list[Any]) -> list[Any]:
    """Each tenth packet shows no picture."""
    made = []
    for number, packet in enumerate(packets):
        new: Any = av.Packet(NOTHING if number % 10 == 5 else bytes(packet))
        new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
        new.is_keyframe = packet.is_keyframe
        made.append(new)
    return made


def test_packets_without_a_picture_are_not_counted(tmp_path: Path) -> None:
    options = {"g": "10", "bf": "0"}
    source = encode(tmp_path / "source.mp4", scene(40), codec="mpeg4", codec_options=options)
    path = copy(source, tmp_path / "x.mp4", emptied)
    expected = full_decode(path)
    with VideoReader(path) as reader:
        assert reader.info.num_frames == len(expected) == 36
        np.testing.assert_array_equal(reader.read([35, 20, 5]), expected[[35, 20, 5]])


def test_frames_keep_their_numbers_after_one_that_does_not_come(tmp_path: Path) -> None:
    """Joined without decoding: the first pictures of the second part refer to what is gone."""

    def cut(packets: list[Any]) -> list[Any]:
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        return packets[: keys[1]] + packets[keys[2] :]

    options = {"x265-params": "log-level=0:keyint=12:bframes=4:open-gop=1"}
    frames = scene(40)
    source = encode(tmp_path / "source.mp4", frames, codec="libx265", codec_options=options)
    path = copy(source, tmp_path / "x.mkv", cut)
    with VideoReader(path) as reader:
        count = reader.info.num_frames
        assert len(full_decode(path)) < count  # FFmpeg passes over one without an error
        last = numbers(reader.read([count - 1]))
        with pytest.raises(VideoError, match=rf"is damaged or cut off; .*: {count - 1} of {count}"):
            reader.read(range(count))
        assert numbers(reader.read([count - 1])) == last == [39]
