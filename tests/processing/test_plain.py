from typing import Any

import numpy as np
import pytest

from videomae.errors import ConfigError
from videomae.processing.plain import PlainProcessor
from videomae.processing.processors import VideoMAEImageProcessor


def pixels(kind: type, frames: list[np.ndarray], **settings: Any) -> np.ndarray:
    made = kind(**settings)(frames, return_tensors="np", input_data_format="channels_last")
    found: np.ndarray = made["pixel_values"][0]
    return found


def frames(height: int, width: int, seed: int, channels: int = 3) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    noise = draw.integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    return list(np.where(noise > 127, 255, 0).astype(np.uint8) if seed % 3 == 0 else noise)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_pixels_are_those_of_the_processor_to_the_bit(resample: str) -> None:
    sizes = np.random.default_rng(5).integers((9, 9, 8, 8), (120, 160, 60, 60), (25, 4))
    cases: list[tuple[int, ...]] = [*map(tuple, sizes.tolist()), (64, 64, 64, 64), (8, 300, 8, 8)]
    for seed, (height, width, edge, crop) in enumerate(cases):
        settings = {"size": edge, "crop_size": crop, "resample": resample}
        given = frames(height, width, seed)
        expected = pixels(VideoMAEImageProcessor, given, **settings)
        found = pixels(PlainProcessor, given, **settings)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        assert np.array_equal(found, expected), (height, width, edge, crop)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": (30, 50), "crop_size": (40, 20)},
        {"size": {"shortest_edge": 30, "longest_edge": 41}},
        {"size": {"max_height": 30, "max_width": 41}, "do_center_crop": False},
        {"do_resize": False, "crop_size": 50},
        {"do_resize": False, "do_center_crop": False, "do_normalize": False},
        {"size": 20, "crop_size": 20, "do_rescale": False, "image_mean": (9, 8, 7), "image_std": 3},
        {"size": 20, "crop_size": 20, "rescale_factor": 1 / 127.5, "image_mean": 1.0},
    ],
)
def test_every_setting_means_the_same(settings: dict[str, Any]) -> None:
    given = frames(37, 53, 1)
    expected = pixels(VideoMAEImageProcessor, given, **settings)
    assert np.array_equal(pixels(PlainProcessor, given, **settings), expected)


def test_other_channels_than_three() -> None:
    for count in (1, 4):
        settings = {"size": 20, "crop_size": 20, "image_mean": [0.4] * count, "image_std": 0.2}
        given = frames(30, 40, 2, channels=count)
        expected = pixels(VideoMAEImageProcessor, given, **settings)
        assert np.array_equal(pixels(PlainProcessor, given, **settings), expected)


def test_it_says_what_it_cannot() -> None:
    assert PlainProcessor().is_able(3)
    assert not PlainProcessor().is_able(1)  # three means
    assert not PlainProcessor(resample="lanczos").is_able(3)
    assert not PlainProcessor(size=None).is_able(3)
    assert PlainProcessor(size=None, do_resize=False).is_able(3)
    with pytest.raises(ConfigError, match=r"makes \(0, 4\) px of \(2, 300\) px; give a height"):
        PlainProcessor(size={"max_height": 4, "max_width": 4})([np.zeros((2, 300, 3), np.uint8)])
