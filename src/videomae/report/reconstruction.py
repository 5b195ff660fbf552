"""Reconstructions: predicted tubelets put into their clip, and what a model saw of it.

Clips are float (T, C, H, W) in 0..1. T frames, C channels, H x W pixels, N tubelets, M of them
hidden, V visible, P = t*p*q pixels of a tubelet.
"""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from videomae.config import Grid, VideoMAEConfig, check_choice
from videomae.errors import ConfigError
from videomae.settings import Rendering
from videomae.tubelets import grid_of, patchify, unpatchify
from videomae.video.decoder import Frames

# Pull of the guessed mean and std against steps at the seams. The first is only to settle what
# seams leave open; without the second, contrast fades where patterns do not fit.
_GUESS_WEIGHTS = (0.03, 1.0)


def paste_reconstruction(
    pixels: Tensor,
    mask: Tensor,
    predictions: Tensor,
    config: VideoMAEConfig,
    *,
    rendering: Rendering = "plain",
) -> Tensor:
    """Put predicted tubelets into the hidden places of a clip; what was visible stays as it was.

    Args:
        pixels: the clip (T, C, H, W) in 0..1.
        mask: (N,) bool, True = hidden.
        predictions: (M, P*C), the model's `logits` of this clip, one row per hidden tubelet.
        config: the model's; says how a clip is cut, and whether predictions are normalised.
        rendering: where the brightness and contrast come from that a model with `norm_pix_loss`
            was never asked for. "plain" looks at no hidden pixel: it guesses both from the visible
            tubelets nearby, then shifts the guess so that neighbours match where they touch.
            "paper" takes both from the hidden tubelets themselves, as the published pictures do.
            That leaks the answer: such a picture looks like a blurred original even where the
            model predicts nothing.

    Returns (T, C, H, W) in 0..1.
    """
    check_choice("rendering", rendering, get_args(Rendering))
    size, patch_hw = config.tubelet_size, config.patch_hw
    grid = grid_of(pixels[None], size, patch_hw)
    if mask.shape != (grid.num_tokens,) or len(predictions) != int(mask.sum()):
        raise ConfigError(
            f"mask {tuple(mask.shape)} hides {int(mask.sum())} tubelets and there are "
            f"{len(predictions)} predictions; a clip of {tuple(pixels.shape)} (T, C, H, W) has "
            f"{grid.num_tokens} tubelets, and each hidden one needs one prediction"
        )
    tubelets = patchify(pixels[None].float(), grid)[0]
    tubelets = tubelets.view(grid.num_tokens, -1, pixels.shape[1])  # (N, P, C)
    patterns = predictions.float().to(tubelets.device).view(-1, *tubelets.shape[1:])  # (M, P, C)
    if config.norm_pix_loss:
        known = tubelets[mask] if rendering == "paper" else tubelets[~mask]
        levels = torch.stack([known.mean(1), known.std(1)])  # (2, M or V, C)
        if rendering == "plain":
            parts = (*grid, size, *patch_hw, pixels.shape[1])
            drawn = tubelets.index_put((mask,), patterns).view(parts)
            levels = _match_seams(drawn, mask, _nearness(grid, mask) @ levels)
        patterns = patterns * levels[1, :, None] + levels[0, :, None]
    pasted = tubelets.index_put((mask,), patterns.clamp(0, 1))
    return unpatchify(pasted.flatten(1)[None], grid, size, patch_hw)[0]


def _nearness(grid: Grid, mask: Tensor) -> Tensor:
    """How much each visible tubelet says about each hidden one: (M, V), rows sum to 1.

    Inverse distance weights (Shepard 1968), distances counted in tubelets.
    """
    axes = [torch.arange(length, dtype=torch.float32) for length in grid]
    places = torch.cartesian_prod(*axes).to(mask.device)  # (N, 3)
    weights = torch.cdist(places[mask], places[~mask]) ** -3
    return weights / weights.sum(1, keepdim=True)


def _match_seams(drawn: Tensor, mask: Tensor, guess: Tensor) -> Tensor:
    """Levels of hidden tubelets with which neighbours go over into each other without a step.

    `drawn` (f, h, w, t, p, q, C) holds pixels where visible and patterns where hidden, `guess` and
    the answer (2, M, C) the mean and std of the latter. Least squares over the differences across
    all seams, and over the distance from the guess.
    """
    with torch.inference_mode(False), torch.enable_grad():
        drawn, guess = drawn.clone(), guess.clone()
        levels = guess.clone().requires_grad_()
        pull = torch.tensor(_GUESS_WEIGHTS, device=guess.device).view(2, 1, 1)
        # Visible pixels * 1 + 0.
        unchanged = torch.tensor([0.0, 1.0], device=guess.device).view(2, 1, 1)
        unchanged = unchanged.expand(2, len(mask), guess.shape[-1])
        # The last plane of each tubelet along time, height and width, and the first one.
        ends = [drawn.select(axis + 3, -1) for axis in range(3)]
        starts = [drawn.select(axis + 3, 0) for axis in range(3)]
        optimizer = torch.optim.LBFGS([levels], max_iter=40, line_search_fn="strong_wolfe")

        def misfit() -> Tensor:
            optimizer.zero_grad()
            every = unchanged.masked_scatter(mask[:, None], levels)  # (2, N, C)
            mean, std = every.view(2, *drawn.shape[:3], 1, 1, -1)
            loss = (pull * (levels - guess).square()).sum()
            for axis, count in enumerate(drawn.shape[:3]):
                # From the end of each tubelet but the last to the start of the next.
                end = (ends[axis] * std + mean).narrow(axis, 0, count - 1)
                start = (starts[axis] * std + mean).narrow(axis, 1, count - 1)
                loss = loss + (end - start).square().mean((3, 4)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(misfit)  # type: ignore[no-untyped-call]
        return levels.detach()


def hide(pixels: Tensor, mask: Tensor, config: VideoMAEConfig) -> Tensor:
    """The clip (T, C, H, W) as the model sees it, the tubelets hidden by `mask` (N,) in grey."""
    size, patch_hw = config.tubelet_size, config.patch_hw
    grid = grid_of(pixels[None], size, patch_hw)
    tubelets = patchify(pixels[None].float(), grid)
    tubelets[:, mask] = 0.5
    return unpatchify(tubelets, grid, size, patch_hw)[0]


def to_frames(pixels: Tensor) -> Frames:
    """Pixels (T, C, H, W) in 0..1 as uint8 frames (T, H, W, 3): RGB, grey, or RGB with alpha.

    Alpha is left out. Raises ConfigError for other numbers of channels.
    """
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3, 4):
        raise ConfigError(
            f"pixels {tuple(pixels.shape)} cannot be shown; expected (T, C, H, W) of 1, 3 or 4 "
            "channels"
        )
    shown = pixels[:, :3].float().clamp(0, 1).mul(255).round().to(torch.uint8)
    frames: Frames = shown.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(frames)
