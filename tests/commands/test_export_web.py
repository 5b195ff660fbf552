"""The page of `export --format web` in a real browser: Debian's chromium, else all is skipped."""

import contextlib
import functools
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from videomae import classify
from videomae.commands import export as command
from videomae.commands.flags import Export
from videomae.config import VideoMAEConfig
from videomae.processing.views import ViewMaker, find_processor
from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("onnxruntime")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
]
# In place of the runtime: keeps what the model is given, and answers that it is the third class.
STUB = """
export const env = { wasm: {} };
export class Tensor { constructor(_, data, dims) { Object.assign(this, { data, dims }); } }
const run = async ({ pixel_values }) => {
  globalThis.given = pixel_values;
  return { logits: { data: Float32Array.from({ length: 20 }, (_, k) => 5 * (k === 2)) } };
};
export const InferenceSession = { create: async () => ({ run }) };
"""


@pytest.fixture(scope="module")
def page_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "page"
    written = command.export(Export("actions-tiny", format="web", output=folder, check_clips=2))
    assert written.facts["dtype"] == "int8"
    (folder / "ort").mkdir()
    (folder / "ort" / "ort.wasm.bundle.min.mjs").write_text(STUB)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "slide.mp4"
    return write_video(path, render_clip("sit_down", seed=3, size=96, num_frames=45))


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def opened(folder: Path, *arguments: str, **options: Any) -> Iterator[Any]:
    """The page in a browser; it must ask nobody else and log no error of its script."""
    asked: list[str] = []
    errors: list[str] = []
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://localhost:{server.server_port}/"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *arguments]
        )
        page = browser.new_page(**options)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        status(page, r"The model is here: 2\.\d MB")
        yield page
        browser.close()
    server.shutdown()
    server.server_close()
    assert asked
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    assert errors == []


def status(page: Any, words: str) -> None:
    sync_api.expect(page.locator("#status")).to_contain_text(re.compile(words), timeout=90_000)


def pixels_of(path: Path) -> Any:
    config = VideoMAEConfig.from_pretrained("actions-tiny")
    return ViewMaker(config, find_processor("actions-tiny", config))(path).numpy()


def test_the_model_gets_the_pixels_of_the_command(page_dir: Path, video: Path) -> None:
    with opened(page_dir, color_scheme="dark", viewport={"width": 390, "height": 844}) as page:
        page.set_input_files("#file", video)
        status(page, r"16 of 45 frames, 30 a second; \d+ ms for the model")
        given = page.evaluate("({ data: [...given.data], dims: given.dims })")
        expected = pixels_of(video)
        assert given["dims"] == list(expected.shape)
        difference = np.abs(np.array(given["data"]).reshape(expected.shape) - expected)
        # A level of 255 is 0.017 here; colours of a video are decoded by another library.
        assert difference.mean() < 0.05
        assert page.locator("#scores li").first.inner_text().startswith("climb up")
        assert page.locator("#frames img").count() == 16
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground)[:3])) < 64


def test_what_is_no_video_is_explained(page_dir: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    with opened(page_dir) as page:
        page.set_input_files("#file", text)
        status(page, "notes.txt cannot be played by this browser; give it an mp4 or webm file")


def test_a_camera_is_watched_until_it_is_stopped(page_dir: Path, tmp_path: Path) -> None:
    film = tmp_path / "camera.mjpeg"
    with av.open(film, "w", format="mjpeg") as output:
        stream: Any = output.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuvj420p"
        for frame in render_clip("walk", seed=1, size=128):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        output.mux(stream.encode())
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with opened(
        page_dir, *fake, f"--use-file-for-fake-video-capture={film}", permissions=["camera"]
    ) as page:
        page.click("#camera")
        status(page, r"The last 31 frames of the camera; \d+ ms")
        assert page.locator("#frames img").count() == 16
        assert np.std(page.evaluate("[...given.data]")) > 0.1
        page.click("#camera")
        status(page, "The camera is off")
        assert page.locator("#invite").is_visible()


def test_a_page_without_its_runtime_says_what_to_do(page_dir: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(page_dir, bare, ignore=shutil.ignore_patterns("ort"))
    with pytest.raises(AssertionError, match="was npm install run"), opened(bare):
        pass


@pytest.mark.network
def test_the_real_runtime_gives_the_scores_of_the_command(page_dir: Path, video: Path) -> None:
    subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=page_dir, check=True)
    with opened(page_dir) as page:
        page.set_input_files("#file", video)
        status(page, "for the model")
        found = page.evaluate(
            "[...document.querySelectorAll('#scores li')]"
            ".map((e) => [e.firstChild.textContent, Number(e.dataset.score)])"
        )
    expected = classify(video, engine="torch", dtype="float32", top_k=20)
    scores = dict(zip(expected.labels, expected.scores, strict=True))
    assert found[0][0].replace(" ", "_") == expected.labels[0]
    for name, score in found:
        assert score == pytest.approx(scores[name.replace(" ", "_")], abs=0.03)
