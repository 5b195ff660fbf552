"""Charts: curves, spreads, confusion matrices and timelines, drawn by matplotlib.

Their ground is transparent, and their colours show on white as well as on black.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError, one_line
from videomae.hub import PathLike, atomic_path
from videomae.report.fonts import families_for
from videomae.report.pictures import check_suffix

Curve = tuple[Sequence[float], Sequence[float]]  # xs, ys

_STYLE = Path(__file__).parent / "templates" / "charts.mplstyle"
_WIDTH, _HEIGHT = 6.4, 3.4  # inches
_INK = "#75757d"  # as in the style
# Lines of a chart, told apart also by readers who see few colours: those of Okabe and Ito (2008),
# with a blue that shows on black.
COLOURS = ("#0f82c6", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
# Seconds between two marks of an axis of time: as few as give at most ten.
_TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 1e5)


def plot_curve(
    series: Mapping[str, Curve],
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
    axes = _new_chart(_HEIGHT)
    ends = _draw_curves(axes, series, spreads or {}, levels or {})
    _title(axes, title, fontsize=10)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if ticks:
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    if len(ends) > 1:
        # Named where they end, from the lowest up, each at least a line of text above the last.
        axes.autoscale_view()
        to_axes = axes.transScale + axes.transLimits
        heights = [float(np.nan_to_num(to_axes.transform((x, y))[1])) for *_, x, y in ends]
        lowest = -0.05
        for height, (name, colour, *_) in sorted(zip(heights, ends, strict=True)):
            lowest = max(height, lowest + 0.065)
            name = one_line(name)
            look = {"color": colour, "va": "center", "parse_math": False, **_font(name)}
            axes.text(1.02, lowest, name, transform=axes.transAxes, **look)
    return _save(axes, path)


def curve_svg(series: Mapping[str, Curve], levels: Iterable[float] = ()) -> str:
    """Draw lines as `plot_curve` does, as an <svg> element of a web page.

    Names are left to the page, and so are the colour and the font of the numbers; lines have
    COLOURS in their order.
    """
    from matplotlib import rc_context

    axes = _new_chart(_HEIGHT, font_px=13)
    _draw_curves(axes, series, {}, {str(level): level for level in levels})
    axes.locator_params(axis="x", nbins=6, integer=True)  # steps and epochs are whole
    file = StringIO()
    with rc_context({"svg.fonttype": "none"}, _STYLE):  # text stays text
        axes.figure.savefig(file, format="svg")
    # Without its head and its style, which would hold for the whole page, the names of its parts,
    # which another chart has too, and the clipping of grids, which is not needed.
    svg = file.getvalue()
    parts = re.sub('(?<=<g) id=".*?"| clip-path=".*?"', "", svg[svg.index("<g ") :])
    return f'<svg viewBox="0 0 {72 * _WIDTH:g} {72 * _HEIGHT:g}">{parts}'


def _draw_curves(
    axes: Any,
    series: Mapping[str, Curve],
    spreads: Mapping[str, Sequence[tuple[float, float]]],
    levels: Mapping[str, float],
) -> list[tuple[str, str, float, float]]:
    """Draw lines, and return their names, colours and right ends (x, y)."""
    axes.xaxis.set_major_formatter("{x:,.10g}")
    ends = []
    for index, (name, (xs, ys)) in enumerate(series.items()):
        if len(xs) != len(ys):
            raise ConfigError(f"curve {name!r} has {len(xs)} xs and {len(ys)} ys; give pairs")
        colour = COLOURS[index % len(COLOURS)]
        spread = spreads.get(name)
        # A dot at the end, or a line of one point would be invisible.
        dots = None if spread else [-1]
        axes.plot(
            xs, ys, color=colour, linewidth=1.8, marker="o", markersize=4, markevery=dots,
            clip_on=False,
        )  # fmt: skip
        if spread:
            axes.vlines(xs, *zip(*spread, strict=True), color=colour, linewidth=1.2)
        if len(xs):
            ends.append((name, colour, xs[-1], ys[-1]))
    for name, level in levels.items():
        axes.axhline(level, color=_INK, linewidth=1.2, linestyle=":", clip_on=False)
        ends.append((name, _INK, ends[-1][2] if ends else 1, level))
    return ends


def plot_threshold(
    groups: Mapping[str, NDArray[np.float32]], threshold: float, path: PathLike, *, xlabel: str
) -> Path:
    """Draw how the values of each group are spread, and a threshold; atomically, .svg or .png.

    Each group's bars are its shares in bins that all groups have in common.
    """
    axes = _new_chart(_HEIGHT)
    values = np.concatenate([*groups.values(), np.array([threshold], np.float32)])
    edges = np.linspace(values.min() - 1e-6, values.max() + 1e-6, 61)
    for (name, group), colour in zip(groups.items(), COLOURS, strict=False):
        weights = np.full(len(group), 100 / max(len(group), 1))
        axes.hist(group, edges, weights=weights, color=colour, alpha=0.65, label=name)
    axes.axvline(threshold, color=_INK, linestyle=":", label=f"threshold {threshold:.3f}")
    axes.legend(loc="upper left", frameon=False)
    axes.set(xlabel=xlabel, ylabel="% of each")
    return _save(axes, path)


def plot_confusion(
    matrix: NDArray[np.int64], classes: Sequence[str], path: PathLike, *, title: str = ""
) -> Path:
    """Draw how often each class was taken for each, as shares of its row; atomically, .svg or .png.

    `matrix` (K, K) counts videos, rows the true class, columns the answer. Up to 20 classes have
    their percents written in, up to 100 their names at the sides, and more their numbers.
    """
    from matplotlib.colors import PowerNorm

    count = len(classes)
    if matrix.shape != (count, count) or not count:
        raise ConfigError(f"matrix {matrix.shape} does not fit {count} classes; give (K, K) counts")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (K, K)
    named, written = count <= 100, count <= 20
    # Inches: room for three digits, for a small name, or four points of the screen.
    cell = 0.42 if written else 0.16 if named else 0.04
    names = [one_line(name) for name in classes]
    names = [name if len(name) <= 32 else f"{name[:31]}…" for name in names]
    margin = 1.0 + (0.075 * max(map(len, names)) if named else 0.3)
    side = max(cell * count, 2.0) + margin
    size, dpi = 8 if written else 6.5, 160 if named else 100
    axes = _new_chart(side, width=side, font_px=size, dpi=dpi)
    # By the root of the share, or a mistake in 1 of 50 could not be seen.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    if named:
        axes.set_xticks(range(count), names, rotation=90, parse_math=False, **_font(*names))
        axes.set_yticks(range(count), names, parse_math=False, **_font(*names))
    axes.tick_params(width=0.6, length=0 if written else 2)
    axes.grid(False)
    axes.spines[:].set_visible(True)
    for row, column in np.argwhere(matrix > 0) if written else ():
        share = shares[row, column]
        text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
        colour = "white" if share > 0.35 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    number = "" if named else ", by number"
    axes.set_xlabel(f"answer{number}", fontsize=9)
    axes.set_ylabel(f"class{number}", fontsize=9)
    title = f"{title}\nin % of the class" if written else title
    _title(axes, title, fontsize=9)
    return _save(axes, path)


def plot_timeline(
    path: PathLike,
    edges: Sequence[float],
    curves: Mapping[str, Sequence[float] | NDArray[np.float32]],
    *,
    spans: Mapping[str, Sequence[tuple[float, float]]],
    pictures: Mapping[float, NDArray[np.uint8]],
) -> Path:
    """Draw scores over time, a row for each label, above a film strip; .svg or .png, atomically.

    edges: the W + 1 seconds that bound the W windows. curves: label -> W scores, all drawn to one
    scale. spans: label -> (start, end) of its segments, drawn as bars. pictures: uint8 (H, W, 3) of
    one size, by their seconds, each drawn in the middle of its share of the time.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    start, end, names = edges[0], edges[-1], list(map(one_line, curves))
    wide, row, left, right = 2 * _WIDTH, 0.42, 0.3 + 0.075 * max(map(len, names)), 0.3
    inner = wide - left - right
    strip = 0.0
    if pictures:
        shape = next(iter(pictures.values())).shape
        share = inner / len(pictures)
        strip = share * shape[0] / shape[1]
    high = row * len(names) + strip + 0.6
    with rc_context({"font.size": 8.5}, _STYLE):
        figure = Figure(figsize=(wide, high), dpi=160)
        place = (left / wide, (strip + 0.5) / high, inner / wide, row * len(names) / high)
        axes = figure.add_axes(place)
    most = max(1.0, *(float(np.max(values)) for values in curves.values()))
    for index, (name, values) in enumerate(curves.items()):
        colour, base = COLOURS[index % len(COLOURS)], len(names) - 1 - index
        heights = base + 0.85 * np.asarray(values) / most
        axes.stairs(heights, edges, baseline=base, fill=True, color=colour, alpha=0.35, linewidth=0)
        for first, last in spans[name]:
            axes.plot(
                [first, last], [base, base], color=colour, linewidth=3.5, solid_capstyle="butt"
            )
    axes.set(xlim=(start, end), ylim=(-0.1, len(names)))
    axes.set_yticks(
        [k + 0.4 for k in range(len(names))], names[::-1], parse_math=False, **_font(*names)
    )
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    longest = _TIME_STEPS[-1] * math.ceil((end - start) / (10 * _TIME_STEPS[-1]))
    step = next((step for step in _TIME_STEPS if (end - start) / step <= 10), longest)
    ticks = [k * step for k in range(math.ceil(start / step), math.floor(end / step) + 1)]
    axes.set_xticks(ticks, [clock(tick, tenths=step < 1) for tick in ticks])
    if pictures:
        below = figure.add_axes((left / wide, 0.1 / high, inner / wide, strip / high))
        below.imshow(np.concatenate(list(pictures.values()), axis=1), aspect="auto")
        below.set_axis_off()
    return _save(axes, path)


def clock(seconds: float, *, tenths: bool = False) -> str:
    """A time as people write it, rounded to seconds or to tenths of them.

    >>> clock(5), clock(62.46, tenths=True), clock(3723)
    ('0:05', '1:02.5', '1:02:03')
    """
    count = round(10 * seconds) if tenths else 10 * round(seconds)
    minutes, rest = divmod(count, 600)
    text = f"{minutes % 60:02}:{rest // 10:02}" + (f".{rest % 10}" if tenths else "")
    return f"{minutes // 60}:{text}" if minutes >= 60 else text.removeprefix("0")


def _new_chart(
    height: float, *, width: float = _WIDTH, font_px: float = 8.5, dpi: int = 160
) -> Any:
    """The axes of a new figure, its sides in inches, in the style of all charts."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot, which keeps figures and backends global

    with rc_context({"font.size": font_px}, _STYLE):
        return Figure(figsize=(width, height), dpi=dpi, layout="constrained").add_subplot()


def _save(axes: Any, path: PathLike) -> Path:
    """Write a chart, atomically, without a date: the same gives the same file."""
    from matplotlib import rc_context

    metadata = {"Date": None} if check_suffix(path, (".svg", ".png")) == ".svg" else None
    with rc_context(fname=_STYLE), atomic_path(path) as temporary:
        axes.figure.savefig(temporary, metadata=metadata)
    return Path(path)


def _title(axes: Any, title: str, *, fontsize: int) -> None:
    title = "\n".join(map(one_line, title.split("\n")))
    axes.set_title(title, loc="left", fontsize=fontsize, parse_math=False, **_font(title))


def _font(*texts: str) -> dict[str, Any]:
    """The argument that gives texts fonts which have their letters, where the usual one may not."""
    joined = "".join(texts)
    return {} if joined.isascii() else {"fontfamily": families_for(joined)}
