"""Pictures: reconstructions in their clip, film strips, animations, curves, confusion matrices.

The only door to matplotlib, and to writing pictures. Clips are uint8 (T, H, W, 3) RGB; inside the
model's domain they are float (T, C, H, W) in 0..1. T frames, C channels, H x W pixels, N tubelets,
M of them hidden, V visible, P = t*p*q pixels of a tubelet.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError
from videomae.hub import PathLike, atomic_path
from videomae.tubelets import grid_of, patchify, unpatchify
from videomae.video.reader import write_video

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB
Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Rendering = Literal["plain", "paper"]

_INK, _QUIET, _PAPER = (32, 33, 36), (218, 220, 224), (255, 255, 255)
# Lines of a chart, told apart also by readers who see few colours (Okabe and Ito 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
_CAPTION_PX = 15
# Pull of the guessed mean and std against steps at the seams. The first is only to settle what
# seams leave open; without the second, contrast fades where patterns do not fit. On clips of
# `videomae motion` with 75 % hidden at random, the guess alone is off by 0.135 of 1 (root mean
# square), with the seams by 0.114, with the true mean and std by 0.093.
_GUESS_WEIGHTS = (0.03, 1.0)
_MIN_FRAME_PX = 96  # smaller frames are enlarged, or nobody would see them


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
        rendering: how the pattern that a model with `norm_pix_loss` predicts gets its brightness
            and contrast back, which the model was never asked for.
            "plain" looks at no hidden pixel: it guesses both from the visible tubelets nearby, then
            shifts the guess so that neighbours match where they touch.
            "paper" takes both from the hidden tubelets themselves, as the published pictures do.
            That leaks the answer: such a picture looks like a blurred original even where the
            model predicts nothing. A model without `norm_pix_loss` predicts pixels, and both
            renderings are the same.

    Returns (T, C, H, W) in 0..1.
    """
    if rendering not in get_args(Rendering):
        raise ConfigError(f"rendering={rendering!r} is not one of {', '.join(get_args(Rendering))}")
    size, patch_hw = config.tubelet_size, config.patch_hw
    grid = grid_of(pixels[None], size, patch_hw)
    if mask.shape != (grid.num_tokens,) or len(predictions) != int(mask.sum()):
        raise ConfigError(
            f"mask {tuple(mask.shape)} hides {int(mask.sum())} tubelets and there are "
            f"{len(predictions)} predictions; a clip of {tuple(pixels.shape)} (T, C, H, W) has "
            f"{grid.num_tokens} tubelets, and each hidden one needs one prediction"
        )
    tubelets = patchify(pixels[None].float(), size, patch_hw)[0]
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
        unchanged = torch.zeros(2, len(mask), guess.shape[-1], device=guess.device)
        unchanged[1] = 1  # visible pixels * 1 + 0
        # The last plane of each tubelet along time, height and width, and the first of the next.
        ends = [drawn.select(axis + 3, -1)[_but(axis, last=True)] for axis in range(3)]
        starts = [drawn.select(axis + 3, 0)[_but(axis, last=False)] for axis in range(3)]
        optimizer = torch.optim.LBFGS([levels], max_iter=40, line_search_fn="strong_wolfe")

        def misfit() -> Tensor:
            optimizer.zero_grad()
            every = torch.stack([unchanged[k].index_put((mask,), levels[k]) for k in range(2)])
            mean, std = every.view(2, *drawn.shape[:3], 1, 1, -1)
            loss = (pull * (levels - guess).square()).sum()
            for axis in range(3):
                here, there = _but(axis, last=True), _but(axis, last=False)
                step = (ends[axis] * std[here] + mean[here]) - (
                    starts[axis] * std[there] + mean[there]
                )
                loss = loss + step.square().mean((3, 4)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(misfit)  # type: ignore[no-untyped-call]
        return levels.detach()


def _but(axis: int, *, last: bool) -> tuple[slice, ...]:
    """An index of all but the last, or all but the first, along an axis."""
    return (slice(None),) * axis + (slice(None, -1) if last else slice(1, None),)


def hide(pixels: Tensor, mask: Tensor, config: VideoMAEConfig, *, fill: float = 0.5) -> Tensor:
    """The clip (T, C, H, W) as the model sees it, the tubelets hidden by `mask` (N,) in grey."""
    size, patch_hw = config.tubelet_size, config.patch_hw
    grid = grid_of(pixels[None], size, patch_hw)
    tubelets = patchify(pixels[None].float(), size, patch_hw)
    tubelets[:, mask] = fill
    return unpatchify(tubelets, grid, size, patch_hw)[0]


def to_frames(pixels: Tensor) -> Frames:
    """Pixels (T, 3, H, W) in 0..1, or grey ones (T, 1, H, W), as uint8 frames (T, H, W, 3)."""
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ConfigError(
            f"pixels {tuple(pixels.shape)} cannot be shown; expected (T, 3, H, W) or (T, 1, H, W)"
        )
    shown = pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    frames: Frames = shown.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(frames)


def film_strip(
    rows: Mapping[str, Frames], *, max_columns: int = 8, min_frame_px: int = _MIN_FRAME_PX
) -> Picture:
    """Clips below each other as one picture, time to the right, a caption above each row.

    Clips of more than `max_columns` frames are thinned out evenly. Frames whose shorter side is
    below `min_frame_px` are enlarged by a whole number, pixels staying square and sharp.

    ```python
    save_picture("strip.png", film_strip({"original": frames, "masked": masked}))
    ```
    """
    _check_clips(rows)
    gap = 4
    pictures = []
    for caption, frames in rows.items():
        count = min(max_columns, len(frames))
        chosen = [int((column + 0.5) * len(frames) / count) for column in range(count)]
        shown = _enlarge(frames[chosen], min_frame_px)  # (K, H, W, 3)
        spaced = np.pad(shown, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=_PAPER[0])
        pictures.append(_captioned(np.concatenate(list(spaced), axis=1)[:, :-gap], caption))
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
        for picture in pictures
    ]
    margin = ((2 * gap, 3 * gap), (3 * gap, 3 * gap), (0, 0))
    return np.pad(np.concatenate(padded), margin, constant_values=255)


def side_by_side(clips: Mapping[str, Frames], *, min_frame_px: int = 2 * _MIN_FRAME_PX) -> Frames:
    """Clips of equal length beside each other as one clip with captions, for GIF and mp4."""
    _check_clips(clips)
    if len({len(frames) for frames in clips.values()}) > 1:
        counts = ", ".join(f"{caption}: {len(frames)}" for caption, frames in clips.items())
        raise ConfigError(f"clips side by side must have equally many frames, got {counts}")
    gap = 8
    panels = []
    for caption, frames in clips.items():
        panel = np.stack([_captioned(frame, caption) for frame in _enlarge(frames, min_frame_px)])
        panels.append(np.pad(panel, ((0, 0), (0, 0), (gap, 0), (0, 0)), constant_values=255))
    height = max(panel.shape[1] for panel in panels)
    level = [
        np.pad(panel, ((0, 0), (0, height - panel.shape[1]), (0, 0), (0, 0)), constant_values=255)
        for panel in panels
    ]
    margin = ((0, 0), (gap, gap), (0, gap), (0, 0))
    return np.pad(np.concatenate(level, axis=2), margin, constant_values=255)


def _check_clips(clips: Mapping[str, Frames]) -> None:
    if not clips:
        raise ConfigError("there are no clips to show; give at least one")
    for caption, frames in clips.items():
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ConfigError(
                f"clip {caption!r} has shape {frames.shape} and type {frames.dtype}; expected a "
                "non-empty (T, H, W, 3) array of uint8"
            )


def _enlarge(frames: Frames, min_frame_px: int) -> Frames:
    """Repeat pixels a whole number of times until the shorter side reaches `min_frame_px`."""
    factor = -(-min_frame_px // min(frames.shape[1:3]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _captioned(picture: Picture, caption: str) -> Picture:
    """The picture with a line of small text above it."""
    font = ImageFont.load_default(size=_CAPTION_PX)
    line = Image.new("RGB", (picture.shape[1], 2 * _CAPTION_PX), _PAPER)
    # Anchored at the baseline, so that letters with and without tails stand level.
    ImageDraw.Draw(line).text((0, 1.35 * _CAPTION_PX), caption, _INK, font, anchor="ls")
    return np.concatenate([np.asarray(line), picture])


def save_picture(path: PathLike, picture: Picture) -> Path:
    """Write a picture (H, W, 3) uint8, atomically; the suffix says how: .png, .jpg, .webp."""
    path = Path(path)
    _check_suffix(path, (".png", ".jpg", ".jpeg", ".webp"))
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
    return path


def save_gif(path: PathLike, frames: Frames, *, fps: float = 8) -> Path:
    """Write a clip (T, H, W, 3) uint8 as a GIF that repeats for ever, atomically.

    A GIF counts in hundredths of a second, so that `fps` above 50 is not to be had.
    """
    path = Path(path)
    _check_suffix(path, (".gif",))
    _check_clips({path.name: frames})
    # Colours are chosen for each frame, without dither: that would flicker from frame to frame.
    images = [Image.fromarray(f).quantize(256, dither=Image.Dither.NONE) for f in frames]
    with atomic_path(path) as temporary:
        images[0].save(
            temporary,
            save_all=True,
            append_images=images[1:],
            duration=max(20, round(1000 / fps)),
            loop=0,
        )
    return path


def save_clips(path: PathLike, clips: Mapping[str, Frames], *, fps: float = 8) -> Path:
    """Show clips together, as the suffix says: .png a film strip, .gif or .mp4 side by side."""
    path = Path(path)
    _check_suffix(path, (".png", ".gif", ".mp4"))
    if path.suffix.lower() == ".png":
        return save_picture(path, film_strip(clips))
    if path.suffix.lower() == ".gif":
        return save_gif(path, side_by_side(clips), fps=fps)
    return write_video(path, side_by_side(clips), fps=fps)


def _check_suffix(path: Path, known: tuple[str, ...]) -> None:
    if path.suffix.lower() not in known:
        raise ConfigError(
            f"{path} ends in {path.suffix or 'nothing'!r}; "
            f"name a file that ends in {' or '.join(known)}"
        )


def plot_curve(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: PathLike,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log_x: bool = False,
    log_y: bool = False,
    spreads: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    levels: Mapping[str, float] | None = None,
    ticks: Sequence[float] = (),
) -> Path:
    """Draw lines over a common axis, for losses and learning rates; atomically, .svg or .png.

    `series` is name -> (xs, ys). A single line needs no name beside it; several are named at their
    right ends. `spreads` is name -> (lowest, highest) of each y, drawn as bars through the points;
    `levels` is name -> y of a dotted line all across, such as chance; `ticks` are the xs that are
    written out, where they are few.

    ```python
    plot_curve({"train": (steps, losses)}, "loss.svg", xlabel="step", ylabel="loss")
    ```
    """
    from matplotlib.figure import Figure  # without pyplot, which keeps figures and backends global

    path = Path(path)
    _check_suffix(path, (".svg", ".png"))
    for name, (xs, ys) in series.items():
        if len(xs) != len(ys):
            raise ConfigError(f"curve {name!r} has {len(xs)} xs and {len(ys)} ys; give pairs")
    figure = Figure(figsize=(6.4, 3.4), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    ink, quiet = (tuple(value / 255 for value in colour) for colour in (_INK, _QUIET))
    ends: list[tuple[str, Any, float, float]] = []  # name, colour, x, y
    for index, (name, (xs, ys)) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        # A line of one point would be invisible.
        spread = (spreads or {}).get(name)
        marker = "o" if len(xs) == 1 or spread else None
        axes.plot(xs, ys, color=colour, linewidth=1.6, marker=marker, markersize=4)
        if spread:
            axes.vlines(xs, *zip(*spread, strict=True), color=colour, linewidth=1.2)
        if len(xs):
            ends.append((name, colour, xs[-1], ys[-1]))
    for name, level in (levels or {}).items():
        axes.axhline(level, color=ink, linewidth=0.9, linestyle=":")
        ends.append((name, ink, ends[-1][2] if ends else 1, level))
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if ticks:
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set_title(title, loc="left", fontsize=10, color=ink)
    axes.set_xlabel(xlabel, fontsize=9, color=ink)
    axes.set_ylabel(ylabel, fontsize=9, color=ink)
    axes.tick_params(labelsize=8, colors=ink, width=0.6, length=3)
    axes.grid(True, color=quiet, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
    if len(ends) > 1:
        # Named where they end, from the lowest up, each at least a line of text above the last.
        axes.autoscale_view()
        to_axes = axes.transScale + axes.transLimits
        heights = [float(np.nan_to_num(to_axes.transform((x, y))[1])) for *_, x, y in ends]
        lowest = -0.05
        for height, (name, colour, *_) in sorted(zip(heights, ends, strict=True)):
            lowest = max(height, lowest + 0.065)
            place = (1.02, lowest)
            axes.annotate(
                name, place, xycoords="axes fraction", color=colour, fontsize=8, va="center"
            )
    return _save_figure(figure, path)


def plot_bars(
    bars: Mapping[str, Sequence[float]], path: PathLike, *, title: str = "", xlabel: str = ""
) -> Path:
    """Draw a bar per name, as long as the mean of its values, each of which is a dot on it.

    ```python
    plot_bars({"scratch": [8.1, 7.9], "pre-trained": [71.0, 74.5]}, "top1.svg")
    ```
    """
    from matplotlib.figure import Figure

    path = Path(path)
    _check_suffix(path, (".svg", ".png"))
    if not bars or not all(bars.values()):
        raise ConfigError("there is nothing to draw; give each bar a name and at least one value")
    figure = Figure(figsize=(6.4, 0.9 + 0.36 * len(bars)), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    ink, quiet = (tuple(value / 255 for value in colour) for colour in (_INK, _QUIET))
    for row, values in enumerate(bars.values()):
        mean = sum(values) / len(values)
        axes.barh(row, mean, height=0.6, color=_COLOURS[4])
        axes.plot(values, [row] * len(values), "o", color=_COLOURS[0], markersize=4)
        place = (max(*values, mean), row)
        axes.annotate(
            f"{mean:.1f}", place, (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(bars)), list(bars), parse_math=False)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10, color=ink)
    axes.set_xlabel(xlabel, fontsize=9, color=ink)
    axes.tick_params(labelsize=8, colors=ink, width=0.6, length=3)
    axes.grid(True, axis="x", color=quiet, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
    return _save_figure(figure, path)


def plot_confusion(
    matrix: NDArray[np.int64], classes: Sequence[str], path: PathLike, *, title: str = ""
) -> Path:
    """Draw how often each class was taken for each, as shares of its row; atomically, .svg or .png.

    `matrix` (K, K) counts videos, rows the true class, columns the answer. Up to 20 classes have
    their percents written in, up to 100 their names at the sides, and more their numbers.

    ```python
    plot_confusion(np.array([[9, 1], [0, 8]]), ["run", "sit"], "confusion.png")
    ```
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    path, count = Path(path), len(classes)
    _check_suffix(path, (".svg", ".png"))
    if matrix.shape != (count, count) or not count:
        raise ConfigError(f"matrix {matrix.shape} does not fit {count} classes; give (K, K) counts")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (K, K)
    named, written = count <= 100, count <= 20
    # Inches: room for three digits, for a small name, or four points of the screen.
    cell = 0.42 if written else 0.16 if named else 0.04
    names = [name if len(name) <= 32 else f"{name[:31]}…" for name in classes]
    margin = 1.0 + (0.075 * max(map(len, names)) if named else 0.3)
    side = max(cell * count, 2.0) + margin
    figure = Figure(figsize=(side, side), dpi=160 if named else 100, layout="constrained")
    axes = figure.add_subplot()
    # By the root of the share, or a mistake in 1 of 50 could not be seen.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    size = 8 if written else 6.5
    if named:
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    axes.tick_params(labelsize=size, width=0.6, length=2, bottom=not written, left=not written)
    for row, column in np.argwhere(matrix > 0) if written else ():
        share = shares[row, column]
        text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
        colour = "white" if share > 0.35 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    number = "" if named else ", by number"
    axes.set_xlabel(f"answer{number}", fontsize=9)
    axes.set_ylabel(f"class{number}", fontsize=9)
    axes.set_title(f"{title}\nin % of the class" if written else title, loc="left", fontsize=9)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    return _save_figure(figure, path)


def _save_figure(figure: Any, path: Path) -> Path:
    """Write a figure, atomically, with neither a date nor random names: the same gives the same."""
    from matplotlib import rc_context

    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with rc_context({"svg.hashsalt": "videomae"}), atomic_path(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
    return path
