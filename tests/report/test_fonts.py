import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from videomae.report import fonts
from videomae.report.fonts import fonts_for, installed, letters_of
from videomae.report.pictures import film_strip
from videomae.report.plots import plot_confusion

BUNDLED = Path(matplotlib.get_data_path(), "fonts", "ttf")
# Its letters are Latin alone, which makes DejaVu Sans what a font for Chinese is elsewhere.
LATIN, DEJAVU = BUNDLED / "cmr10.ttf", BUNDLED / "DejaVuSans.ttf"


@pytest.fixture
def two_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this machine have two fonts, the usual one without Cyrillic."""
    monkeypatch.setattr(fonts, "installed", lambda: (LATIN, DEJAVU))
    fonts._fonts_for.cache_clear()
    yield
    fonts._fonts_for.cache_clear()


@pytest.mark.usefixtures("two_fonts")
def test_the_usual_font_serves_where_it_can() -> None:
    assert fonts_for("tennis") == [LATIN]
    assert fonts_for("теннис") == [LATIN, DEJAVU]


@pytest.mark.usefixtures("two_fonts")
def test_a_letter_that_no_font_has_is_warned_of_once() -> None:
    with pytest.warns(UserWarning, match="no installed font has the letters 球网; pictures show"):
        fonts_for("网球")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fonts_for("网球") == [LATIN]


def test_the_fonts_of_this_machine_are_found() -> None:
    assert installed()[0].name == "DejaVuSans.ttf"
    assert {"a", "é", "ж", "Ω"} <= letters_of(installed()[0])
    assert letters_of(Path("gone.ttf")) == frozenset()


def test_pictures_have_the_letters(tmp_path: Path) -> None:
    clip = np.zeros((1, 64, 200, 3), np.uint8)
    one, other = (film_strip({caption: clip}) for caption in ("é ж", "è щ"))
    assert (one != other).any()  # two boxes would be alike
    matrix = np.eye(2, dtype=np.int64)
    pictures = []
    for names in (("bébé", "жук"), ("bèbé", "щук")):
        plot_confusion(matrix, names, tmp_path / "x.png")
        pictures.append(np.asarray(Image.open(tmp_path / "x.png")))
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


@pytest.mark.usefixtures("two_fonts")
def test_charts_take_letters_from_the_font_that_has_them(tmp_path: Path) -> None:
    names = ("теннис Q", "golf\x1b")
    plot_confusion(np.eye(2, dtype=np.int64), names, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "Cmr10" in text  # glyphs are named after their font
    assert "DejaVuSans" in text
    assert "\x1b" not in text
