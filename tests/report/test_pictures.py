import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError
from videomae.report import pictures
from videomae.tubelets import patchify, pixel_targets
from videomae.video.reader import probe, read_frames

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


def answers(pixels: Tensor, hidden: Tensor, config: VideoMAEConfig) -> Tensor:
    """What a perfect model would predict for a clip in 0..1."""
    tubelets = patchify(pixels[None], 2, (4, 4))[0][hidden]
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
        pasted = pictures.paste_reconstruction(
            clip(), hidden, answers(clip(), hidden, RAW), RAW, rendering=rendering
        )
        torch.testing.assert_close(pasted, clip())


def test_paper_rendering_turns_perfect_patterns_into_the_original() -> None:
    hidden = mask(0, 3, 7, 11)
    normalized = (clip() - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    index = hidden.nonzero().T
    target = pixel_targets(normalized[None], index, 2, (4, 4), normalize=True)[0]
    pasted = pictures.paste_reconstruction(clip(), hidden, target, CONFIG, rendering="paper")
    torch.testing.assert_close(pasted, clip(), atol=1e-4, rtol=0)


def test_plain_rendering_never_looks_at_hidden_pixels() -> None:
    hidden = mask(0, 1, 4, 5, 6, 10)
    predictions = torch.randn(6, 2 * 4 * 4 * 3)
    other = torch.where(pictures.hide(clip(), hidden, CONFIG, fill=-1) < 0, clip(seed=1), clip())
    assert (other != clip()).float().mean() == pytest.approx(0.5)

    plain = pictures.paste_reconstruction(clip(), hidden, predictions, CONFIG)
    again = pictures.paste_reconstruction(other, hidden, predictions, CONFIG)
    torch.testing.assert_close(plain, again, atol=0, rtol=0)

    paper = pictures.paste_reconstruction(clip(), hidden, predictions, CONFIG, rendering="paper")
    leaked = pictures.paste_reconstruction(other, hidden, predictions, CONFIG, rendering="paper")
    assert (paper - leaked).abs().max() > 0.05


@pytest.mark.parametrize("rendering", ["plain", "paper"])
def test_visible_pixels_stay_as_they_are(rendering: pictures.Rendering) -> None:
    hidden = mask(2, 3, 8)
    pasted = pictures.paste_reconstruction(
        clip(), hidden, torch.randn(3, 96), CONFIG, rendering=rendering
    )
    seen = pictures.hide(clip(), hidden, CONFIG, fill=-1) >= 0
    assert torch.equal(pasted[seen], clip()[seen])
    assert pasted.min() >= 0
    assert pasted.max() <= 1


def test_without_any_pattern_plain_rendering_continues_what_is_around() -> None:
    hidden = mask(2, 8)  # the left cell of the middle row, in both slices
    flat = torch.full((4, 3, 12, 8), 0.3)
    pasted = pictures.paste_reconstruction(flat, hidden, torch.zeros(2, 96), CONFIG)
    torch.testing.assert_close(pasted, flat)


def test_plain_rendering_matches_neighbours_where_they_touch() -> None:
    hidden = mask(0, 3, 4, 6, 9, 10)
    pasted = pictures.paste_reconstruction(ramp(), hidden, answers(ramp(), hidden, CONFIG), CONFIG)
    # The guess from nearby alone is off by 0.09.
    assert (pasted - ramp()).square().mean().sqrt() < 0.04


def test_plain_rendering_works_in_inference_mode_and_gives_no_gradients() -> None:
    hidden, predictions = mask(1, 2), torch.randn(2, 96)
    with torch.inference_mode():
        inside = pictures.paste_reconstruction(clip(), hidden, predictions + 0, CONFIG)
    outside = pictures.paste_reconstruction(clip(), hidden, predictions, CONFIG)
    torch.testing.assert_close(inside, outside)
    assert not outside.requires_grad


def test_nearness_is_the_inverse_cubed_distance() -> None:
    # Hidden is the middle of three cells in a row; visible the one beside it and one two away.
    weights = pictures._nearness(Grid(1, 1, 4), torch.tensor([False, True, True, False]))
    expected = torch.tensor([[8 / 9, 1 / 9], [1 / 9, 8 / 9]])
    torch.testing.assert_close(weights, expected)


def test_pasting_explains_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"rendering='nice' is not one of plain, paper"):
        pictures.paste_reconstruction(
            clip(),
            mask(1),
            torch.zeros(1, 96),
            CONFIG,
            rendering="nice",  # type: ignore[arg-type]
        )
    with pytest.raises(ConfigError, match=r"hides 2 tubelets and there are 1 predictions"):
        pictures.paste_reconstruction(clip(), mask(1, 2), torch.zeros(1, 96), CONFIG)
    with pytest.raises(ConfigError, match=r"\(7,\).* has 12 tubelets, and each hidden one"):
        pictures.paste_reconstruction(clip(), mask(1)[:7], torch.zeros(1, 96), CONFIG)


def test_hidden_tubelets_become_grey() -> None:
    # Token 3 is slice 0, row 1, column 1.
    hidden = pictures.hide(clip(), mask(3), CONFIG)
    assert (hidden[:2, :, 4:8, 4:8] == 0.5).all()
    rest = torch.ones(4, 3, 12, 8, dtype=torch.bool)
    rest[:2, :, 4:8, 4:8] = False
    assert torch.equal(hidden[rest], clip()[rest])


def test_pixels_become_frames_rounded_and_clipped() -> None:
    pixels = torch.tensor([-0.5, 0.0, 0.5, 1.5]).view(1, 1, 2, 2)
    frames = pictures.to_frames(pixels)
    assert frames.shape == (1, 2, 2, 3)
    assert frames[0, :, :, 1].tolist() == [[0, 0], [128, 255]]
    with pytest.raises(ConfigError, match=r"\(1, 4, 2, 2\) cannot be shown; expected \(T, 3, H, W"):
        pictures.to_frames(torch.zeros(1, 4, 2, 2))


def frames(count: int = 4, height: int = 10, width: int = 20, value: int = 7) -> pictures.Frames:
    made = np.full((count, height, width, 3), value, np.uint8)
    made[:] += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return made


def test_a_film_strip_has_a_row_for_each_clip() -> None:
    strip = pictures.film_strip({"one": frames(4), "two": frames(2)}, min_frame_px=10)
    # Frames of 10 x 20 pixels with gaps of 4 between them, captions of 30 pixels, margins.
    assert strip.shape == (8 + 2 * (30 + 10) + 12, 12 + 4 * 20 + 3 * 4 + 12, 3)
    assert strip[8 + 30 : 8 + 40, 12:32].tolist() == frames(1)[0].tolist()
    assert strip[8 + 30, 12 + 24].tolist() == [8, 8, 8]  # the second frame
    assert (strip[8:38, 12:60] < 100).any()  # the caption
    assert (strip[:8] == 255).all()


def test_a_film_strip_thins_long_clips_out_evenly() -> None:
    strip = pictures.film_strip({"": frames(16)}, max_columns=4, min_frame_px=10)
    shown = [strip[-13, 12 + 24 * column, 0] for column in range(4)]
    assert shown == [7 + 2, 7 + 6, 7 + 10, 7 + 14]


def test_small_frames_are_enlarged_with_sharp_pixels() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = pictures._enlarge(small, 5)  # 3 is the smallest factor that reaches 5 pixels
    assert large.shape == (1, 6, 6, 3)
    assert (large[0, :3, 3:] == small[0, 0, 1]).all()


def test_side_by_side_clips_move_together() -> None:
    both = pictures.side_by_side({"left": frames(), "right": frames(value=90)}, min_frame_px=10)
    assert both.shape == (4, 8 + 30 + 10 + 8, 8 + 20 + 8 + 20 + 8, 3)
    assert both[:, 40, 10, 0].tolist() == [7, 8, 9, 10]
    assert both[:, 40, 40, 0].tolist() == [90, 91, 92, 93]
    with pytest.raises(ConfigError, match=r"equally many frames, got a: 4, b: 3"):
        pictures.side_by_side({"a": frames(4), "b": frames(3)})


def test_showing_explains_what_it_cannot_show() -> None:
    with pytest.raises(ConfigError, match="there are no clips to show; give at least one"):
        pictures.film_strip({})
    with pytest.raises(ConfigError, match=r"clip 'x' has shape \(2, 2\) and type float64"):
        pictures.film_strip({"x": np.zeros((2, 2))})  # type: ignore[dict-item]


def test_a_gif_keeps_frames_and_speed(tmp_path: Path) -> None:
    moving = np.zeros((3, 8, 8, 3), np.uint8)
    moving[0, :4], moving[1, 4:], moving[2] = 255, (255, 0, 0), (0, 9, 250)
    path = pictures.save_gif(tmp_path / "new" / "a.gif", moving, fps=10)
    with Image.open(path) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        assert image.info["duration"] == 100
        assert image.info["loop"] == 0
    assert np.abs(read_frames(path, [0, 1, 2]).astype(int) - moving).max() <= 8
    assert [entry.name for entry in path.parent.iterdir()] == ["a.gif"]


def test_clips_are_saved_as_the_suffix_says(tmp_path: Path) -> None:
    clips = {"a": frames(6, 16, 16), "b": frames(6, 16, 16)}
    with Image.open(pictures.save_clips(tmp_path / "a.png", clips)) as strip:
        assert strip.size == pictures.film_strip(clips).shape[1::-1]
    for name in ("a.gif", "a.mp4"):
        info = probe(pictures.save_clips(tmp_path / name, clips, fps=4))
        assert (info.num_frames, info.fps) == (6, pytest.approx(4))
        assert (info.height, info.width) == pictures.side_by_side(clips).shape[1:3]
    with pytest.raises(ConfigError, match=r"a.webm ends in '.webm'; name a file that ends in .png"):
        pictures.save_clips(tmp_path / "a.webm", clips)
    with pytest.raises(ConfigError, match="ends in 'nothing'"):
        pictures.save_gif(tmp_path / "a", frames())


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_curves_are_drawn_the_same_each_time(name: str, tmp_path: Path) -> None:
    series = {"train": ([0, 1, 2], [3.0, 2.0, 1.5]), "val": ([2], [1.6])}
    drawn = [
        pictures.plot_curve(
            series, tmp_path / str(k) / name, title="T", xlabel="step", ylabel="loss", log_y=True
        ).read_bytes()
        for k in range(2)
    ]
    assert drawn[0] == drawn[1]
    if name.endswith("png"):
        with Image.open(tmp_path / "0" / name) as image:
            assert image.width == pytest.approx(1024, abs=2)
    else:
        assert b"<svg" in drawn[0]


def test_curves_may_be_empty_or_broken_off(tmp_path: Path) -> None:
    nan = float("nan")
    series: dict[str, tuple[list[float], list[float]]] = {"a": ([], []), "b": ([1, 2], [1, nan])}
    assert pictures.plot_curve(series, tmp_path / "a.png").exists()
    with pytest.raises(ConfigError, match="curve 'x' has 2 xs and 1 ys; give pairs"):
        pictures.plot_curve({"x": ([1, 2], [1])}, tmp_path / "b.png")
    with pytest.raises(ConfigError, match=r"ends in '.pdf'; name a file that ends in .svg or .png"):
        pictures.plot_curve({}, tmp_path / "b.pdf")


def test_curves_show_spreads_and_chosen_ticks(tmp_path: Path) -> None:
    series = {"a": ([100, 1000], [3.0, 5.0]), "b": ([100], [1.0])}
    spreads = {"a": [(2.0, 4.0), (4.5, 6.0)], "b": [(0.5, 1.5)]}
    settings = {"log_x": True, "ticks": [100, 1000]}
    plain = pictures.plot_curve(series, tmp_path / "a.svg", **settings).read_text()
    spread = pictures.plot_curve(series, tmp_path / "b.svg", spreads=spreads, **settings)
    assert "<!-- 1,000 -->" in plain
    assert "LineCollection" in spread.read_text()
    assert "LineCollection" not in plain


def test_a_level_is_drawn_and_named_beside_a_single_curve(tmp_path: Path) -> None:
    series = {"a": ([1, 2], [30.0, 50.0])}
    plain = pictures.plot_curve(series, tmp_path / "a.svg").read_text()
    level = pictures.plot_curve(series, tmp_path / "b.svg", levels={"chance": 8.3}).read_text()
    assert "<!-- chance -->" in level
    assert "<!-- a -->" in level
    assert "<!-- a -->" not in plain


def test_bars_show_the_mean_and_each_value(tmp_path: Path) -> None:
    bars = {"scratch": [8.0, 9.0], "pre-trained on $5": [70.0, 75.0, 71.0]}
    first, second = (
        pictures.plot_bars(bars, tmp_path / f"{k}.svg", title="T", xlabel="%") for k in range(2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert "<!-- 72.0 -->" in first.read_text()
    for wrong in ({}, {"a": []}):
        with pytest.raises(ConfigError, match="nothing to draw; give each bar a name"):
            pictures.plot_bars(wrong, tmp_path / "c.svg")


def test_drawing_leaves_pyplot_and_its_global_figures_alone(tmp_path: Path) -> None:
    code = f"""
import sys
from videomae.report.pictures import plot_curve
assert "matplotlib" not in sys.modules
plot_curve({{"a": ([0, 1], [1, 0])}}, {str(tmp_path / "a.svg")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("count", [1, 2, 20, 100, 101, 700])
def test_confusions_are_readable_for_few_and_many_classes(count: int, tmp_path: Path) -> None:
    matrix = np.diag(np.full(count, 9))
    matrix[0, -1] = 1
    names = [f"a rather long name, costing $ {k}" + "!" * k for k in range(count)]
    path = pictures.plot_confusion(matrix, names, tmp_path / "new" / "c.png", title="top-1 $9")
    with Image.open(path) as image:
        assert max(300, 4 * count) < image.width < 6000
        picture = np.asarray(image.convert("RGB")).astype(int)
    blue = picture[..., 2] - picture[..., 0]
    assert (blue > 90).sum() > 9 * count  # the diagonal, at least three pixels each way
    assert [entry.name for entry in path.parent.iterdir()] == ["c.png"]


def test_confusions_are_drawn_the_same_each_time_and_refused_where_they_do_not_fit(
    tmp_path: Path,
) -> None:
    matrix = np.array([[9, 1], [0, 0]])
    drawn = [
        pictures.plot_confusion(matrix, ["a", "b"], tmp_path / f"{k}.svg").read_bytes()
        for k in range(2)
    ]
    assert drawn[0] == drawn[1]
    with pytest.raises(ConfigError, match=r"matrix \(2, 2\) does not fit 1 classes"):
        pictures.plot_confusion(matrix, ["a"], tmp_path / "c.png")
    with pytest.raises(ConfigError, match=r"ends in '.gif'"):
        pictures.plot_confusion(matrix, ["a", "b"], tmp_path / "c.gif")
