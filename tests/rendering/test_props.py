"""Things are where the hands or the floor hold them."""

import numpy as np

from videomae.rendering.actions import Take, plan_clip


def hands(take: Take) -> np.ndarray:
    return (take.joints["hand_l"] + take.joints["hand_r"]) / 2


def test_a_box_stands_on_the_floor_until_it_is_lifted() -> None:
    for seed in range(10):
        take = plan_clip("pick_up", seed=seed)
        np.testing.assert_array_equal(take.prop[0], take.prop[20])
        assert 0.1 < take.prop[0, 1] < 0.3  # its middle, above the floor
        assert take.prop[-1, 1] > take.prop[0, 1] + 0.2
        np.testing.assert_allclose(take.prop[-1], hands(take)[-1] + [0.04, 0, 0])


def test_a_ball_is_in_the_hand_and_then_flies_ahead() -> None:
    for seed in range(10):
        take = plan_clip("throw", seed=seed)
        np.testing.assert_allclose(take.prop[0], take.joints["hand_r"][0] + [0.02, 0.02, 0])
        assert take.prop[-1, 0] > take.prop[0, 0] + 1
        assert np.diff(take.prop[-40:, 0]).min() > 0


def test_a_hat_ends_on_the_head() -> None:
    for seed in range(10):
        take = plan_clip("put_on_hat", seed=seed)
        np.testing.assert_allclose(take.prop[0], take.joints["hand_r"][0])
        above = take.prop[-1] - take.joints["head"][-1]
        assert 0.02 < above[1] < 0.15
        assert abs(above[0]) < 0.03


def test_a_crate_slides_as_fast_as_it_is_pushed() -> None:
    take = plan_clip("push", seed=3)
    way = np.diff(take.prop[:, 0])
    np.testing.assert_allclose(way, way[0])
    assert abs(way.sum() - (take.joints["hips"][-1, 0] - take.joints["hips"][0, 0])) < 0.15
    np.testing.assert_allclose(take.prop[:, 1], take.prop[0, 1])


def test_a_door_turns_round_its_hinge_and_chair_and_ladder_stand_still() -> None:
    door = plan_clip("open_door", seed=3).prop
    assert door[-1, 0] - door[0, 0] > 0.15  # what is left of its width is less
    assert door[-1, 2] > door[0, 2]  # away from us
    for action in ("sit_down", "climb_up"):
        prop = plan_clip(action, seed=3).prop
        np.testing.assert_array_equal(prop, np.tile(prop[0], (len(prop), 1)))
    sitting = plan_clip("sit_down", seed=3)
    seat = sitting.joints["hips"][-1] - sitting.prop[-1]
    assert 0 < seat[1] < 0.15
