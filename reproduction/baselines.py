"""What the visible tells of the hidden: yardsticks for the loss of a pre-training, and its use.

A cell that is hidden in one slice and visible in another can be copied from there, which takes no
notion of motion: the leak along time that the paper's tubes close (section 3.3).
What moves can be found elsewhere as well, by who knows how it moves.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reproduction.plan import Pretraining, Scale
from videomae.config import Grid
from videomae.data.motion import MOTIONS, Points, draw_trajectory, render_clip
from videomae.masking import MASKS
from videomae.processing.views import find_processor, normalize
from videomae.tubelets import pixel_targets

_CLIPS_PER_MOTION = 10
_POINTS_PER_CELL = 2  # along each side


def copy_loss(point: Pretraining, scale: Scale) -> float | None:
    """The loss of a model that only copies, on clips like those that a pre-training sees.

    It predicts each hidden tubelet as the same cell of the nearest slice in which that is visible,
    times the best factor for slices so far apart; and nothing, zeros, where the cell is visible in
    no slice, as with tubes. None for raw pixels, of which zeros are no sensible guess.
    """
    if not point.norm_pix_loss:
        return None
    config = scale.config(point.image_size)
    grid = config.grid
    every = slice(None, scale.num_frames * point.frame_stride, point.frame_stride)
    clips = np.stack(
        [
            render_clip(
                motion, seed=(0, seed), size=point.image_size, num_frames=scale.video_frames,
                domain=point.domain,
            )[every]
            for seed in range(_CLIPS_PER_MOTION)
            for motion in MOTIONS
        ]
    )  # fmt: skip
    frames = torch.from_numpy(clips).permute(0, 1, 4, 2, 3)
    pixels = normalize(frames, find_processor(None, config))
    targets = pixel_targets(pixels, grid, normalize=True)
    hidden = MASKS[point.mask](
        grid,
        point.mask_ratio,
        batch_size=len(clips),
        generator=torch.Generator().manual_seed(0),
    )
    shape = (len(clips), grid.frames, grid.num_cells)
    return best_copy(targets.view(*shape, -1), hidden.view(shape))


def best_copy(targets: Tensor, hidden: Tensor) -> float:
    """The mean squared error of that copy; targets (B, f, c, D), hidden (B, f, c).

    >>> targets = torch.tensor([1.0, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)
    >>> best_copy(targets, torch.tensor([True, False, True, False]).view(1, 4, 1))
    0.25
    """
    slices = torch.arange(targets.shape[1])
    away = (slices[:, None] - slices).abs().float()[None, :, :, None]  # (1, f, f, 1)
    away = away.masked_fill(hidden[:, None], torch.inf)  # (B, f, f, c): only from what is visible
    nearest, source = away.min(2)  # (B, f, c)
    copies = targets.gather(1, source[..., None].expand_as(targets))
    copies = copies * nearest.isfinite()[..., None]
    wanted, found, gaps = targets[hidden].double(), copies[hidden].double(), nearest[hidden]
    loss = wanted.square().sum()
    for gap in range(1, targets.shape[1]):
        of_gap = gaps == gap
        both, square = (wanted[of_gap] * found[of_gap]).sum(), found[of_gap].square().sum()
        loss -= both.square() / square.clamp_min(1e-12)
    return float(loss / wanted.numel())


@cache
def seen_elsewhere(point: Pretraining, scale: Scale) -> float | None:
    """Of what is hidden, the share in [0, 1] that its motion shows in a visible cell.

    In any cell of any other slice: what a model can fill in that knows the motion, and no other.
    None in the domain "object", where most of the picture does not move.
    """
    if point.domain != "camera":
        return None
    config = scale.config(point.image_size)
    grid = config.grid
    slice_frames = config.tubelet_size * point.frame_stride
    frames = [slice_frames * n + (slice_frames - 1) // 2 for n in range(grid.frames)]
    across = (np.arange(grid.width * _POINTS_PER_CELL) + 0.5) / (grid.width * _POINTS_PER_CELL)
    points: Points = (across + 1j * across[:, None]).ravel() - (0.5 + 0.5j)
    home = _cells(points, grid)
    trajectories = [
        draw_trajectory(motion, scale.video_frames, np.random.default_rng(seed))
        for seed in range(_CLIPS_PER_MOTION)
        for motion in MOTIONS
    ]
    masks = MASKS[point.mask](
        grid,
        point.mask_ratio,
        batch_size=len(trajectories),
        generator=torch.Generator().manual_seed(0),
    )
    # The last cell stands for all places outside of the picture, never visible.
    hidden = np.pad(
        masks.view(-1, grid.frames, grid.num_cells).numpy(),
        ((0, 0), (0, 0), (0, 1)),
        constant_values=True,
    )
    num_hidden = num_seen = 0
    for trajectory, mask in zip(trajectories, hidden, strict=True):
        for here, frame in enumerate(frames):
            wanted = mask[here, home]
            places = [_cells(trajectory.follow(points, frame, to), grid) for to in frames]
            seen = ~np.all([row[cells] for row, cells in zip(mask, places, strict=True)], axis=0)
            num_hidden += wanted.sum()
            num_seen += (wanted & seen).sum()
    return float(num_seen / num_hidden)


def _cells(points: Points, grid: Grid) -> NDArray[np.int64]:
    """The number of the cell in which a point of the picture lies; one more where it lies outside.

    Points are in picture widths from the centre, x + iy.
    """
    column = np.floor((points.real + 0.5) * grid.width).astype(np.int64)
    row = np.floor((points.imag + 0.5) * grid.height).astype(np.int64)
    inside = (column >= 0) & (column < grid.width) & (row >= 0) & (row < grid.height)
    return np.where(inside, row * grid.width + column, grid.num_cells)
