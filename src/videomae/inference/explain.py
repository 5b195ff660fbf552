"""Which places and moments of a clip speak for a label: heat for each tubelet.

By occlusion: a block of tubelets is hidden at a time, and what the label loses is measured. By
attention: the weights of all layers and their gradients, from one pass. Letters: T, C, H, W as
everywhere; f, h, w the grid, N tokens; a head is one of attention.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from videomae.config import Grid, VideoMAEConfig, check_choice
from videomae.errors import ConfigError, nearest
from videomae.hub import PathLike
from videomae.inference.engines import Engine
from videomae.inference.exported import Log
from videomae.inference.predict import Model, answers_of, mean_scores, over_videos, ready_model
from videomae.processing.sampling import check_counts
from videomae.processing.views import Fps, FrameStride, OnError, ViewMaker, prepared, shown
from videomae.report import heat as heat_pictures
from videomae.report.reconstruction import to_frames
from videomae.settings import OnDamage
from videomae.video.decoder import Frames
from videomae.video.reader import BadVideo
from videomae.weights.checks import check_answer

Method = Literal["occlusion", "attention"]
Block = tuple[slice, slice, slice]  # of the grid

# What hides a block is the mean over time of a picture of so many cells on each side.
_BLUR = 4


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each tubelet of one clip speaks for a label.

    path: the file or folder, None for arrays. score: of the label, as `classify` gives it, and
    `is_share` as its `are_shares`. method: "occlusion" or "attention". heat: (f, h, w) float32; by
    occlusion, by how much the label's logit falls where the tubelet and those around it are hidden,
    below 0 where it rises; by attention, relevance from 0 up, in no unit. frames: the clip as the
    model saw it, uint8 (T, H, W, 3).
    """

    path: Path | None
    label: str
    score: float
    method: str
    heat: NDArray[np.float32] = field(repr=False)
    frames: Frames = field(repr=False)
    is_share: bool = field(default=True, repr=False)

    @property
    def hottest(self) -> tuple[int, int, int]:
        """Slice, row and column of the tubelet that speaks most for the label, from 0."""
        found = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return int(found[0]), int(found[1]), int(found[2])

    @property
    def shown_score(self) -> str:
        """The score for people: percents where it is a share."""
        return f"{self.score:.1%}" if self.is_share else f"{self.score:.4g}"

    def save(self, path: PathLike, *, fps: float = 8) -> Path:
        """Write clip and heat: .png a film strip, .gif or .mp4 side by side, at `fps`."""
        scale = "attention: from nothing to most relevant"
        if self.method == "occlusion":
            scale = f"hidden, the logit falls by 0 to {max(self.heat.max(), 0):.2g}"
        return heat_pictures.save(
            path,
            self.frames,
            self.heat,
            caption=f"{self.label} {self.shown_score}",
            scale=scale,
            fps=fps,
        )

    def record(self) -> dict[str, Any]:
        """What `videomae explain --json` prints of it, but for the path."""
        heat = [[[round(float(x), 6) for x in row] for row in rows] for rows in self.heat]
        facts = {"label": self.label, "score": round(self.score, 6), "method": self.method}
        return {**facts, "grid": self.heat.shape, "hottest": self.hottest, "heat": heat}


@over_videos
def explain(
    videos: Iterable[Any],
    *,
    model: Model = "actions-tiny",
    processor: Any = None,
    label: str | None = None,
    method: Method = "occlusion",
    parts: int = 4,
    frame_stride: FrameStride = "config",
    fps: Fps = "config",
    on_damage: OnDamage = "refuse",
    dtype: str | torch.dtype = "float32",
    engine: str = "auto",
    device: str | torch.device | None = None,
    tell: Log | None = None,
    batch_size: int = 8,
    on_error: OnError = "raise",
) -> Iterator[Explanation | BadVideo]:
    """Show which places and moments of videos speak for a label.

    Args:
        model: a classifier; hub id, folder, weight file, shipped name, or a loaded one.
        label: which of its labels to explain; None is the likeliest of each video.
        method: "occlusion" hides one block of tubelets at a time, see `occlusion_heat`: exact, by
            any engine, in hundreds of passes. "attention" is one pass with gradients, by torch
            alone, see `attention_heat`.
        parts: of occlusion, a block is one of so many parts of the clip along time, height and
            width. Blocks overlap by half; from the longest side of the grid on, each is a tubelet.
        dtype: bfloat16 has steps of 0.03 where logits are 4 to 8, which is more than many a block
            changes.
        batch_size: of occlusion, clips that go through the model at once.

    Other arguments, several videos and errors: see `classify`. What is explained is the one clip in
    the middle of each video. Returns an Explanation, or a list or iterator of them.

    ```python
    explain("clip.mp4", label="throw").save("heat.gif")
    ```
    """
    check_choice("method", method, get_args(Method))
    check_counts(parts=parts, batch_size=batch_size)
    if method == "attention" and engine not in ("auto", "torch"):
        raise ConfigError(
            f"method='attention' needs gradients, which engine={engine!r} does not compute; use "
            "engine='torch', or method='occlusion'"
        )
    engine = "torch" if method == "attention" else engine
    options: dict[str, Any] = {"engine": engine, "dtype": dtype, "device": device}
    ready, processor = ready_model(model, processor, tell, **options)
    names = _names(ready.config)
    chosen = None if label is None else _number(label, names)
    maker = ViewMaker(ready.config, processor, frame_stride, fps=fps, on_damage=on_damage)

    def answer(path: Path | None, pixel_values: Tensor) -> Explanation:
        scores = mean_scores(ready(pixel_values), ready.config)
        index = int(scores.argmax()) if chosen is None else chosen
        if method == "attention":
            heat = attention_heat(pixel_values, ready, index)
        else:
            heat = occlusion_heat(pixel_values, ready, index, parts=parts, batch_size=batch_size)
        frames = to_frames(shown(pixel_values[0], processor))
        is_share = ready.config.problem_type != "regression"
        found = names[index], float(scores[index]), method, heat.numpy(), frames, is_share
        return Explanation(path, *found)

    return answers_of(prepared(videos, maker, on_error), answer)


def _names(config: VideoMAEConfig) -> list[str]:
    """The labels of a classifier by their numbers; those without a name are called by these."""
    known = config.id2label or {}
    return [known.get(index, str(index)) for index in range(config.num_labels)]


def _number(label: str, names: Sequence[str]) -> int:
    """The number of a label; ConfigError where the model does not have it."""
    if label not in names:
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        hint = nearest(label, names)
        raise ConfigError(f"label={label!r} is none of the {len(names)} labels ({some}){hint}")
    return names.index(label)


def occlusion_heat(
    pixel_values: Tensor, ready: Engine, index: int, *, parts: int = 4, batch_size: int = 8
) -> Tensor:
    """How much the logit of a label falls when parts of one clip (1, T, C, H, W) are hidden.

    One block at a time (see `blocks`) shows, instead of its pixels, the clip's own mean over time,
    blurred: no detail, no motion, and hardly an edge. The heat (f, h, w) of a tubelet is the mean
    over all blocks that hold it. After Zeiler and Fergus (2014), who slid a grey square.
    """
    config = ready.config
    grid, steps = config.grid, (config.tubelet_size, *config.patch_hw)
    background = blurred(pixel_values)
    before = ready(pixel_values)[0, index]
    falls, all_blocks = [], blocks(grid, parts)
    for first in range(0, len(all_blocks), batch_size):
        some = all_blocks[first : first + batch_size]
        clips = pixel_values.repeat(len(some), 1, 1, 1, 1)  # (B, T, C, H, W)
        for clip, block in zip(clips, some, strict=True):
            time, rows, columns = (
                slice(part.start * step, part.stop * step)
                for part, step in zip(block, steps, strict=True)
            )
            clip[time, :, rows, columns] = background[0, time, :, rows, columns]
        falls.append(before - ready(clips)[:, index])
    return spread(torch.cat(falls), all_blocks, grid)


def blocks(grid: Grid, parts: int) -> list[Block]:
    """Blocks of a grid, each 1 / parts of every side (rounded up), which overlap by half.

    >>> [(time.start, time.stop) for time, _, _ in blocks(Grid(8, 1, 1), 4)]
    [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8)]
    """
    sides: list[list[slice]] = []
    for length in grid:
        size = -(-length // min(parts, length))
        starts = {*range(0, length - size, max(size // 2, 1)), length - size}
        sides.append([slice(start, start + size) for start in sorted(starts)])
    times, rows, columns = sides
    return list(itertools.product(times, rows, columns))


def spread(values: Tensor, over: Sequence[Block], grid: Grid) -> Tensor:
    """Values of blocks as (f, h, w): for each tubelet the mean of all blocks that hold it."""
    total, count = torch.zeros(tuple(grid)), torch.zeros(tuple(grid))
    for value, block in zip(values, over, strict=True):
        total[block] += value
        count[block] += 1
    return total / count


def blurred(pixel_values: Tensor) -> Tensor:
    """A clip (1, T, C, H, W) without motion and detail: its mean over time, of 4 x 4 cells."""
    still = F.adaptive_avg_pool2d(pixel_values.mean(1), _BLUR)  # (1, C, 4, 4)
    size = pixel_values.shape[-2:]
    smooth = F.interpolate(still, size, mode="bilinear")  # (1, C, H, W)
    return smooth[:, None].expand_as(pixel_values)


def attention_heat(pixel_values: Tensor, ready: Engine, index: int) -> Tensor:
    """Relevance (f, h, w) of the tubelets of one clip (1, T, C, H, W) for a label, from 0 up.

    The rule of Chefer, Gur and Wolf (2021, "Generic Attention-model Explainability") for
    self-attention: from layer to layer, R <- R + A R, where A is the mean over heads of weights
    times gradients, where that is above 0. There, the row of the class token is what is asked for;
    here the mean of all rows, since the head sees the mean of all tokens, less what a token is to
    itself at the start. Raises ConfigError where a GPU's memory is too small.
    """
    config = ready.config
    pixels = pixel_values.to(ready.device, ready.dtype)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # So that there are gradients where all weights are frozen, too.
            pixels = pixels.clone().requires_grad_()
            output: Any = ready.model(pixels, output_attentions=True, return_dict=True)
            weights = output.attentions
            gradients = torch.autograd.grad(output.logits[0, index], weights)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"attention of {config.grid.num_tokens} tokens in {config.num_hidden_layers} layers, "
            f"and its gradients, do not fit into the memory of {ready.device}; use "
            "method='occlusion', or device='cpu'"
        ) from error
    # Only the rows that the head sees are wanted: as a vector from the last layer to the first.
    start = torch.zeros(config.grid.num_tokens, device=ready.device)
    if config.use_mean_pooling:
        start += 1 / len(start)
    else:
        start[0] = 1
    relevance = start
    for weight, gradient in zip(reversed(weights), reversed(gradients), strict=True):
        positive = (weight.detach() * gradient)[0].float().clamp_min(0).mean(0)  # (N, N)
        relevance = relevance + relevance @ positive
    return check_answer((relevance - start).cpu()).view(tuple(config.grid))
