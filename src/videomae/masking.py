"""Which tubelets are hidden. Every mask is bool (B, N), True = hidden.

Each function is pure: a mask follows from the grid, the ratio and the generator. Token number =
(slice * height + row) * width + column, so a row of a mask viewed as (frames, height, width) is a
picture of the clip.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from videomae.config import Grid
from videomae.errors import ConfigError


def tube_mask(
    grid: Grid, ratio: float, *, batch_size: int = 1, generator: Generator | None = None
) -> Tensor:
    """Hide the same cells in every time slice, so that nothing leaks along time.

        slice 0   slice 1   slice 2
        # # .     # # .     # # .
        # . #     # . #     # . #

    The paper's own mask (section 3.3). The count is rounded down as in the published code: 0.9 of
    14 x 14 cells hides 176 and shows 20 in each slice.
    """
    cells = _random_rows(batch_size, grid.num_cells, ratio, generator)
    return cells.repeat(1, grid.frames)


def random_mask(
    grid: Grid, ratio: float, *, batch_size: int = 1, generator: Generator | None = None
) -> Tensor:
    """Hide tubelets drawn from the whole clip, each as likely as any other."""
    return _random_rows(batch_size, grid.num_tokens, ratio, generator)


def frame_mask(
    grid: Grid, ratio: float, *, batch_size: int = 1, generator: Generator | None = None
) -> Tensor:
    """Hide whole time slices."""
    slices = _random_rows(batch_size, grid.frames, ratio, generator)
    return slices.repeat_interleave(grid.num_cells, dim=1)


def running_cell_mask(
    grid: Grid, ratio: float, *, batch_size: int = 1, generator: Generator | None = None
) -> Tensor:
    """Hide the same share of every 2 x 2 cell, the hidden places running on from slice to slice.

        slice 0   slice 1   slice 2   slice 3
        # #       # .       . .       . #
        . .       . #       # #       # .

    The decoder mask of VideoMAE V2 (section 3.2 there), with ratio 0.5; any two slices two apart
    cover the clip evenly. A cell's four places are counted row by row, int(4 * ratio) of them are
    hidden, and each clip starts at a phase of its own.
    """
    count = int(4 * ratio)
    if count not in (1, 2, 3):
        raise ConfigError(
            f"running-cell mask ratio {ratio} hides {count} of the 4 places of a cell; "
            "use a ratio from 0.25 to below 1"
        )
    phase = torch.arange(4).view(4, 1, 1, 1)
    time, row, column = torch.meshgrid(*map(torch.arange, grid), indexing="ij")  # (f, h, w) each
    masks = ((2 * (row % 2) + column % 2 + time + phase) % 4 < count).flatten(1)  # (4, N)
    if len(set(masks.sum(1).tolist())) > 1:
        raise ConfigError(
            f"running-cell masks hide another number of the {' x '.join(map(str, grid))} tubelets "
            "in each clip; use an even number of rows or columns, or slices in multiples of 4"
        )
    return masks[torch.randint(4, (batch_size,), generator=generator)]


MASKS: dict[str, Callable[..., Tensor]] = {
    "tube": tube_mask,
    "random": random_mask,
    "frame": frame_mask,
    "running_cell": running_cell_mask,
}


def hidden_share(kind: str, grid: Grid, ratio: float) -> float:
    """The share of the tubelets that a mask hides, its ratio being rounded to whole places.

    >>> hidden_share("tube", Grid(8, 4, 4), 0.9)  # 14 of 16 cells
    0.875
    """
    return float(MASKS[kind](grid, ratio, generator=Generator()).float().mean())


def split_mask(mask: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """The token numbers (B, V) that are visible and (B, M) that are hidden, each ascending.

    Raises ConfigError when the mask is not (B, num_tokens), hides all or nothing, or hides a
    different number in different clips; RuntimeError within a graph of torch.compile or
    torch.export. A mask on the CPU costs the device no waiting.
    """
    if mask.ndim != 2 or mask.shape[1] != num_tokens or not len(mask):
        raise ConfigError(
            f"mask has shape {tuple(mask.shape)}, expected (batch, {num_tokens}): one value per "
            "tubelet, True = hidden"
        )
    if mask.dtype != torch.bool:
        raise ConfigError(f"mask has dtype {mask.dtype}, expected torch.bool (True = hidden)")
    order = mask.to(torch.uint8).sort(dim=1, stable=True).indices  # stable: ascending in each part
    if torch.compiler.is_compiling():  # a graph cannot word the errors below, which need the counts
        in_clips = mask.sum(1)
        num_hidden: Any = in_clips[0].item()  # int() would ask for its value
        torch._assert_async(
            (in_clips == in_clips[0]).all(), "every clip of a batch must hide equally many tubelets"
        )
        torch._check(num_hidden > 0)
        torch._check(num_hidden < num_tokens)
        num_visible = num_tokens - num_hidden
        return order.narrow(1, 0, num_visible), order.narrow(1, num_visible, num_hidden)
    counts = mask.sum(1).tolist()
    if len(set(counts)) > 1:
        raise ConfigError(
            f"every clip of a batch must hide equally many tubelets, got {counts}; "
            "make masks with videomae.masking, or pass the clips one by one"
        )
    if counts[0] in (0, num_tokens):
        state = "nothing" if counts[0] == 0 else "everything"
        raise ConfigError(f"mask hides {state} ({counts[0]} of {num_tokens} tubelets per clip)")
    return order[:, : num_tokens - counts[0]], order[:, num_tokens - counts[0] :]


class ChosenTokens(NamedTuple):
    """Which tokens one step of pre-training works on, as token numbers, ascending.

    visible: (B, V), what the encoder sees. predicted: (B, M), what the decoder predicts. counted:
    (B, M) bool, which of those the loss counts; None: all.
    """

    visible: Tensor
    predicted: Tensor
    counted: Tensor | None = None

    def to(self, device: torch.device | str | int) -> "ChosenTokens":
        """The same on a device; a CUDA device does not make the CPU wait."""
        device = torch.device(device)
        move = partial(Tensor.to, device=device, non_blocking=device.type == "cuda")
        counted = None if self.counted is None else move(self.counted)
        return ChosenTokens(move(self.visible), move(self.predicted), counted)


def choose_tokens(
    mask: Tensor | ChosenTokens, num_tokens: int, decoder_mask: Tensor | None = None
) -> ChosenTokens:
    """Follow a mask (B, N), and VideoMAE V2's second one, True = not decoded.

    Without the second, the hidden tokens are predicted and all of them count. With it, what it
    leaves is predicted, and of that the loss counts what `mask` hides. Chosen tokens come back as
    they are. Raises ConfigError as `split_mask` does, where nothing is left to count, and where
    chosen tokens meet another decoder mask.

    Models take masks or this. How many tokens a mask shows is known only by looking, so that a
    model in a CUDA graph wants this, made beforehand, and a compiled one is faster with it:

    ```python
    chosen = choose_tokens(mask, model.config.grid.num_tokens).to(model.device)
    torch.compile(model, fullgraph=True)(pixel_values, chosen)
    ```
    """
    if isinstance(mask, ChosenTokens):
        if decoder_mask is not None:
            raise ConfigError(
                "bool_masked_pos is a ChosenTokens, which has its decoder mask in it, and got "
                "another; pass both to masking.choose_tokens, or both here as masks"
            )
        return mask
    visible, hidden = split_mask(mask, num_tokens)
    if decoder_mask is None:
        return ChosenTokens(visible, hidden)
    predicted, _ = split_mask(decoder_mask, num_tokens)
    counted = mask.gather(1, predicted.to(mask.device))  # (B, M)
    nothing = (
        "decoder_bool_masked_pos leaves out every tubelet that bool_masked_pos hides, so "
        "that nothing is left to predict; True there means not decoded"
    )
    if torch.compiler.is_compiling():
        torch._assert_async(counted.any(), nothing)
    elif not counted.any():
        raise ConfigError(nothing)
    return ChosenTokens(visible, predicted, counted)


def _random_rows(batch_size: int, length: int, ratio: float, generator: Generator | None) -> Tensor:
    """(batch_size, length), that share of each row True, drawn evenly."""
    if not 0 < ratio < 1:
        raise ConfigError(f"mask ratio {ratio} must lie between 0 and 1")
    num_hidden = int(ratio * length)  # rounded down, as the published code does
    if num_hidden == 0:
        raise ConfigError(f"mask ratio {ratio} of {length} places hides none; raise it")
    noise = torch.rand(batch_size, length, generator=generator)
    mask = torch.zeros(batch_size, length, dtype=torch.bool)
    return mask.scatter_(1, noise.argsort(1)[:, :num_hidden], True)
