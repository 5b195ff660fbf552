"""Pieces of a web page: what is escaped, where curves and ticks lie."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomae.report.html import (
    animation,
    animation_row,
    bar,
    chart,
    document,
    facts,
    folded,
    picture,
    score_list,
    score_table,
    split_bar,
    table,
    tick_step,
)
from videomae.report.pictures import save_picture


def test_an_animation_carries_its_pictures_and_words() -> None:
    frames = np.zeros((3, 6, 8, 3), np.uint8)
    text = animation(frames, 'a "quoted" <clip>', fps=8)
    assert 'width="8" height="6" alt="a &quot;quoted&quot; &lt;clip&gt;"' in text
    assert 'src="data:image/gif;base64,R0lGOD' in text  # GIF8
    assert 'reduce)" srcset="data:image/png;base64,iVBOR' in text  # \x89PNG
    row = animation_row({"<1>": (frames, "one"), "2": (frames, "two")}, fps=8)
    assert row.count("<img") == 2
    assert "<figcaption>&lt;1&gt;</figcaption>" in row


def test_a_small_picture_is_embedded_as_it_is(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", np.zeros((6, 8, 3), np.uint8))
    data = base64.b64encode(path.read_bytes()).decode()
    assert picture(path, "<a>") == (
        f'<img src="data:image/png;base64,{data}" width="8" height="6" alt="&lt;a&gt;">'
    )


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 3200, 3), np.uint8)
    text = picture(save_picture(tmp_path / "a.png", noise), "")
    found = re.fullmatch(
        r'<img src="data:image/webp;base64,(.*)" width="1600" height="300" alt="">', text
    )
    assert found
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as image:
        assert image.size == (1600, 300)
    assert len(text) < 600_000


def test_a_broken_picture_raises(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", np.zeros((60, 80, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises((OSError, SyntaxError)):
        picture(path, "")


def test_scores_are_bars_with_their_numbers_beside() -> None:
    assert 'style="width:25.0%"' in bar(0.25)
    text = score_list({"a&b": 0.75, "c": 0.25})
    assert re.findall(r"<span>(.*?)</span>", text) == ["a&amp;b", "75%", "c", "25%"]
    wide = score_table({"a&b": 0.75})
    assert '<th scope="row">a&amp;b</th>' in wide
    assert "<td>75%</td>" in wide


def test_a_split_bar_has_a_colour_a_share_and_a_figure_for_each_part() -> None:
    text = split_bar({"<data>": 5.0, "forward": 123.456}, unit="ms")
    assert re.findall(r'<i class="(\w+)" style="flex:([\d.]+)">', text) == [
        ("first", "5.0000"),
        ("second", "123.4560"),
    ]
    assert '<span class="first">&lt;data&gt; <b>5 ms</b></span>' in text
    assert '<span class="second">forward <b>123 ms</b></span>' in text


def test_facts_and_folds_escape_what_they_are_given() -> None:
    assert facts({"<a>": "1 & 2"}) == (
        '<dl class="facts"><div><dt>&lt;a&gt;</dt><dd>1 &amp; 2</dd></div></dl>'
    )
    assert folded("a < b", "<p>c</p>") == ("<details><summary>a &lt; b</summary><p>c</p></details>")


def test_a_table_escapes_its_cells() -> None:
    text = table(("file", "score"), [("<a>", "1"), ("b", "2")])
    assert re.findall(r"<t[hd](?: .*?)?>(.*?)</t[hd]>", text) == [
        "file",
        "score",
        "&lt;a&gt;",
        "1",
        "b",
        "2",
    ]


def test_a_chart_puts_points_where_they_belong() -> None:
    # The y axis runs from 1 to 3, in the picture from 210 up to 14; x from 44 to 468.
    text = chart({"<loss>": ([5, 10], [3.0, 1.0])}, what="Loss", marks={"middle": 2.0})
    assert '<polyline class="curve first" points="256.0,14.0 468.0,210.0"/>' in text
    assert '<polyline class="mark" points="44.0,112.0 468.0,112.0"/>' in text
    assert 'aria-label="Loss. &lt;loss&gt;: from 3.00 to 1.00; middle: 2.00."' in text
    assert re.findall(r">([\d.]+)</text>", text) == [
        "1.0",
        "1.5",
        "2.0",
        "2.5",
        "3.0",
        "0",
        "5",
        "10",
    ]


def test_a_chart_of_a_single_point_shows_a_dot() -> None:
    text = chart({"a": ([1], [2.0])}, what="Loss", marks={"same": 2.0})
    assert '<circle class="first" cx="468.0"' in text
    assert "nan" not in text


def test_tiny_and_huge_numbers_are_charted_in_powers_of_ten() -> None:
    text = chart({"": ([1, 3], [2e-4, 1e-4])}, what="Rate", marks={"least": 1e-4})
    assert "<figcaption>Rate, in 10⁻⁴</figcaption>" in text
    assert "Rate, in 10⁻⁴. from 2.00 to 1.00; least: 1.00." in text
    assert 'points="185.3,14.0 468.0,210.0"' in text
    assert '<p class="keys"></p>' in text  # an unnamed curve needs none
    assert "in 10⁴" in chart({"": ([1], [25_000.0])}, what="Norm", marks={})
    assert "in 10" not in chart({"": ([1], [0.0])}, what="Nothing", marks={})


def test_steps_below_a_chart_are_whole() -> None:
    text = chart({"a": ([1, 5], [0.0, 1.0])}, what="Loss", marks={})
    assert '<text x="213.6" y="232.0" text-anchor="middle">2</text>' in text
    single = chart({"a": ([1], [1.0])}, what="Loss", marks={})
    assert re.findall(r'y="232.0" text-anchor="\w+">(\d)<', single) == ["0", "1"]
    assert ">100,000</text>" in chart({"a": ([100_000], [1.0])}, what="Loss", marks={})


@pytest.mark.parametrize(("span", "step"), [(0.37, 0.1), (2.4, 0.5), (5, 1), (0.0, 0.0002)])
def test_ticks_are_round(span: float, step: float) -> None:
    assert tick_step(span) == step


def test_a_document_escapes_its_title_and_forbids_requests() -> None:
    text = document("a < b", ["<p>one</p>", "<p>two</p>"])
    assert "<title>a &lt; b</title>" in text
    assert "<p>one</p><p>two</p>" in text
    assert "default-src 'none'; img-src data:" in text
