"""Where joints are, by hand and as drawn; what a ridge regression finds."""

from pathlib import Path

import numpy as np
import pytest

from reproduction.probes import LIMBS, fit_ridge, joint_places
from videomae.rendering.actions import plan_clip
from videomae.settings import ActionsSettings

SET = ActionsSettings(Path("set"), clips=20, seed=5, size=64, num_frames=32)


def test_joints_are_where_the_plan_of_the_clip_has_them() -> None:
    found = joint_places(Path("set/train/walk/00016.mp4"), SET, num_slices=8, num_frames=16)
    take = plan_clip("walk", seed=(5, 0, 16))
    assert found.shape == (8, len(LIMBS) + 1, 2)
    # The first slice has video frames 0 and 2 of 32, which are steps 0 and 8 of 0 to 128.
    spots = [take.view.pixels(take.joints["hand_l"][step]) - take.shake[step] for step in (0, 8)]
    np.testing.assert_allclose(found[0, 0], np.mean(spots, axis=0))


def test_joints_of_a_clip_that_is_played_backwards_go_backwards() -> None:
    down, up = (
        joint_places(Path(f"set/test/{action}/00003.mp4"), SET, num_slices=16, num_frames=16)
        for action in ("sit_down", "stand_up")
    )
    # Frames 0, 2, ... 30 forwards are frames 31, 29, ... 1 backwards: half a slice apart.
    assert np.abs(down - up[::-1]).max() < 0.05
    assert np.abs(down - up).max() > 0.1


def test_a_ridge_regression_finds_what_is_linear_and_no_more() -> None:
    rng = np.random.default_rng(0)
    rows, clips = rng.normal(size=(400, 5)), np.repeat(np.arange(50), 8)
    targets = np.stack([rows @ [1, 2, 0, 0, 0.5], rng.normal(size=400)], axis=-1)
    new = rng.normal(size=(100, 5))
    found = fit_ridge(rows, targets[:, :1], clips).predict(new).reshape(-1)
    assert found == pytest.approx(new @ [1, 2, 0, 0, 0.5], abs=0.05)
    unknown = fit_ridge(rows, targets[:, 1:], clips).predict(new).reshape(-1)
    assert unknown.std() < 0.2  # near the mean
