"""Clips cut into tubelets and back, the pixels to be predicted, and where a tubelet stands.

Letters: B clips, T frames, C channels, H x W pixels; f, h, w the grid; t, p, q one tubelet;
N = f*h*w tubelets, M of them picked; D features. Everything here is pure.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

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


def _cells(pixel_values: Tensor, tubelet_size: int, patch_hw: tuple[int, int]) -> Tensor:
    """Clips (B, T, C, H, W) viewed with an axis per grid direction: (B, f, h, w, t, p, q, C)."""
    grid = grid_of(pixel_values, tubelet_size, patch_hw)
    batch, _, channels = pixel_values.shape[:3]
    (frames, height, width), (p, q) = grid, patch_hw
    split = pixel_values.reshape(batch, frames, tubelet_size, channels, height, p, width, q)
    return split.permute(0, 1, 4, 6, 2, 5, 7, 3)


def pick_tubelets(
    pixel_values: Tensor, index: Tensor | None, tubelet_size: int, patch_hw: tuple[int, int]
) -> Tensor:
    """Cut the tubelets at `index` out of clips, copying only those.

    `pixel_values` (B, T, C, H, W), `index` (B, M) of token numbers or None for all N;
    returns (B, M, t, p, q, C). Token number = (slice * h + row) * w + column.
    """
    cells = _cells(pixel_values, tubelet_size, patch_hw)
    if index is None:
        return cells.flatten(1, 3)  # (B, N, t, p, q, C)
    height, width = cells.shape[2:4]
    clip = torch.arange(len(index), device=index.device)[:, None]
    row = index // width
    return cells[clip, row // height, row % height, index % width]  # (B, M, t, p, q, C)


def patchify(pixel_values: Tensor, tubelet_size: int, patch_hw: tuple[int, int]) -> Tensor:
    """Clips (B, T, C, H, W) as one vector per tubelet (B, N, t*p*q*C), order (t, p, q, C)."""
    return pick_tubelets(pixel_values, None, tubelet_size, patch_hw).flatten(2)


def unpatchify(vectors: Tensor, grid: Grid, tubelet_size: int, patch_hw: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, t*p*q*C) -> clips (B, T, C, H, W)."""
    cells = vectors.reshape(len(vectors), *grid, tubelet_size, *patch_hw, -1)
    frames = cells.permute(0, 1, 4, 7, 2, 5, 3, 6)  # (B, f, t, C, h, p, w, q)
    return frames.reshape(
        len(vectors),
        grid.frames * tubelet_size,
        -1,
        grid.height * patch_hw[0],
        grid.width * patch_hw[1],
    )


def denormalize(pixels: Tensor, channel_dim: int) -> Tensor:
    """Undo the ImageNet mean and std, giving RGB in 0..1; other channel counts pass unchanged."""
    if pixels.shape[channel_dim] != 3:
        return pixels  # nobody published statistics for them
    shape = [1] * pixels.ndim
    shape[channel_dim] = 3
    mean = torch.tensor(IMAGENET_MEAN, dtype=pixels.dtype).to(pixels.device).view(shape)
    std = torch.tensor(IMAGENET_STD, dtype=pixels.dtype).to(pixels.device).view(shape)
    return pixels * std + mean


def pixel_targets(
    pixel_values: Tensor,
    index: Tensor | None,
    tubelet_size: int,
    patch_hw: tuple[int, int],
    *,
    normalize: bool,
) -> Tensor:
    """What the decoder must predict at `index`: pixels in 0..1, or their pattern alone.

    With `normalize`, each tubelet loses its mean and is divided by its standard deviation, channel
    by channel (unbiased variance, 1e-6 added to the root; section 3.1 of the paper and its code).
    Returns (B, M, t*p*q*C).
    """
    tubelets = pick_tubelets(pixel_values, index, tubelet_size, patch_hw)
    tubelets = denormalize(tubelets, channel_dim=-1)  # (B, M, t, p, q, C)
    if normalize:
        pixels = tubelets.flatten(2, 4)  # (B, M, t*p*q, C)
        mean = pixels.mean(2, keepdim=True)
        std = pixels.var(2, keepdim=True, unbiased=True).sqrt()
        tubelets = (pixels - mean) / (std + 1e-6)
    return tubelets.flatten(2)


def sincos_positions(num_positions: int, dim: int) -> Tensor:
    """The fixed table of the published models: (num_positions, dim), float32.

    A one-dimensional sinusoid over the flattened (slice, row, column) number: even features are
    sines, odd ones cosines, with wavelengths from 2 pi to 10000 * 2 pi.
    """
    position = torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None]
    feature = torch.arange(dim, dtype=torch.float64, device="cpu")
    angle = position / 10000 ** (2 * (feature // 2) / dim)
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    return angle.float()


def grid_positions(grid: Grid, trained_grid: Grid, dim: int) -> Tensor:
    """Positions of `grid` for weights that were trained on `trained_grid`: (N, dim), float32.

    Where the two differ, the trained table is resized along time, height and width. A fresh
    sinusoid of the new length would not do: it counts tokens, so that on another grid nearly every
    row would mean another place than the one the weights know.
    """
    table = sincos_positions(trained_grid.num_tokens, dim)
    if grid == trained_grid:
        return table
    volume = table.T.reshape(1, dim, *trained_grid)
    resized = F.interpolate(volume, size=tuple(grid), mode="trilinear", align_corners=False)
    return resized.flatten(2)[0].T.contiguous()
