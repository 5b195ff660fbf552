"""What the bytes of a file tell before FFmpeg sees them."""

import io
import os
import struct
from contextlib import closing
from pathlib import Path

import pytest

from made_videos import encode, make, scene
from videomae.errors import VideoError
from videomae.video.container import VideoBytes, _ebml_size, _promised_bytes
from videomae.video.limits import VideoLimits
from videomae.video.reader import probe


def opened(path: Path) -> closing[VideoBytes]:
    return closing(VideoBytes(path, VideoLimits()))


def test_ffmpeg_sees_no_name(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"0123456789")
    with opened(tmp_path / "x.mp4") as file:
        assert file.name == "video"
        assert (file.read(3), file.read(3), file.read(), file.read(3)) == (
            b"012", b"345", b"6789", b"",
        )  # fmt: skip
        assert file.seek(-1, io.SEEK_END) == 9


def test_reading_is_on_the_clock(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with closing(VideoBytes(tmp_path / "x", VideoLimits())) as file:
        file.clock._seconds = -1.0
        file.clock.restart()
        with pytest.raises(VideoError, match="reading took more than"):
            file.read(1)


def test_seeking_before_the_beginning_fails_quietly(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with opened(tmp_path / "x") as file:
        assert file.seek(-5) == -1  # damaged files make FFmpeg try, and it wants a number
        assert file.read(2) == b"01"


def test_errors_of_the_disk_are_explained(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r": cannot be opened \(Is a directory\)"):
        opened(tmp_path)
    (tmp_path / "x").write_bytes(b"0123456789")
    with opened(tmp_path / "x") as file:
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, file._raw.fileno())  # any reading fails from here on
        os.close(folder)
        with pytest.raises(VideoError, match=r"x: cannot be read \(Is a directory\)"):
            file.read(1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x81", (1, 1)),  # 1000 0001: one byte, value 1
        (b"\x40\x02", (2, 2)),  # 0100 0000 0000 0010: two bytes, value 2
        (b"\x21\x00\x00", (0x10000, 3)),
        (b"\x01" + b"\0" * 6 + b"\x05", (5, 8)),
        (b"\xff", (0, 1)),  # all ones: unknown
        (b"\x01" + b"\xff" * 7, (0, 8)),
        (b"", (0, 9)),
    ],
)
def test_ebml_sizes(data: bytes, expected: tuple[int, int]) -> None:
    assert _ebml_size(data, 0) == expected


def test_promised_bytes() -> None:
    assert _promised_bytes(b"RIFF\x10\0\0\0AVI ") == 24
    assert _promised_bytes(b"RIFF\xff\xff\xff\xffAVI ") == 0
    matroska = b"\x1aE\xdf\xa3\x83abc\x18S\x80g"  # a header of 3 bytes, then the segment
    assert _promised_bytes(matroska + b"\x8a") == len(matroska) + 1 + 10
    assert _promised_bytes(matroska + b"\xff") == 0
    assert _promised_bytes(b"\x1aE\xdf\xa3\x83abcd") == 0
    assert _promised_bytes(b"\0\0\0\x20ftyp") == 0
    assert _promised_bytes(b"") == 0


@pytest.mark.parametrize("kind", ["vp9", "mpeg4-avi", "gif", "b-frames", "transport-stream"])
def test_whole_files_are_not_cut_off(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path, num_frames=5)
    with opened(path) as file:
        file.seek(7)
        assert not file.is_cut_off()
        assert file.tell() == 7
    if kind in ("vp9", "mpeg4-avi", "gif"):
        path.write_bytes(path.read_bytes()[:-1])
        with opened(path) as file:
            assert file.is_cut_off()


def test_zeros_behind_a_gif_do_no_harm(tmp_path: Path) -> None:
    path = make("gif", tmp_path, num_frames=5)
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert probe(path).num_frames == 5


def patched(path: Path, at: bytes, offset: int, data: bytes) -> Path:
    """Overwrite bytes of a box; offset counts from behind its name."""
    content = bytearray(path.read_bytes())
    start = content.index(at) + len(at) + offset
    content[start : start + len(data)] = data
    path.write_bytes(content)
    return path


def test_a_small_index_of_many_samples_is_refused(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path, num_frames=5)
    patched(path, b"stsz", 4, struct.pack(">II", 1, 170_000_000))  # 4 GB for FFmpeg
    with pytest.raises(
        VideoError, match=r"index promises 170,000,000 samples, more than the .* byt"
    ):
        probe(path)


def test_a_small_fragment_of_many_samples_is_refused(tmp_path: Path) -> None:
    path = make("fragmented", tmp_path, num_frames=5)
    patched(path, b"trun", 0, struct.pack(">II", 1, 100_000_000))
    with pytest.raises(VideoError, match=r"its index promises 100,000,0\d\d samples"):
        probe(path)


def test_an_edit_list_that_repeats_everything_is_refused(tmp_path: Path) -> None:
    path = make("edit-list", tmp_path)
    patched(path, b"elst", 4, struct.pack(">I", 1_000_000))
    with pytest.raises(VideoError, match=r"edit list has 1,000,000 parts of up to 60 samples"):
        probe(path)
    with pytest.raises(VideoError, match=r"raise it: limits=VideoLimits\(max_frames=3750001\)"):
        probe(path)


def test_a_compressed_index_is_refused(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path, num_frames=5)
    hidden = struct.pack(">I4sI4s4s", 20, b"cmov", 12, b"dcom", b"zlib")
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 28, b"moov") + hidden)
    with pytest.raises(VideoError, match="its index is compressed, so that its size cannot be"):
        probe(path)


@pytest.mark.parametrize("place", ["long size", "to the end", "behind an odd box"])
def test_the_index_is_found_wherever_it_lies(place: str, tmp_path: Path) -> None:
    path = make("b-frames", tmp_path, num_frames=5)
    patched(path, b"stsz", 4, struct.pack(">II", 1, 170_000_000))
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    before, moov = data[:start], data[start:]
    if place == "long size":
        moov = struct.pack(">I4sQ", 1, b"moov", len(moov) + 8) + moov[8:]
    elif place == "to the end":
        moov = bytes(4) + moov[4:]
    else:
        before += struct.pack(">I4s8x", 16, b"\xff\0\1\2")
    path.write_bytes(before + moov)
    with pytest.raises(VideoError, match="its index promises 170,000,000 samples"):
        probe(path)


def test_pictures_of_one_size_are_no_bomb(tmp_path: Path) -> None:
    """An uncompressed mov: its sample table is a size and a count, and both are true."""
    path = encode(tmp_path / "x.mov", scene(20), codec="rawvideo", pix_fmt="rgb24")
    data = path.read_bytes()
    at = data.index(b"stsz") + 8
    assert struct.unpack(">II", data[at : at + 8]) == (48 * 64 * 3, 20)
    assert probe(path).num_frames == 20


def test_boxes_that_say_nonsense_end_the_search(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack(">I4s", 4, b"moov") + bytes(100))
    with opened(tmp_path / "x") as file:
        assert not file.check_index()
        assert file.tell() == 0
