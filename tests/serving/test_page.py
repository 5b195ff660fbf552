"""The page in a real browser: Debian's chromium, or none and then these tests are skipped."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
]
SIZES = {"desktop": {"width": 1200, "height": 850}, "telephone": {"width": 390, "height": 844}}


@contextlib.contextmanager
def opened(address: str, size: str = "desktop", **options: Any) -> Iterator[Any]:
    """The page in a browser; it must ask nobody else and log no error of its script."""
    asked: list[str] = []
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        page = browser.new_page(viewport=SIZES[size], **options)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
    assert asked
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    assert errors == []


def test_a_chosen_video_gets_labels_bars_and_frames(address: str, videos_dir: Path) -> None:
    with opened(address) as page:
        page.set_input_files("#file", videos_dir / "walk" / "1.mp4")
        page.wait_for_selector("#scores li")
        rows = page.locator("#scores li").all_inner_texts()
        assert len(rows) == 5
        shares = [int(found[1]) for row in rows if (found := re.search(r"(\d+) %", row))]
        assert shares == sorted(shares, reverse=True)
        assert page.locator("#frames img").count() == 16
        assert page.locator("#status").inner_text() == "16 of 8 frames, 24 × 24 px"
        # The whole of the video is in the frame, and nothing that is hidden shows.
        frame, video = (page.locator(name).bounding_box() for name in ("#drop", "#preview"))
        assert video["height"] <= frame["height"]
        assert video["width"] <= frame["width"]
        hidden = page.locator("[hidden]").evaluate_all("all => all.map(each => each.offsetHeight)")
        assert hidden
        assert not any(hidden)


def test_an_example_is_named_right_and_reconstructed(address: str) -> None:
    with opened(address, "telephone", color_scheme="dark") as page:
        page.click("text=Example: sit down")
        page.wait_for_selector("#scores li")
        assert page.locator("#scores li").first.inner_text().startswith("sit down")
        page.click("#tab-reconstruct")
        page.wait_for_selector("#clip:not([hidden])")
        first = page.get_attribute("#clip", "src")
        page.locator("#ratio").fill("0.5")
        sync_api.expect(page.locator("#clip")).not_to_have_attribute("src", first, timeout=30_000)
        assert page.locator("#share").inner_text() == "50 %"
        # Nothing is wider than the screen, and the ground is dark.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground)[:3])) < 64


def test_what_is_no_video_or_too_large_is_explained(address: str, tmp_path: Path) -> None:
    text, large = tmp_path / "notes.txt", tmp_path / "large.mp4"
    text.write_text("no video")
    large.write_bytes(bytes(3_000_000))
    with opened(address) as page:
        page.set_input_files("#file", text)
        page.wait_for_selector("#status.wrong")
        assert "notes.txt: cannot be opened as a video" in page.locator("#status").inner_text()
        page.set_input_files("#file", large)
        expected = "large.mp4 has 3.0 MB; at most 1 MB are taken here"
        sync_api.expect(page.locator("#status")).to_have_text(expected)


def test_a_recording_is_looked_at(address: str) -> None:
    with opened(address, permissions=["camera"]) as page:
        page.click("#record")
        page.wait_for_selector("#scores li", timeout=60_000)
        assert "px" in page.locator("#status").inner_text()


def test_the_keyboard_reaches_everything(address: str) -> None:
    with opened(address) as page:
        page.focus("#tab-classify")
        page.keyboard.press("ArrowRight")
        assert page.locator("#reconstruct").is_visible()
        page.keyboard.press("ArrowRight")
        assert page.locator("#about").is_visible()
        assert "1.2 million" in page.locator("#about").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.get_attribute("#tab-classify", "aria-selected") == "true"
        page.focus("#file")
        assert page.evaluate("document.activeElement.id") == "file"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "example"
        page.keyboard.press("Enter")
        page.wait_for_selector("#scores li")


def test_values_of_a_regression_have_no_bars(regression_address: str, videos_dir: Path) -> None:
    with opened(regression_address) as page:
        page.set_input_files("#file", videos_dir / "walk" / "1.mp4")
        page.wait_for_selector("#scores li")
        assert page.locator("#scores .bar").count() == 0
        assert "%" not in page.locator("#scores").inner_text()
