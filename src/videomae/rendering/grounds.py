"""Grounds that stand still behind a figure: rooms, landscapes and plain colours.

They are smooth, with hard edges only where a wall ends or a picture hangs, so that a hidden cell of
8 x 8 pixels can be predicted from others; and nowhere flat, so that what is to be predicted is
light and shade and not what a video codec made of them.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from videomae.rendering.figures import srgb


def draw_ground(number: int, side: int, floor: float) -> Image.Image:
    """The ground of a number, a square of `side` pixels whose floor begins at `floor` of it.

    A function of its arguments alone.
    """
    rng = np.random.default_rng([2, number])
    nodes = Image.fromarray(_colours(rng, 9).reshape(3, 3, 3))
    # nine colours spread smoothly, the outer ones at the rim
    image = nodes.resize((side, side), Image.Resampling.BICUBIC, (0.5, 0.5, 2.5, 2.5))
    kind = rng.choice(3, p=[0.45, 0.35, 0.2])
    if kind < 2:
        (_draw_room, _draw_landscape)[kind](image, rng, floor * side)
    return image.filter(ImageFilter.GaussianBlur(side / 150))


def draw_light(number: int, size: int) -> NDArray[np.float32]:
    """Light and shade over a picture, (size, size, 3), about 0.3 to 1.5 of its colours.

    It falls off to one side, in long waves: the steepest that neighbouring cells predict.
    """
    rng = np.random.default_rng([3, number])
    across = np.linspace(-0.5, 0.5, size)
    x, y = across[None, :], across[:, None]
    heading = rng.uniform(0, 2 * math.pi)
    light = rng.uniform(0.3, 0.6) * (math.cos(heading) * x + math.sin(heading) * y)
    for _ in range(2):
        turns = rng.uniform(-1.6, 1.6, 2)
        wave = np.sin(2 * math.pi * (turns[0] * x + turns[1] * y + rng.uniform()))
        light = light + rng.uniform(0.05, 0.12) * wave
    tint = rng.uniform(0.94, 1.06, 3)
    return ((rng.uniform(0.85, 1.0) + light)[..., None] * tint).astype(np.float32)


def _colours(
    rng: np.random.Generator, count: int, light: tuple[float, float] = (0.4, 0.85)
) -> NDArray[np.uint8]:
    """Muted colours of neighbouring hues: (count, 3)."""
    hues = rng.uniform(0, 2 * math.pi) + rng.uniform(-0.9, 0.9, count)
    values = srgb(rng.uniform(*light, count), rng.uniform(0.01, 0.075, count), hues)
    return np.rint(255 * values).astype(np.uint8)


def _colour(rng: np.random.Generator, darkest: float, lightest: float) -> tuple[int, ...]:
    return tuple(_colours(rng, 1, (darkest, lightest))[0].tolist())


def _tint(image: Image.Image, mask: Image.Image, colour: tuple[int, ...], share: float) -> None:
    """Colour what a mask shows, letting the light and shade below shine through."""
    plain = Image.new("RGB", image.size, colour)
    image.paste(Image.blend(image, plain, share), mask=mask)


def _draw_room(image: Image.Image, rng: np.random.Generator, floor: float) -> None:
    """A floor with a skirting board, pictures on the wall, perhaps a window."""
    side = image.width
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    draw.rectangle((0, floor, side, side), fill=255)
    _tint(image, mask, _colour(rng, 0.3, 0.75), 0.55)
    draw = ImageDraw.Draw(image)
    board = (0, floor - side * 0.02, side, floor + side * 0.01)
    draw.rectangle(board, fill=_colour(rng, 0.25, 0.9))
    for _ in range(rng.integers(0, 4)):
        wide, high = rng.uniform(0.12, 0.3, 2) * side
        x, y = rng.uniform(0, side - wide), rng.uniform(0.03 * side, 0.45 * floor)
        is_window = rng.random() < 0.3
        light = (0.8, 0.95) if is_window else (0.25, 0.8)
        inside = Image.fromarray(_colours(rng, 4, light).reshape(2, 2, 3))
        box = (round(x), round(y))
        rim = max(round(side * 0.015), 1)
        frame = _colour(rng, 0.2, 0.9)
        draw.rectangle((*box, box[0] + round(wide), box[1] + round(high)), fill=frame)
        inner = (max(round(wide) - 2 * rim, 1), max(round(high) - 2 * rim, 1))
        image.paste(inside.resize(inner, Image.Resampling.BICUBIC), (box[0] + rim, box[1] + rim))
        if is_window:
            draw.line((x + wide / 2, y, x + wide / 2, y + high), fill=frame, width=rim)


def _draw_landscape(image: Image.Image, rng: np.random.Generator, floor: float) -> None:
    """Hills before the sky, a meadow from the horizon on, and trees."""
    side = image.width
    for level, rough in ((rng.uniform(0.35, 0.8) * floor, 0.05), (floor, 0.008)):
        mask = Image.new("L", image.size)
        outline = [*_draw_ridge(rng, side, level, rough), (side, side), (0, side)]
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        _tint(image, mask, _colour(rng, 0.35, 0.75), 0.6)
    for _ in range(rng.integers(0, 4)):
        middle, size = rng.uniform(0, side), rng.uniform(0.05, 0.13) * side
        top, trunk = floor - rng.uniform(0.7, 3) * size, size / 6
        mask = Image.new("L", image.size)
        draw = ImageDraw.Draw(mask)
        draw.rectangle((middle - trunk, top, middle + trunk, floor + 0.02 * side), fill=255)
        draw.circle((middle, top), size, fill=255)
        _tint(image, mask, _colour(rng, 0.25, 0.55), 0.65)


def _draw_ridge(
    rng: np.random.Generator, side: int, level: float, rough: float
) -> list[tuple[float, float]]:
    """A line from left to right, 1/f: the longer a wave, the higher."""
    x = np.linspace(0, 1, 49)
    y = np.full_like(x, level)
    for order in range(1, 7):
        wave = np.sin(math.pi * order * x + rng.uniform(0, 2 * math.pi))
        y += rough * side * rng.normal() / order * wave
    return list(zip((x * side).tolist(), y.tolist(), strict=True))
