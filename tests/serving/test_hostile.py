"""Uploads that mean no good: each gets its 4xx, and the service goes on."""

import io
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from videomae.video.writer import write_video


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**8))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/secret.ts\n", 415),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%PDF-1.7 and so on", 415),
        (zip_bomb(), 415),
        (bytes(1000), 415),
    ],
    ids=["empty", "playlist", "concat", "svg", "pdf", "zip bomb", "zeros"],
)
def test_what_is_no_video_is_refused(content: bytes, status: int, address: str) -> None:
    answer = httpx.post(f"{address}/v1/classify", files={"file": content}, timeout=60)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert httpx.get(f"{address}/readyz").status_code == 200


def test_a_video_that_is_cut_off_is_refused(address: str, videos_dir: Path) -> None:
    content = (videos_dir / "throw" / "0.mp4").read_bytes()
    answer = httpx.post(f"{address}/v1/classify", files={"file": content[: len(content) // 2]})
    assert answer.status_code in (415, 422)
    assert httpx.get(f"{address}/readyz").status_code == 200


def test_frames_that_are_too_large_are_refused(hasty_address: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", np.zeros((4, 64, 64, 3), np.uint8), fps=4)
    url, files = f"{hasty_address}/v1/classify", {"file": ("a.mp4", video.read_bytes())}
    answer = httpx.post(url, files=files, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "a.mp4: its frames have 4,096 pixels, above the limit of 1,000"
    )


def test_two_gigabytes_are_refused_by_their_length(address: str) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2**31 // 2**16):
            sent += 2**16
            yield bytes(2**16)

    headers = {"content-length": str(2**31), "content-type": "multipart/form-data; boundary=x"}
    start = time.monotonic()
    try:
        answer = httpx.post(f"{address}/v1/classify", content=body(), headers=headers, timeout=60)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the connection was closed while the client still sent
    assert sent < 2**28
    assert time.monotonic() - start < 30
    assert httpx.get(f"{address}/readyz").status_code == 200


def raw(address: str, length: str) -> socket.socket:
    """A connection on which the head of a request was sent."""
    place = urlsplit(address)
    connection = socket.create_connection((place.hostname, place.port), timeout=30)
    head = "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x"
    connection.sendall(f"{head}\r\n{length}\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize(
    ("length", "frame"),
    [("Content-Length: 5000", lambda part: part),
     ("Transfer-Encoding: chunked", lambda part: b"%x\r\n%b\r\n" % (len(part), part))],
    ids=["of a length", "chunked"],
)  # fmt: skip
def test_a_slow_upload_ends_after_the_time_of_a_request(
    length: str, frame: Callable[[bytes], bytes], hasty_address: str
) -> None:
    with raw(hasty_address, length) as connection:
        start = time.monotonic()
        answer = b""
        connection.settimeout(0.2)
        while not answer and time.monotonic() - start < 20:
            connection.sendall(frame(b"--x"))
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 1.5 < time.monotonic() - start < 10


def test_a_chunked_upload_without_end_is_refused(address: str) -> None:
    with raw(address, "Transfer-Encoding: chunked") as connection:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        part = head + bytes(2**16)
        try:
            for _ in range(100):
                connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        except ConnectionError:
            pass
        else:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert httpx.get(f"{address}/readyz").status_code == 200
