"""The service as a process: how it starts, and how it ends."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

import httpx
import pytest

from videomae.commands.serve import serve as run
from videomae.errors import ConfigError
from videomae.serving.settings import ServeSettings

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "videomae", "serve", "--device", "cpu", "--decoders", "2"]
Started = tuple[subprocess.Popen[str], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start services, and stop what is left of them."""
    running: list[subprocess.Popen[str]] = []

    def serve(*options: str) -> Started:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        running.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"HTTP (http://\S+)/v1/", line):
                wait_until(lambda url=f"{found[1]}/readyz": httpx.get(url).status_code == 200)
                return process, found[1]
        raise AssertionError(f"the service ended with {process.wait()}")

    yield serve
    for process in running:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if is_so():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"not so after {seconds} s")


@pytest.mark.slow
def test_sigterm_answers_what_was_accepted_and_ends_well(
    serve: Callable[..., Started], videos_dir: Path, tmp_path: Path
) -> None:
    # Clips wait three seconds for others, so that there is something to answer.
    process, address = serve("--max-wait-ms", "3000", "--batch-size", "64", "--no-page")
    video = (videos_dir / "throw" / "0.mp4").read_bytes()

    def ask() -> int:
        url = f"{address}/v1/classify"
        return httpx.post(url, files={"file": ("a.mp4", video)}, timeout=60).status_code

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask) for _ in range(6)]
        wait_until(lambda: "queue_length 6.0" in httpx.get(f"{address}/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert [each.result() for each in asked] == [200] * 6
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{address}/readyz")
    assert list(tmp_path.glob("videomae-*")) == []


def test_a_port_that_is_taken_is_named_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True)
    assert ended.returncode == 1
    expected = f"videomae: --port={port} of --host=127.0.0.1 cannot be listened at"
    assert ended.stderr.startswith(expected)
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_sigterm_ends_a_service_that_loads_its_model(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "videomae: loading actions-tiny\n"
    process.terminate()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    assert list(tmp_path.glob("videomae-*")) == []


@pytest.mark.slow
def test_tokens_and_limits_hold_under_a_root_path(
    serve: Callable[..., Started], tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("secret")
    _, address = serve("--root-path", "/below/it", "--tokens", str(tmp_path / "tokens"))
    url = f"{address}/v1/model"  # as a proxy asks, which takes the root path off
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer secret"}).status_code == 200


def test_the_service_is_told_by_an_address_and_ends_after_its_last_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = MagicMock()
    monkeypatch.setattr("videomae.commands.serve._Server", server)
    # Both would hold for the tests to come.
    monkeypatch.setattr("uvicorn.Config", config := MagicMock())
    monkeypatch.setattr("signal.signal", MagicMock())
    settings = ServeSettings(host="::1", port=0, max_request_seconds=99.5, device="cpu")
    assert run(settings) == 0
    server.return_value.run.assert_called_once()
    assert re.search(r"page http://\[::1\]:\d+/, HTTP http://\[::1\]:", capsys.readouterr().err)
    assert config.call_args.kwargs["timeout_graceful_shutdown"] > settings.max_request_seconds


@pytest.mark.parametrize("root_path", ["videomae", "/videomae/", "/", "/a b"])
def test_a_root_path_is_written_like_one(root_path: str) -> None:
    with pytest.raises(ConfigError, match=r"root_path=.* is no path; write it like /videomae"):
        ServeSettings(root_path=root_path)


@pytest.mark.slow
def test_the_documented_requests_work(
    serve: Callable[..., Started],
    videos_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, address = serve()
    shutil.copy(videos_dir / "throw" / "0.mp4", tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "serving.md").read_text().replace("http://127.0.0.1:8000", address)
    (code,) = re.findall(r"^```python .*?\n(.*?)^```$", text, re.M | re.S)
    exec(code, {})
    assert capsys.readouterr().out.strip() in httpx.get(f"{address}/v1/model").json()["labels"]
    lines = re.findall(r"^curl .*$", text, re.M)
    assert len(lines) == 3
    if shutil.which("curl"):
        for line in lines:
            subprocess.run([*shlex.split(line), "--fail", "--silent"], check=True)
        assert (tmp_path / "clip.gif").read_bytes()[:3] == b"GIF"
