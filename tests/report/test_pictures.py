"""Film strips, animations and clips beside each other."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomae.errors import ConfigError
from videomae.report import pictures
from videomae.video.decoder import Frames
from videomae.video.reader import probe, read_frames


def frames(count: int = 4, height: int = 96, width: int = 100, value: int = 7) -> Frames:
    made = np.full((count, height, width, 3), value, np.uint8)
    made[:] += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return made


def test_a_film_strip_has_a_row_for_each_clip() -> None:
    strip = pictures.film_strip({"one": frames(4), "two": frames(2)})
    # Frames of 96 x 100 pixels with gaps of 4 between them, captions of 30 pixels, margins.
    assert strip.shape == (8 + 2 * (30 + 96) + 12, 12 + 4 * 100 + 3 * 4 + 12, 3)
    assert strip[8 + 30 : 8 + 126, 12:112].tolist() == frames(1)[0].tolist()
    assert strip[8 + 30, 12 + 104].tolist() == [8, 8, 8]  # the second frame
    assert (strip[8:38, 12:60] < 100).any()  # the caption
    assert (strip[:8] == 255).all()


def test_a_film_strip_thins_long_clips_out_evenly() -> None:
    strip = pictures.film_strip({"": frames(32)})
    shown = [strip[-13, 12 + 104 * column, 0] for column in range(8)]
    assert shown == [7 + 2, 7 + 6, 7 + 10, 7 + 14, 7 + 18, 7 + 22, 7 + 26, 7 + 30]


def test_small_frames_are_enlarged_with_sharp_pixels() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = pictures._enlarge(small, 5)  # 3 is the smallest factor that reaches 5 pixels
    assert large.shape == (1, 6, 6, 3)
    assert (large[0, :3, 3:] == small[0, 0, 1]).all()


def test_side_by_side_clips_move_together() -> None:
    both = pictures.side_by_side({"left": frames(), "right": frames(value=90)})
    # Frames of 96 x 100 pixels become twice as large.
    assert both.shape == (4, 8 + 30 + 192 + 8, 8 + 200 + 8 + 200 + 8, 3)
    assert both[:, 40, 10, 0].tolist() == [7, 8, 9, 10]
    assert both[:, 40, 220, 0].tolist() == [90, 91, 92, 93]
    with pytest.raises(ConfigError, match=r"equally many frames, got a: 4, b: 3"):
        pictures.side_by_side({"a": frames(4), "b": frames(3)})


def test_showing_explains_what_it_cannot_show() -> None:
    with pytest.raises(ConfigError, match="there are no clips to show; give at least one"):
        pictures.film_strip({})
    with pytest.raises(ConfigError, match=r"clip 'x' has shape \(2, 2\) and type float64"):
        pictures.film_strip({"x": np.zeros((2, 2))})  # type: ignore[dict-item]


def test_a_gif_keeps_frames_and_speed(tmp_path: Path) -> None:
    moving = np.zeros((3, 8, 8, 3), np.uint8)
    moving[0, :4], moving[1, 4:], moving[2] = 255, (255, 0, 0), (0, 9, 250)
    path = pictures.save_gif(tmp_path / "new" / "a.gif", moving, fps=10)
    with Image.open(path) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        assert image.info["duration"] == 100
        assert image.info["loop"] == 0
    assert np.abs(read_frames(path, [0, 1, 2]).astype(int) - moving).max() <= 8
    assert [entry.name for entry in path.parent.iterdir()] == ["a.gif"]


def test_clips_are_saved_as_the_suffix_says(tmp_path: Path) -> None:
    clips = {"a": frames(6, 16, 16), "b": frames(6, 16, 16)}
    with Image.open(pictures.save_clips(tmp_path / "a.png", clips)) as strip:
        assert strip.size == pictures.film_strip(clips).shape[1::-1]
    for name in ("a.gif", "a.mp4"):
        info = probe(pictures.save_clips(tmp_path / name, clips, fps=4))
        assert (info.num_frames, info.fps) == (6, pytest.approx(4))
        assert (info.height, info.width) == pictures.side_by_side(clips).shape[1:3]
    with pytest.raises(ConfigError, match=r"a.webm ends in '.webm'; name a file that ends in .png"):
        pictures.save_clips(tmp_path / "a.webm", clips)
    with pytest.raises(ConfigError, match="ends in 'nothing'"):
        pictures.save_gif(tmp_path / "a", frames())


def test_labels_are_drawn_in_a_corner() -> None:
    frame = frames(1, 200, 400, value=100)[0]
    label = pictures.Labeller()
    drawn = label(frame, ["run 0.90", "Größe 跳"])
    assert drawn.shape == frame.shape
    assert (frame == 100).all()  # which is left as it was
    assert (drawn[:150] == 100).all()
    assert (drawn[:, 300:] == 100).all()
    corner = drawn[-20:, :60]
    assert corner.max() > 240
    assert corner.min() == 35
    assert (label(frame, []) == 100).all()
    np.testing.assert_array_equal(label(frame, ["run 0.90", "Größe 跳"]), drawn)


def test_small_frames_are_enlarged_and_long_labels_drawn_smaller() -> None:
    drawn = pictures.Labeller()(frames(1, 64, 64)[0], ["a very long label, written at length"])
    assert drawn.shape == (192, 192, 3)
    assert (drawn[:, -4:] == 7).all()
