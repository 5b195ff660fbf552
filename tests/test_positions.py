import math

import torch

from videomae.config import Grid
from videomae.positions import grid_positions, sincos_positions


def test_positions_by_hand() -> None:
    table = sincos_positions(3, 4)
    assert table.shape == (3, 4)
    assert table.dtype == torch.float32
    assert table[0].tolist() == [0, 1, 0, 1]
    # features 0 and 1 turn once per 2 pi tokens, features 2 and 3 sqrt(10000) = 100 times slower
    by_hand = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(table[2], torch.tensor(by_hand))


def test_positions_of_the_trained_grid_are_the_table() -> None:
    assert torch.equal(grid_positions(Grid(2, 3, 4), Grid(2, 3, 4), 8), sincos_positions(24, 8))


def test_positions_are_resized_along_time() -> None:
    early, late = sincos_positions(2, 6)
    resized = grid_positions(Grid(4, 1, 1), Grid(2, 1, 1), 6)
    # centres of the four new slices, in units of the old ones: -1/4 (held at 0), 1/4, 3/4, 5/4
    by_hand = [early, 0.75 * early + 0.25 * late, 0.25 * early + 0.75 * late, late]
    torch.testing.assert_close(resized, torch.stack(by_hand))


def test_positions_are_resized_along_height_and_width_apart_from_time() -> None:
    table = sincos_positions(2 * 2 * 2, 6).view(2, 2, 2, 6)
    resized = grid_positions(Grid(2, 1, 2), Grid(2, 2, 2), 6).view(2, 1, 2, 6)
    torch.testing.assert_close(resized, table.mean(1, keepdim=True))
    resized = grid_positions(Grid(2, 2, 1), Grid(2, 2, 2), 6).view(2, 2, 1, 6)
    torch.testing.assert_close(resized, table.mean(2, keepdim=True))
