"""Scenes of moving planes: endless ones of noise and shapes, and what a view of them is.

A plane is periodic, a square of side 2**n pixels, each pixel a 64-bit word that holds three colours
in lanes, so that a view is sampled in integers: the same bytes on every machine.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.rendering.figures import Floats, srgb

# The plane repeats after so many view widths: more than the diagonal of the widest view (2.8), so
# that nothing is seen twice in a frame.
PLANE_VIEWS = 4
# Shapes stand in a jittered square lattice, 2 or 3 of them in a view.
_SHAPES_PER_SIDE = 6
# Tips, radius of the notch between two tips / radius of a tip, roundness of the corners.
_SHAPES = np.array(
    [
        (4, math.cos(math.pi / 4), 1.0),  # disc
        (3, math.cos(math.pi / 3), 0.30),  # triangle
        (4, math.cos(math.pi / 4), 0.25),  # box
        (6, math.cos(math.pi / 6), 0.15),  # hexagon
        (5, 0.50, 0.15),  # star
        (6, 0.55, 0.35),  # flower
    ]
)
# The sampler's integers: 6 bits of sub-pixel position each way, so 12 bits of weight and 8 of
# colour in a lane of 21; three lanes fill a 64-bit word.
_STEP_BITS = 6
_LANES = np.array([0, 21, 42], dtype=np.uint64)

Pixels = NDArray[np.float32]
Points = NDArray[np.complexfloating[Any, Any]]
Words = NDArray[np.uint64]


def draw_plane(size: int, rng: np.random.Generator, chroma: tuple[float, float]) -> Words:
    """A periodic picture of side 2**n at about the clip's resolution, each pixel a packed word.

    Smooth noise with shapes on it.
    """
    side = 1 << (PLANE_VIEWS * size - 1).bit_length()
    colours = _draw_palette(rng, chroma).astype(np.float32)
    plane = _draw_noise(side, colours[:4], rng)
    _draw_shapes(plane, colours[4:], rng)
    plane *= 255
    return _packed(*np.rint(plane, out=plane).astype(np.uint64))


def sample(plane: Words, points: Points) -> NDArray[np.uint8]:
    """The plane at points in view widths, bilinear: RGB uint8, a dimension more than the points."""
    side, one = len(plane), 1 << _STEP_BITS
    at = (side << _STEP_BITS) / PLANE_VIEWS * points  # in sub-pixel steps
    x, y = np.rint(at.real).astype(np.int64), np.rint(at.imag).astype(np.int64)
    part_x, part_y = x & (one - 1), y & (one - 1)
    both = part_x * part_y
    x, y = x >> _STEP_BITS, y >> _STEP_BITS
    left, right = x & (side - 1), (x + 1) & (side - 1)
    top, bottom = (y & (side - 1)) * side, ((y + 1) & (side - 1)) * side
    word = plane.take(top + left) * (one * one - one * (part_x + part_y) + both).view(np.uint64)
    word += plane.take(top + right) * (one * part_x - both).view(np.uint64)
    word += plane.take(bottom + left) * (one * part_y - both).view(np.uint64)
    word += plane.take(bottom + right) * both.view(np.uint64)
    half = np.uint64(one * one // 2)  # so that the shift rounds
    colours: NDArray[np.uint64] = ((word[..., None] >> _LANES) + half) >> np.uint64(2 * _STEP_BITS)
    return colours.astype(np.uint8)


def _packed(red: Words, green: Words, blue: Words) -> Words:
    words: Words = red << _LANES[0] | green << _LANES[1] | blue << _LANES[2]
    return words


def _draw_palette(rng: np.random.Generator, chroma: tuple[float, float]) -> Floats:
    """Four neighbouring colours for the ground, eight for the shapes: (12, 3) sRGB in [0, 1]."""
    hue = rng.uniform(0, 2 * math.pi)
    spread = rng.uniform(0.5, 1.3)
    ground = hue + spread * np.array([-1.0, -0.2, 0.5, 1.2])
    hues = np.concatenate([ground, rng.uniform(0, 2 * math.pi, 8)])
    light = np.concatenate(
        [rng.permutation([0.36, 0.52, 0.70, 0.84]), rng.permutation(np.linspace(0.45, 0.92, 8))]
    )
    return srgb(light, rng.uniform(*chroma, 12), hues)


def _draw_noise(side: int, colours: Pixels, rng: np.random.Generator) -> Pixels:
    """Four colours, blended smoothly by two fields of noise: (3, side, side)."""
    # Waves of about 32, 16, 8 and 4 pixels in a view of 32: what patches of 8 pixels can follow.
    weights = [0.8, 1.0, rng.uniform(0.2, 0.6), rng.uniform(0.0, 0.2)]
    fields = np.zeros((2, 4, 4), dtype=np.float32)
    for weight in weights:
        fields = _double(fields)
        fields += np.float32(weight) * rng.standard_normal(fields.shape, dtype=np.float32)
    while fields.shape[-1] < side:
        fields = _double(fields)
    # A cubic B-spline through unit noise has the variance (151 / 315) ** 2.
    contrast = 0.40 / (151 / 315 * math.hypot(*weights))
    fields = (0.5 + np.float32(contrast) * fields).clip(0, 1)
    u, v = fields
    a, b, c, d = colours[:, :, None, None]
    near: Pixels = a + (b - a) * u
    near += (c + (d - c) * u - near) * v
    return near


def _double(fields: Pixels) -> Pixels:
    """Periodic fields (N, S, S) at twice the resolution: one subdivision of cubic B-splines.

    Single precision without sums over arrays or functions: exactly the same on every machine.
    """
    for _ in range(2):  # along the last axis, then the two change places
        after = np.roll(fields, -1, axis=-1)
        finer = np.empty((*fields.shape, 2), dtype=np.float32)
        finer[..., 0] = 0.75 * fields + 0.125 * (np.roll(fields, 1, axis=-1) + after)
        finer[..., 1] = 0.5 * (fields + after)
        fields = np.ascontiguousarray(finer.reshape(*fields.shape[:-1], -1).swapaxes(1, 2))
    return fields


def _draw_shapes(plane: Pixels, colours: Pixels, rng: np.random.Generator) -> None:
    """Lay outlined shapes with a soft shadow on the plane, in place."""
    side = plane.shape[-1]
    view = side / PLANE_VIEWS  # pixels
    edge, shadow, softness = 0.035 * view, 0.06 * view, 0.023 * view
    lattice = side / _SHAPES_PER_SIDE
    colours = colours[:, :, None, None]
    for index in range(_SHAPES_PER_SIDE**2):
        (row, column), turn = divmod(index, _SHAPES_PER_SIDE), rng.uniform()
        y, x = (row + rng.uniform()) * lattice, (column + rng.uniform()) * lattice
        radius = rng.uniform(0.08, 0.19) * view
        shape = _SHAPES[rng.integers(len(_SHAPES))]
        inside, other = colours[rng.integers(len(colours), size=2)]  # (3, 1, 1)
        rim = 0.25 * other if rng.uniform() < 0.5 else np.full_like(other, 0.97)

        reach = math.ceil(radius + shadow)
        rows = np.arange(math.floor(y) - reach, math.floor(y) + reach + 2)
        columns = np.arange(math.floor(x) - reach, math.floor(x) + reach + 2)
        away = _distance(columns - x, rows[:, None] - y, radius, turn, *shape)
        away = away.astype(np.float32)  # (P, P)
        dark = 0.45 * np.clip(1 - away / shadow, 0, 1) ** 2
        body = np.clip(0.5 - away / softness, 0, 1)
        fill = np.clip(0.5 - (away + edge) / softness, 0, 1)
        where = np.ix_(range(3), rows % side, columns % side)
        ground = plane[where] * (1 - dark)
        ground += (rim - ground) * body
        ground += (inside - rim) * fill
        plane[where] = ground


def _distance(
    x: Floats, y: Floats, radius: float, turn: float, tips: float, notch: float, roundness: float
) -> Floats:
    """Signed distance to the rim of a rounded star at the origin, negative inside.

    Folded into half a point of the star, the rim is one straight line from a tip to a notch.
    Polygons are stars with shallow notches; a disc is a star of no size with a very round corner.
    """
    half = math.pi / tips
    angle = np.arctan2(y, x) * (0.5 / half) + turn  # in points of the star
    angle -= np.rint(angle)
    square = x * x + y * y
    x = np.sqrt(square) * np.cos(angle * (2 * half))
    y = np.sqrt(np.maximum(square - x * x, 0))

    tip = radius * (1 - roundness)
    rim_x, rim_y = tip * (notch * math.cos(half) - 1), tip * notch * math.sin(half)
    x = x - tip
    along = np.clip((x * rim_x + y * rim_y) / (rim_x**2 + rim_y**2 or 1), 0, 1)
    gap_x, gap_y = x - along * rim_x, y - along * rim_y
    outside = rim_x * y - rim_y * x <= 0
    return np.where(outside, 1, -1) * np.sqrt(gap_x**2 + gap_y**2) - radius * roundness
