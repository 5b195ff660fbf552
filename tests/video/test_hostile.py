"""Files that cost much before their first frame, or for few bytes; and what is open at once."""

import signal
import struct
import threading
from pathlib import Path

import av
import pytest

from made_videos import encode, make, numbers, repeat_stream, scene
from videomae.errors import VideoError
from videomae.video import container, decoder, limits
from videomae.video.container import VideoBytes, _interruptible
from videomae.video.limits import DecodeClock, DecodeMemory, VideoLimits
from videomae.video.reader import VideoReader, probe, read_frames

PIXELS = 48 * 64


def many_streams(path: Path, count: int, format: str) -> Path:
    """A file of one video several times over."""
    source = encode(path.with_name("source.mp4"), scene(3))
    return repeat_stream(source, path, count, format=format)


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
def test_several_large_streams_are_refused_before_they_are_decoded(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many_streams(tmp_path / "x", 3, format)
    opened = []
    really_open = VideoBytes._open

    def count(self: VideoBytes, options: dict[str, str]) -> object:
        opened.append("codec_whitelist" in options)
        return really_open(self, options)

    monkeypatch.setattr(VideoBytes, "_open", count)
    message = r"has 3 video streams of together up to 9,216 pixels a frame, above twice the limit"
    with pytest.raises(VideoError, match=message):
        probe(path, limits=VideoLimits(max_pixels=PIXELS))
    assert opened == [True]
    assert probe(path, limits=VideoLimits(max_pixels=2 * PIXELS)).num_frames == 3
    assert numbers(read_frames(path, [2])) == [2]


def test_more_streams_than_any_film_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_MAX_STREAMS", 4)
    assert probe(many_streams(tmp_path / "x", 4, "mp4")).num_frames == 3
    with pytest.raises(VideoError, match=r"has more than 4 streams, or .* -map 0:v:0 -c copy OUT"):
        probe(many_streams(tmp_path / "x", 5, "mp4"))


def test_an_index_that_calls_large_pictures_small_changes_nothing(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"stsd") + 44
    assert struct.unpack(">HH", data[at : at + 4]) == (64, 48)
    data[at : at + 4] = struct.pack(">HH", 16, 16)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="pixels"):
        probe(path, limits=VideoLimits(max_pixels=PIXELS // 8))


# Boxes of an mp4


def test_empty_boxes_without_end_are_refused(tmp_path: Path) -> None:
    path = make("b-frames", tmp_path)
    data, empty = path.read_bytes(), struct.pack(">I4s", 8, b"free")
    path.write_bytes(data + 100 * empty)
    assert probe(path).num_frames == 60
    for start in (data, data[:24]):
        path.write_bytes(start + 20_000 * empty)
        with pytest.raises(VideoError, match=r"is damaged or hostile; it begins with 10,\d{3} box"):
            probe(path)


@pytest.mark.parametrize("whole", [True, False])
def test_a_large_box_that_is_left_free_is_not_read(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("b-frames", tmp_path)
    data = path.read_bytes()
    with path.open("wb") as file:
        file.write(data if whole else data[:24])
        file.write(struct.pack(">I4s", 2**31, b"free"))
        file.truncate(file.tell() + 2**31 - 8)  # which takes no room on the disk
    num_bytes = 0
    really_read = VideoBytes.read

    def count(self: VideoBytes, size: int | None = -1) -> bytes:
        nonlocal num_bytes
        num_bytes += len(got := really_read(self, size))
        return got

    monkeypatch.setattr(VideoBytes, "read", count)
    if whole:
        assert probe(path).num_frames == 60
    else:
        with pytest.raises(VideoError, match="is an mp4 without its whole index"):
            probe(path)
    assert num_bytes < 2**23


@pytest.mark.parametrize("kind", [b"moov", b"free", b"uuid"])
def test_an_index_is_found_across_the_parts_that_boxes_are_searched_in(
    kind: bytes, tmp_path: Path
) -> None:
    samples = b"stsz" + struct.pack(">IIIQ", 0, 1, 170_000_000, 0)
    for shift in range(0, 28, 4):
        body = b"\0\0\0\x6cmvhd" + bytes(2**20 - 16 - shift) + samples
        box = struct.pack(">I4s", len(body) + 8, kind) + body
        (tmp_path / "x").write_bytes(box)
        with pytest.raises(VideoError, match="its index promises 170,000,000 samples"):
            probe(tmp_path / "x")


# Pictures that cost no bytes


def test_more_pixels_than_bytes_can_stand_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("gif", tmp_path)
    assert probe(path).num_frames == 60
    monkeypatch.setattr(decoder, "_PIXELS_PER_BYTE", 0.1)
    monkeypatch.setattr(decoder, "_GRANTED_BYTES", 1)
    with pytest.raises(VideoError, match=r"is damaged or hostile; its [\d,]+ bytes hold more than"):
        probe(path)


# What is open at once


def waiting(memory: DecodeMemory, num_pixels: int, max_memory_bytes: int) -> list[object]:
    """What another thread gets that does not wait: what gives the memory back, or the error."""
    allowed = VideoLimits(max_memory_bytes=max_memory_bytes, max_decode_seconds=1e-9)
    got: list[object] = []

    def take() -> None:
        try:
            clock = DecodeClock(Path("x.mp4"), allowed)
            got.append(memory.take(allowed, num_pixels, allowed, clock))
        except VideoError as error:
            got.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got


class Video:
    """Stands for an open one."""


def test_large_videos_of_other_threads_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SMALL_BYTES", 1)
    memory, plenty = DecodeMemory(), VideoLimits()
    video, clock = Video(), DecodeClock(Path("x.mp4"), plenty)
    give_back = memory.take(video, 10, plenty, clock)  # 480 bytes
    assert "waited 1e-09 seconds for other large videos" in str(waiting(memory, 1, 500)[0])
    assert "limits=VideoLimits(max_memory_bytes=1000)" in str(waiting(memory, 1, 500)[0])
    assert callable(waiting(memory, 1, 600)[0])  # there is room for both
    tight = VideoLimits(max_memory_bytes=1)
    memory.take(
        Video(), 10, tight, clock
    )()  # of the same thread: nobody else would close the first
    give_back()
    give_back()  # a second time is nothing
    assert callable(waiting(memory, 10, 1)[0])  # one alone always has room


def test_a_video_that_is_forgotten_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SMALL_BYTES", 1)
    memory, plenty = DecodeMemory(), VideoLimits()
    video = Video()
    memory.take(video, 10, plenty, DecodeClock(Path("x.mp4"), plenty))
    del video
    assert callable(waiting(memory, 10, 1)[0])


def test_a_closed_video_gives_its_memory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_SMALL_BYTES", 1)
    memory = DecodeMemory()
    monkeypatch.setattr(decoder, "DECODE_MEMORY", memory)
    for kind in ("b-frames", "vp9"):
        with VideoReader(make(kind, tmp_path)):
            assert [size for _, size in memory._held.values()] == [PIXELS * 48]
        assert not memory._held


def test_small_videos_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DecodeMemory()
    monkeypatch.setattr(decoder, "DECODE_MEMORY", memory)
    with VideoReader(make("b-frames", tmp_path)):
        assert not memory._held


# Ctrl-C


def test_ctrl_c_is_heard_while_ffmpeg_opens_a_file() -> None:
    done = threading.Event()

    def open_slowly() -> av.container.InputContainer:
        # A signal, as `_thread.interrupt_main` does not wake a thread that waits already.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        done.wait()
        raise AssertionError("nobody waits for this")

    # A shell has what it starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _interruptible(open_slowly)
    finally:
        done.set()
        signal.signal(signal.SIGINT, before)


def test_large_files_are_opened_so_that_ctrl_c_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_QUICK_PIXELS", 1)
    path = make("b-frames", tmp_path)
    assert numbers(read_frames(path, [7, 50])) == [7, 50]
    with pytest.raises(VideoError, match="reading took more than 1e-09 seconds"):
        probe(path, limits=VideoLimits(max_decode_seconds=1e-9))
