"""Clips reconstructed from the little that is left of them: `reconstruct`.

T, C, H, W as everywhere; N tokens; f, h, w the grid.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from videomae.config import VideoMAEConfig, check_choice
from videomae.hub import PathLike
from videomae.inference.engines import Engine
from videomae.inference.exported import Log
from videomae.inference.predict import Model, answers_of, over_videos, ready_model
from videomae.masking import MASKS, split_mask
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.processing.views import Fps, FrameStride, OnError, ViewMaker, prepared, shown
from videomae.report import pictures, reconstruction
from videomae.settings import OnDamage, Rendering
from videomae.tubelets import pixel_targets
from videomae.video.decoder import Frames
from videomae.video.reader import BadVideo


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One clip, what the model saw of it, and what it made of that.

    original, masked, reconstructed: uint8 (T, H, W, 3). mask: bool (f, h, w), True = hidden. loss:
    the mean squared error over hidden tubelets, as in training. path: None for arrays.
    """

    path: Path | None
    original: Frames = field(repr=False)
    masked: Frames = field(repr=False)
    reconstructed: Frames = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    loss: float

    def save(self, path: PathLike, *, fps: float = 8) -> Path:
        """Write all three clips: .png a film strip, .gif or .mp4 side by side, at `fps`."""
        clips = {
            "original": self.original,
            f"{self.mask.mean():.0%} hidden": self.masked,
            "reconstructed": self.reconstructed,
        }
        return pictures.save_clips(path, clips, fps=fps)


@over_videos
def reconstruct(
    videos: Iterable[Any],
    *,
    model: Model = "actions-tiny-pretrain",
    processor: Any = None,
    mask: str = "tube",
    mask_ratio: float = 0.9,
    seed: int = 0,
    rendering: Rendering = "plain",
    frame_stride: FrameStride = "config",
    fps: Fps = "config",
    on_damage: OnDamage = "refuse",
    dtype: str | torch.dtype = "auto",
    engine: str = "auto",
    device: str | torch.device | None = None,
    tell: Log | None = None,
    on_error: OnError = "raise",
) -> Iterator[Reconstruction | BadVideo]:
    """Hide most of a clip, and let a pre-trained model reconstruct what it cannot see.

    Args:
        model: a pre-training checkpoint with its decoder, or a loaded VideoMAEForPreTraining.
        mask: "tube", "random", "frame" or "running_cell"; see `videomae.masking`.
        mask_ratio: the share that is hidden; the paper trains with 0.9.
        seed: seeds the mask, which is the same for each video.
        rendering: "plain" shows what the model knows; "paper", as in the published pictures, takes
            brightness and contrast of hidden patches from the original, which looks better than
            the model is. See `reconstruction.paste_reconstruction`.

    Other arguments, several videos and errors: see `classify`. Returns a Reconstruction, or a list
    or iterator of them.

    ```python
    reconstruct("clip.mp4", mask_ratio=0.75).save("clip.gif")
    ```
    """
    check_choice("mask", mask, MASKS)
    options = {"engine": engine, "dtype": dtype, "device": device}
    ready, processor = ready_model(model, processor, tell, kind=VideoMAEForPreTraining, **options)
    hidden = clip_mask(ready.config, mask, mask_ratio, seed)

    def answer(path: Path | None, pixel_values: Tensor) -> Reconstruction:
        return reconstruct_clip(pixel_values, hidden, ready, processor, rendering, path=path)

    maker = ViewMaker(ready.config, processor, frame_stride, fps=fps, on_damage=on_damage)
    return answers_of(prepared(videos, maker, on_error), answer)


def clip_mask(config: VideoMAEConfig, mask: str, mask_ratio: float, seed: int) -> Tensor:
    """The mask (1, N) of one clip, True = hidden."""
    generator = torch.Generator().manual_seed(seed)
    return MASKS[mask](config.grid, mask_ratio, generator=generator)


def reconstruct_clip(
    pixel_values: Tensor,
    hidden: Tensor,
    ready: Engine,
    processor: Any,
    rendering: Rendering = "plain",
    *,
    path: Path | None = None,
) -> Reconstruction:
    """Reconstruct the tubelets of one clip (1, T, C, H, W) that `hidden` (1, N) marks."""
    config = ready.config
    hidden_tokens = split_mask(hidden, config.grid.num_tokens)[1]  # (1, M)
    predictions = ready.run(
        lambda pixels: ready.model(pixels, hidden, return_dict=True).logits, pixel_values
    )  # (1, M, t*p*q*C)
    target = pixel_targets(pixel_values, config.grid, hidden_tokens, normalize=config.norm_pix_loss)
    pixels = shown(pixel_values[0], processor)
    pasted = reconstruction.paste_reconstruction(
        pixels, hidden[0], predictions[0], config, rendering=rendering
    )
    return Reconstruction(
        path=path,
        original=reconstruction.to_frames(pixels),
        masked=reconstruction.to_frames(reconstruction.hide(pixels, hidden[0], config)),
        reconstructed=reconstruction.to_frames(pasted),
        mask=hidden[0].view(tuple(config.grid)).numpy(),
        loss=float(F.mse_loss(predictions, target)),
    )
