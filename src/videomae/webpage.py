"""One web page in one file: animated clips, bars and charts, in light and dark, without scripts.

Functions return HTML as text. What they are given is escaped; nothing is loaded from elsewhere.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from videomae.video import Frames
from videomae.visualize import save_gif, save_picture

Curve = tuple[list[float], list[float]]  # steps, losses


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


def meter(share: float) -> str:
    """A bar; the number stands beside it, so readers of the page's text miss nothing."""
    return f'<i class="meter" aria-hidden="true"><i style="width:{share:.1%}"></i></i>'


def animation(frames: Frames, alt: str, *, fps: float) -> str:
    """A clip as an inlined GIF, or its middle frame where the reader asked for less motion."""
    height, width = frames.shape[1:3]
    with TemporaryDirectory() as folder:
        moving = _data_uri(save_gif(Path(folder, "clip.gif"), frames, fps=fps), "image/gif")
        middle = frames[len(frames) // 2]
        still = _data_uri(save_picture(Path(folder, "clip.png"), middle), "image/png")
    return (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
        f'<img src="{moving}" width="{width}" height="{height}" alt="{escape(alt)}"></picture>'
    )


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def chart(series: Mapping[str, Curve], mark: str, marked: float) -> str:
    """Curves as an SVG that takes its colours from the page, with a dashed line at `marked`.

    Not `visualize.plot_curve`, whose white ground and small print suit files and not a page that
    is read on phones and in the dark.
    """
    left, top, width, height = 44, 14, 424, 196
    values = [y for _, ys in series.values() for y in ys] + [marked]
    step = _tick_step(max(values) - min(values))
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    last = max(x for xs, _ in series.values() for x in xs)

    def place(x: float, y: float) -> str:
        return f"{left + width * x / last:.1f},{top + height * (high - y) / (high - low):.1f}"

    def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
        return f'<polyline class="{kind}" points="{place(x1, y1)} {place(x2, y2)}"/>'

    def text(x: float, y: float, shift: tuple[int, int], anchor: str, words: str) -> str:
        where = " ".join(f'{a}="{v}"' for a, v in zip("xy", place(x, y).split(","), strict=True))
        return (
            f'<text {where} dx="{shift[0]}" dy="{shift[1]}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    parts = []
    for number in range(round((high - low) / step) + 1):
        y = low + number * step
        parts += [line(0, y, last, y, "grid"), text(0, y, (-8, 5), "end", f"{y:.3g}")]
    for x, anchor in ((0, "start"), (last / 2, "middle"), (last, "end")):
        parts.append(text(x, low, (0, 22), anchor, f"{x:.0f}"))
    parts += [line(0, marked, last, marked, "mark"), text(last, marked, (0, -6), "end", mark)]
    keys = []
    for number, (name, (xs, ys)) in enumerate(series.items()):
        points = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
        end = " ".join(
            f'c{a}="{v}"' for a, v in zip("xy", place(xs[-1], ys[-1]).split(","), strict=True)
        )
        parts.append(
            f'<g class="line{number}"><polyline points="{points}"/><circle r="3.5" {end}/>'
        )
        parts.append("</g>")
        keys.append(f'<span class="key line{number}">{escape(name)}, at last {ys[-1]:.2f}</span>')
    told = "; ".join(
        f"{name}: from {ys[0]:.2f} to {ys[-1]:.2f}" for name, (_, ys) in series.items()
    )
    return (
        f'<svg viewBox="0 0 480 244" role="img" aria-label="{escape(f"Loss, {told}")}">'
        f'{"".join(parts)}</svg><p class="keys">{"".join(keys)}</p>'
    )


def _tick_step(span: float) -> float:
    """The least of 1, 2, 5 times a power of ten that cuts a span into at most five.

    >>> _tick_step(0.37), _tick_step(2.4)
    (0.1, 0.5)
    """
    span = max(span, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= span)


_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --quiet: #66666d; --line: #e3e3e8;
  --paper: #fff; --panel: #f5f5f7; --first: #0068b5; --second: #c2410c }
@media (prefers-color-scheme: dark) { :root { --ink: #ededf0; --quiet: #a0a0a9; --line: #303038;
  --paper: #131316; --panel: #1d1d22; --first: #5cb3ff; --second: #ff9d5c } }
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
p { margin: 0 0 1.1rem; max-width: 66ch }
.lead { font-size: 1.15rem; margin-bottom: 1.8rem }
.note, figcaption, footer, summary, details { color: var(--quiet); font-size: .92rem }
.note { margin-top: 1.2rem }
.note b { color: var(--ink) }
figure { margin: 0 }
img { display: block; width: 100%; height: auto; border-radius: 8px; background: var(--panel) }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(134px, 1fr));
  gap: 1.4rem 1.1rem; margin-bottom: 1.8rem }
.guesses { list-style: none; margin: .55rem 0 0; padding: 0; font-size: .82rem; line-height: 1.35;
  font-variant-numeric: tabular-nums }
.guesses li { display: flex; flex-wrap: wrap; justify-content: space-between; margin-top: .3rem }
.guesses li:first-child { color: var(--ink); font-weight: 600; font-size: .92rem }
.guesses li + li .meter i { opacity: .45 }
.narrow { max-width: 22rem; margin-top: 1.2rem }
.meter { display: block; width: 100%; height: 5px; border-radius: 3px; background: var(--line);
  overflow: hidden; margin-top: 3px }
.meter i { display: block; height: 100%; min-width: 1px; background: var(--first) }
.wrong { margin: .4rem 0 0; color: var(--second); font-size: .85rem }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1.1rem }
.row img { image-rendering: pixelated }
.row figcaption { margin-top: .35rem; line-height: 1.35 }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; margin-top: 1.6rem }
svg { display: block; width: 100%; height: auto; overflow: visible }
svg text { fill: var(--quiet); font-size: 13.5px; font-variant-numeric: tabular-nums }
polyline { fill: none; stroke-linejoin: round; stroke-linecap: round }
.grid { stroke: var(--line) }
.mark { stroke: var(--quiet); stroke-dasharray: 4 5 }
.line0 { --own: var(--first) } .line1 { --own: var(--second) }
g polyline { stroke: var(--own); stroke-width: 2.25 }
circle { fill: var(--own) }
.keys { margin: .3rem 0 .2rem; font-size: .88rem; line-height: 1.4 }
.key { display: block }
.key::before { content: ""; display: inline-block; width: 1.1em; height: 3px; margin-right: .5em;
  vertical-align: .28em; border-radius: 2px; background: var(--own) }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums }
th, td { text-align: left; font-weight: 400; padding: .4rem 1rem .4rem 0;
  border-bottom: 1px solid var(--line) }
thead th { color: var(--quiet) }
.bars td:nth-child(2) { width: 45% }
.bars td:last-child { text-align: right; padding-right: 0 }
.bars .meter { height: 9px; border-radius: 5px; margin: 0 }
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
