"""Draw the pictures of docs/concepts.md, from one rendered clip: python docs/pictures.py."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import videomae
from videomae import VideoMAEConfig, masking
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.processing.sampling import crop_boxes, spread_clips
from videomae.rendering.actions import render_clip
from videomae.report.pictures import film_strip, save_picture
from videomae.report.reconstruction import hide, to_frames
from videomae.tubelets import grid_of, pixel_targets, unpatchify
from videomae.video.decoder import Frames

IMAGES = Path(__file__).parent / "images"
CONFIG = VideoMAEConfig(image_size=128)  # 16 frames, patches of 16 px: 8 x 8 x 8 tubelets
PX, COLOURS = 16, ("#e8590c", "#1971c2", "#2f9e44")


def drawn(
    frame: Frames, boxes: dict[str, tuple[int, int, int, int]], *, grid: bool = False
) -> Frames:
    """A frame with boxes (top, left, height, width) in the colours, and lines between patches."""
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    for place in range(PX, 128 if grid else 0, PX):
        draw.line((place, 0, place, 127), "white")
        draw.line((0, place, 127, place), "white")
    for colour, (top, left, height, width) in boxes.items():
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline=colour, width=2)
    return np.asarray(image)


def tubelets(clip: Frames) -> dict[str, Frames]:
    """Frames cut into patches, and three tubelets, each a patch of two frames."""
    places = [(4 * PX, 3 * PX), (5 * PX, 4 * PX), (6 * PX, 5 * PX)]  # of the patches, top and left
    boxes = [{colour: (*place, PX, PX)} for colour, place in zip(COLOURS, places, strict=True)]
    frames = [drawn(clip[time], [*boxes, {}][time // 2], grid=True) for time in range(8)]
    return {
        "8 of 16 frames, cut into patches; of three tubelets, the two patches each": np.stack(
            frames
        )
    }


def masks(pixels: torch.Tensor) -> dict[str, Frames]:
    """What each kind of mask leaves visible."""
    generator = torch.Generator().manual_seed(3)
    kinds = {
        "tube, 0.9": (masking.tube_mask, 0.9),
        "random, 0.9": (masking.random_mask, 0.9),
        "frame, 0.75": (masking.frame_mask, 0.75),
        "running cell, 0.5 (for the decoder of VideoMAE V2)": (masking.running_cell_mask, 0.5),
    }
    seen = {
        name: hide(pixels, mask(CONFIG.grid, ratio, generator=generator)[0], CONFIG)
        for name, (mask, ratio) in kinds.items()
    }
    return {name: to_frames(each) for name, each in seen.items()}


def loss(pixels: torch.Tensor) -> dict[str, Frames]:
    """What the decoder is to predict, and the prediction that knows nothing."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    grid = grid_of(pixels[None], 2, (PX, PX))
    target = pixel_targets((pixels[None] - mean) / std, grid, normalize=True)
    shown = unpatchify(0.5 + target / 6, grid, 2, (PX, PX))[0]
    zero = target.square().mean().item()
    return {
        "the clip": to_frames(pixels),
        "the target: each tubelet less its mean, over its deviation": to_frames(shown),
        f"to predict nothing: a loss of {zero:.2f}": to_frames(torch.full_like(pixels, 0.5)),
    }


def views(clip: Frames) -> dict[str, Frames]:
    """Three clips along time, three crops across each."""
    wide = clip[:, 8:104]
    boxes = dict(zip(COLOURS, crop_boxes(96, 128, size=(96, 96), num_crops=3), strict=True))
    rows = spread_clips(len(wide), num_frames=4, frame_stride=4, num_clips=3)
    return {
        f"clip {number + 1} of 3: frames {frames[0]} to {frames[-1]}; 3 crops of each": np.stack(
            [drawn(wide[time], boxes) for time in frames]
        )
        for number, frames in enumerate(rows)
    }


if __name__ == "__main__":
    long = render_clip("throw", seed=5, size=128, num_frames=32)
    clip = long[::2]
    pixels = torch.from_numpy(clip.copy()).permute(0, 3, 1, 2) / 255  # (T, C, H, W) in 0..1
    small = render_clip("throw", seed=5, size=64, num_frames=32)
    videomae.reconstruct(small).save(IMAGES / "concepts-decoder.png")
    for name, rows in {
        "tubelets": tubelets(clip),
        "masks": masks(pixels),
        "loss": loss(pixels),
        "views": views(long),
    }.items():
        save_picture(IMAGES / f"concepts-{name}.png", film_strip(rows))
