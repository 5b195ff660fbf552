"""Web pages: what they hold, what is escaped, what is charted."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videomae.report import html
from videomae.report.html import duration, embed_clip, embed_picture, figure, render
from videomae.report.pictures import save_picture
from videomae.report.plots import COLOURS

Part = Callable[..., str]


@pytest.fixture(scope="module")
def parts() -> dict[str, Part]:
    """The macros of parts.html, by name, white space between tags removed."""
    found = html._TEMPLATES.get_template("parts.html").module

    def tight(macro: Part) -> Part:
        return lambda *values: re.sub(r"\s*\n\s*", "", str(macro(*values)))

    return {name: tight(macro) for name, macro in vars(found).items() if callable(macro)}


def test_a_page_escapes_its_title_and_forbids_requests() -> None:
    text = render("base.html", title="a < b")
    assert "<title>a &lt; b</title>" in text
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in text
    assert ":root { color-scheme: light dark;" in text


def test_a_clip_carries_its_pictures_and_words(parts: dict[str, Part]) -> None:
    frames = np.zeros((3, 6, 8, 3), np.uint8)
    clip = embed_clip(frames, fps=8)
    text = parts["picture"](clip, 'a "quoted" <clip>')
    assert 'width="8" height="6" alt="a &#34;quoted&#34; &lt;clip&gt;"' in text
    assert 'src="data:image/gif;base64,R0lGOD' in text  # GIF8
    assert 'reduce)" srcset="data:image/png;base64,iVBOR' in text  # \x89PNG
    row = parts["clips"]({"<1>": (frames, "one"), "2": (frames, "two")}, 8)
    assert row.count("<img") == 2
    assert "<figcaption>&lt;1&gt;</figcaption>" in row


def test_a_small_picture_is_embedded_as_it_is(parts: dict[str, Part], tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", np.zeros((6, 8, 3), np.uint8))
    data = base64.b64encode(path.read_bytes()).decode()
    assert parts["picture"](embed_picture(path), "<a>") == (
        f'<img src="data:image/png;base64,{data}" width="8" height="6" alt="&lt;a&gt;">'
    )


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 3200, 3), np.uint8)
    made = embed_picture(save_picture(tmp_path / "a.png", noise))
    kind, data = made.address.split(",")
    assert (kind, made.width, made.height) == ("data:image/webp;base64", 1600, 300)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (1600, 300)
    assert len(data) < 600_000


def test_a_ground_that_shows_through_still_does_when_made_smaller(tmp_path: Path) -> None:
    clear = Image.fromarray(np.zeros((300, 3200, 4), np.uint8))
    clear.save(tmp_path / "a.png")
    _, data = embed_picture(tmp_path / "a.png").address.split(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.mode, image.getpixel((3, 3))[3]) == ("RGBA", 0)


@pytest.mark.parametrize("names", [("classify", "reconstruct", "about"), ("reconstruct", "about")])
def test_the_page_of_the_service_shows_its_first_tab(names: tuple[str, ...]) -> None:
    facts = SimpleNamespace(model="m", num_frames=16, labels=[], limits={"max_upload_mb": 9})
    given: dict[str, Any] = {"about": {}, "examples": [], "address": "/"}
    tabs = dict.fromkeys(names, "words")
    text = render("serve.html", facts=facts, tabs=tabs, **given)
    panels = re.findall(r'role="tabpanel" id="(\w+)" aria-labelledby="tab-\w+"( hidden)?', text)
    assert panels == [(name, " hidden" if number else "") for number, name in enumerate(names)]


def test_a_broken_picture_raises(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", np.zeros((60, 80, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises((OSError, SyntaxError)):
        embed_picture(path)


def test_scores_are_bars_with_their_numbers_beside(parts: dict[str, Part]) -> None:
    assert 'style="width: 25.0%"' in parts["bar"](0.25)
    wide = parts["score_table"]({"a&b": 75}, 100)
    assert '<th scope="row">a&amp;b</th>' in wide
    assert "<td>75%</td>" in wide


def test_a_split_bar_has_a_share_and_a_figure_for_each_part(parts: dict[str, Part]) -> None:
    text = parts["split_bar"]("A", {"<data>": 0.005, "unknown": None, "forward": 1.23456})
    assert "<figcaption>A: 1.24 s</figcaption>" in text
    assert re.findall(r'<i style="flex: ([\d.]+)">', text) == ["0.0050", "1.2346"]
    assert "<span>&lt;data&gt; <b>5.00 ms</b></span><span>forward <b>1.23 s</b></span>" in text


def test_facts_tables_and_lists_escape_what_they_are_given(parts: dict[str, Part]) -> None:
    assert parts["facts"]({"<a>": "1 & 2", "unknown": ""}) == (
        '<dl class="facts"><div><dt>&lt;a&gt;</dt><dd>1 &amp; 2</dd></div></dl>'
    )
    text = parts["table"]([("<a>", "1")], ("file", "<score>"))
    cells = ["file", "&lt;score&gt;", "&lt;a&gt;", "1"]
    assert re.findall(r"<t[hd](?: .*?)?>(.*?)</t[hd]>", text) == cells
    assert "<code>&lt;v&gt;</code><br>&lt;b&gt;" in parts["bad_videos"]("T", [("<v>", "<b>")], "f")
    assert [parts["facts"]({"unknown": ""}), parts["table"](())] == ["", ""]


def test_a_chart_names_its_curves_and_levels_and_says_what_it_shows(parts: dict[str, Part]) -> None:
    curves = {"<loss>": ([5, 10], [3.0, 1.0])}
    text = parts["chart"]("Loss", curves, {"middle": 2.0})
    assert 'aria-label="Loss. &lt;loss&gt;: from 3.00 to 1.00. middle: 2.00."' in text
    assert "<figcaption>Loss</figcaption>" in text
    assert "<span>&lt;loss&gt;: 1.00 at the end</span>" in text
    assert '<span class="level">middle: 2.00</span>' in text
    assert text.count("<svg") == 1
    unnamed = parts["chart"]("Rate", {"": ([1, 3], [2e-4, 1e-4])})
    assert 'aria-label="Rate. from 0.000200 to 0.000100."' in unnamed
    assert "<span>" not in unnamed


def test_keys_have_the_colours_of_the_curves() -> None:
    style = (Path(html.__file__).parent / "templates/style.css").read_text(encoding="utf-8")
    names = ("first", "second", "third", "fourth")
    colours = [re.findall(rf"--{name}: (#\w+)", style) for name in names]
    assert colours == [[colour] for colour in COLOURS[:4]]


@pytest.mark.parametrize(
    ("value", "text"), [(0.6, "0.600"), (1.5e-7, "1.50e-07"), (12345.6, "12,346"), (0.0, "0.00")]
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (7.4, "7 s"), (120, "2 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
