"""How much of what is hidden a copy or the motion could fill in, and what a clip costs."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from reproduction import baselines
from reproduction.baselines import best_copy, clip_cost, copy_loss, follow, seen_elsewhere
from reproduction.plan import FULL, Pretraining, Scale, masked
from videomae.rendering.motion import Trajectory

SCALE = Scale(num_frames=8, video_frames=16)


def loss_of(experiment: Pretraining, **values: Any) -> float:
    found = copy_loss(dataclasses.replace(experiment, image_size=32, **values), SCALE)
    assert found is not None
    return found


def test_each_distance_has_a_factor_of_its_own() -> None:
    targets = torch.tensor([1.0, 3.0, 5.0, 5.0]).view(1, 4, 1, 1)
    hidden = torch.tensor([False, True, True, True]).view(1, 4, 1)
    assert best_copy(targets, hidden) == pytest.approx(0)
    assert best_copy(targets, ~hidden) == pytest.approx(0)
    hidden = torch.tensor([[False, True], [True, True], [False, False], [True, False]])
    targets = torch.tensor([[1.0, 4.0], [2.0, 1.0], [9.0, 1.0], [9.0, 2.0]])
    # Of cell 0: 2 from 1 and 9 from 9; of cell 1: 1 from 1, all next to it; 4 from 1, two away.
    factor = (2 + 81 + 1) / (1 + 81 + 1)
    loss = (2 - factor) ** 2 + (9 - 9 * factor) ** 2 + (1 - factor) ** 2
    found = best_copy(targets.view(1, 4, 2, 1), hidden.view(1, 4, 2))
    assert found == pytest.approx(loss / 4, rel=1e-5)


def test_a_still_ground_can_be_copied_and_tubes_leave_nothing_to_copy() -> None:
    rand, tube, frame = (masked(mask, 0.75) for mask in ("random", "tube", "frame"))
    assert loss_of(rand, domain="object") < 0.65 < 0.75 < loss_of(rand)
    assert loss_of(masked("random", 0.5)) < loss_of(rand)
    assert loss_of(frame) < 0.98 < loss_of(tube)


def test_raw_pixels_have_no_such_baseline() -> None:
    assert copy_loss(masked("random", 0.75, norm_pix_loss=False), SCALE) is None


def test_the_fewer_cells_and_times_are_visible_the_less_shows_elsewhere() -> None:
    tube, rand, frame = (
        [seen_elsewhere(masked(mask, ratio), SCALE) or 0 for ratio in (0.5, 0.75, 0.9)]
        for mask in ("tube", "random", "frame")
    )
    assert tube == sorted(tube, reverse=True)
    assert rand == sorted(rand, reverse=True)
    assert all(a < b < c for a, b, c in zip(tube, rand, frame, strict=True))
    assert seen_elsewhere(masked("tube", 0.5, domain="object"), SCALE) is None


def test_without_motion_what_tubes_hide_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def rest(_motion: str, num_frames: int, _rng: np.random.Generator) -> Trajectory:
        return Trajectory(np.zeros(num_frames, complex), np.ones(num_frames, complex), 0.1)

    monkeypatch.setattr(baselines, "draw_trajectory", rest)
    monkeypatch.setattr(baselines, "_share_seen", baselines._share_seen.__wrapped__)
    assert seen_elsewhere(masked("tube", 0.5), SCALE) == 0
    assert seen_elsewhere(masked("frame", 0.5), SCALE) == 1
    # Half of the tubelets: one that is hidden is hidden in the 3 other slices too in 1 of 8.
    assert seen_elsewhere(masked("random", 0.5), SCALE) == pytest.approx(7 / 8, abs=0.01)


def test_a_point_is_followed_to_where_the_picture_takes_it() -> None:
    heart, edge = np.array(0.0 + 0j), np.array(0.5 + 0j)
    still, wide = np.zeros(2, complex), np.ones(2, complex)
    slide = Trajectory(np.array([0, 0.25j]), wide, 0.1)
    assert follow(slide, edge, 0, to=1) == 0.5 + 0.25j
    assert follow(slide, follow(slide, edge, 0, to=1), 1, to=0) == edge
    zoom = Trajectory(still, np.array([1, 2 + 0j]), 0.1)
    assert follow(zoom, edge, 0, to=1) == 0.1 + 2 * 0.4
    turn = Trajectory(still, np.array([1, 1j]), 0.0)
    assert follow(turn, heart, 0, to=1) == 0
    assert follow(turn, edge, 0, to=1) == 0.5j  # clockwise: y points down


def test_a_step_costs_what_its_visible_tokens_cost() -> None:
    def cost(*mask: Any, **values: Any) -> float:
        return clip_cost(masked(*mask, **values), FULL.scale)[1]

    assert cost("tube", 0.5) > cost("tube", 0.75) > cost("tube", 0.9)
    assert cost("random", 0.75) == cost("tube", 0.75)  # as many are visible
    assert cost("tube", 0.75, decoder_depth=1) < cost("tube", 0.75)
    # A second mask leaves 144 tokens to predict, in place of the 256 that tubes of 0.9 hide.
    assert cost("tube", 0.9, decoder_mask_ratio=0.5) < cost("tube", 0.9)
    # By hand, forward: 72 tokens of 3 x 2 x 8 x 8 values -> 96, 4 layers of 96; 96 -> 64, then all
    # 288 tokens through 2 layers of 64, and the 216 hidden ones back to 384 values.
    config = FULL.scale.config(48)
    encoder, decoder = (
        2 * layers * (tokens * (4 * width**2 + 2 * width * inner) + 2 * tokens**2 * width)
        for layers, tokens, width, inner in (
            (config.num_hidden_layers, 72, config.hidden_size, config.intermediate_size),
            (
                config.decoder_num_hidden_layers,
                288,
                config.decoder_hidden_size,
                config.decoder_intermediate_size,
            ),
        )
    )
    rest = 2 * (72 * 384 * 96 + 72 * 96 * 64 + 216 * 64 * 384)
    visible, found = clip_cost(masked("tube", 0.75), FULL.scale)
    assert visible == 72
    assert found == pytest.approx(3 * (encoder + decoder + rest) / 1e9, rel=0.05)
