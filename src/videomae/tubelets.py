"""Clips cut into tubelets and back, and the pixels to be predicted.

Letters: B clips, T frames, C channels, H x W pixels; f, h, w the grid; t, p, q one tubelet;
N = f*h*w tubelets, M of them picked. Everything here is pure.
"""

import math

import torch
from torch import Tensor

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, Grid
from videomae.errors import ConfigError


def grid_of(pixel_values: Tensor, tubelet_size: int, patch_hw: tuple[int, int]) -> Grid:
    """The grid of clips (B, T, C, H, W); ConfigError where a size is not a multiple of its cell."""
    frames, _, height, width = pixel_values.shape[1:]
    for name, size, step in (
        ("frames", frames, tubelet_size),
        ("height", height, patch_hw[0]),
        ("width", width, patch_hw[1]),
    ):
        if size % step or size == 0:
            raise ConfigError(
                f"pixel_values {tuple(pixel_values.shape)} (B, T, C, H, W): {name}={size} is not a "
                f"multiple of {step}; use {max(size // step, 1) * step}"
            )
    return Grid(frames // tubelet_size, height // patch_hw[0], width // patch_hw[1])


def pick_tubelets(pixel_values: Tensor, grid: Grid, index: Tensor | None = None) -> Tensor:
    """Cut the tubelets at `index` out of clips, copying only those.

    `pixel_values` (B, T, C, H, W) of that grid, `index` (B, M) of token numbers or None for all N;
    returns (B, M, C, t, p, q), each tubelet laid out as the kernel of a Conv3d. Token number =
    (slice * h + row) * w + column.
    """
    batch, num_frames, channels, num_rows, num_columns = pixel_values.shape
    frames, height, width = grid
    t, p, q = num_frames // frames, num_rows // height, num_columns // width
    clip = (frames, t, channels, height, p, width)
    if index is None:
        split = pixel_values.reshape(batch * frames, *clip[1:], q)
        cells = split.permute(0, 3, 5, 2, 1, 4, 6)  # (B*f, h, w, C, t, p, q)
        return cells.reshape(batch, -1, *cells.shape[3:])  # (B, N, C, t, p, q)
    # A tubelet is C*t*p runs of q neighbouring pixels, which are copied whole: that takes a fifth
    # of the time of indexing pixel by pixel. The runs are numbered and cut as pixels would be.
    runs = torch.arange(math.prod(clip), device=index.device).view(clip)
    runs = runs.permute(0, 3, 5, 2, 1, 4).flatten(0, 2).flatten(1)  # (N, C*t*p)
    first = torch.arange(batch, device=index.device)[:, None, None] * runs.numel()
    picked = pixel_values.reshape(-1, q).index_select(0, (runs[index] + first).flatten())
    return picked.view(*index.shape, channels, t, p, q)


def patchify(pixel_values: Tensor, grid: Grid) -> Tensor:
    """Clips (B, T, C, H, W) as one vector per tubelet (B, N, t*p*q*C), order (t, p, q, C)."""
    tubelets = pick_tubelets(pixel_values, grid)
    return tubelets.permute(0, 1, 3, 4, 5, 2).flatten(2)


def unpatchify(vectors: Tensor, grid: Grid, tubelet_size: int, patch_hw: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, t*p*q*C) -> clips (B, T, C, H, W)."""
    cells = vectors.reshape(vectors.shape[0], *grid, tubelet_size, *patch_hw, -1)
    frames = cells.permute(0, 1, 4, 7, 2, 5, 3, 6)  # (B, f, t, C, h, p, w, q)
    return frames.flatten(6, 7).flatten(4, 5).flatten(1, 2)


def denormalize(pixels: Tensor, channel_dim: int) -> Tensor:
    """Undo the ImageNet mean and std, giving RGB in 0..1; other channel counts pass unchanged."""
    if pixels.shape[channel_dim] != 3:  # nobody published statistics for them
        return pixels
    # As plain numbers: a tensor of them would be copied to a GPU, and the CPU would wait for it.
    channels = zip(pixels.unbind(channel_dim), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.stack([pixel * std + mean for pixel, mean, std in channels], channel_dim)


def pixel_targets(
    pixel_values: Tensor, grid: Grid, index: Tensor | None = None, *, normalize: bool
) -> Tensor:
    """The pixels that the decoder must predict at `index`, in 0..1, or their pattern alone.

    With `normalize`, each tubelet loses its mean and is divided by its standard deviation, channel
    by channel (unbiased variance, 1e-6 added to the root; section 3.1 of the paper and its code).
    Returns (B, M, t*p*q*C).
    """
    tubelets = pick_tubelets(pixel_values, grid, index)
    pixels = denormalize(tubelets.flatten(3), channel_dim=2)  # (B, M, C, t*p*q)
    if normalize:
        variance, mean = torch.var_mean(pixels, -1, correction=1, keepdim=True)
        pixels = (pixels - mean) / (variance.sqrt() + 1e-6)
    return pixels.transpose(2, 3).flatten(2)
