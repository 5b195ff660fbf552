import re
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from videomae import masking
from videomae.config import Grid
from videomae.errors import ConfigError
from videomae.masking import (
    MASKS,
    ChosenTokens,
    choose_tokens,
    frame_mask,
    hidden_share,
    random_mask,
    running_cell_mask,
    split_mask,
    tube_mask,
)

GRID = Grid(8, 14, 14)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_tubes_hide_the_same_cells_in_every_slice() -> None:
    mask = tube_mask(GRID, 0.9, batch_size=4, generator=seeded())
    assert mask.shape == (4, 1568)
    assert mask.dtype == torch.bool
    slices = mask.view(4, 8, 196)
    assert (slices == slices[:, :1]).all()
    # floor(0.9 * 196) = floor(176.4): 20 cells stay visible, 160 tubelets in all
    assert slices.sum(2).unique().tolist() == [176]
    assert (~mask).sum(1).tolist() == [160] * 4
    assert len({tuple(row) for row in slices[:, 0].tolist()}) == 4, "each clip has its own tubes"


@pytest.mark.parametrize(
    ("mask_name", "ratio", "num_hidden"),
    [
        ("tube", 0.75, 8 * 147),
        ("tube", 0.5, 8 * 98),
        ("random", 0.9, 1411),  # floor(1411.2)
        ("random", 0.0007, 1),
        ("frame", 0.9, 7 * 196),  # floor(7.2) slices
        ("frame", 0.5, 4 * 196),
        ("running_cell", 0.5, 784),
        ("running_cell", 0.75, 1176),
        ("running_cell", 0.25, 392),
    ],
)
def test_counts_are_rounded_down(mask_name: str, ratio: float, num_hidden: int) -> None:
    mask = MASKS[mask_name](GRID, ratio, batch_size=3, generator=seeded())
    assert mask.sum(1).tolist() == [num_hidden] * 3


def test_a_rectangular_grid_keeps_its_rows_apart() -> None:
    mask = tube_mask(Grid(3, 2, 5), 0.6, generator=seeded()).view(3, 2, 5)
    assert mask.sum((1, 2)).tolist() == [6, 6, 6]
    assert torch.equal(mask[0], mask[2])


def test_frames_are_hidden_whole() -> None:
    mask = frame_mask(Grid(8, 3, 4), 0.5, batch_size=2, generator=seeded()).view(2, 8, 12)
    assert (mask == mask[..., :1]).all()
    assert mask[..., 0].sum(1).tolist() == [4, 4]


# Two by two cells, four slices; the four places of a cell are counted row by row.
RUNNING = """
    ##  #.  ..  .#
    ..  .#  ##  #.
"""


def picture(text: str) -> list[Tensor]:
    """The slices of a drawing, `#` = hidden."""
    rows = [line.split() for line in text.strip().splitlines()]
    slices = zip(*rows, strict=True)
    return [torch.tensor([[mark == "#" for mark in row] for row in cell]) for cell in slices]


def test_running_cells_are_those_of_the_picture() -> None:
    drawn = picture(RUNNING)
    starts = set()
    for seed in range(40):
        mask = running_cell_mask(Grid(4, 4, 6), 0.5, generator=seeded(seed)).view(4, 4, 6)
        start = next(k for k in range(4) if torch.equal(mask[0, :2, :2], drawn[k]))
        starts.add(start)
        for step in range(4):
            assert torch.equal(mask[step], drawn[(start + step) % 4].repeat(2, 3))
    assert starts == {0, 1, 2, 3}, "every phase comes up"


def test_running_cells_two_slices_apart_cover_the_clip() -> None:
    mask = running_cell_mask(Grid(8, 6, 6), 0.5, generator=seeded()).view(8, 36)
    assert (mask[:-2] ^ mask[2:]).all()
    quarters = running_cell_mask(Grid(4, 6, 6), 0.25, generator=seeded()).view(4, 36)
    assert quarters.sum(0).unique().tolist() == [1], "each place once in four slices"


def test_running_cells_fit_odd_grids_and_clips_start_at_phases_of_their_own() -> None:
    for grid in (Grid(4, 5, 7), Grid(3, 6, 7)):
        mask = running_cell_mask(grid, 0.5, batch_size=64, generator=seeded())
        assert mask.shape == (64, grid.num_tokens)
        assert len({tuple(row) for row in mask.tolist()}) == 4
        assert len(set(mask.sum(1).tolist())) == 1
    with pytest.raises(ConfigError, match="another number of the 3 x 5 x 7 tubelets in each clip"):
        running_cell_mask(Grid(3, 5, 7), 0.5)


@pytest.mark.parametrize(("ratio", "count"), [(0.2, 0), (1.0, 4), (0.0, 0)])
def test_running_cells_refuse_what_a_cell_of_four_cannot_show(ratio: float, count: int) -> None:
    message = (
        f"running-cell mask ratio {ratio} hides {count} of the 4 places of a cell; "
        "use a ratio from 0.25 to below 1"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        running_cell_mask(GRID, ratio)


@pytest.mark.parametrize("mask_function", [tube_mask, random_mask, frame_mask])
def test_ratios_out_of_range_are_refused(mask_function: Callable[..., Tensor]) -> None:
    for ratio in (0.0, 1.0, -0.5, 1.5):
        with pytest.raises(ConfigError, match=f"mask ratio {ratio} must lie between 0 and 1"):
            mask_function(GRID, ratio)
    with pytest.raises(ConfigError, match=r"mask ratio 0\.0005 of .* places hides none; raise it"):
        mask_function(GRID, 0.0005)


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_follows_from_its_generator(name: str) -> None:
    grid = Grid(8, 8, 8)
    first, again, other = (
        MASKS[name](grid, 0.5, batch_size=8, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", MASKS)
def test_a_generator_leaves_the_global_one_alone(name: str) -> None:
    before = torch.get_rng_state()
    MASKS[name](GRID, 0.5, batch_size=2, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    MASKS[name](GRID, 0.5, batch_size=2)
    assert not torch.equal(torch.get_rng_state(), before), "without one, the global one is drawn"


@pytest.mark.parametrize("name", MASKS)
def test_every_place_is_hidden_equally_often(name: str) -> None:
    mask = MASKS[name](Grid(4, 4, 4), 0.5, batch_size=4000, generator=seeded())
    often = mask.double().mean(0)
    # a share of 0.5 over 4000 draws has a standard deviation of 0.008
    assert (often - 0.5).abs().max() < 0.04


def test_masks_come_by_name() -> None:
    assert list(MASKS) == ["tube", "random", "frame", "running_cell"]
    assert MASKS["tube"] is masking.tube_mask


def test_split_gives_token_numbers_in_order() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 0, 1]], dtype=torch.bool)
    visible, hidden = split_mask(mask, 5)
    assert visible.tolist() == [[1, 2], [0, 3]]
    assert hidden.tolist() == [[0, 3, 4], [1, 2, 4]]


def test_split_is_part_of_a_graph() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 0, 1]], dtype=torch.bool)
    compiled = torch.compile(split_mask, fullgraph=True, backend="eager")
    for each in (mask, ~mask):
        for ours, expected in zip(compiled(each, 5), split_mask(each, 5), strict=True):
            assert torch.equal(ours, expected)
    with pytest.raises(RuntimeError, match="must hide equally many tubelets"):
        compiled(torch.tensor([[True, False], [True, True]]), 2)


def test_split_keeps_the_order_over_many_tokens() -> None:
    mask = random_mask(GRID, 0.9, batch_size=3, generator=seeded())
    visible, hidden = split_mask(mask, 1568)
    assert (visible.diff(dim=1) > 0).all()
    assert (hidden.diff(dim=1) > 0).all()
    assert torch.equal(mask.gather(1, hidden), torch.ones_like(hidden, dtype=torch.bool))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 5).bool(), "mask has shape (2, 5), expected (batch, 6): one value per tube"),
        (torch.ones(6).bool(), "mask has shape (6,), expected (batch, 6)"),
        (torch.ones(0, 6).bool(), "mask has shape (0, 6), expected (batch, 6)"),
        (torch.ones(2, 6), "mask has dtype torch.float32, expected torch.bool (True = hidden)"),
        (
            torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool(),
            "every clip of a batch must hide equally many tubelets, got [2, 5]; make masks with "
            "videomae.masking, or pass the clips one by one",
        ),
        (torch.zeros(2, 6).bool(), "mask hides nothing (0 of 6 tubelets per clip)"),
        (torch.ones(2, 6).bool(), "mask hides everything (6 of 6 tubelets per clip)"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        split_mask(mask, 6)


def test_the_hidden_are_predicted_and_all_count() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 1]]).bool()
    visible, predicted, counted = choose_tokens(mask, 5)
    assert (visible.tolist(), predicted.tolist(), counted) == ([[1, 2]], [[0, 3, 4]], None)


def test_what_is_decoded_is_predicted_and_what_was_seen_of_it_does_not_count() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 1]]).bool()
    undecoded = torch.tensor([[1, 1, 0, 0, 1]]).bool()
    visible, predicted, counted = choose_tokens(mask, 5, undecoded)
    assert counted is not None
    assert (visible.tolist(), predicted.tolist()) == ([[1, 2]], [[2, 3]])
    assert counted.tolist() == [[False, True]]


def test_a_choice_that_leaves_nothing_to_predict_is_refused() -> None:
    mask = torch.tensor([[1, 0, 0]]).bool()
    with pytest.raises(ConfigError, match="nothing is left to predict; True there means not deco"):
        choose_tokens(mask, 3, mask)


def test_chosen_tokens_move_together() -> None:
    mask = torch.tensor([[1, 0, 0, 1]]).bool()
    for chosen in (choose_tokens(mask, 4), choose_tokens(mask, 4, ~mask)):
        moved = chosen.to("meta")  # as accelerate calls it
        assert isinstance(moved, ChosenTokens)
        assert [x if x is None else x.is_meta for x in moved] == [
            x if x is None else True for x in chosen
        ]


def test_the_hidden_share_is_that_of_whole_places() -> None:
    assert hidden_share("tube", Grid(8, 14, 14), 0.9) == pytest.approx(176 / 196)
    assert hidden_share("tube", Grid(8, 4, 4), 0.9) == 0.875
    assert hidden_share("random", Grid(8, 4, 4), 0.9) == pytest.approx(115 / 128)
