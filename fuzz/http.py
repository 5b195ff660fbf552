"""Hostile requests to a running `videomae serve`, byte by byte.

    python -m fuzz.http --output /tmp/http                   # 2,000 requests, some minutes

Eight clients at once send forms with odd fields, names and damaged videos; heads and chunks that
are no HTTP, or HTTP that two servers read in two ways; ranges and paths of files that are not
theirs; connections that are cut, reset, or send a byte now and then. Each gets an answer below 500
or a closed connection, in time. After every hundred the service must be ready and classify a good
video. In the end it must stop with 0 on SIGTERM, have left no file of an upload, and have logged no
traceback. What schemathesis draws from the OpenAPI description: tests/serving/test_contract.py.
"""

import argparse
import contextlib
import http.client
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.serving import memory_mb
from fuzz.videos import Seed, make, make_seeds
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

_LIMIT_SECONDS = 60  # of one request; the service gives up after 10
_END = b"\r\n\r\n"


class Sent(NamedTuple):
    """Bytes to send, in pieces; how the connection ends, and the pause after each piece."""

    pieces: list[bytes]
    cut: bool = False
    reset: bool = False
    pause_seconds: float = 0.0


def form(rng: random.Random, content: bytes) -> tuple[bytes, bytes]:
    """The kind and the body of an upload, mostly right."""
    boundary = rng.choice([b"x", b"x", b"x", b"-" * 70, b"a b", b"x" * 300])
    names = [
        b"a.mp4",
        b"../../a.mp4",
        b"/etc/passwd",
        b"\0.mp4",
        b"a" * 5000,
        "ü\u202e.mp4".encode(),
    ]
    numbers = [b"1", b"3", b"-1", b"0", b"nan", b"1e9", b"9" * 5000, b"", b"x", b"\xff", b"0x10"]
    fields = [b"top_k", b"num_clips", b"num_crops", b"features", b"mask_ratio", b"seed", b"zz"]
    head = b'Content-Disposition: form-data; name="%b"'
    parts = [
        (head % b"file") + b'; filename="%b"' % rng.choice(names) + _END + content,
        *(
            (head % rng.choice(fields)) + _END + rng.choice(numbers)
            for _ in range(rng.choice([0, 1, 2, 30]))
        ),
    ]
    if rng.random() < 0.2:
        parts.append(rng.choice([head % b"file" + _END + b"text", b"", b"\xff\xff", head * 200]))
    rng.shuffle(parts)
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    return b"multipart/form-data; boundary=" + boundary, body + b"--%b--\r\n" % boundary


def request(rng: random.Random, content: bytes, *, headers: bytes = b"") -> bytes:
    kind, body = form(rng, content)
    job = rng.choice([b"classify", b"classify", b"embed", b"reconstruct"])
    head = b"POST /v1/%b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
    return head % (job, kind, len(body)) + headers + b"Connection: close\r\n\r\n" + body


def uploads(rng: random.Random, content: bytes) -> Sent:
    return Sent([request(rng, content)])


def heads(rng: random.Random, content: bytes) -> Sent:
    """Lines and headers that are wrong."""
    lines = [
        *(
            b"GET / HTTP/1.1",
            b"G\0T / HTTP/1.1",
            b"GET /",
            b"PRI * HTTP/2.0",
            b"\x16\x03\x01\x02\0",
        ),
        *(b"POST /v1/classify HTTP/9.9", b"TRACE / HTTP/1.1", b"CONNECT a:1 HTTP/1.1"),
        *(b"OPTIONS * HTTP/1.1", b"GET http://a/v1/model HTTP/1.1", b"GET /" + b"a" * 70_000),
        *(b"DELETE /v1/model HTTP/1.1", b"HEAD /v1/model HTTP/1.1", b"POST /v1/model HTTP/1.1"),
    ]
    lengths = [b"-1", b"abc", b"5, 6", b"9" * 30, b"+5", b"0x5", b"", b"99999999999", "٥".encode()]
    codings = [b"gzip", b"chunked, chunked", b"\x0bchunked", b"x" * 99]
    kinds = [b"multipart/form-data", b"multipart/form-data; boundary=", b"\xff"]
    headers = [
        b"Content-Length: " + rng.choice(lengths),
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: " + rng.choice(codings),
        b"Content-Type: " + rng.choice(kinds),
        b"Authorization: " + rng.choice([b"Bearer", b"Bearer \xff\xfe", b"Basic " + b"a" * 9000]),
        b"Expect: " + rng.choice([b"100-continue", b"magic"]),
        b"X: " + b"a" * rng.choice([10, 70_000]),
        b"\r\n".join(b"X-%d: a" % number for number in range(rng.choice([5, 3000]))),
        b" folded: a",
        b"no colon",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a",
        b"Origin: null\r\nAccess-Control-Request-Method: POST",
    ]
    chosen = rng.sample(headers, rng.choice([1, 2, 3]))
    head = b"\r\n".join([rng.choice(lines), b"Host: x", *chosen])
    return Sent([head + _END + content[: rng.choice([0, 5, 5000])]], cut=True)


def chunks(rng: random.Random, content: bytes) -> Sent:
    """An upload in chunks, some of a wrong size."""
    kind, body = form(rng, content)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    pieces = [head + b"Transfer-Encoding: chunked\r\nContent-Type: " + kind + _END]
    while body:
        size = rng.choice([1, 100, 5000])
        piece, body = body[:size], body[size:]
        named = b"%x" % len(piece)
        if rng.random() < 0.02:
            named = rng.choice([b"-1", b"zz", b"f" * 20, b"5;" + b"a" * 9000, b""])
        pieces.append(named + b"\r\n" + piece + b"\r\n")
    pieces = pieces[:200]
    return Sent([*pieces, b"0\r\n\r\n"])


def files(rng: random.Random, _: bytes) -> Sent:
    """Paths that lead elsewhere, and ranges."""
    places = [
        *(
            b"/../../../../etc/passwd",
            b"/%2e%2e/%2e%2e/etc/passwd",
            b"//etc/passwd",
            b"/..%5c..%5cx",
        ),
        *(b"/static/../../app.py", b"/examples/0.mp4", b"/examples/..%2f..%2fetc/passwd", b"/%00"),
        *(b"/%ff%fe", b"/openapi.json", b"/metrics", b"/", b"/readyz?" + b"a=" * 9000, b"/?x=%"),
    ]
    ranges = [
        *(b"bytes=0-0", b"bytes=-1", b"bytes=99999999999-", b"bytes=5-1", b"bytes=a-b", b"bytes="),
        *(b"lines=1-2", b"bytes=" + b",".join([b"0-"] * 2000), b"bytes=0-" + b"9" * 400),
    ]
    head = b"GET %b HTTP/1.1\r\nHost: x\r\nRange: %b\r\nConnection: close\r\n\r\n"
    return Sent([head % (rng.choice(places), rng.choice(ranges))])


def cuts(rng: random.Random, content: bytes) -> Sent:
    """Connections that end in the middle, or as soon as all is sent."""
    whole = request(rng, content)
    end = rng.choice([rng.randrange(len(whole)), len(whole)])
    return Sent([whole[:end]], cut=True, reset=rng.random() < 0.5)


def slow(rng: random.Random, content: bytes) -> Sent:
    """A few bytes now and then, for longer than a request may take."""
    whole = request(rng, content)
    start = rng.randrange(min(len(whole), 1000))
    pieces = [whole[k : k + 3] for k in range(start, len(whole), 3)][:100]
    return Sent([whole[:start], *pieces], cut=True, pause_seconds=0.15)


def pipelines(rng: random.Random, content: bytes) -> Sent:
    """Several requests on one connection, the next one before the answer."""
    one = b"GET /v1/model HTTP/1.1\r\nHost: x\r\n\r\n"
    return Sent([one * rng.choice([2, 20]) + request(rng, content)])


Kind = Callable[[random.Random, bytes], Sent]
_OFTEN: list[Kind] = [uploads, uploads, uploads, heads, heads, chunks, files, cuts, pipelines]
KINDS: list[Kind] = [*_OFTEN * 8, slow]


def ask(port: int, sent: Sent) -> bytes:
    """Send, and read the answer to its end; b"" where the connection was closed without one."""
    answer, end = b"", time.monotonic() + _LIMIT_SECONDS
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), timeout=_LIMIT_SECONDS) as connection,
    ):
        for piece in sent.pieces:
            connection.sendall(piece)
            time.sleep(sent.pause_seconds)
        if sent.reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return answer
        if sent.cut:
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(2**16):
            answer += part
            assert time.monotonic() < end, "the answer has no end"
    return answer


def outcome(port: int, kind: str, sent: Sent) -> str:
    """What came of a request: statuses, or "closed"; or "FAILED" and why."""
    try:
        answer = ask(port, sent)
    except (TimeoutError, AssertionError) as error:
        return f"FAILED {kind}: no end in {_LIMIT_SECONDS} s ({error})"
    statuses = [int(found) for found in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)]
    if any(status >= 500 for status in statuses):
        return f"FAILED {kind}: {answer[:300]!r}"
    if b"root:x:" in answer or b"Traceback" in answer:
        return f"FAILED {kind}: the answer holds what it must not: {answer[:300]!r}"
    return str(statuses[-1]) if statuses else "closed"


@contextlib.contextmanager
def service(output: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A service that decodes in two processes, refuses after 10 s and keeps uploads in a folder."""
    temporary, log_path = output / "uploads", output / "service.log"
    temporary.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    limits = ["--max-request-seconds", "10", "--max-upload-mb", "5", "--decoders", "2"]
    command = [sys.executable, "-m", "videomae", "serve", "--port", str(port), *limits]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "TMPDIR": str(temporary)}, stdout=log, stderr=log
        )
        try:
            while not is_ready(port):
                assert process.poll() is None, log_path.read_text()
                time.sleep(0.2)
            yield process, port
        finally:
            process.terminate()
            process.wait(60)


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def good_upload(content: bytes) -> Sent:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    body = head + content + b"\r\n--x--\r\n"
    line = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d" % len(body)
    return Sent([line + kind + _END + body])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    output: Path = options.output
    seeds = make_seeds(output / "seeds")
    good = write_video(output / "good.mp4", render_clip("throw", seed=0, num_frames=20), fps=16)
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    most_mb = 0.0
    with service(output) as (process, port), ThreadPoolExecutor(8) as clients:
        for first in range(0, options.cases, 100):
            numbers = range(first, min(first + 100, options.cases))
            drawn = [draw(seeds, f"{options.seed} {number}", output) for number in numbers]
            asked = [clients.submit(outcome, port, kind, sent) for kind, sent in drawn]
            found = [each.result() for each in asked]
            counts.update((kind, text[:6]) for (kind, _), text in zip(drawn, found, strict=True))
            found.append(outcome(port, "good", good_upload(good.read_bytes())))
            failures += [text for text in found if text.startswith("FAILED")]
            if found[-1] != "200" or not is_ready(port):
                failures.append(f"FAILED after {numbers.stop}: a good video gets {found[-1]}")
            most_mb = max(most_mb, memory_mb(process))
    log = (output / "service.log").read_text(errors="replace")
    if process.returncode or "Traceback" in log:
        failures.append(f"FAILED: ended with {process.returncode}, its log: {log[-2000:]}")
    if left := [str(path) for path in (output / "uploads").glob("videomae-*")]:
        failures.append(f"FAILED: left behind {left[:3]}")
    print(table(counts))
    print(f"\nmost memory of all its processes: {most_mb:,.0f} MB; failures: {len(failures)}")
    print(*failures[:20], sep="\n", file=sys.stderr)
    return int(bool(failures))


def draw(seeds: list[Seed], seed: str, output: Path) -> tuple[str, Sent]:
    """The kind of a request and its bytes; a quarter of the uploads are no video at all."""
    rng, folder = random.Random(seed), output / "drawn"
    folder.mkdir(exist_ok=True)
    make(seeds, rng, folder)
    (path,) = folder.iterdir()
    content = path.read_bytes() if rng.random() < 0.75 else rng.randbytes(rng.choice([0, 9, 9000]))
    path.unlink()
    kind = rng.choice(KINDS)
    return kind.__name__, kind(rng, content)


def table(counts: Counter[tuple[str, str]]) -> str:
    outcomes = sorted({text for _, text in counts})
    rows = [["request", *outcomes], ["---", *["---:"] * len(outcomes)]]
    for kind in dict.fromkeys(kind.__name__ for kind in KINDS):
        rows.append([kind, *(f"{counts[kind, text]:,}" for text in outcomes)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
