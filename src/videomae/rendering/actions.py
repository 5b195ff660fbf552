"""The built-in data set of people doing things: small labelled videos of a jointed figure.

The classes come in pairs that share every picture and differ in time alone: for one seed, the clip
of `stand_up` is that of `sit_down` played backwards. So one frame, or all frames in any order, can
tell the pair at best, and never the class. People and grounds are numbered, and those of split test
are in no clip of split train.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from videomae.config import check_choice
from videomae.rendering import clips
from videomae.rendering.figures import (
    ANGLES,
    Angles,
    Colour,
    Floats,
    Movement,
    Pen,
    Person,
    View,
    draw_body,
    draw_person,
    move,
    shade,
)
from videomae.rendering.grounds import draw_ground, draw_light
from videomae.rendering.props import PROPS, Moment
from videomae.settings import ActionsSettings, RenderedSplit

# So many people and grounds there are; every fifth of either is kept for split test.
NUM_PEOPLE = NUM_GROUNDS = 2000
_TEST_EVERY = 5
# Drawn so much larger, then averaged.
_SUPERSAMPLING = 3
# A clip is planned in so many steps, of which its frames are some.
_STEPS = 129
# Finer than usual: what the codec adds to smooth grounds would be the target of pre-training.
_CRF = 12


@dataclass(frozen=True)
class Action:
    """A movement whose class is one name, or another when it is played backwards.

    turn: from where it is seen (`View`), degrees. prop: a thing that belongs to it, from `PROPS`;
    held: from when to when of the movement the hands have it.
    """

    forwards: str
    backwards: str
    movement: Movement
    turn: tuple[float, float] = (-38, 38)
    prop: str = ""
    held: tuple[float, float] = (0.0, 1.0)


# Degrees, by hand.
_STRIDE = {
    0.00: Angles(hip_r=27, knee_r=4, hip_l=-22, knee_l=12, arm_r=-24, arm_l=24, elbow=70, lean=8),
    0.25: Angles(hip_r=2, knee_r=5, hip_l=18, knee_l=58, arm_r=0, arm_l=0),
}
_PUSH = {time: {**angles, "arm": 72, "elbow": 12, "lean": 20} for time, angles in _STRIDE.items()}
_WINDMILL = {
    0.0: Angles(arm=0, hip_r=42, knee_r=50, hip_l=28, knee_l=50, lean=20),
    1.0: Angles(arm=-540),
}
_CLIMB = {
    0.00: Angles(hip_r=78, knee_r=95, hip_l=14, knee_l=20, arm_l=165, elbow_l=8)
    | Angles(arm_r=105, elbow_r=55, spread=14),
    0.25: Angles(hip_r=45, knee_r=55, hip_l=45, knee_l=60, arm_l=135, elbow_l=30, arm_r=135),
}
_SIT = {
    0.0: Angles(elbow=10),
    0.5: Angles(lean=38, hip=58, knee=68, arm=35),
    1.0: Angles(lean=-4, hip=88, knee=88, arm=25, elbow=45),
}
_LIE = {
    0.0: Angles(elbow=10),
    0.35: Angles(lean=40, hip=105, knee=125, arm=40),
    0.65: Angles(lean=8, hip=88, knee=8, arm=-35, elbow=5),
    1.0: Angles(lean=-88, hip=90, knee=2, arm=88),
}
_PICK_UP = {
    0.0: Angles(elbow=8),
    0.45: Angles(lean=62, nod=-25, hip=78, knee=105, arm=25, elbow=12),
    0.55: {},
    1.0: Angles(lean=-6, nod=0, hip=0, knee=0, arm=38, elbow=55),
}
_OPEN = {
    0.0: Angles(lean=-4, arm_r=15, elbow_r=85, hip_r=12, hip_l=-12),
    1.0: Angles(lean=26, arm_r=88, elbow_r=4, hip_r=26, knee_r=22, hip_l=-18),
}
_THROW = {
    0.0: Angles(arm_r=25, elbow_r=75, hip_r=-12, hip_l=14),
    0.4: Angles(arm_r=165, elbow_r=105, lean=-16),
    0.6: Angles(arm_r=105, elbow_r=12, lean=14),
    0.8: Angles(arm_r=30, elbow_r=15, lean=22),
    1.0: Angles(arm_r=10, lean=5),
}
_HAT = {
    0.0: Angles(arm_r=15, elbow_r=45),
    0.55: Angles(arm_r=122, elbow_r=98),
    0.65: {},
    1.0: Angles(arm_r=0, elbow_r=10),
}

ACTIONS = (
    Action("walk", "walk_backwards", Movement(_STRIDE, gait=True)),
    Action("push", "pull", Movement(_PUSH, gait=True), prop="crate"),
    Action("windmill_forwards", "windmill_backwards", Movement(_WINDMILL), (-30, 30)),
    Action("climb_up", "climb_down", Movement(_CLIMB, gait=True, climb=0.3), (-88, -66), "ladder"),
    Action("sit_down", "stand_up", Movement(_SIT), prop="chair"),
    Action("lie_down", "get_up", Movement(_LIE), (-25, 30)),
    Action("pick_up", "put_down", Movement(_PICK_UP), prop="box", held=(0.5, 1.0)),
    Action("open_door", "close_door", Movement(_OPEN), (-20, 25), "door"),
    Action("throw", "catch", Movement(_THROW), prop="ball", held=(0.0, 0.6)),
    Action("put_on_hat", "take_off_hat", Movement(_HAT), (-30, 45), "hat", held=(0.0, 0.6)),
)
_OF_CLASS = {name: action for action in ACTIONS for name in (action.forwards, action.backwards)}
# Sorted, as a folder-per-class reader numbers them.
CLASSES: tuple[str, ...] = tuple(sorted(_OF_CLASS))


def render_clip(
    action: str,
    *,
    seed: int | Sequence[int],
    split: RenderedSplit = "train",
    size: int = 64,
    num_frames: int = 32,
) -> NDArray[np.uint8]:
    """Render a clip of a person who does what the class says.

    Returns RGB uint8 of shape (num_frames, size, size, 3), a function of the arguments alone: the
    whole movement, or one to two rounds of a gait, whatever `num_frames` is. The classes of a pair,
    such as throw and catch, have the same frames in opposite order.

    Raises ConfigError for an unknown class or split, or an impossible shape.

    ```python
    down, up = (render_clip(action, seed=3) for action in ("sit_down", "stand_up"))
    (down[::-1] == up).all()  # True
    ```
    """
    clips.check_shape(size, num_frames)
    take = plan_clip(action, seed=seed, split=split)
    steps = np.rint(np.linspace(0, _STEPS - 1, num_frames)).astype(int)
    clip = draw_clip(take, size, steps.tolist())
    return clip[::-1] if take.reverse else clip


@dataclass(frozen=True)
class Take:
    """All that a clip shows, before anything is drawn; S steps of time, in order of the movement.

    person, ground, light: numbers of what is drawn. joints by name, and the prop: (S, 3) in body
    heights. view: to picture widths, from the upper left corner. floor: where the wall ends or the
    horizon is, in picture heights. shake: (S, 2), of the camera, in picture widths. other: somebody
    who only stands there, with (1, 3) joints. furniture: a box in front, left, top, right, bottom
    in picture widths, and its colour.
    """

    action: Action
    reverse: bool
    person: int
    ground: int
    joints: dict[str, Floats]
    prop: Floats
    prop_colour: Colour
    view: View
    floor: float
    light: int
    shake: Floats
    other: tuple[int, dict[str, Floats], View] | None
    furniture: tuple[tuple[float, float, float, float], Colour] | None


def plan_clip(action: str, *, seed: int | Sequence[int], split: RenderedSplit = "train") -> Take:
    """Choose what a clip shows: who does it and how, where, and seen from where.

    A function of the arguments; both classes of a pair have the same plan, but for `reverse`.
    Raises ConfigError for an unknown action or split.
    """
    check_choice("action", action, CLASSES)
    check_choice("split", split, get_args(RenderedSplit))
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    chosen = _OF_CLASS[action]
    number = _number(rng, NUM_PEOPLE, split)
    person = draw_person(number)
    time = np.linspace(0, 1, _STEPS)  # (S,) in clips
    now = _pace(chosen.movement, time, rng)
    manner = rng.uniform(-4, 4, len(ANGLES))
    at = move(chosen.movement, person, now, strength=rng.uniform(0.92, 1.1), manner=manner)
    thing = PROPS.get(chosen.prop)
    prop = thing.track(Moment(person, at, now, chosen.held)) if thing else at["hips"]
    view = _frame(chosen, at, prop, rng)
    sway = np.sin(2 * math.pi * (np.outer(time, rng.uniform(0.8, 2.0, 2)) + rng.uniform(size=2)))
    return Take(
        action=chosen,
        reverse=action == chosen.backwards,
        person=number,
        ground=_number(rng, NUM_GROUNDS, split),
        joints=at,
        prop=prop,
        prop_colour=_other_colour(person, rng),
        view=view,
        floor=view.y - rng.uniform(0.05, 0.3),
        light=int(rng.integers(1 << 30)),
        shake=0.012 * rng.uniform(0.3, 1) * (rng.random() < 0.3) * sway,
        other=_bystander(view, rng, split) if rng.random() < 0.25 else None,
        furniture=_furniture(view, rng) if rng.random() < 0.2 else None,
    )


def _number(rng: np.random.Generator, count: int, split: str) -> int:
    """A person or a ground of a split."""
    group = _TEST_EVERY * int(rng.integers(count // _TEST_EVERY))
    other = int(rng.integers(1, _TEST_EVERY))
    return group if split == "test" else group + other


def _pace(movement: Movement, time: Floats, rng: np.random.Generator) -> Floats:
    """From the time in a clip to the time in the movement: when it begins and how fast it goes."""
    if movement.gait:
        return rng.uniform() + rng.uniform(1.1, 2.0) * time
    length = rng.uniform(0.6, 0.95)
    return (time - rng.uniform(0, 1 - length)) / length


def _frame(
    action: Action, at: Mapping[str, Floats], prop: Floats, rng: np.random.Generator
) -> View:
    """A view of all that happens, at a random place of the picture, as large as it can be."""
    view = View(turn=rng.uniform(*action.turn), mirrored=bool(rng.random() < 0.5))
    thing = PROPS.get(action.prop)
    around = [prop + corner for corner in thing.needs] if thing else []
    spots = view.pixels(np.concatenate([*at.values(), *around]))  # (n, 2)
    low = spots.min(axis=0) - np.array([0.06, 0.09])
    high = spots.max(axis=0) + np.array([0.06, 0.05])
    foot = rng.uniform(0.88, 0.97)
    wide, tall = (high - low).tolist()
    scale = min(rng.uniform(0.6, 0.85), 0.97 / wide, (foot - 0.02) / tall)
    left = rng.uniform(0.01, 0.99 - scale * wide)
    x, y = left - scale * low[0], foot - scale * high[1]
    return dataclasses.replace(view, x=float(x), y=float(y), scale=float(scale))


def _bystander(
    view: View, rng: np.random.Generator, split: str
) -> tuple[int, dict[str, Floats], View]:
    """Somebody farther away who stands still."""
    number = _number(rng, NUM_PEOPLE, split)
    standing = Movement({0.0: Angles(elbow=rng.uniform(5, 80))})
    manner = rng.uniform(-6, 6, len(ANGLES))
    at = move(standing, draw_person(number), np.zeros(1), strength=1, manner=manner)
    their_view = View(
        turn=rng.uniform(-60, 60),
        mirrored=bool(rng.random() < 0.5),
        x=rng.uniform(0.05, 0.95),
        y=view.y - rng.uniform(0.03, 0.08),
        scale=view.scale * rng.uniform(0.6, 0.75),
    )
    return number, at, their_view


def _other_colour(person: Person, rng: np.random.Generator) -> Colour:
    """Of four colours, the one that is least like what a person wears."""
    colours = [draw_person(int(number)).shirt for number in rng.integers(NUM_PEOPLE, size=4)]
    worn = np.array([person.shirt, person.trousers, person.skin])
    return max(colours, key=lambda colour: float(np.abs(worn - colour).sum(axis=1).min()))


def _furniture(
    view: View, rng: np.random.Generator
) -> tuple[tuple[float, float, float, float], Colour]:
    """A low thing between the camera and the figure."""
    left, wide = rng.uniform(-0.1, 0.8), rng.uniform(0.2, 0.4)
    top = view.y - rng.uniform(0.08, 0.2) * view.scale
    colour = shade(draw_person(int(rng.integers(NUM_PEOPLE))).shirt, 0.7)
    return (left, top, left + wide, 1.1), colour


def draw_clip(take: Take, size: int, steps: Sequence[int]) -> NDArray[np.uint8]:
    """The pictures of some steps of a plan, (len(steps), size, size, 3)."""
    rim = math.ceil(0.012 * size)  # as far as the camera shakes
    side = size + 2 * rim
    zoom = _SUPERSAMPLING * size
    ground = draw_ground(take.ground, _SUPERSAMPLING * side, (take.floor * size + rim) / side)
    inset = _SUPERSAMPLING * rim

    def on_canvas(view: View) -> View:
        return dataclasses.replace(
            view, x=zoom * view.x + inset, y=zoom * view.y + inset, scale=zoom * view.scale
        )

    if take.other:
        number, at, view = take.other
        here = {name: points[0] for name, points in at.items()}
        draw_body(Pen(ImageDraw.Draw(ground), on_canvas(view)), draw_person(number), here)
    person, view = draw_person(take.person), on_canvas(take.view)
    thing = PROPS.get(take.action.prop)
    light = draw_light(take.light, size)
    clip = np.empty((len(steps), size, size, 3), dtype=np.uint8)
    for frame, step in zip(clip, steps, strict=True):
        image = ground.copy()
        pen = Pen(ImageDraw.Draw(image, "RGBA"), view)
        here = {name: points[step] for name, points in take.joints.items()}
        if not take.action.movement.climb:
            pen.shadow(here["hips"])
        if thing and not thing.in_front:
            thing.draw(pen, take.prop[step], take.prop_colour)
        draw_body(pen, person, here)
        if thing and thing.in_front:
            thing.draw(pen, take.prop[step], take.prop_colour)
        if take.furniture:
            box, colour = take.furniture
            pen.draw.rectangle([zoom * each + inset for each in box], fill=colour)
        x, y = (inset + np.rint(zoom * take.shake[step])).astype(int).tolist()
        picture = image.reduce(_SUPERSAMPLING, (x, y, x + zoom, y + zoom))
        frame[:] = np.rint((np.asarray(picture) * light).clip(0, 255))
    return clip


def render_dataset(
    settings: ActionsSettings, *, on_progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write a labelled set of mp4 files, `output/<split>/<class>/<index>.mp4`, and list them.

    Clip `i` of a split shows `CLASSES[i % 20]`, a function of (seed, split, i), whatever the number
    of clips or `workers` (processes). More than one starts fresh interpreters, so a script calls
    this under `if __name__ == "__main__"`. `on_progress(done, clips)` is called after each clip.

    `labels.txt` lists the classes and `dataset.json` the settings; the same call carries on where
    an interrupted one stopped. Raises ConfigError for impossible shapes, and for a folder that was
    made with other settings or holds something else.

    ```python
    render_dataset(ActionsSettings(Path("actions"), clips=24))[17]  # actions/train/throw/00017.mp4
    ```
    """
    return clips.render_set(
        settings,
        CLASSES,
        {"train": settings.clips, "test": settings.test_clips},
        _render_file,
        made_by="videomae actions",
        crf=_CRF,
        on_progress=on_progress,
    )


def _render_file(settings: ActionsSettings, path: Path) -> NDArray[np.uint8]:
    split: RenderedSplit = "test" if path.parts[-3] == "test" else "train"
    return render_clip(
        path.parent.name,
        seed=(settings.seed, int(split == "test"), int(path.stem)),
        split=split,
        size=settings.size,
        num_frames=settings.num_frames,
    )
