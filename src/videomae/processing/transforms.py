"""From images to pixels, step by step and to the digit as transformers does (pure).

A frame is a (1, C, H, W) tensor here: C channels, H height, W width. It keeps its type, uint8
mostly, until the last step: resizing bytes is what transformers does, and by far the fastest.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from videomae.errors import ConfigError
from videomae.processing.plain import output_size

Frame = Any  # a PIL image, or an array or tensor of shape (H, W, C), (C, H, W) or (H, W)

# PyTorch's name of a filter, by the number that files store.
_MODES = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# The numbers of these Pillow modes are brightness; those of a palette, or of CMYK, are not.
_PIXEL_MODES = ("L", "I", "F", "I;16", "RGB", "RGBA")


def as_tensor(
    frame: Frame, *, layout: str | None = None, to_rgb: bool = False, num_channels: int = 3
) -> Tensor:
    """An image as (1, C, H, W), uint8, int64 or floats; copied only where it must be.

    `layout`, "channels_first" or "channels_last", says where the channels are; None sees it from
    the shape: 1, 3, 4 or `num_channels` of them. `to_rgb` lays what is transparent on white; grey
    stays one channel. Raises ConfigError for an empty image, unreadable types, and channels that
    cannot be found.

    >>> as_tensor(np.zeros((240, 320, 3), dtype=np.uint8)).shape
    torch.Size([1, 3, 240, 320])
    """
    if isinstance(frame, Image.Image):
        if to_rgb or frame.mode not in _PIXEL_MODES:
            frame = _pil_to_rgb(frame)
        frame, layout = np.array(frame), "channels_last"
    if isinstance(frame, np.ndarray):
        # PyTorch shares no array that is read-only or, as after [..., ::-1], runs backwards.
        if not frame.flags.writeable or min(frame.strides) < 0:
            frame = frame.copy()
        try:
            frame = torch.from_numpy(frame)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"frames of type {frame.dtype} cannot be read: {error}") from error
    tensor: Tensor = frame
    if not tensor.numel():
        raise ConfigError(f"a frame of shape {tuple(tensor.shape)} has no pixels")
    if tensor.ndim == 2:
        tensor = tensor[None, None]
    elif (layout or _layout(tuple(tensor.shape), num_channels)) == "channels_last":
        # The batch axis before the turning: PyTorch knows this memory layout, and is fast in it.
        tensor = tensor[None].permute(0, 3, 1, 2)
    else:
        tensor = tensor[None]
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        tensor = tensor.long()
    return _rgba_to_rgb(tensor) if to_rgb and tensor.shape[1] == 4 else tensor


def _layout(shape: tuple[int, ...], num_channels: int) -> str:
    """The place where transformers sees the channels; in doubt first."""
    first, _, last = shape
    for counts in ((1, 3), (4, num_channels)):
        if first in counts and last in counts:
            warnings.warn(
                f"a frame of shape {shape} may have its channels first or last; first is taken. "
                "Pass input_data_format to say which",
                stacklevel=2,
            )
        if first in counts or last in counts:
            return "channels_first" if first in counts else "channels_last"
    raise ConfigError(
        f"a frame of shape {shape} has 1, 3 or 4 channels at neither end; pass input_data_format="
        "'channels_first' or 'channels_last', or a grey video (T, H, W) as video[..., None]"
    )


def _pil_to_rgb(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _rgba_to_rgb(frame: Tensor) -> Tensor:
    """A (1, 4, H, W) frame laid on white; floats are 0..1, or 0..255 if any is above 1."""
    floats = frame.is_floating_point()
    top = 1.0 if floats and frame.max() <= 1 else 255.0
    unit = frame.float() * (1.0 / top)
    rgb = unit[:, :3] * unit[:, 3:] + (1 - unit[:, 3:])
    # Integers as in transformers: nearly one more at the top, then cut off.
    return rgb * top if floats else (rgb * (top + 1 - 1e-3)).to(frame.dtype)


def resize(frame: Tensor, size: Mapping[str, int], *, resample: int = 2) -> Tensor:
    """A (1, C, H, W) frame in its new size and old type; integers are filtered and rounded as such.

    `resample` is Pillow's number, see `stored.RESAMPLE`. All but "nearest" smooth what becomes
    smaller, as Pillow does. Raises ConfigError for a size of zero, and for lanczos where PyTorch
    lacks it.
    """
    old, new = tuple(frame.shape[2:]), output_size(frame.shape[2], frame.shape[3], size)
    if new == old:
        return frame
    if min(new) < 1:
        raise ConfigError(f"size={size} makes {new} px of {old} px; give a height and a width")
    mode, on_cpu = _MODES[resample], frame.device.type == "cpu"
    smooth, is_bytes = mode != "nearest-exact", frame.dtype == torch.uint8
    if mode == "lanczos" and not (on_cpu and hasattr(torch._C._nn, "_upsample_lanczos2d_aa")):
        raise ConfigError("resample='lanczos' needs PyTorch 2.12 and a CPU; take 'bicubic'")
    if frame.dtype in (torch.float32, torch.float64) or (is_bytes and (on_cpu or not smooth)):
        return F.interpolate(frame, new, mode=mode, antialias=smooth)
    pixels = F.interpolate(frame.float(), new, mode=mode, antialias=smooth)
    if is_bytes:
        pixels = pixels.clamp(0, 255)  # bicubic swings beyond
    return (pixels if frame.is_floating_point() else pixels.round()).to(frame.dtype)


def center_crop(frame: Tensor, height: int, width: int) -> Tensor:
    """The middle of a (1, C, H, W) frame, with zeros around where it is too small.

    Of an odd number of rows or columns, the larger half is cut off, or added, at bottom and right.

    >>> center_crop(torch.arange(5).view(1, 1, 1, 5), 1, 2).tolist()
    [[[[1, 2]]]]
    """
    high, wide = max(height - frame.shape[2], 0), max(width - frame.shape[3], 0)
    if high or wide:
        frame = F.pad(frame, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    top, left = (frame.shape[2] - height) // 2, (frame.shape[3] - width) // 2
    return frame[:, :, top : top + height, left : left + width]


def to_pixels(
    frames: Sequence[Tensor],
    *,
    factor: float | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] = 1.0,
    to_rgb: bool = False,
) -> Tensor:
    """Frames (1, C, H, W), all of one shape, to the pixels (T, C, H, W) of a clip.

    Each number times `factor`, minus `mean`, divided by `std`: one number, or one per channel. What
    is None is left out; with both None the frames keep their type, else pixels are float32. Grey
    becomes three channels with `to_rgb` or three means. Raises ConfigError if there are other
    numbers of channels, means and deviations.
    """
    _, channels, height, width = frames[0].shape
    counts = set() if mean is None else {np.size(mean), np.size(std)}
    if channels == 1 and (to_rgb or 3 in counts):
        channels = 3
    if not counts <= {1, channels}:
        raise ConfigError(
            f"frames have {channels} channels, but image_mean and image_std have "
            f"{' and '.join(map(str, sorted(counts)))} values; give one value, or {channels}"
            f"{', or pass do_convert_rgb=True' if channels == 4 else ''}"
        )
    dtype = frames[0].dtype if factor is None and mean is None else torch.float32
    shape = (len(frames), channels, height, width)
    pixels = torch.empty(shape, dtype=dtype, device=frames[0].device)
    if mean is not None:
        means, stds = statistics(mean, std, factor, pixels.device)
    for index, frame in enumerate(frames):  # all steps at once, while the frame is in fast memory
        out = pixels[index].copy_(frame[0])  # repeats one grey channel into three
        if mean is not None:
            out.sub_(means).div_(stds)
        elif factor is not None:
            out.mul_(factor)
    return pixels


def statistics(
    mean: float | Sequence[float],
    std: float | Sequence[float],
    factor: float | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Mean and std (C, 1, 1), or (1, 1, 1), of numbers that are still to be multiplied by `factor`.

    By the very operations of transformers: any others differ in the last digit.
    """

    def column(numbers: float | Sequence[float]) -> Tensor:
        values = torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1) * (1.0 / (factor or 1.0))
        return values.to(device, non_blocking=True)

    return column(mean), column(std)


def check_range(
    frames: Sequence[Tensor],
    *,
    factor: float | None = None,
    mean: float | Sequence[float] | None = None,
) -> None:
    """Warn, once, if the numbers are not of the range that `factor` and `mean` are made for.

    A `factor` below one expects 0..255, or up to 1 / factor if that is more; means within 0..1
    and no factor expect 0..1. Bytes to be rescaled are not looked at: that would only cost time.
    """
    if factor is None and (mean is None or np.max(mean) > 1):
        return
    if factor is not None and (factor >= 1 or frames[0].dtype == torch.uint8):
        return
    ranges = [frame.aminmax() for frame in frames]
    low, high = min(each.min.item() for each in ranges), max(each.max.item() for each in ranges)
    top = 1.0 if factor is None else max(255.0, 1 / factor)
    if factor is not None and low >= 0 and 0 < high <= 1:
        problem = (
            "within 0..1 already, and do_rescale=True makes them smaller still; pass "
            "do_rescale=False"
        )
    elif low >= 0 and high <= top * 1.001:
        return
    elif factor is None:
        problem = (
            "not within 0..1, as do_rescale=False expects them; pass do_rescale=True, unless "
            "another range is meant"
        )
    else:
        problem = (
            "not within 0..255, as do_rescale=True expects them; pass frames that were not "
            "normalised before"
        )
    warnings.warn(f"the frames' numbers are {problem}", stacklevel=2)
