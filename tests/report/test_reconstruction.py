"""Reconstructions: what they show, and what they do not look at."""

import pytest
import torch
from torch import Tensor

from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError
from videomae.report.reconstruction import (
    Rendering,
    _nearness,
    hide,
    paste_reconstruction,
    to_frames,
)
from videomae.tubelets import patchify, pixel_targets

# Clips of 4 frames of 12 x 8 pixels: a grid of (2, 3, 2) tubelets of 2 x 4 x 4 pixels.
SIZES = {"image_size": (12, 8), "patch_size": 4, "num_frames": 4, "hidden_size": 8}
CONFIG = VideoMAEConfig(**SIZES, num_attention_heads=1)  # type: ignore[arg-type]
RAW = CONFIG.copy(norm_pix_loss=False)


def clip(seed: int = 0) -> Tensor:
    """A clip (T, C, H, W) in 0.2..0.8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 3, 12, 8, generator=generator) * 0.6 + 0.2


def mask(*hidden: int) -> Tensor:
    chosen = torch.zeros(CONFIG.grid.num_tokens, dtype=torch.bool)
    chosen[list(hidden)] = True
    return chosen


def is_hidden(hidden: Tensor) -> Tensor:
    """For each pixel of a clip, whether it is hidden."""
    return hide(torch.ones(4, 3, 12, 8), hidden, CONFIG) < 1


def answers(pixels: Tensor, hidden: Tensor, config: VideoMAEConfig) -> Tensor:
    """What a perfect model would predict for a clip in 0..1."""
    tubelets = patchify(pixels[None], CONFIG.grid)[0][hidden]
    if not config.norm_pix_loss:
        return tubelets
    values = tubelets.view(len(tubelets), -1, 3)
    return ((values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)).flatten(1)


def ramp() -> Tensor:
    """Brightness that rises from left to right and from top to bottom, each channel otherwise."""
    down, right = torch.linspace(0, 1, 12)[:, None], torch.linspace(0, 1, 8)
    channels = [0.2 + 0.4 * down + 0.2 * right, 0.9 - 0.5 * down, 0.1 + 0.7 * right + 0 * down]
    return torch.stack([channel.expand(12, 8) for channel in channels]).expand(4, 3, 12, 8)


def test_a_perfect_prediction_of_pixels_gives_the_original_back() -> None:
    hidden = mask(0, 3, 7, 11)
    for rendering in ("plain", "paper"):
        pasted = paste_reconstruction(
            clip(), hidden, answers(clip(), hidden, RAW), RAW, rendering=rendering
        )
        torch.testing.assert_close(pasted, clip())


def test_paper_rendering_turns_perfect_patterns_into_the_original() -> None:
    hidden = mask(0, 3, 7, 11)
    normalized = (clip() - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    index = hidden.nonzero().T
    target = pixel_targets(normalized[None], CONFIG.grid, index, normalize=True)[0]
    pasted = paste_reconstruction(clip(), hidden, target, CONFIG, rendering="paper")
    torch.testing.assert_close(pasted, clip(), atol=1e-4, rtol=0)


def test_plain_rendering_never_looks_at_hidden_pixels() -> None:
    hidden = mask(0, 1, 4, 5, 6, 10)
    predictions = torch.randn(6, 2 * 4 * 4 * 3)
    other = torch.where(is_hidden(hidden), clip(seed=1), clip())
    assert (other != clip()).float().mean() == pytest.approx(0.5)

    plain = paste_reconstruction(clip(), hidden, predictions, CONFIG)
    again = paste_reconstruction(other, hidden, predictions, CONFIG)
    torch.testing.assert_close(plain, again, atol=0, rtol=0)

    paper = paste_reconstruction(clip(), hidden, predictions, CONFIG, rendering="paper")
    leaked = paste_reconstruction(other, hidden, predictions, CONFIG, rendering="paper")
    assert (paper - leaked).abs().max() > 0.05


@pytest.mark.parametrize("rendering", ["plain", "paper"])
def test_visible_pixels_stay_as_they_are(rendering: Rendering) -> None:
    hidden = mask(2, 3, 8)
    pasted = paste_reconstruction(clip(), hidden, torch.randn(3, 96), CONFIG, rendering=rendering)
    seen = ~is_hidden(hidden)
    assert torch.equal(pasted[seen], clip()[seen])
    assert pasted.min() >= 0
    assert pasted.max() <= 1


def test_without_any_pattern_plain_rendering_continues_what_is_around() -> None:
    hidden = mask(2, 8)  # the left cell of the middle row, in both slices
    flat = torch.full((4, 3, 12, 8), 0.3)
    pasted = paste_reconstruction(flat, hidden, torch.zeros(2, 96), CONFIG)
    torch.testing.assert_close(pasted, flat)


def test_plain_rendering_matches_neighbours_where_they_touch() -> None:
    hidden = mask(0, 3, 4, 6, 9, 10)
    pasted = paste_reconstruction(ramp(), hidden, answers(ramp(), hidden, CONFIG), CONFIG)
    # The guess from nearby alone is off by 0.09.
    assert (pasted - ramp()).square().mean().sqrt() < 0.04


def test_plain_rendering_works_in_inference_mode_and_gives_no_gradients() -> None:
    hidden, predictions = mask(1, 2), torch.randn(2, 96)
    with torch.inference_mode():
        inside = paste_reconstruction(clip(), hidden, predictions + 0, CONFIG)
    outside = paste_reconstruction(clip(), hidden, predictions, CONFIG)
    torch.testing.assert_close(inside, outside)
    assert not outside.requires_grad


def test_nearness_is_the_inverse_cubed_distance() -> None:
    # Hidden is the middle of three cells in a row; visible the one beside it and one two away.
    weights = _nearness(Grid(1, 1, 4), torch.tensor([False, True, True, False]))
    expected = torch.tensor([[8 / 9, 1 / 9], [1 / 9, 8 / 9]])
    torch.testing.assert_close(weights, expected)


def test_pasting_explains_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"rendering='nice' is not one of plain, paper"):
        paste_reconstruction(
            clip(),
            mask(1),
            torch.zeros(1, 96),
            CONFIG,
            rendering="nice",  # type: ignore[arg-type]
        )
    with pytest.raises(ConfigError, match=r"hides 2 tubelets and there are 1 predictions"):
        paste_reconstruction(clip(), mask(1, 2), torch.zeros(1, 96), CONFIG)
    with pytest.raises(ConfigError, match=r"\(7,\).* has 12 tubelets, and each hidden one"):
        paste_reconstruction(clip(), mask(1)[:7], torch.zeros(1, 96), CONFIG)


def test_hidden_tubelets_become_grey() -> None:
    # Token 3 is slice 0, row 1, column 1.
    hidden = hide(clip(), mask(3), CONFIG)
    assert (hidden[:2, :, 4:8, 4:8] == 0.5).all()
    rest = torch.ones(4, 3, 12, 8, dtype=torch.bool)
    rest[:2, :, 4:8, 4:8] = False
    assert torch.equal(hidden[rest], clip()[rest])


def test_pixels_become_frames_rounded_and_clipped() -> None:
    pixels = torch.tensor([-0.5, 0.0, 0.5, 1.5]).view(1, 1, 2, 2)
    frames = to_frames(pixels)
    assert frames.shape == (1, 2, 2, 3)
    assert frames[0, :, :, 1].tolist() == [[0, 0], [128, 255]]
    clear = torch.cat([pixels] * 3 + [torch.zeros_like(pixels)], dim=1)
    assert (to_frames(clear) == frames).all()
    with pytest.raises(ConfigError, match=r"\(1, 2, 2, 2\) cannot be shown; expected .*1, 3 or 4"):
        to_frames(torch.zeros(1, 2, 2, 2))
