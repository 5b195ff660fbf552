"""Charts: curves, bars and confusion matrices, drawn by matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError
from videomae.hub import PathLike, atomic_path
from videomae.report.pictures import check_suffix

_INK, _QUIET = (32, 33, 36), (218, 220, 224)
# Lines of a chart, told apart also by readers who see few colours (Okabe and Ito 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")


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
    check_suffix(path, (".svg", ".png"))
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
    check_suffix(path, (".svg", ".png"))
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
    check_suffix(path, (".svg", ".png"))
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
