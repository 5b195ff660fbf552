import numpy as np

from videomae.report.heat import overlay


def test_heat_is_drawn_where_and_when_it_is() -> None:
    frames = np.full((4, 16, 16, 3), 100, np.uint8)
    frames[..., 2] = 200  # blue, which becomes grey
    heat = np.zeros((2, 4, 4), np.float32)
    heat[1, 3, 0], heat[0, 0, 0] = 2.0, -5.0
    drawn = overlay(frames, heat).astype(int)
    grey = round(100 * (0.299 + 0.587) + 200 * 0.114)
    assert (drawn[:2] == grey).all()
    assert (drawn[2] == drawn[3]).all()
    assert (drawn[2, :10, 6:] == grey).all()
    red, _, blue = drawn[3, 15, 0]
    assert red > 190 > blue  # the yellow of the maximum, over grey


def test_no_heat_at_all_leaves_the_clip_grey() -> None:
    frames = np.full((2, 8, 8, 3), 7, np.uint8)
    assert (overlay(frames, np.zeros((1, 2, 2), np.float32)) == 7).all()
    assert (overlay(frames, np.full((1, 2, 2), -1, np.float32)) == 7).all()
