"""Pieces of a web page: what is escaped, where curves and ticks lie."""

import re

import numpy as np
import pytest

from videomae.webpage import (
    animation,
    animation_row,
    bar,
    chart,
    document,
    score_list,
    score_table,
    table,
    tick_step,
)


def test_an_animation_carries_its_pictures_and_words() -> None:
    frames = np.zeros((3, 6, 8, 3), np.uint8)
    text = animation(frames, 'a "quoted" <clip>', fps=8)
    assert 'width="8" height="6" alt="a &quot;quoted&quot; &lt;clip&gt;"' in text
    assert 'src="data:image/gif;base64,R0lGOD' in text  # GIF8
    assert 'reduce)" srcset="data:image/png;base64,iVBOR' in text  # \x89PNG
    row = animation_row({"<1>": (frames, "one"), "2": (frames, "two")}, fps=8)
    assert row.count("<img") == 2
    assert "<figcaption>&lt;1&gt;</figcaption>" in row


def test_scores_are_bars_with_their_numbers_beside() -> None:
    assert 'style="width:25.0%"' in bar(0.25)
    text = score_list({"a&b": 0.75, "c": 0.25})
    assert re.findall(r"<span>(.*?)</span>", text) == ["a&amp;b", "75%", "c", "25%"]
    wide = score_table({"a&b": 0.75})
    assert '<th scope="row">a&amp;b</th>' in wide
    assert "<td>75%</td>" in wide


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


@pytest.mark.parametrize(("span", "step"), [(0.37, 0.1), (2.4, 0.5), (5, 1), (0.0, 0.0002)])
def test_ticks_are_round(span: float, step: float) -> None:
    assert tick_step(span) == step


def test_a_document_escapes_its_title_and_forbids_requests() -> None:
    text = document("a < b", ["<p>one</p>", "<p>two</p>"])
    assert "<title>a &lt; b</title>" in text
    assert "<p>one</p><p>two</p>" in text
    assert "default-src 'none'; img-src data:" in text
