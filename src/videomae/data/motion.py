"""The built-in data set: small labelled videos whose class is how the view moves, never the look.

Every clip looks at an endless coloured plane of smooth noise and soft shapes. The scene (colours,
texture, shapes, where the view stands, how far it is turned and zoomed) is drawn from the seed
alone; the class only decides how the view leaves that pose. All twelve motions pass through the
same pose at the middle frame, so for one seed the middle frames of all classes are the same
picture, byte for byte: a single picture cannot tell the class.

A second domain shows the same twelve motions otherwise: the camera rests on a speckled grey ground,
and one bright object moves over it.
"""

import cmath
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError
from videomae.hub import read_json, write_json
from videomae.settings import Domain, MotionSettings
from videomae.video.reader import write_video

# Named after what a viewer sees: in slide_left the picture moves to the left, in turn_left it turns
# against the clock; sway goes to and fro sideways, bob up and down, and orbit travels round a
# circle, either way, without turning. Sorted, as a folder-per-class reader numbers them.
MOTIONS: tuple[str, ...] = (
    "bob",
    "orbit",
    "pulse",
    "slide_down",
    "slide_left",
    "slide_right",
    "slide_up",
    "sway",
    "turn_left",
    "turn_right",
    "zoom_in",
    "zoom_out",
)

# The plane repeats after so many view widths: more than the diagonal of the widest view (2.8), so
# that nothing is seen twice in a frame.
_PLANE_VIEWS = 4
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


class _Look(NamedTuple):
    """How a plane is painted."""

    chroma: tuple[float, float]  # range of the colours: 0 grey, 0.17 vivid
    hard: bool  # speckles with hard edges, four to eight pixels wide; else smooth noise
    shapes: bool  # whether shapes lie on it


_SMOOTH = _Look(chroma=(0.10, 0.17), hard=False, shapes=True)
_GROUND = _Look(chroma=(0.00, 0.04), hard=True, shapes=False)
_OBJECT = _Look(chroma=(0.14, 0.22), hard=True, shapes=False)

# The settings that decide the pixels and files of a data set.
_RECORDED = ("clips", "seed", "size", "num_frames", "fps", "still", "domain")

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Points = NDArray[np.complexfloating[Any, Any]]
Words = NDArray[np.uint64]


def render_clip(
    motion: str,
    *,
    seed: int | Sequence[int],
    size: int = 64,
    num_frames: int = 32,
    domain: Domain = "camera",
) -> NDArray[np.uint8]:
    """Render one clip of a random scene under the named motion.

    In the domain "camera" all of the picture moves; in "object" one object does, and what is behind
    it stands still.

    Returns RGB uint8 of shape (num_frames, size, size, 3), a function of the arguments alone. The
    clip holds the whole motion whatever `num_frames` is: a slide covers 0.32 to 0.78 of the
    picture's width, a zoom a ratio of 1.5 to 2.5, a turn 40 to 120 degrees; sway, bob, orbit (0.1
    to 0.21 of the width to each side) and pulse (15 to 30 %) swing 1.1 to 2 times.

    Raises ConfigError for an unknown motion or domain, or an impossible shape.

    ```python
    sway, zoom = (render_clip(motion, seed=3) for motion in ("sway", "zoom_in"))
    (sway[16] == zoom[16]).all()  # True: the middle frame, num_frames // 2, is the scene's own
    ```
    """
    if motion not in MOTIONS:
        raise ConfigError(f"no motion is called {motion!r}; expected one of {', '.join(MOTIONS)}")
    _check_shape(size, num_frames)
    _check_domain(domain)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    plane = _draw_plane(size, rng, _SMOOTH if domain == "camera" else _GROUND)
    centre = _PLANE_VIEWS * complex(*rng.uniform(size=2))
    heading = rng.uniform(0, 2 * math.pi)
    scale = math.exp(rng.uniform(-0.22, 0.22))  # of the plane per picture
    path = draw_trajectory(motion, num_frames, rng)
    pose = cmath.rect(scale, heading)
    if domain == "camera":
        return _film(plane, path, centre=centre, pose=pose, size=size)
    rest = Trajectory(np.zeros(1, dtype=np.complex128), np.ones(1, dtype=np.complex128), 0)
    ground = _film(plane, rest, centre=centre, pose=pose, size=size)
    texture = _draw_plane(size, rng, _OBJECT)
    outline = _draw_outline(len(plane), centre + pose * path.focus, rng)
    body, share = (
        _film(each, path, centre=centre, pose=pose, size=size).astype(np.uint16)
        for each in (texture, outline)
    )
    return ((ground * (255 - share) + body * share + 127) // 255).astype(np.uint8)


class Trajectory(NamedTuple):
    """How the picture has moved since the middle frame.

    Points are complex, x + iy, x right and y down, in picture widths from the picture's centre:
    to multiply by `zoom * exp(1j * angle)` is to zoom and turn clockwise.
    """

    shift: Points  # (T,)
    change: Points  # (T,) zoom and turn
    focus: complex  # the point that zooms and turns leave in place

    def follow(self, points: Points, frame: int, to: int) -> Points:
        """Where in frame `to` there is what lies at `points` (any shape) in another frame."""
        origin = (points - self.shift[frame] - self.focus) / self.change[frame]
        followed: Points = origin * self.change[to] + self.shift[to] + self.focus
        return followed


def draw_trajectory(motion: str, num_frames: int, rng: np.random.Generator) -> Trajectory:
    """A random motion of a named class over a clip."""
    # Every class draws the same numbers in the same order: opposite classes of one seed are then
    # each other played backwards about the middle frame.
    amount, periods, phase, tilt = rng.uniform(size=4)
    focus = complex(*rng.uniform(-0.15, 0.15, 2))
    middle = num_frames // 2
    time = (np.arange(num_frames) - middle) / max(num_frames - 1, 1)  # (T,) in clips

    kind, _, way = motion.partition("_")
    sign = -1 if way in ("left", "up", "out") else 1
    # At least 1.1 periods: less than one of a sway could pass for a slide.
    angle = 2 * math.pi * (phase + sign * time * (1.1 + 0.9 * periods))  # (T,)
    radius = 0.10 + 0.11 * amount
    along = cmath.rect(1, math.radians(30 * tilt - 15)) * (1j if way in ("up", "down") else 1)

    shift: Points = np.zeros(num_frames, dtype=np.complex128)
    log_change = shift
    if kind == "slide":
        shift = sign * (0.32 + 0.46 * amount) * time * along
    elif kind == "sway":
        shift = radius * np.sin(angle) * along
    elif kind == "bob":
        shift = radius * np.sin(angle) * along * 1j
    elif kind == "orbit":
        # Either way round: telling which takes more than this many clips can teach.
        shift = radius * np.exp(1j * angle * (1 if tilt < 0.5 else -1))
    elif kind == "turn":
        log_change = 1j * sign * math.radians(40 + 80 * amount) * time
    elif kind == "zoom":
        log_change = sign * (math.log(1.5) + math.log(2.5 / 1.5) * amount) * time
    else:
        log_change = (math.log(1.15) + math.log(1.30 / 1.15) * amount) * np.sin(angle)
    return Trajectory(shift - shift[middle], np.exp(log_change - log_change[middle]), focus)


def _film(
    plane: Words, path: Trajectory, *, centre: complex, pose: complex, size: int
) -> NDArray[np.uint8]:
    """Follow the path over the plane: RGB uint8 (T, size, size, 3)."""
    # A point of the picture shows centre + pose * q of the plane, where
    # q = focus + (point - shift - focus) / change is where that was in the middle frame.
    turn = pose / path.change  # (T,)
    start = centre + pose * path.focus - turn * (path.shift + path.focus)  # (T,)
    across = (np.arange(size) + 0.5) / size - 0.5
    points = across + 1j * across[:, None]  # (S, S), rows down
    steps = (len(plane) << _STEP_BITS) / _PLANE_VIEWS
    return np.stack(
        [_sample(plane, steps * (a + b * points)) for a, b in zip(start, turn, strict=True)]
    )


def _sample(plane: Words, at: Points) -> NDArray[np.uint8]:
    """The plane at points in sub-pixel steps, bilinear: in integers, alike on every machine."""
    side, one = len(plane), 1 << _STEP_BITS
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
    return (((word[..., None] >> _LANES) + half) >> np.uint64(2 * _STEP_BITS)).astype(np.uint8)


def _draw_outline(side: int, centre: complex, rng: np.random.Generator) -> Words:
    """Where on its plane the object is, 255, and where it is not, 0: alike in all colours.

    Two overlapping shapes, the second smaller, so that it shows how it is turned.
    """
    view = side / _PLANE_VIEWS  # pixels
    y, x = np.mgrid[:side, :side] + 0.5
    # from the centre, the nearest way round the periodic plane
    offset = (x - view * centre.real) + 1j * (y - view * centre.imag)
    offset = (
        (offset.real + side / 2) % side
        - side / 2
        + 1j * ((offset.imag + side / 2) % side - side / 2)
    )
    radius = rng.uniform(0.17, 0.23) * view
    arm = cmath.rect(radius, rng.uniform(0, 2 * math.pi))
    away = np.full((side, side), np.inf)
    for place, reach in ((-0.35 * arm, radius), (0.85 * arm, 0.6 * radius)):
        shape = _SHAPES[rng.integers(len(_SHAPES))]
        part = offset - place
        away = np.minimum(away, _distance(part.real, part.imag, reach, rng.uniform(), *shape))
    share = np.rint(255 * np.clip(0.5 - away, 0, 1)).astype(np.uint64)
    words: Words = share << _LANES[0] | share << _LANES[1] | share << _LANES[2]
    return words


def _draw_plane(size: int, rng: np.random.Generator, look: _Look = _SMOOTH) -> Words:
    """A periodic picture of side 2**n at about the clip's resolution, each pixel a packed word."""
    side = 1 << (_PLANE_VIEWS * size - 1).bit_length()
    colours = _draw_palette(rng, look.chroma).astype(np.float32)
    plane = _draw_noise(side, colours[:4], rng, hard=look.hard)
    if look.shapes:
        _draw_shapes(plane, colours[4:], rng)
    plane *= 255
    red, green, blue = np.rint(plane, out=plane).astype(np.uint64)
    words: Words = red << _LANES[0] | green << _LANES[1] | blue << _LANES[2]
    return words


def _draw_palette(rng: np.random.Generator, chroma: tuple[float, float] = (0.10, 0.17)) -> Floats:
    """Four neighbouring colours for the ground, eight for the shapes: (12, 3) sRGB in [0, 1]."""
    hue = rng.uniform(0, 2 * math.pi)
    spread = rng.uniform(0.5, 1.3)
    ground = hue + spread * np.array([-1.0, -0.2, 0.5, 1.2])
    shapes = rng.uniform(0, 2 * math.pi, 8)
    hues = np.concatenate([ground, shapes])
    light = np.concatenate(
        [rng.permutation([0.36, 0.52, 0.70, 0.84]), rng.permutation(np.linspace(0.45, 0.92, 8))]
    )
    return _srgb(light, rng.uniform(*chroma, 12), hues)


def _srgb(light: Floats, chroma: Floats, hue: Floats) -> Floats:
    """OKLCH to sRGB, clipped; its lightness is that of the eye at any hue (Ottosson, 2020)."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    return np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _draw_noise(
    side: int, colours: Pixels, rng: np.random.Generator, *, hard: bool = False
) -> Pixels:
    """Four colours by two fields of noise, blended smoothly or side by side: (3, side, side)."""
    # Waves of about 32, 16, 8 and 4 pixels in a view of 32: what patches of 8 pixels can follow.
    weights = [0.8, 1.0, rng.uniform(0.2, 0.6), rng.uniform(0.0, 0.2)]
    if hard:
        weights = [0.2, 0.5, 1.0, rng.uniform(0.2, 0.6)]
    fields = np.zeros((2, 4, 4), dtype=np.float32)
    for weight in weights:
        fields = _double(fields)
        fields += np.float32(weight) * rng.standard_normal(fields.shape, dtype=np.float32)
    while fields.shape[-1] < side:
        fields = _double(fields)
    # A cubic B-spline through unit noise has the variance (151 / 315) ** 2.
    contrast = 0.40 / (151 / 315 * math.hypot(*weights))
    fields = (0.5 + np.float32(contrast) * fields).clip(0, 1)
    u, v = np.rint(fields) if hard else fields
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
    view = side / _PLANE_VIEWS  # pixels
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


def render_dataset(
    settings: MotionSettings, *, on_progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write a labelled set of mp4 files, `output/<motion>/<index>.mp4`, and list them by index.

    Clip `i` shows `MOTIONS[i % 12]` on the scene of `(seed, i)`: classes differ by at most one in
    number, and any number of `workers` (processes; default one per core) writes the same pixels.
    More than one starts fresh interpreters, so a script calls this under `if __name__ ==
    "__main__"`. With `still` each clip repeats its middle frame: the same looks, no motion, so that
    no model can do better than chance. `domain` says what moves, see `render_clip`.
    `on_progress(done, clips)` hears of each clip.

    `labels.txt` lists the classes and `dataset.json` the settings; the same call carries on where
    an interrupted one stopped. Raises ConfigError for a folder that was made with other settings or
    holds something else.

    ```python
    render_dataset(MotionSettings(Path("motion"), clips=24))[13]  # motion/orbit/00013.mp4
    ```
    """
    _check_shape(settings.size, settings.num_frames)
    output_dir, clips = settings.output, settings.clips
    _claim(output_dir, settings)

    paths = [
        output_dir / MOTIONS[index % len(MOTIONS)] / f"{index:05d}.mp4" for index in range(clips)
    ]
    # A file appears under its name only when it is complete, so what exists is finished.
    missing = [(index, path) for index, path in enumerate(paths) if not path.exists()]
    done = clips - len(missing)
    write = partial(_write_clip, settings=settings)
    for _ in _each(write, missing, settings.workers or os.cpu_count() or 1):
        done += 1
        if on_progress:
            on_progress(done, clips)
    return paths


def _write_clip(job: tuple[int, Path], *, settings: MotionSettings) -> None:
    index, path = job
    clip = render_clip(
        path.parent.name,
        seed=(settings.seed, index),
        size=settings.size,
        num_frames=settings.num_frames,
        domain=settings.domain,
    )
    if settings.still:
        clip[:] = clip[settings.num_frames // 2].copy()
    write_video(path, clip, fps=settings.fps)


def _each(
    act: Callable[[tuple[int, Path]], None], jobs: Sequence[tuple[int, Path]], workers: int
) -> Iterator[None]:
    """Do the jobs in order, here or in processes: small arrays keep the interpreter's lock busy."""
    if min(workers, len(jobs)) <= 1:
        yield from map(act, jobs)
        return
    # Spawned, not forked: the caller may have torch's threads running.
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn")) as pool:
        yield from pool.map(act, jobs, chunksize=4)


def _check_shape(size: int, num_frames: int) -> None:
    if size < 8 or size % 2 or num_frames < 1:
        raise ConfigError(
            f"{size=}, {num_frames=}: expected an even size of at least 8 pixels (H.264 halves "
            "colour) and at least 1 frame"
        )


def _check_domain(domain: str) -> None:
    if domain not in get_args(Domain):
        raise ConfigError(f"domain={domain!r} is not one of {', '.join(get_args(Domain))}")


def _claim(output_dir: Path, settings: MotionSettings) -> None:
    """Make the folder ours, or check that it already holds a set of these very settings."""
    values = {name: getattr(settings, name) for name in _RECORDED}
    asked = {"made_by": "videomae motion", **values, "classes": list(MOTIONS)}
    record = output_dir / "dataset.json"
    if record.is_file():
        found = {"domain": "camera", **read_json(record)}  # the only one that there once was
        wrong = [key for key in asked if found.get(key) != asked[key]]
        if wrong:
            raise ConfigError(
                f"{output_dir} holds a data set made with "
                f"{', '.join(f'{key}={found.get(key)!r}' for key in wrong)}; asked for "
                f"{', '.join(f'{key}={asked[key]!r}' for key in wrong)}; give another folder, or "
                "remove this one"
            )
    elif output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ConfigError(
            f"{output_dir} is not empty and has no dataset.json, so it is not a data set to carry "
            "on with; give a new folder"
        )
    for motion in MOTIONS:
        (output_dir / motion).mkdir(parents=True, exist_ok=True)
    (output_dir / "labels.txt").write_text("".join(f"{motion}\n" for motion in MOTIONS))
    write_json(record, asked)
