"""Files that are joined, damaged or no videos: what is read of them, and what they are called."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from made_videos import damage, encode, full_decode, make, numbers, scene
from videomae.errors import ConfigError, VideoError
from videomae.video import decoder
from videomae.video.reader import VideoReader, probe, read_frames
from videomae.video.writer import resize_video

# Joined files


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_transport_streams_that_were_joined_are_whole(codec: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "x.ts", scene(30), codec=codec)
    with path.open("ab") as file:  # the numbers of its packets begin anew
        file.write(path.read_bytes())
    with av.open(str(path)) as container:
        assert any(packet.is_corrupt for packet in container.demux(video=0))
    info = probe(path)
    assert (info.num_frames, info.fps, info.duration_seconds) == (60, 25, pytest.approx(2.4))
    assert numbers(read_frames(path, [29, 30, 59])) == [29, 0, 29]


def test_a_transport_stream_that_was_cut_off_and_joined_is_damaged(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.ts", scene(30, 240, 320), codec_options={"g": "10", "crf": "1"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 188 * 6 // 10 * 188] + data)
    with pytest.raises(VideoError, match="is damaged or cut off; frames readable"):
        probe(path)


# What is left of a damaged file

LEFT = [*range(30), *range(36, 60)]  # up to the damage, and from the next key frame on


@pytest.fixture
def glitch(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file of 60 frames, a key frame every 12, the 31st damaged; and what is left of them."""
    path = encode(tmp_path / "x.mp4", scene(60), codec_options={"g": "12", "bf": "0"})
    expected = full_decode(path)[LEFT]
    return damage(path, 30), expected


def test_what_is_left_of_a_damaged_file_is_read_where_that_is_asked_for(
    glitch: tuple[Path, np.ndarray],
) -> None:
    path, expected = glitch
    with VideoReader(path, on_damage="use_readable") as reader:
        info = reader.info
        assert (info.num_frames, info.num_gaps) == (54, 1)
        assert (info.fps, info.duration_seconds) == (25, pytest.approx(54 / 25))
        np.testing.assert_array_equal(reader.read(range(54)), expected)
        np.testing.assert_array_equal(reader.read([50, 3, 29]), expected[[50, 3, 29]])


def test_what_is_left_is_made_small(glitch: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    small = tmp_path / "small.mp4"
    info = resize_video(glitch[0], small, short_side_px=48, on_damage="use_readable")
    assert (info.num_frames, info.num_gaps) == (54, 1)
    assert numbers(read_frames(small, range(54))) == LEFT


@pytest.mark.parametrize("kind", ["faststart", "vp9", "gif", "mjpeg-avi"])
def test_what_is_left_of_a_file_cut_off(kind: str, tmp_path: Path) -> None:
    options = {"movflags": "+faststart"}
    path = (
        encode(tmp_path / "x.mp4", scene(60), container_options=options)
        if kind == "faststart"
        else make(kind, tmp_path)
    )
    expected = full_decode(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    with VideoReader(path, on_damage="use_readable") as reader:
        assert reader.info.num_gaps == 1
        assert 20 < reader.info.num_frames < 60
        np.testing.assert_array_equal(reader.read(range(20)), expected[:20])


def test_holes_one_after_another_lose_no_more_than_they_must(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.ts", scene(60, 240, 320), codec_options={"g": "20", "bf": "0"})
    data = path.read_bytes()
    packets = [data[start : start + 188] for start in range(0, len(data), 188)]
    first = len(packets) // 6
    holes = range(first, first + len(packets) // 8, 5)  # in seven frames of the first key frame
    path.write_bytes(b"".join(p for k, p in enumerate(packets) if k not in holes))
    with VideoReader(path, on_damage="use_readable") as reader:
        assert reader.info.num_gaps > 1
        read = numbers(reader.read(range(reader.info.num_frames)))
    assert read[-40:] == list(range(20, 60))


@pytest.mark.parametrize("kind", ["b-frames", "vp9", "mpeg4-avi", "open-groups", "edit-list"])
def test_a_whole_file_stays_the_same(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    with VideoReader(path) as usual, VideoReader(path, on_damage="use_readable") as reader:
        assert reader.info == usual.info
        np.testing.assert_array_equal(reader.read([5, 40, 41]), usual.read([5, 40, 41]))


def test_nothing_is_left_of_some(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(random.Random(1).randbytes(5000))
    with pytest.raises(VideoError, match="0 frames are readable"):
        probe(tmp_path / "x.mp4", on_damage="use_readable")
    with pytest.raises(ConfigError, match="on_damage='fix' is not one of refuse, use_readable"):
        probe(tmp_path / "x.mp4", on_damage="fix")  # type: ignore[arg-type]


# No videos

KNOWN = {
    "empty": (b"", r"is empty \(0 bytes\); get the file anew"),
    "jpeg": (
        b"\xff\xd8\xff\xe0" + bytes(100),
        "is a single picture; expected a video, or a folder",
    ),
    "tiff": (b"II*\0" + bytes(100), "is a single picture"),
    "webp": (b"RIFF\x60\0\0\0WEBPVP8 " + bytes(100), "is a single picture"),
    "moving webp": (
        b"RIFF\x60\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(100),
        "is an animated WebP, which FFmpeg does not decode; save it as an animated PNG: python",
    ),
    "mp3": (b"ID3\x03" + bytes(100), "is sound without pictures; expected a video"),
    "wav": (b"RIFF\x60\0\0\0WAVEfmt " + bytes(100), "is sound without pictures"),
    "text": (
        b"a list of things\n",
        r"cannot be opened as a video \(.*kinds that are read: mov mat",
    ),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_what_is_no_video_is_named_by_what_it_is(kind: str, tmp_path: Path) -> None:
    data, words = KNOWN[kind]
    (tmp_path / "x.mp4").write_bytes(data)
    with pytest.raises(VideoError, match=words):
        probe(tmp_path / "x.mp4")


def test_the_advice_for_an_animated_webp_works(tmp_path: Path) -> None:
    colours = [Image.fromarray(np.full((16, 16, 3), 60 * k, np.uint8)) for k in range(4)]
    webp, png = tmp_path / "x.webp", tmp_path / "x.png"
    colours[0].save(webp, save_all=True, append_images=colours[1:], lossless=True)
    with pytest.raises(VideoError, match=r"Image.open\('IN.webp'\).save\('OUT.png', save_all=True"):
        probe(webp)
    Image.open(webp).save(png, save_all=True)
    assert read_frames(png, range(4))[:, 0, 0, 0].tolist() == [0, 60, 120, 180]


def test_a_stream_that_begins_behind_damage_is_damage(tmp_path: Path) -> None:
    def packets() -> Iterator[Any]:
        yield from ()
        raise IndexError("list index out of range")  # as of PyAV for a damaged flv

    with VideoReader(make("flv", tmp_path)) as reader, pytest.raises(decoder._LostError):
        list(reader._source._checked(packets()))
