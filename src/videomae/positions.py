"""The fixed places of tubelets: the table that all published models were trained with. Pure."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.config import Grid


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

    Where the two differ, the trained table is resized along time, height and width: a fresh
    sinusoid counts tokens, so that its rows would mean other places than those the weights know.
    """
    table = sincos_positions(math.prod(trained_grid), dim)
    if grid == trained_grid:
        return table
    volume = table.T.reshape(1, dim, *trained_grid)
    resized = F.interpolate(volume, size=tuple(grid), mode="trilinear", align_corners=False)
    return resized.flatten(2)[0].T.contiguous()
