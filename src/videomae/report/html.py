"""One web page in one file: pictures, clips, bars and charts, in light and dark, without scripts.

Functions return HTML as text. What they are given is escaped; nothing is loaded from elsewhere.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from videomae.report.pictures import save_gif, save_picture
from videomae.video.reader import Frames

Curve = tuple[list[float], list[float]]  # steps, losses

# How large a picture may be to be embedded as it is: four of them leave a page below 3 MB.
_PICTURE_PX, _PICTURE_BYTES = 1600, 250_000
# Classes of colours, in the order in which they are given to curves and parts.
_COLOURS = ("first", "second", "third", "fourth")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def document(title: str, sections: Iterable[str]) -> str:
    """The whole page around its sections.

    The policy in its head keeps the browser from any request, should one ever slip in.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{"".join(sections)}
</main>
</body>
</html>
"""


def animation(frames: Frames, alt: str, *, fps: float) -> str:
    """A clip as a GIF, or its middle frame for readers who asked their system for less motion."""
    height, width = frames.shape[1:3]
    with TemporaryDirectory() as folder:
        moving = _data_uri(save_gif(Path(folder, "clip.gif"), frames, fps=fps))
        still = _data_uri(save_picture(Path(folder, "clip.png"), frames[len(frames) // 2]))
    return (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
        f'<img src="{moving}" width="{width}" height="{height}" alt="{escape(alt)}"></picture>'
    )


def _data_uri(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"data:image/{path.suffix.removeprefix('.')};base64,{data}"


def picture(path: Path, alt: str) -> str:
    """A picture file, made smaller and lossy where it is too large for a page.

    Raises OSError or SyntaxError (Pillow's own) for a file that is no whole picture.
    """
    with Image.open(path) as image:
        image.load()
        large = max(image.size) > _PICTURE_PX or path.stat().st_size > _PICTURE_BYTES
        image.thumbnail((_PICTURE_PX, _PICTURE_PX))
        (width, height), source = image.size, "" if large else _data_uri(path)
        if large:
            packed = BytesIO()
            image.convert("RGB").save(packed, "WEBP", quality=80)
            source = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return f'<img src="{source}" width="{width}" height="{height}" alt="{escape(alt)}">'


def animation_row(panels: Mapping[str, tuple[Frames, str]], *, fps: float) -> str:
    """Small clips beside each other: caption -> (frames, alternative text)."""
    figures = (
        f"<figure>{animation(frames, alt, fps=fps)}<figcaption>{escape(caption)}</figcaption>"
        "</figure>"
        for caption, (frames, alt) in panels.items()
    )
    return f'<div class="row">{"".join(figures)}</div>'


def bar(share: float) -> str:
    """A bar, full at 1. Silent for screen readers: the number has to stand beside it."""
    return f'<i class="bar" aria-hidden="true"><i style="width:{share:.1%}"></i></i>'


def score_list(scores: Mapping[str, float]) -> str:
    """Labels with their scores in 0..1 as bars, in the order given."""
    items = (
        f"<li><span>{escape(label)}</span><span>{score:.0%}</span>{bar(score)}</li>"
        for label, score in scores.items()
    )
    return f'<ol class="scores">{"".join(items)}</ol>'


def score_table(scores: Mapping[str, float]) -> str:
    """The same as a table as wide as the page, for names of some length."""
    rows = (
        f'<tr><th scope="row">{escape(name)}</th><td>{bar(score)}</td><td>{score:.0%}</td></tr>'
        for name, score in scores.items()
    )
    return f'<table class="bars"><tbody>{"".join(rows)}</tbody></table>'


def split_bar(parts: Mapping[str, float], *, unit: str) -> str:
    """One bar cut into at most four parts, as long as their shares, with their figures below."""
    named = list(zip(_COLOURS, parts.items(), strict=False))
    pieces = "".join(f'<i class="{kind}" style="flex:{part:.4f}"></i>' for kind, (_, part) in named)
    keys = "".join(
        f'<span class="{kind}">{escape(name)} <b>{part:.3g} {escape(unit)}</b></span>'
        for kind, (name, part) in named
    )
    return f'<div class="split" aria-hidden="true">{pieces}</div><p class="keys inline">{keys}</p>'


def facts(values: Mapping[str, str]) -> str:
    """A few figures in large print, each with its name."""
    items = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def folded(summary: str, content: str) -> str:
    """HTML that shows when its title is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls where it is too long or too wide."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def chart(curves: Mapping[str, Curve], *, what: str, marks: Mapping[str, float]) -> str:
    """Up to four curves, and dashed lines at heights to compare them with. One may be unnamed.

    Numbers far from 1, such as learning rates, are shown in powers of ten. Not
    `visualize.plot_curve`: its white ground and small print suit a file of its own, not a page that
    is also read at night and on telephones.
    """
    ys = [y for _, curve_ys in curves.values() for y in curve_ys] + list(marks.values())
    power = _power_of_ten(max(map(abs, ys)))
    if power:
        what += f", in 10{str(power).translate(_SUPERSCRIPTS)}"
        unit = 10.0**power
        ys = [y / unit for y in ys]
        marks = {name: y / unit for name, y in marks.items()}
        curves = {name: (xs, [y / unit for y in own]) for name, (xs, own) in curves.items()}
    last_x = max(x for xs, _ in curves.values() for x in xs)
    step = tick_step(max(ys) - min(ys))
    low = math.floor(min(ys) / step)
    high = max(math.ceil(max(ys) / step), low + 1)  # both counted in steps

    def place(x: float, y: float) -> tuple[float, float]:
        """Of a point in the picture of 480 x 244, margins left for the numbers."""
        return 44 + 424 * x / last_x, 14 + 196 * (high - y / step) / (high - low)

    def line(points: Iterable[tuple[float, float]], kind: str) -> str:
        places = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        return f'<polyline class="{kind}" points="{places}"/>'

    def text(x: float, y: float, words: str, *, shift: tuple[int, int], anchor: str) -> str:
        left, top = place(x, y)
        return (
            f'<text x="{left + shift[0]:.1f}" y="{top + shift[1]:.1f}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    parts = []
    decimals = max(0, -math.floor(math.log10(step)))
    for y in (number * step for number in range(low, high + 1)):
        parts.append(line([(0, y), (last_x, y)], "grid"))
        parts.append(text(0, y, f"{y:.{decimals}f}", shift=(-8, 5), anchor="end"))
    # Steps and epochs are whole: the number in the middle stands where it belongs, not at a half.
    for x, anchor in sorted({last_x // 2: "middle", 0: "start", last_x: "end"}.items()):
        parts.append(text(x, low * step, f"{x:,.0f}", shift=(0, 22), anchor=anchor))
    for name, y in marks.items():
        # The name stands on the side from which no curve comes down to its line.
        above = all(curve_ys[-1] < y for _, curve_ys in curves.values())
        parts.append(line([(0, y), (last_x, y)], "mark"))
        parts.append(text(last_x, y, name, shift=(0, -7 if above else 17), anchor="end"))
    keys, told = [], []
    for kind, (name, (xs, curve_ys)) in zip(_COLOURS, curves.items(), strict=False):
        left, top = place(xs[-1], curve_ys[-1])
        dot = f'<circle class="{kind}" cx="{left:.1f}" cy="{top:.1f}" r="3.5"/>'
        parts.append(line(zip(xs, curve_ys, strict=True), f"curve {kind}") + dot)
        if name:
            keys.append(
                f'<span class="{kind}">{escape(name)}: {curve_ys[-1]:.2f} at the end</span>'
            )
        told.append(f"{name}{name and ': '}from {curve_ys[0]:.2f} to {curve_ys[-1]:.2f}")
    told += [f"{name}: {y:.2f}" for name, y in marks.items()]
    label = escape(f"{what}. {'; '.join(told)}.")
    return (
        f'<figure><figcaption>{escape(what)}</figcaption><svg viewBox="0 0 480 244" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg><p class="keys">{"".join(keys)}</p></figure>'
    )


def _power_of_ten(largest: float) -> int:
    """By which numbers up to this one are best divided; 0 where they are good as they are.

    >>> _power_of_ten(2.5e-4), _power_of_ten(0.3), _power_of_ten(250), _power_of_ten(25_000)
    (-4, 0, 0, 4)
    """
    power = math.floor(math.log10(largest)) if largest else 0
    return 0 if -1 <= power < 3 else power


def tick_step(span: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that cuts a span into at most five.

    >>> tick_step(0.37), tick_step(2.4)
    (0.1, 0.5)
    """
    span = max(span, 1e-3)
    power = math.floor(math.log10(span / 5))
    # Read from text, which rounds once: 0.2 and not something near it.
    steps = (float(f"{factor}e{power}") for factor in (1, 2, 5, 10))
    return next(step for step in steps if step * 5 >= span)


_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --quiet: #66666d; --line: #e3e3e8;
  --paper: #fff; --panel: #f5f5f7; --first: #0068b5; --second: #c2410c;
  --third: #0f8a6d; --fourth: #9061c2 }
@media (prefers-color-scheme: dark) { :root { --ink: #ededf0; --quiet: #a0a0a9; --line: #303038;
  --paper: #131316; --panel: #1d1d22; --first: #5cb3ff; --second: #ff9d5c;
  --third: #4fcfaa; --fourth: #c9a4f2 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, Ubuntu, sans-serif }
main { max-width: 1000px; margin: auto; padding: clamp(1.75rem, 5vw, 3.5rem) 20px 3rem }
section + section { margin-top: clamp(3.5rem, 9vw, 6rem) }
h1, h2, h3 { line-height: 1.15; letter-spacing: -.02em; text-wrap: balance }
h1 { font-size: clamp(2rem, 5.5vw, 2.9rem); margin: 0 0 .6rem }
h2 { font-size: clamp(1.5rem, 4vw, 1.9rem); margin: 0 0 .6rem }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .7rem; letter-spacing: -.01em }
h3 small { font-weight: 400; font-size: .95rem; color: var(--quiet); letter-spacing: 0;
  margin-left: .35em }
p { margin: 0 0 1.1rem; max-width: 70ch }
.lead { font-size: 1.15rem; margin-bottom: 1.8rem }
.note, figcaption, footer, summary, details { color: var(--quiet); font-size: .92rem }
.note { margin-top: 1.2rem }
.note b { color: var(--ink) }
figure { margin: 0 }
img { display: block; width: 100%; height: auto; border-radius: 8px; background: var(--panel) }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(134px, 1fr));
  gap: 1.4rem 1.1rem; margin-bottom: 1.8rem }
.scores { list-style: none; margin: .55rem 0 0; padding: 0; font-size: .82rem; line-height: 1.35;
  font-variant-numeric: tabular-nums }
.scores li { display: flex; flex-wrap: wrap; justify-content: space-between; margin-top: .3rem }
.scores li:first-child { color: var(--ink); font-weight: 600; font-size: .92rem }
.scores li + li .bar i { opacity: .45 }
.narrow { max-width: 22rem; margin-top: 1.2rem }
.bar { display: block; width: 100%; height: 5px; border-radius: 3px; background: var(--line);
  overflow: hidden; margin-top: 3px }
.bar i { display: block; height: 100%; min-width: 1px; background: var(--first) }
.wrong { margin: .4rem 0 0; color: var(--second); font-size: .85rem }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1.1rem }
.row img { image-rendering: pixelated }
.row figcaption { margin-top: .35rem; line-height: 1.35 }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; margin-top: 1.6rem }
svg { margin-top: .6rem; display: block; width: 100%; height: auto; overflow: visible }
svg text { fill: var(--quiet); font-size: 13.5px; font-variant-numeric: tabular-nums }
polyline { fill: none; stroke-linejoin: round; stroke-linecap: round }
.grid { stroke: var(--line) }
.mark { stroke: var(--quiet); stroke-dasharray: 4 5 }
.first { --own: var(--first) } .second { --own: var(--second) }
.third { --own: var(--third) } .fourth { --own: var(--fourth) }
.curve { stroke: var(--own); stroke-width: 2.25 }
circle { fill: var(--own) }
.keys { margin: .3rem 0 .2rem; font-size: .88rem; line-height: 1.4 }
.keys span { display: block }
.keys span::before { content: ""; display: inline-block; width: 1.1em; height: 3px;
  margin-right: .5em; vertical-align: .28em; border-radius: 2px; background: var(--own) }
.keys.inline { max-width: none; display: flex; flex-wrap: wrap; gap: .2rem 1.6rem;
  margin-top: .6rem }
.split { display: flex; gap: 2px; height: 22px; border-radius: 6px; overflow: hidden;
  margin-top: .8rem }
.split i { background: var(--own); min-width: 1px }
.facts { display: flex; flex-wrap: wrap; gap: 1.1rem 3rem; margin: 0 }
.facts dt { color: var(--quiet); font-size: .85rem }
.facts dd { margin: 0; font-size: 1.5rem; line-height: 1.25; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums }
.listed { padding-left: 1.1rem; font-size: .92rem; overflow-wrap: anywhere }
.listed li { margin-bottom: .5rem }
.column { max-width: 720px }
.strip { overflow-x: auto; margin-bottom: .5rem }
.strip img { min-width: 620px }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums }
th, td { text-align: left; font-weight: 400; padding: .4rem 1rem .4rem 0;
  border-bottom: 1px solid var(--line) }
thead th { color: var(--quiet) }
.bars td:nth-child(2) { width: 45% }
.bars td:last-child { text-align: right; padding-right: 0 }
.bars .bar { height: 9px; border-radius: 5px; margin: 0 }
.scroll { overflow: auto; max-height: 26rem; margin-top: .8rem }
summary { cursor: pointer }
code, pre { font: .88em/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: var(--panel); border-radius: 10px; padding: 1.1rem 1.3rem; overflow-x: auto;
  font-size: .84rem }
pre code { font-size: inherit }
footer { margin-top: 4rem; padding-top: 1.2rem; border-top: 1px solid var(--line) }
@media (max-width: 640px) {
  .row { grid-template-columns: 1fr 1fr } .charts { grid-template-columns: 1fr }
  .bars td:nth-child(2) { width: 28% }
}
"""
