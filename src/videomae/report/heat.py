"""A heat map over the clip that it is about, beside the clip itself, with the scale of colours.

Clips are uint8 (T, H, W, 3) RGB: T frames of H x W pixels; f, h, w the grid of tubelets.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from videomae.hub import PathLike
from videomae.report import pictures
from videomae.video.decoder import Frames
from videomae.video.writer import write_video

_STRENGTH = 0.75  # of the hottest colour, behind which the picture must still be seen


def overlay(frames: Frames, heat: NDArray[np.float32]) -> Frames:
    """The clip in grey, and heat (f, h, w) over it in colours, from none at 0 to its maximum.

    Negative heat shows as none. Heat is smoothed between cells, not between slices.
    """
    num_frames, *size = frames.shape[:3]
    above = torch.from_numpy(np.maximum(heat, 0) / max(float(heat.max()), 1e-12))
    smooth = F.interpolate(above[:, None].float(), size, mode="bilinear")  # (f, 1, H, W)
    level = smooth[torch.arange(num_frames) * len(heat) // num_frames, 0].numpy()  # (T, H, W)
    weight = _STRENGTH * level[..., None]
    grey = (frames @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # luma of BT.601
    mixed: Frames = (grey * (1 - weight) + _colours(level) * weight).round().astype(np.uint8)
    return mixed


def save(
    path: PathLike,
    frames: Frames,
    heat: NDArray[np.float32],
    *,
    caption: str,
    scale: str,
    fps: float = 8,
) -> Path:
    """Show a clip and its heat, as the suffix says: .png a film strip, .gif or .mp4 side by side.

    `caption` stands above the heat, `scale` above the bar of its colours.
    """
    kind = pictures.check_suffix(path, (".png", ".gif", ".mp4"))
    clips = {"clip": frames, caption: overlay(frames, heat)}
    shown = pictures.film_strip(clips) if kind == ".png" else pictures.side_by_side(clips)
    width = shown.shape[-2]
    bar = np.broadcast_to(_colours(np.linspace(0, 1, width - 16)), (10, width - 16, 3))
    legend = pictures.padded(pictures.captioned(bar.astype(np.uint8), scale), 0, 8, 8, 8)
    below = np.broadcast_to(legend, (*shown.shape[:-3], *legend.shape))
    shown = np.concatenate([shown, below], axis=-3)
    if kind == ".png":
        return pictures.save_picture(path, shown)
    return (pictures.save_gif if kind == ".gif" else write_video)(path, shown, fps=fps)


def _colours(levels: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float32]:
    """Levels in 0..1 as RGB in 0..255: inferno, in which equal steps look equal, in grey too."""
    from matplotlib import colormaps

    return np.float32(255) * colormaps["inferno"](levels)[..., :3].astype(np.float32)
