"""Pictures: film strips, animations, clips beside each other.

Clips are uint8 (T, H, W, 3) RGB: T frames of H x W pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videomae.errors import ConfigError, one_line
from videomae.hub import PathLike, atomic_path
from videomae.report.fonts import fonts_for, letters_of
from videomae.video.decoder import Frames
from videomae.video.writer import write_video

Picture = NDArray[np.uint8]  # (H, W, 3) RGB

_INK, _PAPER = (32, 33, 36), (255, 255, 255)
_CAPTION_PX = 15
_MAX_COLUMNS = 8
_MIN_FRAME_PX = 96  # smaller frames are enlarged, or nobody would see them


def film_strip(rows: Mapping[str, Frames]) -> Picture:
    """Clips below each other as one picture, time to the right, a caption above each row.

    Clips of more than 8 frames are thinned out evenly. Frames whose shorter side is below 96 px are
    enlarged by a whole number, pixels staying square and sharp.
    """
    _check_clips(rows)
    gap = 4
    pictures = []
    for caption, frames in rows.items():
        shown = padded(_enlarge(_spread(frames, _MAX_COLUMNS)), right=gap)  # (K, H, W, 3)
        pictures.append(captioned(np.concatenate(list(shown), axis=1)[:, :-gap], caption))
    width = max(picture.shape[1] for picture in pictures)
    level = [padded(picture, right=width - picture.shape[1]) for picture in pictures]
    return padded(np.concatenate(level), 2 * gap, 3 * gap, 3 * gap, 3 * gap)


def frame_row(frames: Frames) -> Picture:
    """Four frames of a clip in a row, spread over it, as high as a thumbnail: (H, W, 3) uint8."""
    _check_clips({"": frames})
    row = np.concatenate(list(padded(_enlarge(_spread(frames, 4)), right=2)), axis=1)[:, :-2]
    size = max(round(row.shape[1] * _MIN_FRAME_PX / row.shape[0]), 1), _MIN_FRAME_PX
    return np.asarray(Image.fromarray(row).resize(size, Image.Resampling.BOX))


def side_by_side(clips: Mapping[str, Frames]) -> Frames:
    """Clips of equal length beside each other as one clip with captions, for GIF and mp4."""
    _check_clips(clips)
    if len({len(frames) for frames in clips.values()}) > 1:
        counts = ", ".join(f"{caption}: {len(frames)}" for caption, frames in clips.items())
        raise ConfigError(f"clips side by side must have equally many frames, got {counts}")
    gap = 8
    panels = []
    for caption, frames in clips.items():
        large = _enlarge(frames, 2 * _MIN_FRAME_PX)
        panels.append(np.stack([captioned(frame, caption) for frame in large]))
    height = max(panel.shape[1] for panel in panels)
    level = [padded(panel, below=height - panel.shape[1], left=gap) for panel in panels]
    return padded(np.concatenate(level, axis=2), gap, right=gap, below=gap)


def padded(
    picture: Frames, above: int = 0, right: int = 0, below: int = 0, left: int = 0
) -> Frames:
    """A picture (H, W, 3) or clip (T, H, W, 3) with so many white pixels on its sides."""
    sides = [(0, 0)] * (picture.ndim - 3) + [(above, below), (left, right), (0, 0)]
    return np.pad(picture, sides, constant_values=_PAPER[0])


def _check_clips(clips: Mapping[str, Frames]) -> None:
    if not clips:
        raise ConfigError("there are no clips to show; give at least one")
    for caption, frames in clips.items():
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ConfigError(
                f"clip {caption!r} has shape {frames.shape} and type {frames.dtype}; expected a "
                "non-empty (T, H, W, 3) array of uint8"
            )


def _spread(frames: Frames, most: int) -> Frames:
    """At most so many frames of a clip, evenly from its parts."""
    count = min(most, len(frames))
    return frames[[int((place + 0.5) * len(frames) / count) for place in range(count)]]


def _enlarge(frames: Frames, min_frame_px: int = _MIN_FRAME_PX) -> Frames:
    """Repeat pixels a whole number of times until the shorter side reaches `min_frame_px`."""
    factor = -(-min_frame_px // min(frames.shape[1:3]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


class Labeller:
    """Draws labels on the frames of a video, in the lower left corner; enlarges small frames."""

    def __init__(self) -> None:
        self._drawn: tuple[tuple[str, ...], NDArray[np.float32]] | None = None

    def __call__(self, frame: Picture, lines: Sequence[str]) -> Picture:
        """A frame (H, W, 3) with these lines of text, enlarged to a shorter side of 192 px."""
        large: Picture = _enlarge(frame[None], 2 * _MIN_FRAME_PX)[0]
        if not lines:
            return large
        if self._drawn is None or self._drawn[0] != tuple(lines):  # the same for many frames
            self._drawn = tuple(lines), _text_mask(lines, *large.shape[:2])
        ink = self._drawn[1]  # (h, w, 1), 1 where there are letters
        corner = large[-ink.shape[0] :, : ink.shape[1]]
        corner[:] = 0.35 * corner * (1 - ink) + 255 * ink
        return large


def _text_mask(lines: Sequence[str], height: int, width: int) -> NDArray[np.float32]:
    """Lines of text as (h, w, 1) in 0..1, as large as suits a frame, and not wider."""
    lines = [one_line(line) for line in lines]
    size = max(height // 16, 10)
    while size > 6 and max(_font(line, size).getlength(line) for line in lines) > width - size:
        size -= 1
    pitch = round(1.35 * size)
    wide = max(_font(line, size).getlength(line) for line in lines) + size
    mask = Image.new("L", (min(int(wide), width), min(pitch * len(lines) + size // 2, height)))
    for row, line in enumerate(lines):
        place = (size // 2, round(size * 0.25 + pitch * (row + 0.75)))
        ImageDraw.Draw(mask).text(place, line, 255, _font(line, size), anchor="ls")
    return np.asarray(mask, np.float32)[..., None] / np.float32(255)


def _font(text: str, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if text.isascii():
        return ImageFont.load_default(size=size_px)
    files = fonts_for(text)  # the usual font knows no other letters
    file = max(files, key=lambda each: len(letters_of(each).intersection(text)))
    return ImageFont.truetype(file, size_px)


def captioned(picture: Picture, caption: str) -> Picture:
    """The picture with a line of small text above it."""
    caption = one_line(caption)
    font = _font(caption, _CAPTION_PX)
    line = Image.new("RGB", (picture.shape[1], 2 * _CAPTION_PX), _PAPER)
    # Anchored at the baseline, so that letters with and without tails stand level.
    ImageDraw.Draw(line).text((0, 1.35 * _CAPTION_PX), caption, _INK, font, anchor="ls")
    return np.concatenate([np.asarray(line), picture])


def save_picture(path: PathLike, picture: Picture) -> Path:
    """Write a picture (H, W, 3) uint8, atomically; the suffix says how: .png, .jpg, .webp."""
    check_suffix(path, (".png", ".jpg", ".jpeg", ".webp"))
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
    return Path(path)


def save_gif(path: PathLike, frames: Frames, *, fps: float = 8) -> Path:
    """Write a clip (T, H, W, 3) uint8 as a GIF that repeats for ever, atomically.

    A GIF counts in hundredths of a second, so that `fps` above 50 is not to be had.
    """
    check_suffix(path, (".gif",))
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
    return Path(path)


def save_clips(path: PathLike, clips: Mapping[str, Frames], *, fps: float = 8) -> Path:
    """Show clips together, as the suffix says: .png a film strip, .gif or .mp4 side by side."""
    kind = check_suffix(path, (".png", ".gif", ".mp4"))
    if kind == ".png":
        return save_picture(path, film_strip(clips))
    return (save_gif if kind == ".gif" else write_video)(path, side_by_side(clips), fps=fps)


def check_suffix(path: PathLike, known: tuple[str, ...]) -> str:
    """The suffix of a file, small, where it is one of those known."""
    suffix = Path(path).suffix
    if suffix.lower() not in known:
        raise ConfigError(
            f"{path} ends in {suffix or 'nothing'!r}; name a file that ends in {' or '.join(known)}"
        )
    return suffix.lower()
