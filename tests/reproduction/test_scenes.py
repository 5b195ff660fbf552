import numpy as np

from reproduction.scenes import PLANE_VIEWS, _draw_noise, _draw_palette, sample


def test_the_scene_has_no_border() -> None:
    rng = np.random.default_rng(0)
    colours = _draw_palette(rng, (0.10, 0.17))[:4].astype(np.float32)
    plane = _draw_noise(128, colours, rng)  # (3, 128, 128)
    seam = np.abs(plane[:, 0] - plane[:, -1]).mean()
    inside = np.abs(np.diff(plane, axis=1)).mean()
    assert seam < 1.5 * inside


def test_sampling_is_bilinear_and_wraps() -> None:
    red = np.array([[0, 64], [128, 255]], dtype=np.uint64)
    plane = red | np.uint64(7) << np.uint64(21) | np.uint64(255) << np.uint64(42)
    pixel = PLANE_VIEWS / 2  # in views
    at = np.array([[0, 1 + 1j, 0.5, 0.25j, 1.5 + 1j, 2 - 1j, 0.5 + 0.5j]]) * pixel
    red_found, green, blue = sample(plane, at)[0].T
    # 1.5 is half way from 255 back to 128; (2, -1) is (0, 1); the last: mean of all four
    assert red_found.tolist() == [0, 255, 32, 32, 192, 128, 112]
    assert set(green.tolist()) == {7}
    assert set(blue.tolist()) == {255}
