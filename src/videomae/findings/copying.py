"""What a mere copy would reach: a yardstick for the loss of a pre-training.

A cell that is hidden in one slice and visible in another can be copied from there, which takes no
notion of motion: the leak along time that the paper's tubes close (section 3.3).
"""

import numpy as np
import torch
from torch import Tensor

from videomae.findings.arms import Pretraining, Scale
from videomae.masking import MASKS
from videomae.motion import MOTIONS, render_clip
from videomae.training.data import normalize
from videomae.tubelets import pixel_targets

_CLIPS_PER_MOTION = 10


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
    pixels = normalize(torch.from_numpy(clips).permute(0, 1, 4, 2, 3), torch.device("cpu"))
    targets = pixel_targets(pixels, None, config.tubelet_size, config.patch_hw, normalize=True)
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
