"""What can be said of an experiment without a run: what its mask lets a model see, and its cost.

A cell that is hidden in one slice and visible in another can be copied from there without any
notion of motion: the leak along time that the paper's tubes close (section 3.3). What moves can be
found elsewhere as well, by a model that knows the motion.
"""

import contextlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reproduction.plan import Pretraining, Scale
from videomae.config import Grid
from videomae.masking import MASKS, choose_tokens
from videomae.processing.views import find_processor, normalize
from videomae.rendering.motion import MOTIONS, Trajectory, draw_trajectory, render_clip
from videomae.rendering.scenes import Points
from videomae.settings import Mask
from videomae.training.pretrain import draw_masks, make_model
from videomae.tubelets import pixel_targets

_CLIPS_PER_MOTION = 10
_NUM_CLIPS = _CLIPS_PER_MOTION * len(MOTIONS)
_POINTS_PER_CELL = 2  # along each side


def copy_loss(experiment: Pretraining, scale: Scale) -> float | None:
    """The loss of a model that only copies, on clips like those of a pre-training.

    It predicts each hidden tubelet as the same cell of the nearest slice in which that is visible,
    times the best factor for slices so far apart; and zeros where the cell is visible in no slice,
    as with tubes. None for raw pixels, of which zeros are no sensible guess.
    """
    if not experiment.norm_pix_loss:
        return None
    config = scale.config(experiment.image_size)
    sampled = slice(None, scale.num_frames * experiment.frame_stride, experiment.frame_stride)
    clips = np.stack(
        [
            render_clip(
                motion, seed=(0, seed), size=experiment.image_size, num_frames=scale.video_frames,
                domain=experiment.domain,
            )[sampled]
            for seed in range(_CLIPS_PER_MOTION)
            for motion in MOTIONS
        ]
    )  # fmt: skip
    frames = torch.from_numpy(clips).permute(0, 1, 4, 2, 3)
    pixels = normalize(frames, find_processor(None, config))
    targets = pixel_targets(pixels, config.grid, normalize=True)
    hidden = _hidden(experiment.mask, experiment.mask_ratio, config.grid)
    return best_copy(targets.view(*hidden.shape, -1), hidden)


def best_copy(targets: Tensor, hidden: Tensor) -> float:
    """The mean squared error of that copy; targets (B, f, c, D), hidden (B, f, c).

    >>> targets = torch.tensor([1.0, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)
    >>> best_copy(targets, torch.tensor([True, False, True, False]).view(1, 4, 1))
    0.25
    """
    slices = torch.arange(targets.shape[1])
    away = (slices[:, None] - slices).abs().float()[None, :, :, None]  # (1, f, f, 1)
    away = away.masked_fill(hidden[:, None], torch.inf)  # (B, f, f, c): only from visible cells
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


def seen_elsewhere(experiment: Pretraining, scale: Scale) -> float | None:
    """The share in [0, 1] of what is hidden that its motion shows in a visible cell.

    In any cell of any other slice: what a model can fill in that knows the motion, and no other.
    None in the domain "object", where most of the picture does not move.
    """
    if experiment.domain != "camera":
        return None
    config = scale.config(experiment.image_size)
    slice_frames = config.tubelet_size * experiment.frame_stride
    mask, ratio = experiment.mask, experiment.mask_ratio
    return _share_seen(mask, ratio, config.grid, slice_frames, scale.video_frames)


@cache
def _share_seen(
    mask: Mask, ratio: float, grid: Grid, slice_frames: int, video_frames: int
) -> float:
    frames = [slice_frames * n + (slice_frames - 1) // 2 for n in range(grid.frames)]
    across = (np.arange(grid.width * _POINTS_PER_CELL) + 0.5) / (grid.width * _POINTS_PER_CELL)
    points: Points = (across + 1j * across[:, None]).ravel() - (0.5 + 0.5j)
    home = _cells(points, grid)
    # The last cell stands for all places outside of the picture, never visible.
    masks = np.pad(
        _hidden(mask, ratio, grid).numpy(), ((0, 0), (0, 0), (0, 1)), constant_values=True
    )
    num_hidden = num_seen = 0
    for clip, hidden in enumerate(masks):
        rng = np.random.default_rng(clip // len(MOTIONS))
        trajectory = draw_trajectory(MOTIONS[clip % len(MOTIONS)], video_frames, rng)
        for here, frame in enumerate(frames):
            wanted = hidden[here, home]
            places = [_cells(follow(trajectory, points, frame, to), grid) for to in frames]
            seen = ~np.all([row[cells] for row, cells in zip(hidden, places, strict=True)], axis=0)
            num_hidden += wanted.sum()
            num_seen += (wanted & seen).sum()
    return float(num_seen / num_hidden)


def follow(trajectory: Trajectory, points: Points, frame: int, to: int) -> Points:
    """Where in frame `to` there is what lies at `points` (any shape) in another frame."""
    shift, change, focus = trajectory
    origin = (points - shift[frame] - focus) / change[frame]
    followed: Points = origin * change[to] + shift[to] + focus
    return followed


def _hidden(mask: Mask, ratio: float, grid: Grid) -> Tensor:
    """A mask for each of some clips, (B, slices, cells)."""
    generator = torch.Generator().manual_seed(0)
    hidden = MASKS[mask](grid, ratio, batch_size=_NUM_CLIPS, generator=generator)
    return hidden.view(_NUM_CLIPS, grid.frames, grid.num_cells)


def _cells(points: Points, grid: Grid) -> NDArray[np.int64]:
    """The number of the cell in which a point of the picture lies; one more where it lies outside.

    Points are in picture widths from the centre, x + iy.
    """
    column = np.floor((points.real + 0.5) * grid.width).astype(np.int64)
    row = np.floor((points.imag + 0.5) * grid.height).astype(np.int64)
    inside = (column >= 0) & (column < grid.width) & (row >= 0) & (row < grid.height)
    return np.where(inside, row * grid.width + column, grid.num_cells)


class _NoTracker(contextlib.nullcontext[None]):
    """In place of hooks on all modules, with which a model leaves the short cuts of training."""

    parents = frozenset(["Global"])


@cache
def clip_cost(experiment: Pretraining, scale: Scale) -> tuple[int, float]:
    """The tokens that the encoder sees of a clip, and the GFLOP of a step for it.

    Forward and backward, in 10^9 products and sums: what a mask or a decoder saves on any machine,
    however busy.
    """
    settings, config = experiment.settings(scale, Path()), scale.config(experiment.image_size)
    mask, decoder_mask = draw_masks(settings, config, num_clips=1, step=0)
    counting = FlopCounterMode(display=False)
    counting.mod_tracker = _NoTracker()  # type: ignore[assignment]
    with torch.device("meta"), counting as counter:
        model = make_model(settings)
        model.set_attn_implementation("eager")  # of which the counter sees every product
        clip = torch.zeros(1, config.num_frames, 3, experiment.image_size, experiment.image_size)
        model(clip, choose_tokens(mask, config.grid.num_tokens, decoder_mask)).loss.backward()  # type: ignore[no-untyped-call]
    return int((~mask).sum()), counter.get_total_flops() / 1e9
