"""Bodies posed by hand, gaits that go on, and views of points whose place is known."""

import numpy as np
import pytest

from videomae.rendering.figures import ANGLES, Movement, View, draw_person, joints, move

PERSON = draw_person(3)
STILL = np.zeros(len(ANGLES))


def posed(**angles: float) -> dict[str, np.ndarray]:
    row = np.array([[angles.get(name, 0.0) for name in ANGLES]])
    return {name: points[0] / PERSON.height for name, points in joints(row, PERSON).items()}


def test_a_body_at_rest_stands_upright() -> None:
    at = posed()
    np.testing.assert_allclose(at["foot_l"][1], -PERSON.legs)
    np.testing.assert_allclose(at["chest"], [0, 0.79 - PERSON.legs, 0], atol=1e-12)
    np.testing.assert_allclose(at["shoulder_l"][2], PERSON.shoulders)
    np.testing.assert_allclose(at["hand_r"], at["shoulder_r"] - [0, 0.35, 0], atol=1e-12)
    assert at["toe_l"][0] == pytest.approx(0.08)


def test_angles_bend_what_they_name() -> None:
    kneeling = posed(knee_l=90)
    np.testing.assert_allclose(kneeling["knee_l"], posed()["knee_l"])
    np.testing.assert_allclose(
        kneeling["foot_l"], kneeling["knee_l"] - [PERSON.legs / 2, 0, 0], atol=1e-12
    )
    pointing = posed(arm_r=90)
    np.testing.assert_allclose(
        pointing["hand_r"], pointing["shoulder_r"] + [0.35, 0, 0], atol=1e-12
    )
    assert posed(elbow_l=90)["hand_l"][0] == pytest.approx(0.18)
    assert posed(lean=90)["head"][0] > 0.3
    # arms are spread away from the trunk, each to its side
    assert posed(spread=40)["elbow_l"][2] > 0.15
    assert posed(spread=40)["elbow_r"][2] < -0.15


def test_the_lowest_point_stands_on_the_floor() -> None:
    squat = Movement({0.0: {}, 1.0: {"hip": 90, "knee": 90}})
    at = move(squat, PERSON, np.linspace(0, 1, 65), strength=1, manner=STILL)
    foot = np.minimum(at["foot_l"], at["toe_l"])[:, 1]
    np.testing.assert_allclose(foot, 0.03 * PERSON.height, atol=1e-9)
    # the hips go back and down, and the feet stay
    np.testing.assert_allclose(at["foot_l"][:, 0], at["foot_l"][0, 0], atol=1e-9)
    assert at["hips"][-1, 0] == pytest.approx(-PERSON.height * PERSON.legs / 2, rel=0.05)


def test_a_gait_goes_on_with_left_and_right_exchanged() -> None:
    gait = Movement({0.0: {"hip_r": 30}, 0.25: {"hip_r": 0, "hip_l": 10}}, gait=True)
    at = move(gait, PERSON, np.array([0.1, 0.6, 1.1]), strength=1, manner=STILL)
    right, left = (at[f"knee_{side}"] - at[f"hip_{side}"] for side in ("r", "l"))
    np.testing.assert_allclose(right[0], right[2])
    np.testing.assert_allclose(right[0], left[1], atol=1e-12)
    assert np.abs(right[0] - left[0]).max() > 0.01


def test_views_see_the_right_side_the_front_and_the_back() -> None:
    ahead, left, up = np.eye(3)[[0, 2, 1]]
    side, front, back = View(0), View(90), View(-90)
    np.testing.assert_allclose(side.pixels(ahead), [1, 0], atol=1e-12)
    np.testing.assert_allclose(View(0, mirrored=True).pixels(ahead), [-1, 0], atol=1e-12)
    np.testing.assert_allclose(side.pixels(up), [0, -1], atol=1e-12)
    assert front.depth(ahead) == pytest.approx(1)
    assert back.depth(ahead) == pytest.approx(-1)
    assert side.depth(left) == pytest.approx(-1)  # the left side is the far one
    np.testing.assert_allclose(View(0, x=5, y=7, scale=10).pixels(ahead), [15, 7], atol=1e-12)


def test_a_number_is_always_the_same_person() -> None:
    assert draw_person(12) == draw_person(12) != draw_person(13)
    people = [draw_person(number) for number in range(60)]
    assert {person.hairdo for person in people} == {"bald", "short", "long", "bun"}
    assert 0.7 < min(person.height for person in people) < 0.85
    for person in people:
        colours = np.array([person.skin, person.shirt, person.trousers, person.hair, person.shoes])
        assert colours.min() >= 0
        assert colours.max() <= 255
