"""Jointed figures: a body in three dimensions, moved by angles from key to key, drawn by Pillow.

Lengths are in heights of a grown-up body: x is ahead of the figure, y up, z to its left. Angles are
in degrees: a limb at 0 hangs down, and a positive angle swings it ahead; knees bend back, elbows
ahead; a positive lean bows. Letters: T times, P angles of a pose.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]
Angles = dict[str, float]
Hairdo = Literal["bald", "short", "long", "bun"]

# A pose is a row of these angles. A name without _l and _r stands for both sides.
ANGLES = (
    *("lean", "nod", "spread", "hip_l", "hip_r", "knee_l", "knee_r"),
    *("arm_l", "arm_r", "elbow_l", "elbow_r"),
)
_SIDES = (("l", 1), ("r", -1))
_SWAPPED = {"_l": "_r", "_r": "_l"}
_EXCHANGED = [ANGLES.index(name[:-2] + _SWAPPED.get(name[-2:], name[-2:])) for name in ANGLES]


@dataclass(frozen=True)
class Person:
    """Build and look; the same number is always the same person."""

    height: float
    build: float  # width of all limbs
    legs: float  # share of the height from hip to ankle
    shoulders: float  # half of their width
    head: float  # its radius
    skin: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    hair: Colour
    sleeves: bool
    skirt: bool
    hairdo: Hairdo


def draw_person(number: int) -> Person:
    """The person of a number: a function of the number alone."""
    rng = np.random.default_rng([1, number])
    is_child = rng.random() < 0.15
    skin = np.array([232, 184, 150]) * rng.uniform(0.3, 1.08) ** np.array([0.7, 1, 1.2])
    shirt, trousers = _clothes(rng), _clothes(rng)
    return Person(
        height=rng.uniform(0.72, 0.8) if is_child else rng.uniform(0.88, 1.08),
        build=rng.uniform(0.85, 1.35),
        legs=rng.uniform(0.45, 0.51),
        shoulders=rng.uniform(0.09, 0.13),
        head=0.092 if is_child else rng.uniform(0.07, 0.082),
        skin=_rgb(skin),
        shirt=shirt,
        trousers=trousers,
        shoes=_rgb(255 * srgb(*np.array([[rng.uniform(0.15, 0.9)], [0.03], [1.0]]))[0]),
        hair=_rgb(np.array([90, 58, 34]) * rng.uniform(0.2, 2.4)),
        sleeves=bool(rng.random() < 0.6),
        skirt=bool(rng.random() < 0.25),
        hairdo=get_args(Hairdo)[rng.choice(4, p=[0.1, 0.4, 0.3, 0.2])],
    )


def _clothes(rng: np.random.Generator) -> Colour:
    """Vivid, dark or pale: grounds are none of these."""
    light, chroma = [(0.62, 0.19), (0.28, 0.05), (0.93, 0.04)][rng.choice(3, p=[0.6, 0.2, 0.2])]
    hue = rng.uniform(0, 2 * math.pi)
    values = np.array([[light + rng.uniform(-0.08, 0.06)], [chroma], [hue]])
    return _rgb(255 * srgb(*values)[0])


def _rgb(values: Floats) -> Colour:
    red, green, blue = np.rint(np.clip(values, 0, 255)).astype(int).tolist()
    return red, green, blue


@dataclass(frozen=True)
class Movement:
    """What angles do over time.

    keys: from the time, 0 to 1, to the angles that are different then; what is not named stays as
    it was at the key before, `hip` means both hips. A gait goes round and round: its keys are those
    of its first half, the second half is the same with left and right exchanged. climb: body
    heights that it goes up in one round.
    """

    keys: Mapping[float, Angles]
    gait: bool = False
    climb: float = 0.0


def move(
    movement: Movement, person: Person, times: Floats, *, strength: float, manner: Floats
) -> dict[str, Floats]:
    """Where the joints are at times of a movement, (T, 3) each, on the floor or on a ladder.

    strength: by what all angles are multiplied; manner: what is added to them (P,). Times are near
    each other and in order: the lower foot stays where it is from one to the next.
    """
    at = joints(strength * _poses_at(movement, times) + manner, person)
    reach = {"hips": 0.06, "chest": 0.05, "head": person.head}  # of the body below a joint
    ends = [points[:, 1] - reach.get(name, 0.03) * person.height for name, points in at.items()]
    rise = movement.climb * times if movement.climb else -np.min(ends, axis=0)
    root = np.stack([_advance(at), rise, np.zeros_like(rise)], axis=-1)
    return {name: points + root for name, points in at.items()}


def _poses_at(movement: Movement, times: Floats) -> Floats:
    """Poses (T, P): straight lines from key to key, rounded off."""
    keys, table = list(movement.keys), [np.zeros(len(ANGLES))]
    for changes in movement.keys.values():
        pose = table[-1].copy()
        for name, angle in changes.items():
            sides = [each in (name, f"{name}_l", f"{name}_r") for each in ANGLES]
            assert any(sides), name
            pose[sides] = angle
        table.append(pose)
    del table[0]
    if movement.gait:
        keys = [*keys, *(0.5 + key for key in keys), 1.0]
        table = [*table, *(each[_EXCHANGED] for each in table), table[0]]
    poses = np.array(table)  # (keys, P)
    rounded = np.zeros((len(times), len(ANGLES)))
    taps = np.arange(-4, 5)
    weights = np.cos(taps * math.pi / 10) ** 2
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        now = times + 0.03 * tap
        within = now % 1 if movement.gait else now
        rounded += weight * np.stack([np.interp(within, keys, each) for each in poses.T], axis=-1)
    return rounded


def _advance(at: Mapping[str, Floats]) -> Floats:
    """How far the hips have come, (T,), if the feet do not slide: the lower one, or both."""
    left, right = at["foot_l"], at["foot_r"]
    share = 1 / (1 + np.exp((left[:, 1] - right[:, 1]) / 0.004))  # of the left foot
    share = (share[1:] + share[:-1]) / 2
    back = share * np.diff(left[:, 0]) + (1 - share) * np.diff(right[:, 0])
    return -np.concatenate([[0.0], np.cumsum(back)])


def joints(poses: Floats, person: Person) -> dict[str, Floats]:
    """Where the joints are in poses (T, P), each (T, 3), seen from the middle of the hips."""
    angle = dict(zip(ANGLES, np.radians(poses.T), strict=True))
    leg = person.legs / 2
    torso, neck = 0.79 - person.legs, 0.13 + person.head - 0.075
    at = {"hips": np.zeros((len(poses), 3))}
    at["chest"] = at["hips"] + torso * _down(math.pi - angle["lean"])
    at["head"] = at["chest"] + neck * _down(math.pi - angle["lean"] - angle["nod"])
    for side, sign in _SIDES:
        hip, knee, elbow = (angle[f"{each}_{side}"] for each in ("hip", "knee", "elbow"))
        arm, spread = angle[f"arm_{side}"], sign * angle["spread"]
        at[f"hip_{side}"] = at["hips"] + [0, 0, sign * 0.055 * person.build]
        at[f"knee_{side}"] = at[f"hip_{side}"] + leg * _down(hip)
        at[f"foot_{side}"] = at[f"knee_{side}"] + leg * _down(hip - knee)
        at[f"toe_{side}"] = at[f"foot_{side}"] + 0.08 * _down(hip - knee + math.pi / 2)
        at[f"shoulder_{side}"] = at["chest"] + [0, -0.01, sign * person.shoulders]
        at[f"elbow_{side}"] = at[f"shoulder_{side}"] + 0.17 * _down(arm, spread)
        at[f"hand_{side}"] = at[f"elbow_{side}"] + 0.18 * _down(arm + elbow, spread / 2)
    return {name: person.height * points for name, points in at.items()}


def _down(swing: Floats, spread: Floats | float = 0.0) -> Floats:
    """Unit vectors (T, 3): down, swung ahead, and then to the left."""
    level = np.cos(spread)
    parts = (np.sin(swing) * level, -np.cos(swing) * level, np.sin(spread))
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


@dataclass(frozen=True)
class View:
    """From where a body is seen, and how large: from 3 numbers in body heights to pixels.

    turn: 0 sees the right side, 90 the front, -90 the back, in degrees. mirrored: the picture is
    flipped. x, y: where the point (0, 0, 0) is; scale: pixels in a body height.
    """

    turn: float
    mirrored: bool = False
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0

    def depth(self, points: Floats) -> Floats:
        """How near the points (..., 3) are to the camera, in body heights: larger is nearer."""
        turn = math.radians(self.turn)
        near: Floats = points[..., 0] * math.sin(turn) - points[..., 2] * math.cos(turn)
        return near

    def pixels(self, points: Floats) -> Floats:
        """Where points (..., 3) are in the picture: (..., 2). The camera looks down a little."""
        turn = math.radians(self.turn)
        across = points[..., 0] * math.cos(turn) + points[..., 2] * math.sin(turn)
        down = 0.12 * self.depth(points) - points[..., 1]
        sign = -1 if self.mirrored else 1
        return np.stack([self.x + sign * self.scale * across, self.y + self.scale * down], axis=-1)


@dataclass(frozen=True)
class Pen:
    """Draws shapes that are given in body heights into a picture of pixels."""

    draw: ImageDraw.ImageDraw
    view: View

    def limb(self, points: Any, width: float, colour: Colour) -> None:
        """A line with round ends through points (n, 3)."""
        spots = [tuple(spot) for spot in self.view.pixels(np.asarray(points)).tolist()]
        thick = max(width * self.view.scale, 2)
        self.draw.line(spots, fill=colour, width=round(thick), joint="curve")
        for spot in (spots[0], spots[-1]):
            self.draw.circle(spot, thick / 2, fill=colour)

    def disc(self, point: Floats, radius: float, colour: Colour) -> None:
        """A ball at a point (3,)."""
        spot = self.view.pixels(point).tolist()
        self.draw.circle(spot, radius * self.view.scale, fill=colour)

    def shadow(self, hips: Floats) -> None:
        """Shade on the floor below the hips (3,)."""
        x, y = self.view.pixels(hips * [1, 0, 1]).tolist()
        wide, high = 0.2 * self.view.scale, 0.045 * self.view.scale
        self.draw.ellipse((x - wide, y - high, x + wide, y + high), fill=(0, 0, 0, 70))

    def area(self, points: Any, colour: Colour) -> None:
        """A filled polygon with corners (n, 3)."""
        corners = self.view.pixels(np.asarray(points)).tolist()
        self.draw.polygon([tuple(corner) for corner in corners], fill=colour)


def shade(colour: Colour, share: float) -> Colour:
    """A darker or lighter colour."""
    return _rgb(np.array(colour) * share)


def draw_body(pen: Pen, person: Person, at: Mapping[str, Floats]) -> None:
    """Draw a person with joints (3,), the far limbs first."""
    wide = person.height * person.build
    trunk = partial(_draw_trunk, pen, person, at, wide)
    parts: list[tuple[float, Callable[[], None]]] = [(0.0, trunk)]
    for side, _ in _SIDES:
        leg = (at[f"knee_{side}"] + at[f"hip_{side}"]) / 2 - at["hips"]
        arm = (at[f"hand_{side}"] + at[f"shoulder_{side}"]) / 2 - at["chest"]
        for limb, draw, weight in ((leg, _draw_leg, 1), (arm, _draw_arm, 2)):
            depth = weight * float(pen.view.depth(limb))
            light = 0.72 if depth < 0 else 1.0
            parts.append((depth, partial(draw, pen, person, at, side, wide, light)))
    for _, draw_part in sorted(parts, key=lambda part: part[0]):
        draw_part()


def _draw_leg(
    pen: Pen, person: Person, at: Mapping[str, Floats], side: str, wide: float, light: float
) -> None:
    hip, knee, foot, toe = (at[f"{name}_{side}"] for name in ("hip", "knee", "foot", "toe"))
    shin = person.skin if person.skirt else person.trousers
    pen.limb([knee, foot], 0.062 * wide, shade(shin, light))
    pen.limb([hip, knee], 0.085 * wide, shade(person.trousers, light))
    pen.limb([foot, toe], 0.05 * wide, shade(person.shoes, light))


def _draw_arm(
    pen: Pen, person: Person, at: Mapping[str, Floats], side: str, wide: float, light: float
) -> None:
    shoulder, elbow, hand = (at[f"{name}_{side}"] for name in ("shoulder", "elbow", "hand"))
    sleeve = person.shirt if person.sleeves else person.skin
    # a little darker than the trunk, so that an arm before it can be seen
    pen.limb([shoulder, elbow], 0.07 * wide, shade(person.shirt, 0.86 * light))
    pen.limb([elbow, hand], 0.058 * wide, shade(sleeve, 0.86 * light))
    pen.disc(hand, 0.036 * person.height, shade(person.skin, light))


def _draw_trunk(pen: Pen, person: Person, at: Mapping[str, Floats], wide: float) -> None:
    corners = [at[name] for name in ("shoulder_l", "shoulder_r", "hip_r", "hip_l", "shoulder_l")]
    if person.skirt:
        hem = [0.35 * at[f"hip_{side}"] + 0.65 * at[f"knee_{side}"] for side in ("l", "r")]
        pen.limb([at["hips"], *hem, at["hips"]], 0.13 * wide, person.trousers)
        pen.area([at["hips"], *hem], person.trousers)
    pen.limb([at["chest"], at["head"]], 0.06 * wide, person.skin)
    pen.limb(corners, 0.1 * wide, person.shirt)
    pen.area(corners, person.shirt)
    _draw_head(pen, person, at["head"], at["head"] - at["chest"])


def _draw_head(pen: Pen, person: Person, head: Floats, neck: Floats) -> None:
    up = neck / np.linalg.norm(neck)  # (3,)
    ahead = np.array([up[1], -up[0], 0.0])
    radius = person.height * person.head
    faces_us = pen.view.depth(ahead) > -0.35
    back = head + radius * (0.28 * up - 0.3 * ahead)
    if person.hairdo == "long":
        pen.limb([back, back - radius * (1.5 * up + 0.2 * ahead)], 1.3 * radius, person.hair)
    if person.hairdo == "bun":
        pen.disc(head + radius * (0.9 * up - 0.8 * ahead), 0.5 * radius, person.hair)
    if person.hairdo != "bald":
        pen.disc(back, radius, person.hair)
    if faces_us or person.hairdo == "bald":
        pen.disc(head + radius * 0.95 * ahead, 0.24 * radius, person.skin)  # the nose
        pen.disc(head + radius * (0.12 * ahead - 0.08 * up), 0.92 * radius, person.skin)


def srgb(light: Floats, chroma: Floats, hue: Floats) -> Floats:
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
