"""A set without people: small labelled videos whose class is how the view moves, never the look.

Every clip looks at an endless coloured plane of smooth noise and soft shapes, drawn from the seed
alone; the class only decides how the view leaves its pose at the middle frame. So for one seed the
middle frames of all classes are the same picture, byte for byte.
"""

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reproduction.scenes import PLANE_VIEWS, Points, draw_plane, sample
from videomae.config import check_choice
from videomae.rendering import clips
from videomae.settings import RenderSettings

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

_CHROMA = (0.10, 0.17)  # 0 is grey, 0.17 vivid


@dataclass(frozen=True)
class MotionSettings(RenderSettings):
    """A set of moving planes."""


def render_clip(
    motion: str,
    *,
    seed: int | Sequence[int],
    size: int = 64,
    num_frames: int = 32,
) -> NDArray[np.uint8]:
    """Render one clip of a random scene under the named motion.

    Returns RGB uint8 of shape (num_frames, size, size, 3), a function of the arguments alone. The
    clip holds the whole motion whatever `num_frames` is: a slide covers 0.32 to 0.78 of the
    picture's width, a zoom a ratio of 1.5 to 2.5, a turn 40 to 120 degrees; sway, bob, orbit (0.1
    to 0.21 of the width to each side) and pulse (15 to 30 %) swing 1.1 to 2 times.

    Raises ConfigError for an unknown motion or an impossible shape.

    ```python
    sway, zoom = (render_clip(motion, seed=3) for motion in ("sway", "zoom_in"))
    (sway[16] == zoom[16]).all()  # True: the middle frame, num_frames // 2, is the scene's own
    ```
    """
    check_choice("motion", motion, MOTIONS)
    clips.check_shape(size, num_frames)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    plane = draw_plane(size, rng, _CHROMA)
    centre = PLANE_VIEWS * complex(*rng.uniform(size=2))
    heading = rng.uniform(0, 2 * math.pi)
    scale = math.exp(rng.uniform(-0.22, 0.22))  # of the plane per picture
    path = draw_trajectory(motion, num_frames, rng)

    # A point of the picture shows centre + pose * q of the plane, where
    # q = focus + (point - shift - focus) / change is where that was in the middle frame.
    pose = cmath.rect(scale, heading)
    turns = pose / path.change  # (T,)
    starts = centre + pose * path.focus - turns * (path.shift + path.focus)  # (T,)
    across = (np.arange(size) + 0.5) / size - 0.5
    points = across + 1j * across[:, None]  # (S, S), rows down
    views = zip(starts, turns, strict=True)
    return np.stack([sample(plane, start + turn * points) for start, turn in views])


class Trajectory(NamedTuple):
    """How the picture has moved since the middle frame.

    Points are complex, x + iy, x right and y down, in picture widths from the picture's centre:
    to multiply by `zoom * exp(1j * angle)` is to zoom and turn clockwise.
    """

    shift: Points  # (T,)
    change: Points  # (T,) zoom and turn
    focus: complex  # the point that zooms and turns leave in place


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
    upright = kind == "bob" or way in ("up", "down")
    along = cmath.rect(1, math.radians(30 * tilt - 15)) * (1j if upright else 1)

    shift: Points = np.zeros(num_frames, dtype=np.complex128)
    log_change = shift
    if kind == "slide":
        shift = sign * (0.32 + 0.46 * amount) * time * along
    elif kind in ("sway", "bob"):
        shift = radius * np.sin(angle) * along
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


def render_dataset(
    settings: MotionSettings, *, on_progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write a labelled set of mp4 files, `output/<motion>/<index>.mp4`, and list them by index.

    Clip `i` shows `MOTIONS[i % 12]` on the scene of `(seed, i)`. All else is as with
    `videomae.rendering.actions.render_dataset`.

    ```python
    render_dataset(MotionSettings(Path("motion"), clips=24))[13]  # motion/orbit/00013.mp4
    ```
    """
    return clips.render_set(
        settings,
        MOTIONS,
        {"": settings.clips},
        _render_file,
        made_by="videomae motion",
        on_progress=on_progress,
    )


def _render_file(settings: MotionSettings, path: Path) -> NDArray[np.uint8]:
    return render_clip(
        path.parent.name,
        seed=(settings.seed, int(path.stem)),
        size=settings.size,
        num_frames=settings.num_frames,
    )
