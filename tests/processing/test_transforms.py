"""Steps from images to pixels: hand-computed cases, and transformers' helpers as the peer."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import get_image_size_for_max_height_width
from transformers.models.videomae.image_processing_videomae import (
    VideoMAEImageProcessor as HFImageProcessor,
)

from videomae.errors import ConfigError
from videomae.processing.plain import output_size
from videomae.processing.transforms import (
    as_tensor,
    center_crop,
    check_range,
    resize,
    to_pixels,
)


@pytest.fixture(autouse=True)
def _no_unexpected_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def image(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape).astype(dtype)


# as_tensor


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_found_first_or_last(channels: int) -> None:
    array = image(6, 7, channels)
    first, last = as_tensor(array.transpose(2, 0, 1)), as_tensor(array)
    assert first.shape == (1, channels, 6, 7)
    assert torch.equal(first, last)


def test_bytes_are_shared_and_lie_as_pytorch_is_fast_in() -> None:
    array = image(6, 7, 3)
    tensor = as_tensor(array)
    assert tensor.data_ptr() == array.__array_interface__["data"][0]
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor.stride(0) == array.size


def test_layout_overrules_the_guess() -> None:
    array = image(3, 7, 3)
    assert as_tensor(array, layout="channels_last").shape == (1, 3, 3, 7)
    assert as_tensor(array, layout="channels_first").shape == (1, 3, 7, 3)
    assert as_tensor(image(6, 7, 9), layout="channels_last").shape == (1, 9, 6, 7)


def test_an_ambiguous_shape_is_channels_first_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"\(3, 7, 3\) may have its channels first or last"):
        assert as_tensor(image(3, 7, 3)).shape == (1, 3, 7, 3)


def test_the_expected_number_of_channels_is_found_too() -> None:
    assert as_tensor(image(6, 7, 10), num_channels=10).shape == (1, 10, 6, 7)


def test_channels_that_cannot_be_found_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"\(16, 7, 8\) has 1, 3 or 4 channels at neither end"):
        as_tensor(image(16, 7, 8))


def test_arrays_that_pytorch_cannot_share_are_copied() -> None:
    array = image(6, 7, 3)
    assert torch.equal(as_tensor(array[..., ::-1]), as_tensor(array[..., ::-1].copy()))
    array.flags.writeable = False
    assert torch.equal(as_tensor(array), as_tensor(array.copy()))


def test_integers_other_than_bytes_become_int64_and_floats_stay() -> None:
    for dtype in ("int32", "uint16", "bool"):
        assert as_tensor(image(6, 7, 3, dtype=dtype)).dtype == torch.int64
    assert as_tensor(image(6, 7, 3, dtype="float64")).dtype == torch.float64


def test_types_that_hold_no_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="frames of type object cannot be read"):
        as_tensor(np.full((6, 7, 3), None))


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a frame of shape \(0, 7, 3\) has no pixels"):
        as_tensor(image(0, 7, 3))


def test_grey_images_have_one_channel() -> None:
    grey = image(6, 7)
    for frame in (grey, grey[..., None], Image.fromarray(grey)):
        assert torch.equal(as_tensor(frame, to_rgb=True)[0, 0], torch.from_numpy(grey))


def test_pillow_modes_whose_numbers_are_no_brightness_become_rgb() -> None:
    rgb = Image.fromarray(image(6, 7, 3))
    for mode in ("P", "CMYK", "1", "HSV"):
        converted = rgb.convert(mode)
        expected = np.array(converted.convert("RGB"))
        assert np.array_equal(as_tensor(converted)[0].permute(1, 2, 0).numpy(), expected)


def test_transparent_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = 255, 0, 51  # opaque, transparent, one fifth
    for frame in (rgba, rgba / 255.0, Image.fromarray(rgba)):
        top = 1.0 if isinstance(frame, np.ndarray) and frame.dtype == float else 255.0
        pixels = as_tensor(frame, to_rgb=True, layout="channels_last").double() / top
        assert pixels.shape == (1, 3, 1, 3)
        assert torch.allclose(pixels[0, 1, 0], torch.tensor([0, 1, 0.8]).double(), atol=1e-6)
    assert as_tensor(rgba, layout="channels_last").shape == (1, 4, 1, 3)


def test_transparent_bytes_are_those_of_transformers() -> None:
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).astype(np.uint8)
    rgba = np.concatenate([grid[..., :1], grid[..., :1], 255 - grid[..., :1], grid[..., 1:]], -1)
    theirs = HFImageProcessor().process_image(rgba, do_convert_rgb=True)
    assert torch.equal(as_tensor(rgba, to_rgb=True)[0], theirs)


# output_size, resize, center_crop


def test_sizes_by_hand() -> None:
    assert output_size(240, 320, {"shortest_edge": 224}) == (224, 298)  # 298.67 cut off
    assert output_size(320, 240, {"shortest_edge": 224}) == (298, 224)
    assert output_size(7, 7, {"shortest_edge": 5}) == (5, 5)
    assert output_size(224, 500, {"shortest_edge": 224}) == (224, 500)
    assert output_size(100, 400, {"shortest_edge": 50, "longest_edge": 100}) == (25, 100)
    assert output_size(100, 400, {"max_height": 50, "max_width": 300}) == (50, 200)
    assert output_size(9, 8, {"height": 3, "width": 4}) == (3, 4)


def test_sizes_are_those_of_transformers() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        height, width, edge, limit = (int(number) for number in rng.integers(1, 700, 4))
        blank = np.broadcast_to(np.uint8(0), (3, height, width))
        theirs = get_resize_output_image_size(
            blank, edge, default_to_square=False, input_data_format="channels_first"
        )
        assert output_size(height, width, {"shortest_edge": edge}) == theirs
        theirs = get_size_with_aspect_ratio((height, width), edge, limit)
        assert output_size(height, width, {"shortest_edge": edge, "longest_edge": limit}) == theirs
        theirs = get_image_size_for_max_height_width((height, width), edge, limit)
        assert output_size(height, width, {"max_height": edge, "max_width": limit}) == theirs


def test_resizing_by_hand() -> None:
    frame = torch.tensor([[[[0, 1, 10, 13]]]], dtype=torch.uint8)
    assert resize(frame, {"height": 1, "width": 8}, resample=0).flatten().tolist() == [
        *(0, 0, 1, 1, 10, 10, 13, 13)
    ]
    # A triangle two pixels wide to either side: (3, 3, 1) / 7 of the nearest, then rounded.
    smooth = resize(frame, {"height": 1, "width": 2}, resample=2).flatten().tolist()
    assert smooth == [round((0 * 3 + 1 * 3 + 10) / 7), round((1 + 10 * 3 + 13 * 3) / 7)]


def test_resizing_keeps_the_type_and_rounds_integers() -> None:
    numbers = torch.from_numpy(image(1, 3, 9, 11))
    size = {"height": 5, "width": 7}
    exact = resize(numbers.double(), size)
    for dtype in (torch.uint8, torch.int64, torch.float32, torch.float16):
        small = resize(numbers.to(dtype), size)
        assert small.dtype == dtype
        assert (small.double() - exact).abs().max() < (1.01 if dtype == torch.uint8 else 0.51)
    whole = resize(numbers.long(), size)
    assert torch.equal(whole, exact.float().round().long())


def test_nothing_is_done_where_the_size_is_right() -> None:
    frame = torch.zeros(1, 3, 9, 11, dtype=torch.uint8)
    assert resize(frame, {"shortest_edge": 9}) is frame


def test_a_size_of_zero_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"makes \(0, 4\) px of \(1, 90\) px; give a height"):
        resize(torch.zeros(1, 3, 1, 90), {"max_height": 4, "max_width": 4})


def test_lanczos_says_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C._nn, "_upsample_lanczos2d_aa", raising=False)
    with pytest.raises(ConfigError, match=r"needs PyTorch 2\.12 and a CPU; take 'bicubic'"):
        resize(torch.zeros(1, 3, 9, 9), {"shortest_edge": 5}, resample=1)


def test_cropping_by_hand() -> None:
    frame = torch.arange(1, 26).view(1, 1, 5, 5)
    assert center_crop(frame, 2, 3)[0, 0].tolist() == [[7, 8, 9], [12, 13, 14]]
    # Too small: the odd row of zeros goes below, the odd column to the right.
    assert center_crop(frame[..., :1, :2], 2, 5)[0, 0].tolist() == [[0, 1, 2, 0, 0], [0] * 5]
    # Too small one way, too large the other.
    assert center_crop(frame[..., :1, :], 3, 2)[0, 0].tolist() == [[0, 0], [2, 3], [0, 0]]


def test_cropping_copies_nothing() -> None:
    frame = torch.zeros(1, 3, 9, 9)
    assert center_crop(frame, 5, 5)._base is frame


# to_pixels, check_range


def frames_of(*numbers: float, dtype: torch.dtype = torch.uint8) -> list[Tensor]:
    return [torch.full((1, 3, 2, 2), number, dtype=dtype) for number in numbers]


def test_normalizing_by_hand() -> None:
    pixels = to_pixels(frames_of(0, 255), factor=1 / 255, mean=(0.5, 0, 1), std=(0.5, 2, 4))
    assert pixels.shape == (2, 3, 2, 2)
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous()
    assert torch.allclose(pixels[0, :, 0, 0], torch.tensor([-1, 0, -0.25]))
    assert torch.allclose(pixels[1, :, 1, 1], torch.tensor([1, 0.5, 0]))


def test_each_step_alone() -> None:
    assert to_pixels(frames_of(51), factor=1 / 255)[0, 0, 0, 0].item() == pytest.approx(0.2)
    assert to_pixels(frames_of(5), mean=1.0, std=2.0)[0, 0, 0, 0].item() == 2
    assert torch.equal(to_pixels(frames_of(5, 6)), torch.cat(frames_of(5, 6)))


def test_grey_becomes_three_channels_when_three_are_meant() -> None:
    grey = [torch.full((1, 1, 2, 2), 4, dtype=torch.uint8)]
    assert to_pixels(grey).shape == (1, 1, 2, 2)
    assert to_pixels(grey, mean=1.0).shape == (1, 1, 2, 2)
    assert to_pixels(grey, to_rgb=True).shape == (1, 3, 2, 2)
    assert to_pixels(grey, mean=(0, 1, 2), std=1.0)[0, :, 0, 0].tolist() == [4, 3, 2]


def test_any_number_of_channels_fits_its_own_mean() -> None:
    frame = torch.ones(1, 5, 2, 2)
    pixels = to_pixels([frame], mean=(0, 1, 2, 3, 4), std=(1, 1, 1, 1, 2))
    assert pixels[0, :, 0, 0].tolist() == [1, 0, -1, -2, -1.5]


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (2, r"frames have 2 channels, but .* have 3 values; give one value, or 2$"),
        (4, r"frames have 4 channels, .* or 4, or pass do_convert_rgb=True$"),
    ],
)
def test_a_mean_that_does_not_fit_the_channels_is_an_error(channels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_pixels([torch.zeros(1, channels, 2, 2)], mean=(1, 1, 1), std=(1, 1, 1))


def test_numbers_already_rescaled_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"within 0\.\.1 already.*pass do_rescale=False"):
        check_range(frames_of(0, 1, dtype=torch.float32), factor=1 / 255)


def test_numbers_already_normalised_are_warned_of() -> None:
    for number in (-1, 300):
        with pytest.warns(UserWarning, match=r"not within 0\.\.255, as do_rescale=True"):
            check_range(frames_of(number, dtype=torch.float32), factor=1 / 255)


def test_numbers_that_were_not_rescaled_are_warned_of() -> None:
    for frames in (frames_of(2), frames_of(-0.5, dtype=torch.float32)):
        with pytest.warns(UserWarning, match=r"not within 0\.\.1, as do_rescale=False"):
            check_range(frames, mean=0.5)


def test_numbers_in_range_or_of_unknown_range_pass_in_silence() -> None:
    check_range(frames_of(0, 1), factor=1 / 255)  # bytes, if dark ones
    check_range(frames_of(0, 255, dtype=torch.float32), factor=1 / 255)
    check_range(frames_of(0, dtype=torch.float32), factor=1 / 255)  # a black video
    check_range(frames_of(0, 60000, dtype=torch.int64), factor=1 / 65535)
    check_range(frames_of(0.5, dtype=torch.float32), factor=1.0)
    check_range(frames_of(0, 1, dtype=torch.float32), mean=0.5)
    check_range(frames_of(0, 255), mean=127.0)
    check_range(frames_of(0, 255))
