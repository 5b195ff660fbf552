import itertools
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from made_videos import KINDS, encode, make, numbers, scene
from videomae.errors import ConfigError, VideoError
from videomae.video import limits, writer
from videomae.video.reader import probe, read_frames
from videomae.video.writer import annotate_video, resize_video, resized_size, write_video


def test_written_videos_come_back(tmp_path: Path) -> None:
    frames = scene(40)
    path = write_video(tmp_path / "new" / "x.mp4", frames, fps=16, crf=10)
    assert path == tmp_path / "new" / "x.mp4"
    back = read_frames(path, range(40))
    assert numbers(back) == list(range(40))
    assert np.abs(back.astype(int) - frames).mean() < 12  # 4:2:0 blurs the colour of these slopes
    assert probe(path).fps == 16


def test_written_videos_open_everywhere(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", scene(8), fps=29.97)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(29.97)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_odd_sizes_grow_by_a_row_and_a_column(tmp_path: Path) -> None:
    frames = scene(4, height=33, width=47)
    back = read_frames(write_video(tmp_path / "x.mp4", frames, crf=1), range(4))
    assert back.shape == (4, 34, 48, 3)
    np.testing.assert_allclose(back[:, -1, 20], back[:, -2, 20], atol=8)


def test_key_frames_come_as_often_as_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", scene(40), keyframe_distance=8)
    with av.open(str(path)) as container:
        keys = [k for k, p in enumerate(container.demux(video=0)) if p.size and p.is_keyframe]
    assert max(np.diff([*keys, 40])) <= 8


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((4, 3, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_not_written(frames: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"cannot write frames of shape .*; expected a non-empty"):
        write_video(tmp_path / "x.mp4", frames)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"fps": fps} for fps in (0, 0.0004, float("nan"), float("inf"))),
        {"crf": 99},
        {"keyframe_distance": 0},
    ],
)
def test_other_values_are_not_written_with(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write with fps=.*; expected fps from 0.01 to"):
        write_video(tmp_path / "x.mp4", scene(2), **wrong)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "x.mp4", scene(4))
    before = path.read_bytes()
    monkeypatch.setattr(av, "VideoFrame", None)  # fails at the first picture
    with pytest.raises(AttributeError):
        write_video(path, scene(4))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_of_every_kind_of_file_comes_through(kind: str, tmp_path: Path) -> None:
    source = make(kind, tmp_path)
    before = probe(source)
    got = resize_video(source, tmp_path / "small.mp4", short_side_px=32)
    assert (got.num_frames, got.height, got.width, got.codec) == (before.num_frames, 32, 42, "h264")
    assert got == probe(tmp_path / "small.mp4")
    assert before.fps is not None
    assert got.fps == pytest.approx(before.fps)
    every = range(got.num_frames)
    assert numbers(read_frames(got.path, every)) == numbers(read_frames(source, every))


def test_frames_are_shown_when_they_were(tmp_path: Path) -> None:
    times = [0, 3, 4, 10, 11, 30]
    source = encode(tmp_path / "x.mkv", scene(6), fps=50, times=times)
    resize_video(source, tmp_path / "y.mp4", short_side_px=32)
    with av.open(str(tmp_path / "y.mp4")) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown == pytest.approx([time / 50 for time in times])


def tagged(colorspace: int, color_range: int) -> Any:
    def prepare(stream: Any) -> None:
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range

    return prepare


@pytest.mark.parametrize(
    ("pix_fmt", "colorspace", "color_range"),
    [("yuv420p", 2, 0), ("yuv420p", 1, 1), ("yuvj420p", 5, 2), ("yuvj420p", 1, 2), ("gray", 2, 0)],
)
def test_colours_stay_what_they_were(
    pix_fmt: str, colorspace: int, color_range: int, tmp_path: Path
) -> None:
    frames = scene(8, 96, 128)
    prepare = tagged(colorspace, color_range)
    source = encode(tmp_path / "x.mkv", frames, pix_fmt=pix_fmt, prepare=prepare)
    resize_video(source, tmp_path / "y.mp4", short_side_px=48, crf=5)
    before = read_frames(source, range(8)).astype(float)
    after = read_frames(tmp_path / "y.mp4", range(8)).astype(float)
    halved = before.reshape(8, 48, 2, 64, 2, 3).mean((2, 4))
    assert np.abs((halved - after).mean((0, 1, 2))).max() < 0.5
    assert np.abs(halved - after).mean() < 4


def test_turned_videos_are_written_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = encode(tmp_path / "x.mkv", scene(4, 96, 128))
    whole = read_frames(source, range(4)).astype(float)
    for orientation in (
        writer.Orientation(True, True, False, 90),
        writer.Orientation(False, True, True, 180),
        writer.Orientation(True, False, True, 270),
    ):
        # No encoder writes the mark of a turned video, so the decoder is told of it.
        monkeypatch.setattr(
            "videomae.video.decoder.Orientation.of", classmethod(lambda *_, o=orientation: o)
        )
        turned = read_frames(source, range(4)).astype(float)
        resize_video(source, tmp_path / "y.mp4", short_side_px=48, crf=5)
        monkeypatch.undo()
        height, width = (64, 48) if orientation.transposed else (48, 64)
        small = read_frames(tmp_path / "y.mp4", range(4)).astype(float)
        assert small.shape[1:3] == (height, width)
        assert np.abs(turned.reshape(4, height, 2, width, 2, 3).mean((2, 4)) - small).mean() < 5
    assert whole.shape[1:3] == (96, 128)


def test_nothing_is_enlarged_and_sizes_are_even() -> None:
    assert resized_size(720, 1280, 320) == (320, 568)
    assert resized_size(1280, 720, 320) == (568, 320)
    assert resized_size(241, 321, 320) == (240, 320)
    assert resized_size(2, 5000, 320) == (2, 5000)
    assert resized_size(1, 1, 320) == (2, 2)


def test_a_folder_of_frames_and_a_part_of_it_become_videos(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in enumerate(scene(12)):
        Image.fromarray(image).save(folder / f"img_{number + 1:05}.png")
    got = resize_video(folder, tmp_path / "x.mp4", short_side_px=48, part=range(3, 8))
    assert (got.num_frames, got.fps, got.height, got.width) == (5, 25, 48, 64)
    assert numbers(read_frames(got.path, range(5))) == [3, 4, 5, 6, 7]
    with pytest.raises(VideoError, match="has no frames 8 to 12; it has 12"):
        resize_video(folder, tmp_path / "y.mp4", short_side_px=48, part=range(8, 13))


def test_bytes_in_memory_are_resized_and_key_frames_come_often(tmp_path: Path) -> None:
    data = make("b-frames", tmp_path).read_bytes()
    resize_video("shard", tmp_path / "y.mp4", short_side_px=32, data=data, keyframe_distance=6)
    with av.open(str(tmp_path / "y.mp4")) as container:
        keys = [k for k, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 60])) == 6


WRITE_BOTH = """
import sys
import numpy as np
from videomae.video.writer import resize_video, write_video
frames, first, second = sys.argv[1:]
resize_video(write_video(first, np.load(frames)), second, short_side_px=32)
"""


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", scene(40))
    written = set()
    for filling in ("1", "180"):  # of memory that nobody wrote, where the C library is glibc
        names = [tmp_path / "frames.npy", tmp_path / "1.mp4", tmp_path / "2.mp4"]
        environment = os.environ | {"MALLOC_PERTURB_": filling}
        subprocess.run([sys.executable, "-c", WRITE_BOTH, *names], env=environment, check=True)
        written.add(tuple(path.read_bytes() for path in names[1:]))
    assert len(written) == 1


def test_a_damaged_video_leaves_nothing_behind(tmp_path: Path) -> None:
    source = make("no-b-frames", tmp_path)
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + 800] = bytes(800)
    source.write_bytes(data)
    with pytest.raises(VideoError, match="is damaged or cut off"):
        resize_video(source, tmp_path / "out" / "y.mp4", short_side_px=32)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("write", [resize_video, annotate_video])
def test_frames_that_h264_cannot_hold_are_told(write: Any, tmp_path: Path) -> None:
    source = encode(tmp_path / "wide.mkv", np.zeros((2, 16, 20_000, 3), np.uint8), codec="ffv1")
    options = {"short_side_px": 16} if write is resize_video else {"draw": lambda _, frame: frame}
    with pytest.raises(VideoError, match=r"wide\.mkv: cannot be encoded as H\.264 .* or scale it"):
        write(source, tmp_path / "out" / "y.mp4", **options)
    assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(ConfigError, match=r"path would replace .*wide\.mkv, which is read"):
        write(source, tmp_path / ".." / tmp_path.name / "wide.mkv", **options)


def test_lost_frames_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make("b-frames", tmp_path)
    small = writer._small

    def losing(*arguments: Any) -> Any:
        return (frame for k, frame in enumerate(small(*arguments)) if k != 7)

    monkeypatch.setattr(writer, "_small", losing)
    with pytest.raises(VideoError, match="60 frames were read, but the resized file has 59"):
        resize_video(source, tmp_path / "y.mp4", short_side_px=32)
    assert not (tmp_path / "y.mp4").exists()


@pytest.mark.parametrize(
    "wrong", [{"short_side_px": 1}, {"crf": 52}, {"keyframe_distance": 0}], ids=str
)
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="cannot resize with short_side_px="):
        resize_video("x.mp4", tmp_path / "y.mp4", **{"short_side_px": 32, **wrong})


def test_thirty_thousand_and_one_frames_a_thousand_seconds_stay_so(tmp_path: Path) -> None:
    source = encode(tmp_path / "x.mp4", scene(8), fps=Fraction(30000, 1001))  # type: ignore[arg-type]
    got = resize_video(source, tmp_path / "y.mp4", short_side_px=32)
    assert got.fps == pytest.approx(30000 / 1001)


def with_sound(path: Path, *, codec: str = "aac", start: int = 0) -> Path:
    """60 numbered frames at 25 a second from frame `start` on, and a tone from 0 on."""
    rate = 48000
    tone = np.sin(np.arange(rate * 3) * 2 * np.pi * 440 / rate).astype(np.float32)[None]
    with av.open(str(path), "w") as container:
        video, sound = (
            container.add_stream("mpeg4", rate=25),
            container.add_stream(codec, rate=rate),
        )
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        frame = av.AudioFrame.from_ndarray(tone, format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        packets = []
        resampler = av.AudioResampler(sound.codec_context.format or "fltp", "mono", rate, 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            packets += sound.encode(part)
        for number, image in enumerate(scene(60)):
            picture = av.VideoFrame.from_ndarray(image)
            picture.pts, picture.time_base = start + number, Fraction(1, 25)
            packets += video.encode(picture)
        for packet in [*packets, *video.encode(None), *sound.encode(None)]:
            container.mux(packet)
    return path


def sound_of(path: Path) -> tuple[list[bytes], list[float]]:
    """The packets of sound, and when they are heard, in seconds from the first picture."""
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        first = float(video.start_time * video.time_base)
        packets = [p for p in container.demux(sound) if p.size]
        return [bytes(p) for p in packets], [float(p.pts * p.time_base) - first for p in packets]


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_what_is_drawn_is_there_at_its_time_and_the_sound_as_it_was(
    name: str, tmp_path: Path
) -> None:
    source, seen = with_sound(tmp_path / "a.mp4"), []

    def draw(seconds: float, frame: np.ndarray) -> np.ndarray:
        seen.append(round(seconds * 25))
        return np.concatenate([frame, frame // 2])[:-1]

    path = annotate_video(source, tmp_path / "new" / name, draw)
    assert seen == list(range(60))
    back = read_frames(path, range(60))
    assert back.shape == (60, 96, 64, 3)  # an odd height grows
    assert numbers(back[:, :48]) == list(range(60))
    packets, times = sound_of(source)
    copied, heard = sound_of(path)
    assert copied == packets
    np.testing.assert_allclose(heard, times, atol=0.002)


def test_sound_before_the_first_picture_is_not_copied(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mkv", start=25)
    path = annotate_video(source, tmp_path / "b.mkv", lambda _, frame: frame)
    packets, times = sound_of(source)
    copied, heard = sound_of(path)
    after = [k for k, seconds in enumerate(times) if seconds > -0.001]
    assert copied == [packets[k] for k in after]
    np.testing.assert_allclose(heard, [times[k] for k in after], atol=0.002)


def test_sound_that_an_mp4_cannot_hold_is_left_out_with_a_warning(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.avi", codec="adpcm_ms")
    with pytest.warns(UserWarning, match="sound of the kind adpcm_ms does not go into an mp4 and"):
        path = annotate_video(source, tmp_path / "b.mp4", lambda _, frame: frame)
    with av.open(str(path)) as container:
        assert not container.streams.audio
    assert probe(path).num_frames == 60


def test_a_folder_of_images_is_annotated_at_a_rate(tmp_path: Path) -> None:
    for number, frame in enumerate(scene(5)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    path = annotate_video(tmp_path, tmp_path / "out" / "b.mp4", lambda _, frame: frame, fps=5)
    assert probe(path).fps == 5
    with pytest.raises(ConfigError, match=r"c\.gif: name a file that ends in \.mp4 or \.mkv"):
        annotate_video(tmp_path, tmp_path / "c.gif", lambda _, frame: frame)


@pytest.mark.parametrize("is_annotated", [False, True])
def test_the_limit_of_seconds_is_for_each_frame_of_a_long_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_annotated: bool
) -> None:
    source, made = write_video(tmp_path / "x.mp4", scene(60)), tmp_path / "new.mp4"
    ticks = itertools.count()  # each look at the clock takes 3 of the 300 seconds
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: 3 * next(ticks)))
    if is_annotated:
        annotate_video(source, made, lambda _, frame: frame)
    else:
        resize_video(source, made, short_side_px=16)
    monkeypatch.undo()
    assert probe(made).num_frames == 60
