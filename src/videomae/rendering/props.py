"""Things that figures use: where they are over time, and how they are drawn.

Places are in body heights, as in `figures`; S steps of time.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from videomae.rendering.figures import Colour, Floats, Pen, Person, shade

_WOOD: Colour = (120, 84, 52)
_DARK: Colour = (30, 30, 36)
_BRIGHT: Colour = (236, 226, 200)
_BOX, _CRATE = 0.11, 0.24  # half of a side
_DOOR_WIDTH, _DOOR_HEIGHT, _DOOR_AWAY = 0.40, 1.12, 0.16


def by(x: float, y: float, z: float) -> Floats:
    """A way in body heights: ahead, up, to the left."""
    return np.array([x, y, z])


class Moment(NamedTuple):
    """What a thing's place follows from: the joints (S, 3), the time in the movement (S,)."""

    person: Person
    at: Mapping[str, Floats]
    now: Floats
    held: tuple[float, float]

    def when(self, time: float) -> int:
        """The first step at or after a time in the movement."""
        return int(np.argmax(self.now >= time))


class Prop(NamedTuple):
    """A kind of thing. track: its place at each step, (S, 3); draw: with a pen, at a place.

    needs: corners around its place that are to be in the picture (n, 3), if any. in_front: drawn
    after the figure.
    """

    track: Callable[[Moment], Floats]
    draw: Callable[[Pen, Floats, Colour], None]
    needs: tuple[tuple[float, float, float], ...] = ()
    in_front: bool = False


def _track_box(moment: Moment) -> Floats:
    track = (moment.at["hand_l"] + moment.at["hand_r"]) / 2 + by(0.04, 0.0, 0.0)
    first = moment.when(moment.held[0])
    track[:first] = track[first]
    track[:, 1] = np.maximum(track[:, 1], _BOX)
    return track


def _track_crate(moment: Moment) -> Floats:
    hands = (moment.at["hand_l"] + moment.at["hand_r"])[:, 0] / 2
    # hands swing a little as the trunk does; what slides on the floor does not
    even = np.polynomial.Polynomial.fit(moment.now, hands, 1)(moment.now)
    return np.stack([even + _CRATE, np.full_like(even, _CRATE), np.zeros_like(even)], axis=-1)


def _draw_block(pen: Pen, place: Floats, colour: Colour, *, half: float) -> None:
    """A cube: both ends, of which the front hides one, then the top and the front."""
    front = place + half * np.array([[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1]])
    rear = front + by(0, 0, 2 * half)
    for light, (low, high) in ((0.6, (0, 3)), (0.75, (1, 2)), (1.15, (3, 2))):
        pen.area([front[low], front[high], rear[high], rear[low]], shade(colour, light))
    pen.area(front, colour)
    stripe = place + half * np.array([[-1, 0, -1], [1, 0, -1]])
    pen.limb(stripe, 0.02, shade(colour, 0.6))


def _track_ball(moment: Moment) -> Floats:
    track = moment.at["hand_r"] + by(0.02, 0.02, 0.0)
    last = moment.when(moment.held[1])
    flown = (moment.now[last:] - moment.now[last])[:, None]  # (n, 1)
    track[last:] = track[last] + flown * [4.5, 1.0, 0.0] - flown**2 * [0.0, 4.0, 0.0]
    return track


def _draw_ball(pen: Pen, place: Floats, colour: Colour) -> None:
    pen.disc(place, 0.065, colour)
    pen.disc(place + by(0.02, 0.02, 0.0), 0.025, shade(colour, 1.4))


def _track_hat(moment: Moment) -> Floats:
    up = moment.at["head"] - moment.at["chest"]
    head = moment.at["head"] + 0.6 * moment.person.height * moment.person.head * up / 0.13
    share = np.clip((moment.now - moment.held[1] + 0.12) / 0.12, 0, 1)[:, None]
    return (1 - share) * moment.at["hand_r"] + share * head


def _draw_hat(pen: Pen, place: Floats, colour: Colour) -> None:
    pen.limb([place - by(0.085, 0, 0), place + by(0.105, 0, 0)], 0.035, shade(colour, 0.7))
    pen.limb([place + by(-0.03, 0.05, 0), place + by(0.03, 0.05, 0)], 0.09, colour)


def _track_chair(moment: Moment) -> Floats:
    seat = moment.at["hips"][-1] - by(0.0, 0.1 * moment.person.build, 0.0)
    return np.tile(seat, (len(moment.now), 1))


def _draw_chair(pen: Pen, place: Floats, colour: Colour) -> None:
    _, y, _ = place
    for aside in (0.12, -0.12):
        for along in (-0.15, 0.13):
            leg = place + by(along, 0, aside)
            pen.limb([leg, leg - by(0, y, 0)], 0.03, _WOOD)
    back, front = place - by(0.15, 0, 0), place + by(0.15, 0, 0)
    sides = np.array([[0, 0, 0.12], [0, 0, -0.12]])
    pen.area([*(back + sides), *(front + sides)[::-1]], colour)
    pen.limb([back + sides[1], front + sides[1]], 0.035, shade(_WOOD, 1.3))
    top = back + by(-0.05, 0.36, 0)
    pen.area([*(back + sides), *(top + sides)[::-1]], shade(_WOOD, 0.9))
    pen.limb([back + sides[1], top + sides[1]], 0.03, _WOOD)


def _track_ladder(moment: Moment) -> Floats:
    x = np.mean([moment.at[name][:, 0].mean() for name in ("hand_l", "hand_r", "toe_l", "toe_r")])
    return np.tile([float(x) + 0.02, 0.0, 0.0], (len(moment.now), 1))


def _draw_ladder(pen: Pen, place: Floats, colour: Colour) -> None:
    pole = shade(colour, 0.75)
    for height in np.arange(0.08, 3.0, 0.15):
        rung = place + by(0, height, 0)
        pen.limb([rung - by(0, 0, 0.2), rung + by(0, 0, 0.2)], 0.025, shade(pole, 0.8))
    for aside in (0.2, -0.2):
        foot = place + by(0, 0, aside)
        pen.limb([foot, foot + by(0, 3.0, 0)], 0.035, pole)


def _track_door(moment: Moment) -> Floats:
    """The edge that the hand pushes open, away from us: round a hinge at the far end."""
    ahead = moment.at["hand_r"][:, 0]
    cosine = np.clip(1 - (ahead - ahead.min()) / _DOOR_WIDTH, 0.05, 1)
    track: Floats = by(ahead.min() - 0.01 + _DOOR_WIDTH, 0, _DOOR_AWAY) + _from_hinge(cosine)
    return track


def _from_hinge(cosine: Floats) -> Floats:
    """From the hinge of a door to its free edge, (..., 3); cosine: of how far it is open."""
    sine = np.sqrt(1 - cosine**2)
    return _DOOR_WIDTH * np.stack([-cosine, 0.1 * sine, 0.4 * sine], axis=-1)


def _draw_door(pen: Pen, place: Floats, colour: Colour) -> None:
    sine = (place[2] - _DOOR_AWAY) / (0.4 * _DOOR_WIDTH)
    cosine = np.sqrt(np.maximum(1 - sine**2, 0))
    high = by(0, _DOOR_HEIGHT, 0)
    hinge = place - _from_hinge(cosine)
    sill = hinge - by(_DOOR_WIDTH, 0, 0)
    # the next room is dark behind a bright door, and bright behind a dark one
    beyond = _DARK if sum(colour) > 250 else _BRIGHT
    pen.area([sill, sill + high, hinge + high, hinge], beyond)
    top = place + high * (1 - 0.2 * sine)
    pen.area([place, top, hinge + high, hinge], shade(colour, 1 - 0.35 * sine))
    pen.limb([sill, sill + high, hinge + high, hinge], 0.035, shade(_WOOD, 1.2))
    pen.disc(place + by(0.03 * cosine, 0.5, 0), 0.025, (230, 200, 90))


_draw_box, _draw_crate = (partial(_draw_block, half=half) for half in (_BOX, _CRATE))
PROPS = {
    "box": Prop(_track_box, _draw_box, ((0.12, 0.12, 0), (0.12, -0.11, 0)), in_front=True),
    "crate": Prop(_track_crate, _draw_crate, ((0.26, 0.3, 0), (0.26, -0.24, 0))),
    "ball": Prop(_track_ball, _draw_ball, in_front=True),
    "hat": Prop(_track_hat, _draw_hat, ((0, 0.1, 0),), in_front=True),
    "chair": Prop(_track_chair, _draw_chair, ((-0.2, 0.36, 0),)),
    "ladder": Prop(_track_ladder, _draw_ladder),
    "door": Prop(_track_door, _draw_door, ((0.28, 0.3, _DOOR_AWAY),)),
}
