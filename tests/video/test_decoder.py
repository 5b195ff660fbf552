"""Decoding one file: what it costs, edit lists, every kind of picture."""

import io
import random
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from made_videos import encode, full_decode, join, make, numbers, scene, with_edits
from videomae.errors import VideoError
from videomae.video import decoder
from videomae.video.decoder import VideoFile
from videomae.video.reader import VideoReader, probe, read_frames
from videomae.video.writer import resize_video


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts packets given to the decoder, pictures turned to RGB, files decoded to be counted."""
    counts = {"packets": 0, "pictures": 0, "recounts": 0}
    decode, rgb, recount = VideoFile._decode, VideoFile._rgb, VideoFile._count_by_decoding

    def counted(packets: Any) -> Iterator[Any]:
        for packet in packets:
            counts["packets"] += 1
            yield packet

    def count_rgb(self: VideoFile, frame: Any) -> Any:
        counts["pictures"] += 1
        return rgb(self, frame)

    def count_recount(self: VideoFile) -> tuple[int, bool]:
        counts["recounts"] += 1
        return recount(self)

    monkeypatch.setattr(VideoFile, "_decode", lambda self, packets: decode(self, counted(packets)))
    monkeypatch.setattr(VideoFile, "_rgb", count_rgb)
    monkeypatch.setattr(VideoFile, "_count_by_decoding", count_recount)
    return counts


# What it costs


def test_each_frame_is_converted_once(work: dict[str, int], tmp_path: Path) -> None:
    with VideoReader(make("b-frames", tmp_path)) as reader:
        reader.read([7, 3, 3, 59, 7, 7])
    assert work["pictures"] == 3
    assert work["recounts"] == 0


def test_a_late_frame_is_sought(work: dict[str, int], tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)  # a key frame every 12
    with VideoReader(path) as reader:
        work["packets"] = 0
        assert numbers(reader.read([50])) == [50]
    assert work["packets"] <= 12


def test_near_frames_are_decoded_on_to(work: dict[str, int], tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    with VideoReader(path) as reader:
        work["packets"] = 0
        assert numbers(reader.read(range(0, 60, 4))) == list(range(0, 60, 4))
    assert work["packets"] <= 61  # each once, and the one that empties the decoder


def test_windows_read_one_after_another_decode_on(work: dict[str, int], tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", scene(60), codec_options={"g": "60"})
    with VideoReader(path) as reader:
        work["packets"] = 0
        for start in range(0, 60, 15):
            window = range(start, start + 15, 3)
            assert numbers(reader.read(window)) == list(window)
    assert work["packets"] <= 61


@pytest.mark.parametrize("kind", ["mpeg4-avi", "gif"])
def test_what_must_be_decoded_to_be_counted_is_decoded_once(
    kind: str, work: dict[str, int], tmp_path: Path
) -> None:
    path = make(kind, tmp_path)
    with VideoReader(path) as reader:
        reader.read([3, 40])
        reader.read([2])
    assert work["recounts"] == 1
    assert work["packets"] <= 61


def test_kept_frames_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_KEPT_BYTES", 50_000)
    path = make("mpeg4-avi", tmp_path)
    expected = full_decode(path)
    with VideoReader(path) as reader:
        assert 0 < len(reader._source._kept) < 20  # type: ignore[union-attr]
        for indices in ([3, 40], [2, 50, 51], [1]):
            np.testing.assert_array_equal(reader.read(indices), expected[indices])


def test_a_read_may_be_given_up(work: dict[str, int], tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    with VideoReader(path) as reader:
        next(reader._source.frames([10, 40]))  # what lay between was not decoded
        assert numbers(reader.read([11, 12, 39])) == [11, 12, 39]
    assert work["recounts"] == 0


def test_seeking_that_fails_falls_back_to_decoding_on(
    tmp_path: Path,
) -> None:
    path = make("b-frames", tmp_path)
    with VideoReader(path) as reader:
        source: Any = reader._source
        source._key_times = [time + 1 for time in source._key_times]  # between the key frames
        assert numbers(reader.read([50, 20])) == [50, 20]
        source._key_times = [10**9 + k for k in range(3)]  # nowhere
        assert numbers(reader.read([30, 2])) == [30, 2]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_file_that_calls_a_wrong_picture_a_key_frame(codec: str, tmp_path: Path) -> None:
    options = {"g": "30", "bf": "0", "sc_threshold": "0"}
    path = encode(tmp_path / "x.mp4", scene(60), codec=codec, codec_options=options)
    expected = full_decode(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"stss") + 8
    assert struct.unpack(">III", data[at : at + 12]) == (2, 1, 31)  # two, the 1st and the 31st
    data[at + 8 : at + 12] = struct.pack(">I", 20)
    path.write_bytes(data)
    for indices in ([50, 20, 40], [0, 59], [31]):
        np.testing.assert_array_equal(read_frames(path, indices), expected[indices])


# Edit lists beyond a late start


@pytest.mark.parametrize(
    "edits",
    [
        [(800, 400)],
        [(400, 0), (400, 1200)],  # the middle is cut out
        [(400, 1200), (400, 0)],  # the end comes first
        [(400, 400), (400, 400)],  # shown twice
    ],
)
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_edit_lists(edits: list[tuple[int, int]], b_frames: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", scene(60), codec_options={"g": "15", "bf": b_frames})
    with_edits(path, edits)
    expected = full_decode(path)
    assert len(expected) != 60
    generator = random.Random(0)
    with VideoReader(path) as reader:
        assert reader.info.num_frames == len(expected)
        for _ in range(6):
            indices = [generator.randrange(len(expected)) for _ in range(5)]
            np.testing.assert_array_equal(reader.read(indices), expected[indices])


@pytest.mark.parametrize("claimed", [7, 1000])
def test_a_header_that_lies_about_the_number_of_frames(claimed: int, tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"stts")
    data[at + 12 : at + 16] = struct.pack(">I", claimed)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == claimed
    assert probe(path).num_frames == len(full_decode(path))


# Kinds of pictures


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [
        ("libx264", "gray", "x.mp4"),
        ("ffv1", "gray16le", "x.mkv"),
        ("ffv1", "yuva420p", "x.mkv"),
        ("png", "rgba", "x.mov"),
        ("qtrle", "argb", "x.mov"),
        ("prores_ks", "yuva444p10le", "x.mov"),
        ("libx264", "yuv420p10le", "x.mp4"),
        ("libx264", "yuv422p", "x.mp4"),
        ("libx264", "yuvj420p", "x.mp4"),
        ("libvpx-vp9", "yuva420p", "x.webm"),
        ("ffv1", "yuv444p12le", "x.mkv"),
        ("mjpeg", "yuvj422p", "x.mov"),
        ("rawvideo", "bgr24", "x.avi"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(
    codec: str, pix_fmt: str, name: str, tmp_path: Path
) -> None:
    options = {"cpu-used": "8"} if codec == "libvpx-vp9" else {}
    frames = scene(10)
    path = encode(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt, codec_options=options)
    back = read_frames(path, [9, 4])
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, full_decode(path)[[9, 4]])
    assert numbers(back) == [9, 4]
    if "gray" in pix_fmt:
        assert (back[..., 0] == back[..., 1]).all()


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (17, 64), (64, 17)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    frames = scene(6, *size)
    path = encode(tmp_path / "x.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    np.testing.assert_array_equal(read_frames(path, [5, 2]), frames[[5, 2]])
    path = encode(tmp_path / "y.webm", frames, codec="libvpx-vp9", codec_options={"cpu-used": "8"})
    np.testing.assert_array_equal(read_frames(path, [5, 2]), full_decode(path)[[5, 2]])


@pytest.mark.parametrize(
    ("codec", "options", "name"),
    [
        ("mpeg2video", {"flags": "+ildct+ilme"}, "x.ts"),
        ("libx264", {"x264-params": "tff=1"}, "x.mp4"),
    ],
)
def test_interlaced_pictures_come_woven(
    codec: str, options: dict[str, str], name: str, work: dict[str, int], tmp_path: Path
) -> None:
    path = encode(tmp_path / name, scene(30), codec=codec, codec_options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    expected = full_decode(path)
    with VideoReader(path) as reader:
        assert reader.info.num_frames == 30
        np.testing.assert_array_equal(reader.read([29, 3, 11]), expected[[29, 3, 11]])
    assert work["recounts"] == 1  # as a picture may be one packet or two


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
def test_the_colour_matrix_of_the_file_is_used(matrix: int, tmp_path: Path) -> None:
    def tag(stream: Any) -> None:
        stream.codec_context.colorspace = matrix

    path = encode(tmp_path / "x.mp4", scene(4), prepare=tag)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == matrix
    np.testing.assert_array_equal(read_frames(path, range(4)), full_decode(path))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    def turn(stream: Any) -> None:  # PyAV counts counterclockwise
        stream.set_display_rotation(-degrees, hflip=mirrored)

    path = encode(tmp_path / "x.mp4", scene(20), prepare=turn)
    stored = full_decode(path)
    expected = np.rot90(stored, k=-degrees // 90, axes=(1, 2))
    if mirrored:
        expected = expected[:, :, ::-1]
    with VideoReader(path) as reader:
        info = reader.info
        assert (info.height, info.width) == expected.shape[1:3]
        assert info.height == (64 if degrees in (90, 270) else 48)
        if not mirrored:
            assert info.rotation_degrees == degrees
        np.testing.assert_array_equal(reader.read([19, 2]), expected[[19, 2]])


def test_a_phone_held_upright(tmp_path: Path) -> None:
    """The matrix phones write for portrait: x' = -y, y' = x, so the stored left side is on top."""
    one = 1 << 16

    def turn(stream: Any) -> None:
        stream.set_display_matrix([0, one, 0, -one, 0, 0, 0, 0, 1 << 30])

    path = encode(tmp_path / "x.mp4", scene(4), prepare=turn)
    assert probe(path).rotation_degrees == 90
    shown, stored = read_frames(path, [3])[0], full_decode(path)[3]
    np.testing.assert_array_equal(shown[0], stored[::-1, 0])  # the top row, left to right


@pytest.mark.parametrize(("angle", "quarter"), [(3, 0), (80, 270)])
def test_angles_in_between_count_as_the_nearest_quarter(
    angle: int, quarter: int, tmp_path: Path
) -> None:
    path = encode(
        tmp_path / "x.mp4", scene(2), prepare=lambda stream: stream.set_display_rotation(angle)
    )
    assert probe(path).rotation_degrees == quarter


def test_pictures_with_exif_are_turned_by_it(tmp_path: Path) -> None:
    """As a camera writes motion JPEG; PyAV does not know this kind of data."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees clockwise
    frames = scene(3)
    with av.open(str(tmp_path / "x.mov"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for number, frame in enumerate(frames):
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", exif=exif)
            packet = av.Packet(file.getvalue())
            packet.pts = packet.dts = number
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            container.mux(packet)
    assert probe(tmp_path / "x.mov").rotation_degrees == 90
    assert read_frames(tmp_path / "x.mov", [2]).shape == (1, 64, 48, 3)


def test_frames_that_change_size_are_refused(tmp_path: Path) -> None:
    path = join(tmp_path, scene(10), scene(10, 64, 96))
    with pytest.raises(VideoError, match=r"change size, from 64 x 48 to 96 x 64 px \(width"):
        probe(path)


def test_the_video_is_chosen_not_the_cover(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    frames = scene(10)
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream("libx264", rate=25)
        video.height, video.width = frames.shape[1:3]
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        container.mux(cover.encode(picture))
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(video.encode(None))
    assert probe(path).num_frames == 10
    assert numbers(read_frames(path, [8])) == [8]


# What a file says of itself, and what its frames say


def test_the_rate_of_raw_dv_is_that_of_its_frames(tmp_path: Path) -> None:
    # its header counts 60,000 a second
    path = encode(tmp_path / "x.dv", scene(30, 576, 720), codec="dvvideo", format="dv")
    info = probe(path)
    assert (info.num_frames, info.fps, info.duration_seconds) == (30, 25, pytest.approx(1.2))
    assert info.pixel_aspect == pytest.approx(16 / 15)


def test_the_rate_of_a_gif_is_that_of_its_frames(tmp_path: Path) -> None:
    # hundredths of a second, 6 or 7 a frame, of which its header has the first
    path = encode(tmp_path / "x.gif", scene(32), codec="gif", pix_fmt="rgb8", fps=16)
    assert probe(path).fps == pytest.approx(16, rel=0.01)
    assert probe(path).duration_seconds == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_raw_stream_has_the_rate_that_its_codec_names(codec: str, tmp_path: Path) -> None:
    name = {"libx264": "h264", "libx265": "hevc"}[codec]
    options = {"x265-params": "log-level=0"} if codec == "libx265" else {}
    path = encode(
        tmp_path / "x", scene(32), codec=codec, format=name, fps=16, codec_options=options
    )
    info = probe(path)
    assert (info.num_frames, info.fps, info.duration_seconds) == (32, 16, 2)
    assert numbers(read_frames(path, [31, 5])) == [31, 5]


def test_an_animated_png_is_a_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.png", scene(6), codec="apng", pix_fmt="rgb24", format="apng")
    assert numbers(read_frames(path, range(6))) == list(range(6))


def test_pixels_that_are_not_square_are_told_and_left(tmp_path: Path) -> None:
    def widen(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = encode(tmp_path / "x.mp4", scene(4), prepare=widen)
    info = probe(path)
    assert (info.height, info.width, info.pixel_aspect) == (48, 64, pytest.approx(4 / 3))
    small = resize_video(path, tmp_path / "small.mp4", short_side_px=24)
    assert small.pixel_aspect == pytest.approx(4 / 3)
    assert probe(make("b-frames", tmp_path)).pixel_aspect == 1


@pytest.mark.parametrize(("number", "name"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_high_dynamic_range_is_told(number: int, name: str, tmp_path: Path) -> None:
    def tag(stream: Any) -> None:
        stream.codec_context.color_trc = number

    assert probe(encode(tmp_path / "x.mp4", scene(4), prepare=tag)).hdr == name


def make_sound(path: Path, format: str | None = None) -> Path:
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="expected a video stream, got audio"):
        probe(make_sound(tmp_path / "x.mp4"))


def test_titles_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQ"
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = 48, 64
        container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(1)[0])))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xe9\xff\xfe\xe9"))
    with pytest.raises(UnicodeDecodeError):
        full_decode(path)
    assert probe(path).num_frames == 1
