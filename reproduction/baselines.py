"""What a mere copy earns: the leak along time that the paper's tubes close (section 3.3).

A cell that is hidden in one slice and visible in another can be copied from there, by a model that
knows nothing of bodies or motion.
"""

from pathlib import Path

import torch
from torch import Tensor

from reproduction.plan import Pretraining, Scale
from videomae.masking import MASKS
from videomae.processing.views import ViewMaker, find_processor
from videomae.tubelets import pixel_targets

_NUM_CLIPS = 200


def copy_loss(experiment: Pretraining, scale: Scale, folder: Path) -> float:
    """The loss of a model that only copies, on rendered videos of a folder.

    It predicts each hidden tubelet as the same cell of the nearest slice in which that is visible,
    times the best factor for slices so far apart; and zeros where the cell is visible in no slice,
    as with tubes.
    """
    config = scale.config(experiment.preset)
    maker = ViewMaker(config, find_processor(None, config))
    paths = sorted(folder.rglob("*.mp4"), key=lambda path: (path.stem, path))[:_NUM_CLIPS]
    pixels = torch.cat([maker(path) for path in paths])  # (B, T, C, H, W)
    generator = torch.Generator().manual_seed(0)
    hidden = MASKS[experiment.mask](
        config.grid, experiment.mask_ratio, batch_size=len(pixels), generator=generator
    ).view(len(pixels), config.grid.frames, config.grid.num_cells)
    targets = pixel_targets(pixels, config.grid, normalize=True)
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
