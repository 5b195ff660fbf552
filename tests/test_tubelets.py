import math
import re

import pytest
import torch
from torch import Tensor

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, Grid
from videomae.errors import ConfigError
from videomae.tubelets import (
    denormalize,
    grid_of,
    patchify,
    pick_tubelets,
    pixel_targets,
    unpatchify,
)


def numbered_clip() -> Tensor:
    """4 frames of 2 x 4 pixels, one channel; the pixel at (t, y, x) reads t*100 + y*10 + x."""
    t, y, x = torch.meshgrid(torch.arange(4), torch.arange(2), torch.arange(4), indexing="ij")
    return (t * 100 + y * 10 + x).float()[None, :, None]  # (1, T, 1, H, W)


def test_grid_of_counts_cells() -> None:
    assert grid_of(torch.zeros(1, 4, 3, 32, 48), 2, (8, 16)) == Grid(2, 4, 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5, 3, 32, 32), "32) (B, T, C, H, W): frames=5 is not a multiple of 2; use 4"),
        ((1, 4, 3, 20, 32), "height=20 is not a multiple of 8; use 16"),
        ((1, 4, 3, 32, 7), "width=7 is not a multiple of 8; use 8"),
        ((1, 0, 3, 32, 32), "frames=0 is not a multiple of 2; use 2"),
    ],
)  # fmt: skip
def test_sizes_that_leave_a_rest_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        grid_of(torch.zeros(shape), 2, (8, 8))


def test_tubelets_by_hand() -> None:
    vectors = patchify(numbered_clip(), Grid(2, 2, 2))
    assert vectors[0].tolist() == [
        [0, 1, 100, 101],  # slice 0, row 0, column 0: frames 0 and 1
        [2, 3, 102, 103],
        [10, 11, 110, 111],
        [12, 13, 112, 113],
        [200, 201, 300, 301],  # slice 1: frames 2 and 3
        [202, 203, 302, 303],
        [210, 211, 310, 311],
        [212, 213, 312, 313],
    ]


def test_channels_come_last_in_a_tubelet() -> None:
    red, green = numbered_clip(), numbered_clip() + 0.5
    vectors = patchify(torch.cat([red, green], dim=2), Grid(4, 2, 2))
    assert vectors[0, 1].tolist() == [2, 2.5, 3, 3.5]


def test_picking_takes_rows_in_the_order_asked() -> None:
    clips = torch.cat([numbered_clip(), -numbered_clip()])
    picked = pick_tubelets(clips, Grid(2, 2, 2), torch.tensor([[7, 0], [3, 3]]))
    assert picked.shape == (2, 2, 1, 2, 1, 2)  # (B, M, C, t, p, q)
    assert picked[0].flatten(1).tolist() == [[212, 213, 312, 313], [0, 1, 100, 101]]
    assert picked[1].flatten(1).tolist() == [[-12, -13, -112, -113]] * 2


def test_a_tubelet_is_laid_out_as_a_kernel_whether_picked_or_cut_with_all() -> None:
    clips, grid = torch.randn(2, 4, 3, 6, 8), Grid(2, 3, 2)  # tubelets of 2 x 2 x 4
    index = torch.tensor([[11, 4, 0], [5, 7, 7]])
    picked = pick_tubelets(clips, grid, index)
    every = pick_tubelets(clips, grid)
    assert every.shape == (2, 12, 3, 2, 2, 4)
    assert torch.equal(picked, every[torch.arange(2)[:, None], index])
    # token 11 is slice 1, row 2, column 1
    assert torch.equal(picked[0, 0], clips[0, 2:4, :, 4:6, 4:8].transpose(0, 1))


def test_picking_passes_gradients_to_the_pixels_picked() -> None:
    clips = torch.zeros(1, 2, 1, 2, 4, requires_grad=True)
    pick_tubelets(clips, Grid(1, 1, 2), torch.tensor([[1]])).sum().backward()
    assert clips.grad is not None
    assert clips.grad[0, 0, 0].tolist() == [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize(
    ("shape", "tubelet_size", "patch_hw"),
    [
        ((2, 4, 3, 16, 16), 2, (8, 8)),
        ((1, 3, 1, 8, 12), 1, (4, 2)),
        ((1, 8, 6, 4, 4), 4, (2, 4)),
    ],
)
def test_unpatchify_undoes_patchify(
    shape: tuple[int, ...], tubelet_size: int, patch_hw: tuple[int, int]
) -> None:
    clips = torch.randn(shape)
    grid = grid_of(clips, tubelet_size, patch_hw)
    vectors = patchify(clips, grid)
    assert vectors.shape[2] == tubelet_size * patch_hw[0] * patch_hw[1] * shape[2]
    assert torch.equal(unpatchify(vectors, grid, tubelet_size, patch_hw), clips)


def test_denormalize_undoes_the_imagenet_statistics_of_rgb_only() -> None:
    rgb = torch.rand(2, 5, 3, dtype=torch.float64)
    normalized = (rgb - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(denormalize(normalized, -1), rgb)
    torch.testing.assert_close(denormalize(normalized.mT, 1).mT, rgb)
    infrared = torch.rand(2, 5, 4)
    assert torch.equal(denormalize(infrared, -1), infrared)


def test_targets_are_the_pattern_of_a_tubelet_channel_by_channel() -> None:
    one = torch.tensor([0.0, 1, 2, 3]).view(1, 1, 1, 2, 2)
    ten = 10 * one + 5
    clip = torch.cat([one, ten], dim=2)  # (1, 1, 2, 2, 2): the second channel brighter, steeper
    target = pixel_targets(clip, Grid(1, 1, 1), normalize=True)
    # mean 1.5, unbiased variance (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3
    by_hand = torch.tensor([-1.5, -0.5, 0.5, 1.5]) / math.sqrt(5 / 3)
    torch.testing.assert_close(target[0, 0].view(4, 2)[:, 0], by_hand, atol=1e-5, rtol=0)
    torch.testing.assert_close(target[0, 0].view(4, 2)[:, 1], by_hand, atol=1e-5, rtol=0)


def test_targets_of_a_flat_tubelet_are_zero() -> None:
    target = pixel_targets(torch.full((1, 2, 3, 4, 4), 0.7), Grid(1, 1, 1), normalize=True)
    torch.testing.assert_close(target, torch.zeros(1, 1, 96), atol=0.1, rtol=0)
    assert target.isfinite().all()


def test_raw_targets_are_pixels_from_0_to_1() -> None:
    clip = torch.zeros(1, 2, 3, 2, 4)  # normalised black is not 0; 0 is the mean
    target = pixel_targets(clip, Grid(1, 1, 2), torch.tensor([[1]]), normalize=False)
    assert target.shape == (1, 1, 2 * 2 * 2 * 3)
    torch.testing.assert_close(target[0, 0, :3], torch.tensor(IMAGENET_MEAN))
