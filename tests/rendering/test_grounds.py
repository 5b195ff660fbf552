"""Grounds are functions of their number, smooth, and nowhere flat."""

import numpy as np

from videomae.rendering.grounds import draw_ground, draw_light


def lit(number: int) -> np.ndarray:
    ground = np.asarray(draw_ground(number, 192, 0.7).reduce(3), dtype=np.float64)
    return ground * draw_light(number, 64)


def test_a_number_is_always_the_same_ground_and_light() -> None:
    assert (np.asarray(draw_ground(4, 96, 0.7)) == np.asarray(draw_ground(4, 96, 0.7))).all()
    assert (np.asarray(draw_ground(4, 96, 0.7)) != np.asarray(draw_ground(5, 96, 0.7))).any()
    np.testing.assert_array_equal(draw_light(4, 32), draw_light(4, 32))


def test_cells_are_smooth_and_not_flat() -> None:
    grounds = np.stack([lit(number) for number in range(30)])  # (n, 64, 64, 3)
    cells = grounds.reshape(30, 8, 8, 8, 8, 3).swapaxes(2, 3)
    contrast = cells.std(axis=(3, 4)).mean(axis=-1)
    # the rounding of a video is about one level
    assert np.quantile(contrast, 0.05) > 1.5
    steps = np.abs(np.diff(grounds, axis=2)).mean(axis=-1)
    assert np.median(steps) < 3
    assert np.quantile(steps, 0.99) < 50


def test_light_stays_within_its_bounds() -> None:
    light = np.stack([draw_light(number, 16) for number in range(100)])
    assert light.min() > 0.25
    assert light.max() < 1.6
