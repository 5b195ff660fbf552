"""Streams over the network of this machine, served from memory."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from made_videos import encode, numbers, scene
from videomae.errors import ConfigError, VideoError
from videomae.video import live
from videomae.video.live import LiveVideo


@pytest.fixture
def served() -> Iterator[tuple[dict[str, bytes], str]]:
    """What is served, by name, and the address of it."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path.lstrip("/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield files, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def stream(tmp_path: Path, first: int = 0) -> bytes:
    """A transport stream of 60 numbered frames, 25 a second, that begins at frame `first`."""
    times = range(first, first + 60)
    return encode(tmp_path / "x.ts", scene(60), codec="mpeg2video", times=times).read_bytes()


def test_frames_come_with_their_times_and_so_many_apart(
    served: tuple[dict[str, bytes], str], tmp_path: Path
) -> None:
    files, address = served
    files["x.ts"] = stream(tmp_path)
    with LiveVideo(f"{address}/x.ts") as video:
        assert video.fps == 25
        found = list(video.frames(0.2))
    assert [numbers(frame[None])[0] for _, frame in found] == list(range(0, 60, 5))
    assert [seconds for seconds, _ in found] == pytest.approx([0.2 * k for k in range(12)])


def test_a_clock_that_is_set_anew_does_not_stop_the_frames(
    served: tuple[dict[str, bytes], str], tmp_path: Path
) -> None:
    files, address = served
    files["x.ts"] = stream(tmp_path, first=25 * 100) + stream(tmp_path)
    with LiveVideo(f"{address}/x.ts") as video:
        found = list(video.frames(0.2))
    assert len(found) == 24
    assert [seconds for seconds, _ in found] == pytest.approx([0.2 * k for k in range(24)])


def test_a_playlist_cannot_name_files_of_this_machine(
    served: tuple[dict[str, bytes], str], tmp_path: Path
) -> None:
    files, address = served
    stream(tmp_path)
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\n"
    files["list.m3u8"] = f"{head}file://{tmp_path}/x.ts\n#EXT-X-ENDLIST\n".encode()
    with pytest.raises(VideoError, match=r"list\.m3u8: (cannot be opened|holds no video)"):
        LiveVideo(f"{address}/list.m3u8")


def test_a_playlist_of_streams_is_read(
    served: tuple[dict[str, bytes], str], tmp_path: Path
) -> None:
    files, address = served
    files["x.ts"] = stream(tmp_path)
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\n"
    files["list.m3u8"] = f"{head}x.ts\n#EXT-X-ENDLIST\n".encode()
    with LiveVideo(f"{address}/list.m3u8") as video:
        assert len(list(video.frames(0.2))) == 12


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (
            "file:///etc/passwd",
            ConfigError,
            "file:///etc/passwd: is neither the number of a",
        ),
        (
            "x.mp4",
            ConfigError,
            "x.mp4: is neither the number of a camera nor the address",
        ),
        ("987654", VideoError, "camera 987654: there is no /dev/video987654; `ls /dev/video"),
        ("http://127.0.0.1:1/x", VideoError, "http://127.0.0.1:1/x: cannot be opened (Connection"),
    ],
)
def test_what_cannot_be_opened_is_explained(
    where: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        LiveVideo(where)
    assert str(raised.value).startswith(message)


def test_pictures_that_grow_beyond_the_limit_end_the_stream(
    served: tuple[dict[str, bytes], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, address = served
    large = encode(tmp_path / "l.ts", scene(30, height=480, width=640), codec="mpeg2video")
    files["x.ts"] = stream(tmp_path) + large.read_bytes()
    monkeypatch.setattr(live, "VideoLimits", lambda: SimpleNamespace(max_pixels=100_000))
    with LiveVideo(f"{address}/x.ts") as video:
        frames = video.frames(0.2)
        assert next(frames)[1].shape == (48, 64, 3)
        with pytest.raises(VideoError, match="broke off"):
            list(frames)
