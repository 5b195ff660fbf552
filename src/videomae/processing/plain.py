"""Frames -> pixels by numpy alone, for graphs that run without torch; and what both ways share.

The steps are those of `processors` and `transforms`, for frames of bytes, and so are the numbers,
to the bit: PyTorch resizes bytes in whole numbers, which any program can follow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError
from videomae.processing.stored import IMAGE_FILE, RESAMPLE, VIDEO_FILE, StoredSettings

# Shares of red, green and blue in the luma of Pillow's mode "L", of 0x10000.
_LUMA = np.array([19595, 38470, 7471], np.uint32)
_MAX_BITS = 22  # of a filter's weights, as in PyTorch


def _linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(x))
    return made


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(x), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# Pillow's number of a filter -> the filter, and how far it reaches.
_FILTERS: dict[int, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    RESAMPLE["bilinear"]: (_linear, 1.0),
    RESAMPLE["bicubic"]: (_cubic, 2.0),
}


@dataclass(kw_only=True)
class PlainProcessor(StoredSettings):
    """The settings of `VideoMAEImageProcessor`, and its pixels without torch.

    >>> processor = PlainProcessor(size=112, crop_size=112)
    >>> processor([np.zeros((240, 320, 3), np.uint8)])["pixel_values"][0].shape
    (1, 3, 112, 112)
    """

    _files = (IMAGE_FILE, VIDEO_FILE)
    _type_keys = ("image_processor_type", "feature_extractor_type")

    def is_able(self, num_channels: int) -> bool:
        """Whether these settings ask for nothing that needs torch, of so many channels."""
        counts = {np.size(self.image_mean), np.size(self.image_std)} if self.do_normalize else {1}
        suits = counts <= {1, num_channels} and self.resample in _FILTERS
        return suits and not self._incomplete()

    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], **overrides: Any
    ) -> dict[str, list[NDArray[np.float32]]]:
        """The pixels (T, C, H, W) of the frames (H, W, C) of one video, in a list, by their name.

        `overrides` are settings for this call only; the layout and kind of tensors are as here.
        """
        chosen = replace(self, **overrides)
        made = np.stack([chosen._fitted(frame) for frame in frames])  # (T, H, W, C)
        pixels = np.ascontiguousarray(made.transpose(0, 3, 1, 2)).astype(np.float32)
        factor = chosen.rescale_factor if chosen.do_rescale else None
        if chosen.do_normalize:
            # By the very operations of `transforms.to_pixels`.
            scale = np.float32(1.0 / (factor or 1.0))
            mean, std = (
                (np.asarray(value, np.float32) * scale).reshape(-1, 1, 1)
                for value in (chosen.image_mean, chosen.image_std)
            )
            pixels -= mean
            pixels /= std
        elif factor is not None:
            pixels *= np.float32(factor)
        return {"pixel_values": [pixels]}

    def _fitted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame (H, W, C) resized and cropped; what is cropped away is not computed."""
        old = (frame.shape[0], frame.shape[1])
        new = output_size(*old, self.size) if self.do_resize else old
        crop = (self.crop_size["height"], self.crop_size["width"]) if self.do_center_crop else new
        pads, parts = [], []
        for there, wanted in zip(new, crop, strict=True):
            missing = max(wanted - there, 0)
            start = (there + missing - wanted) // 2
            pads.append((missing // 2, missing - missing // 2))
            parts.append(range(start, min(start + wanted, there)))
        if new != old and min(new) < 1:
            raise ConfigError(
                f"size={self.size} makes {new} px of {old} px; give a height and a width"
            )
        # Columns first, then rows, each rounded to bytes, as PyTorch and Pillow do.
        turned = self._along(frame.transpose(1, 0, 2), new[1], parts[1]).transpose(1, 0, 2)
        made = self._along(turned, new[0], parts[0])
        return np.pad(made, [*pads, (0, 0)]) if np.any(pads) else made

    def _along(self, lines: NDArray[np.uint8], new: int, part: range) -> NDArray[np.uint8]:
        """The lines `part` of those that (old, X, C) become where they are resized to `new`."""
        if new == len(lines):
            return lines[part.start : part.stop]
        first, weights, bits = _weights(len(lines), new, self.resample)
        first, weights = first[part.start : part.stop], weights[part.start : part.stop]
        reach = weights.shape[1]
        # Whole numbers are exact in float32 up to 2**24, and products are fastest there.
        largest = 255 * np.abs(weights).sum(1).max() + (1 << bits)
        kind = np.float32 if largest < 2**24 else np.float64
        used = lines[first[0] : first[-1] + reach]
        source = np.zeros((first[-1] + reach - first[0], lines[0].size), kind)
        source[: len(used)].reshape(len(used), *lines.shape[1:])[:] = used
        weights = weights.astype(kind)
        sums = np.empty((len(part), source.shape[1]), kind)
        for out, row, start in zip(sums, weights, first - first[0], strict=True):
            np.dot(row, source[start : start + reach], out=out)
        sums += 1 << (bits - 1)
        sums *= kind(0.5**bits)
        made = np.clip(np.floor(sums, out=sums), 0, 255, out=sums).astype(np.uint8)
        return made.reshape(len(part), *lines.shape[1:])


def _weights(old: int, new: int, resample: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The first of the K lines that each new one is made of, the weights (new, K), and their bits.

    As PyTorch has them for bytes: a filter, widened where lines become fewer; whole weights,
    times 2**bits, which is as large as 16 bits allow.
    """
    function, support = _FILTERS[resample]
    scale = old / new
    stretch = max(scale, 1.0)
    centers, reach = scale * (np.arange(new) + 0.5), support * stretch
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    counts = np.minimum((centers + reach + 0.5).astype(np.int64), old) - first
    taps = np.arange(counts.max())
    weights = function((taps + first[:, None] - centers[:, None] + 0.5) * (1 / stretch))
    weights = np.where(taps < counts[:, None], weights, 0.0)
    weights /= weights.sum(1, keepdims=True)
    top, bits = weights.max(), 0
    while bits < _MAX_BITS and int(0.5 + top * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = weights * (1 << bits)
    return first, np.trunc(whole + np.copysign(0.5, whole)).astype(np.int64), bits


def output_size(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """Height and width of a frame after resizing to `size`; fractions are cut off.

    `size` has the keys that VideoMAEImageProcessor names; of a max_height and max_width one is
    reached.

    >>> output_size(240, 320, {"shortest_edge": 224})
    (224, 298)
    """
    if "height" in size:
        return size["height"], size["width"]
    if "max_height" in size:
        factor = min(size["max_height"] / height, size["max_width"] / width)
        return int(height * factor), int(width * factor)
    short, long = sorted((height, width))
    edge = size["shortest_edge"]
    exact: float = edge
    if "longest_edge" in size and long / short * edge > size["longest_edge"]:
        exact = size["longest_edge"] * short / long
        edge = round(exact)
    if edge == short:
        return height, width
    far = int(exact * long / short)
    return (far, edge) if width < height else (edge, far)


def to_channels(frames: NDArray[np.uint8], num_channels: int) -> NDArray[np.uint8]:
    """Frames uint8 (T, H, W, C) with the channels that a model takes: (T, H, W, num_channels).

    RGB, as all files are read, becomes the luma of Pillow's mode "L", or gets an opaque alpha.
    ConfigError for other pairs of unlike numbers.

    >>> to_channels(np.full((1, 1, 1, 3), (10, 20, 30), np.uint8), 1).item()
    18
    """
    own = frames.shape[-1]
    if own == num_channels:
        return frames
    if own == 3 and num_channels == 1:
        return ((frames @ _LUMA + 0x8000) >> 16).astype(np.uint8)[..., None]
    if own == 3 and num_channels == 4:
        return np.concatenate([frames, np.full_like(frames[..., :1], 255)], axis=-1)
    raise ConfigError(
        f"frames have {own} channels and the model takes {num_channels}; RGB can become 1 or 4, "
        f"so give arrays of {num_channels} channels, or a model with num_channels={own}"
    )
