"""One web page in one file: pictures and clips in it, light and dark, without scripts.

Pages are made from `templates/`, which escape what they are given; nothing is loaded from
elsewhere.
"""

import base64
import shlex
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image

from videomae.errors import counted
from videomae.report.pictures import save_gif, save_picture
from videomae.report.plots import curve_svg
from videomae.video.decoder import Frames

# How large a picture may be to be embedded as it is: four of them leave a page below 3 MB.
_PICTURE_PX, _PICTURE_BYTES = 1600, 250_000


@dataclass(frozen=True)
class Embedded:
    """A picture inside a page: its address is all of it. still: one frame of a clip."""

    address: str
    width: int
    height: int
    still: str = ""


def render(template: str, **values: Any) -> str:
    """The page that a file of `templates/` makes of these values, `title` being one of them."""
    return _TEMPLATES.get_template(template).render(values)


def embed_picture(path: Path) -> Embedded:
    """A picture file, made smaller and lossy where it is too large for a page.

    Raises OSError or SyntaxError (Pillow's own) for a file that is no whole picture.
    """
    with Image.open(path) as image:
        image.load()
        data, kind = path.read_bytes(), path.suffix.removeprefix(".")
        if max(image.size) > _PICTURE_PX or len(data) > _PICTURE_BYTES:
            image.thumbnail((_PICTURE_PX, _PICTURE_PX))
            packed = BytesIO()
            mode = "RGBA" if image.has_transparency_data else "RGB"  # a page may be dark or light
            image.convert(mode).save(packed, "WEBP", quality=80)
            data, kind = packed.getvalue(), "webp"
        return Embedded(_address(data, kind), *image.size)


def embed_clip(frames: Frames, fps: float) -> Embedded:
    """A clip (T, H, W, 3) as a GIF, with its middle frame as the still picture."""
    height, width = frames.shape[1:3]
    with TemporaryDirectory() as folder:
        gif = save_gif(Path(folder, "clip.gif"), frames, fps=fps).read_bytes()
        png = save_picture(Path(folder, "still.png"), frames[len(frames) // 2]).read_bytes()
    return Embedded(_address(gif, "gif"), width, height, still=_address(png, "png"))


def embed_frame(frame: Frames) -> str:
    """The address that holds one frame (H, W, 3), as a lossy picture."""
    packed = BytesIO()
    Image.fromarray(frame).save(packed, "WEBP", quality=80)
    return _address(packed.getvalue(), "webp")


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure(value: float) -> str:
    """Three digits that count, or the whole number where it has more: 0.600, 1.50e-07, 12,346."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def duration(seconds: float) -> str:
    """Two units of time at most: 7 s, 2 min 31 s, 1 d 1 h."""
    rest = round(seconds)
    shown: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or shown:
            shown.append(f"{count} {unit}" if count else "")
    return " ".join(shown[:2]).strip() or "0 s"


def short_time(seconds: float) -> str:
    """The time of a step: 12.0 ms, 3.45 s, 2 min 5 s."""
    if seconds < 1:
        return f"{figure(1000 * seconds)} ms"
    return f"{figure(seconds)} s" if seconds < 60 else duration(seconds)


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(),  # pages, and not model cards
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    "clip": embed_clip,
    "counted": counted,
    "curve_svg": curve_svg,
    "duration": duration,
    "figure": figure,
    "quote": shlex.quote,
    "short_time": short_time,
}
