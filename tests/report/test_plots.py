"""Charts: the same each time, readable for few and many."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from videomae.errors import ConfigError
from videomae.report import plots


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_curves_are_drawn_the_same_each_time(name: str, tmp_path: Path) -> None:
    series = {"train": ([0, 1, 2], [3.0, 2.0, 1.5]), "val": ([2], [1.6])}
    drawn = [
        plots.plot_curve(
            series, tmp_path / str(k) / name, title="T", xlabel="step", ylabel="loss", log_y=True
        ).read_bytes()
        for k in range(2)
    ]
    assert drawn[0] == drawn[1]
    if name.endswith("png"):
        with Image.open(tmp_path / "0" / name) as image:
            assert image.width == pytest.approx(1024, abs=2)
    else:
        assert b"<svg" in drawn[0]


def test_curves_may_be_empty_or_broken_off(tmp_path: Path) -> None:
    nan = float("nan")
    series: dict[str, tuple[list[float], list[float]]] = {"a": ([], []), "b": ([1, 2], [1, nan])}
    assert plots.plot_curve(series, tmp_path / "a.png").exists()
    with pytest.raises(ConfigError, match="curve 'x' has 2 xs and 1 ys; give pairs"):
        plots.plot_curve({"x": ([1, 2], [1])}, tmp_path / "b.png")
    with pytest.raises(ConfigError, match=r"ends in '.pdf'; name a file that ends in .svg or .png"):
        plots.plot_curve({}, tmp_path / "b.pdf")


def test_curves_show_spreads_and_chosen_ticks(tmp_path: Path) -> None:
    series = {"a": ([100, 1000], [3.0, 5.0]), "b": ([100], [1.0])}
    spreads = {"a": [(2.0, 4.0), (4.5, 6.0)], "b": [(0.5, 1.5)]}
    settings = {"log_x": True, "ticks": [100, 1000]}
    plain = plots.plot_curve(series, tmp_path / "a.svg", **settings).read_text()
    spread = plots.plot_curve(series, tmp_path / "b.svg", spreads=spreads, **settings)
    assert "<!-- 1,000 -->" in plain
    assert "LineCollection" in spread.read_text()
    assert "LineCollection" not in plain


def test_a_level_is_drawn_and_named_beside_a_single_curve(tmp_path: Path) -> None:
    series = {"a": ([1, 2], [30.0, 50.0])}
    plain = plots.plot_curve(series, tmp_path / "a.svg").read_text()
    level = plots.plot_curve(series, tmp_path / "b.svg", levels={"chance": 8.3}).read_text()
    assert "<!-- chance -->" in level
    assert "<!-- a -->" in level
    assert "<!-- a -->" not in plain


def test_a_curve_for_a_page_is_an_svg_with_text_and_nothing_but_its_own() -> None:
    text = plots.curve_svg({"<a>": ([1, 2], [30.0, 50.0]), "b": ([3], [40.0])}, levels=[8.3])
    ElementTree.fromstring(text.replace("xlink:href", "href"))  # well formed
    assert not re.search("http|url|<style|<g id|<a>", text)
    assert [colour in text for colour in plots.COLOURS[:3]] == [True, True, False]
    words = re.findall("<text.*?>(.*?)</text>", text)
    assert words[:3] == ["1", "2", "3"]  # steps are whole
    assert "50" in words
    assert "1e−4" in plots.curve_svg({"": ([1, 3], [2e-4, 1e-4])})
    assert ">400,000<" in plots.curve_svg({"": ([1, 400_000], [2, 1])})


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_charts_have_no_ground_and_colours_that_show_on_black_and_white(
    name: str, tmp_path: Path
) -> None:
    path = plots.plot_curve({"a": ([1, 2], [1, 2])}, tmp_path / name, title="$5", xlabel="x")
    if name.endswith("png"):
        with Image.open(path) as image:
            assert image.getpixel((1, 1))[3] == 0  # type: ignore[index]
    else:
        drawn = path.read_text()
        assert set(re.findall(r": (#\w{6})", drawn)) == {plots._INK, plots.COLOURS[0]}
        texts = re.findall(r'<g id="text_\d+">(.*?)</g>', drawn, flags=re.DOTALL)
        assert len(texts) > 5
        assert all(f"fill: {plots._INK}" in text for text in texts)  # else it would be black

    def luminance(colour: str) -> float:  # WCAG 2.2
        parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        red, green, blue = (((part + 0.055) / 1.055) ** 2.4 for part in parts)  # but near 0
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colour in (plots._INK, *plots.COLOURS[:4]):
        assert 1.05 / (luminance(colour) + 0.05) > 3
        assert (luminance(colour) + 0.05) / (luminance("#131316") + 0.05) > 3


def test_drawing_leaves_pyplot_and_its_global_figures_alone(tmp_path: Path) -> None:
    code = f"""
import sys
from videomae.report.plots import plot_curve
assert "matplotlib" not in sys.modules
plot_curve({{"a": ([0, 1], [1, 0])}}, {str(tmp_path / "a.svg")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("count", [1, 2, 20, 100, 101, 700])
def test_confusions_are_readable_for_few_and_many_classes(count: int, tmp_path: Path) -> None:
    matrix = np.diag(np.full(count, 9))
    matrix[0, -1] = 1
    names = [f"a rather long name, costing $ {k}" + "!" * k for k in range(count)]
    path = plots.plot_confusion(matrix, names, tmp_path / "new" / "c.png", title="top-1 $9")
    with Image.open(path) as image:
        assert max(300, 4 * count) < image.width < 6000
        picture = np.asarray(image.convert("RGB")).astype(int)
    blue = picture[..., 2] - picture[..., 0]
    assert (blue > 90).sum() > 9 * count  # the diagonal, at least three pixels each way
    assert [entry.name for entry in path.parent.iterdir()] == ["c.png"]


def test_confusions_are_drawn_the_same_each_time_and_refused_where_they_do_not_fit(
    tmp_path: Path,
) -> None:
    matrix = np.array([[9, 1], [0, 0]])
    drawn = [
        plots.plot_confusion(matrix, ["a", "b"], tmp_path / f"{k}.svg").read_bytes()
        for k in range(2)
    ]
    assert drawn[0] == drawn[1]
    with pytest.raises(ConfigError, match=r"matrix \(2, 2\) does not fit 1 classes"):
        plots.plot_confusion(matrix, ["a"], tmp_path / "c.png")
    with pytest.raises(ConfigError, match=r"ends in '.gif'"):
        plots.plot_confusion(matrix, ["a", "b"], tmp_path / "c.gif")


def test_a_timeline_of_weeks_has_ticks(tmp_path: Path) -> None:
    edges = [0.0, 1e6, 2.4e6]
    given = {"spans": {"a": []}, "pictures": {}}
    path = plots.plot_timeline(tmp_path / "a.svg", edges, {"a": np.ones(2)}, **given)
    assert path.read_text().count('id="xtick_') == 9  # a tick each 300,000 s, from 0 on
