"""Augmentations worked out by hand, and compared with Pillow, which the published code uses."""

import math
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.errors import ConfigError
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.training import augment
from videomae.training.augment import (
    Augmentation,
    apply_ops,
    crop_and_resize,
    draw_erase_box,
    draw_ops,
    draw_paste_box,
    erase,
    mix,
    random_crop_box,
    random_resized_box,
    smooth_one_hot,
)

NAMES = [
    "auto_contrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add",
    "color", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x",
    "translate_y",
]  # fmt: skip
EVERYTHING = Augmentation(crop="random_resized", flip=True, rand_augment_ops=4, erase_prob=0.5)


PUBLISHED = ((0.08, 1.0), (3 / 4, 4 / 3))


def as_clip(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def noise_frames(num_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth random frames, as any video is, each different."""
    coarse = torch.rand(num_frames, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    frames = F.interpolate(coarse, size=(height, width), mode="bilinear").to(torch.uint8)
    return np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy())


def clip_of(*rows: list[int]) -> Tensor:
    """One frame of grey pixels written as rows: uint8 (1, 3, H, W)."""
    return torch.tensor(rows, dtype=torch.uint8).expand(1, 3, -1, -1).contiguous()


def rows_of(clip: Tensor) -> Any:
    """The opposite of `clip_of`; the three colours must still be alike."""
    assert torch.equal(clip[:, :1].expand_as(clip), clip)
    return clip[0, 0].tolist()


# Crops


def test_multi_scale_crops_keep_the_shape_and_reach_every_place() -> None:
    draw = random.Random(0)
    boxes = [random_crop_box(60, 100, (32, 64), (1.0, 0.5), draw) for _ in range(2000)]
    assert {box[2:] for box in boxes} == {(50, 100), (25, 50)}
    assert {top for top, _, height, _ in boxes if height == 50} == set(range(11))
    assert {left for _, left, height, _ in boxes if height == 25} == set(range(51))
    assert all(top + height <= 60 and left + width <= 100 for top, left, height, width in boxes)


def test_multi_scale_crops_are_drawn_in_the_order_of_earlier_runs() -> None:
    draw, again = random.Random(3), random.Random(3)
    box = random_crop_box(60, 100, (32, 32), (1.0, 0.5), draw)
    side = 60 if again.choice((1.0, 0.5)) == 1.0 else 30
    assert box == (again.randint(0, 60 - side), again.randint(0, 100 - side), side, side)
    assert draw.getstate() == again.getstate()


def test_the_default_draws_nothing_but_the_multi_scale_crop() -> None:
    frames, draw, again = noise_frames(4, 24, 40), random.Random(5), random.Random(5)
    clip = Augmentation()(frames, (16, 16), draw)
    box = random_crop_box(24, 40, (16, 16), (1, 0.875, 0.75, 0.66), again)
    assert torch.equal(clip, crop_and_resize(as_clip(frames), box, (16, 16)))
    assert draw.getstate() == again.getstate()


def test_cropping_cuts_the_box_and_resizes_with_antialiasing() -> None:
    frames = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    cut = crop_and_resize(as_clip(frames), (1, 2, 2, 3), (2, 3))
    assert torch.equal(cut, torch.from_numpy(frames[:, 1:3, 2:5]).permute(0, 3, 1, 2))
    stripes = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    stripes[:, ::2] = 200  # every other row: halved without antialiasing, all rows might be 200
    assert 75 < crop_and_resize(as_clip(stripes), (0, 0, 8, 8), (4, 4)).float().mean() < 125


def test_random_resized_boxes_have_the_area_and_the_ratio_asked_for() -> None:
    draw = random.Random(0)
    boxes = [random_resized_box(600, 800, *PUBLISHED, draw) for _ in range(4000)]
    assert all(t >= 0 and x >= 0 and t + h <= 600 and x + w <= 800 for t, x, h, w in boxes)
    areas = np.array([height * width for _, _, height, width in boxes]) / (600 * 800)
    shapes = np.array([width / height for _, _, height, width in boxes])
    assert 0.079 < areas.min() < 0.09
    assert 0.95 < areas.max() <= 1
    assert 0.745 < shapes.min() < 0.76
    assert 1.32 < shapes.max() < 1.34


def test_random_resized_boxes_are_spread_like_those_of_torchvision() -> None:
    draw, image = random.Random(0), torch.zeros(3, 240, 320)
    ours = [random_resized_box(240, 320, *PUBLISHED, draw) for _ in range(4000)]
    theirs = [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(4000)]
    for mine, peer in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        # means of 4000 apart by less than 4 standard errors, spreads by less than a tenth
        assert abs(np.mean(mine) - np.mean(peer)) < 4 * np.std(peer) * math.sqrt(2 / 4000)
        assert 0.9 < np.std(mine) / np.std(peer) < 1.1


def test_what_never_fits_is_the_largest_central_box_of_an_allowed_ratio() -> None:
    draw = random.Random(0)
    whole = (1.0, 1.0)
    assert random_resized_box(10, 40, whole, (1.0, 2.0), draw) == (0, 10, 10, 20)
    assert random_resized_box(40, 10, whole, (0.5, 1.0), draw) == (10, 0, 20, 10)
    assert random_resized_box(10, 10, whole, (1.0, 1.0), draw) == (0, 0, 10, 10)
    assert random_resized_box(1, 40, whole, (0.01, 0.02), draw) == (0, 19, 1, 1)


# RandAugment


def test_fifteen_operations_are_drawn_alike_and_half_of_them_left_out() -> None:
    draw = random.Random(0)
    drawn = [draw_ops(4, draw=draw) for _ in range(5000)]
    counts = Counter(name for ops in drawn for name, _ in ops)
    assert sorted(counts) == sorted(NAMES)
    assert sum(counts.values()) == pytest.approx(10_000, abs=300)
    assert all(count == pytest.approx(10_000 / 15, rel=0.2) for count in counts.values())
    lengths = Counter(len(ops) for ops in drawn)  # binomial: 1 4 6 4 1 of 16
    assert [lengths[n] for n in range(5)] == pytest.approx(
        [312.5, 1250, 1875, 1250, 312.5], rel=0.2
    )


def test_magnitude_7_means_what_it_means_in_timm() -> None:
    told: dict[str, set[float]] = {name: set() for name in NAMES}
    for seed in range(500):
        for name, argument in draw_ops(4, std=0, draw=random.Random(seed)):
            told[name].add(round(argument, 6))
    assert told == {
        "auto_contrast": {0},
        "equalize": {0},
        "invert": {0},
        "color": {0.37, 1.63},
        "contrast": {0.37, 1.63},
        "brightness": {0.37, 1.63},
        "sharpness": {0.37, 1.63},
        "rotate": {-21, 21},
        "posterize": {2},  # 4 - int(2.8)
        "solarize": {77},  # 256 - int(179.2)
        "solarize_add": {77},
        "shear_x": {-0.21, 0.21},
        "shear_y": {-0.21, 0.21},
        "translate_x": {-0.315, 0.315},
        "translate_y": {-0.315, 0.315},
    }


def test_the_magnitude_is_drawn_around_its_mean_and_kept_in_0_to_10() -> None:
    def degrees(magnitude: float, std: float) -> NDArray[np.float64]:
        draw = random.Random(0)
        ops = draw_ops(20_000, magnitude=magnitude, std=std, draw=draw)
        return np.array([argument for name, argument in ops if name == "rotate"])

    usual = degrees(7, 0.5)
    assert np.abs(usual).mean() == pytest.approx(21, abs=0.3)  # 3 degrees per step of magnitude
    assert np.abs(usual).std() == pytest.approx(1.5, abs=0.15)
    assert (usual > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert np.abs(degrees(10, 3)).max() == 30
    assert np.abs(degrees(0, 3)).min() == 0


@pytest.mark.parametrize(
    ("op", "before", "after"),
    [
        (("invert", 0), [0, 100, 255], [255, 155, 0]),
        (("solarize", 77), [76, 77, 200], [76, 178, 55]),
        (("solarize", 256), [0, 128, 255], [0, 128, 255]),
        (("solarize", 0), [0, 128, 255], [255, 127, 0]),
        (("solarize_add", 77), [0, 127, 128, 255], [77, 204, 128, 255]),
        (("solarize_add", 110), [127], [237]),
        (("posterize", 2), [63, 64, 130, 255], [0, 64, 128, 192]),
        (("posterize", 0), [63, 255], [0, 0]),
        (("brightness", 1.63), [100, 200], [163, 255]),
        (("brightness", 0.37), [100, 200], [37, 74]),
        (("contrast", 0), [50, 150], [100, 100]),  # all at the mean
        (("contrast", 1.5), [50, 150], [25, 175]),
        (("auto_contrast", 0), [50, 100, 150], [0, 127, 255]),
        (("color", 1.63), [10, 200], [10, 200]),  # grey has no colour
        (("translate_x", 0.25), [1, 2, 3, 4], [2, 3, 4, 128]),
        (("translate_x", -0.5), [1, 2, 3, 4], [128, 128, 1, 2]),
        (("translate_y", 0.45), [1, 2, 3, 4], None),
        (("rotate", 0), [1, 2, 3, 4], [1, 2, 3, 4]),
    ],
)
def test_operations_by_hand(
    op: tuple[str, float], before: list[int], after: list[int] | None
) -> None:
    changed = rows_of(apply_ops(clip_of(before, before), [op]))
    if after is None:  # 0.9 of a pixel up: the last row comes from outside for the most part
        assert changed[0] == before
        assert all(value > 100 for value in changed[1])
        return
    # torchvision computes in float and cuts off, so that a value may be 1 less
    assert changed == [pytest.approx(after, abs=1)] * 2


def test_equalizing_spreads_values_by_how_many_pixels_have_them() -> None:
    rows = rows_of(apply_ops(clip_of(*[[10, 20, 30, 40]] * 255), [("equalize", 0)]))
    assert rows == [[0, 85, 170, 255]] * 255  # as many of each: four even steps


def test_sharpness_blends_with_a_blur_of_5_in_the_middle_and_1_around() -> None:
    dot = clip_of([0, 0, 0], [0, 130, 0], [0, 0, 0])  # blurred: 130 * 5 / 13 = 50 in the middle
    assert rows_of(apply_ops(dot, [("sharpness", 0.5)]))[1] == [0, 90, 0]
    assert rows_of(apply_ops(dot, [("sharpness", 1.5)]))[1] == [0, 170, 0]


def test_geometry_by_hand() -> None:
    square = clip_of([1, 2], [3, 4])
    assert rows_of(apply_ops(square, [("rotate", 90)])) == [[2, 4], [1, 3]]  # anticlockwise
    assert rows_of(apply_ops(square, [("translate_y", 0.5)])) == [[3, 4], [128, 128]]
    # What is in row y (centre y + 0.5) moves 2 (y + 0.5) px to the left, about the top left corner.
    steps = clip_of(list(range(10, 20)), list(range(20, 30)))
    sheared = rows_of(apply_ops(steps, [("shear_x", 2.0)]))
    assert sheared[0] == [*range(11, 20), 128]
    assert sheared[1] == [*range(23, 30), 128, 128, 128]
    upright = rows_of(apply_ops(steps.transpose(-1, -2).contiguous(), [("shear_y", 2.0)]))
    assert torch.equal(torch.tensor(upright).T, torch.tensor(sheared))


def test_colour_is_pulled_to_or_from_grey() -> None:
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    grey = int(0.299 * 200)
    assert apply_ops(red, [("color", 0.5)]).flatten().tolist() == [(200 + grey) // 2, 29, 29]
    assert apply_ops(red, [("color", 0.0)]).flatten().tolist() == [grey] * 3


def pillow(name: str, image: Image.Image, argument: float) -> Image.Image:
    """The operation as the published code writes it, but for the interpolation."""
    height, width = image.height, image.width
    enhancers: dict[str, Callable[..., Any]] = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    sources = {
        "shear_x": (1, argument, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, argument, 1, 0),
        "translate_x": (1, 0, argument * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, argument * height),
    }
    look: dict[str, Any] = {"resample": Image.Resampling.BILINEAR, "fillcolor": (128,) * 3}
    if name in enhancers:
        return enhancers[name](image).enhance(argument)  # type: ignore[no-any-return]
    if name in sources:
        return image.transform(image.size, Image.Transform.AFFINE, sources[name], **look)
    if name == "rotate":
        return image.rotate(argument, **look)
    if name == "posterize":
        return ImageOps.posterize(image, int(argument))
    if name == "solarize":
        return ImageOps.solarize(image, int(argument))
    if name == "solarize_add":
        return image.point([v + int(argument) if v < 128 else v for v in range(256)] * 3)
    plain = {
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
    }
    return plain[name](image)


ARGUMENTS = {
    "auto_contrast": [0], "equalize": [0], "invert": [0], "rotate": [21, -21], "posterize": [2],
    "solarize": [77], "solarize_add": [77], "color": [0.37, 1.63], "contrast": [0.37, 1.63],
    "brightness": [0.37, 1.63], "sharpness": [0.37, 1.63], "shear_x": [0.21, -0.21],
    "shear_y": [0.21, -0.21], "translate_x": [0.315, -0.315], "translate_y": [0.315, -0.315],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_agrees_with_pillow(name: str) -> None:
    frames = noise_frames(5, 60, 80)  # 5: one more than are treated at a time
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for argument in ARGUMENTS[name]:
        ours = apply_ops(clip, [(name, argument)])
        images = [pillow(name, Image.fromarray(frame), argument) for frame in frames]
        theirs = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        off = (ours.int() - theirs.permute(0, 3, 1, 2).int()).abs()
        # Where the frame ends, torchvision blends with the fill, and Pillow does not.
        ends = name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
        assert (off > 1).float().mean() < (0.04 if ends else 1e-9), (name, argument)
        assert not torch.equal(ours, clip)


# Erasing


def test_erased_boxes_have_the_area_and_the_ratio_asked_for() -> None:
    draw = random.Random(0)
    boxes = [draw_erase_box(400, 600, draw) for _ in range(3000)]
    found = [box for box in boxes if box is not None]
    assert len(found) == 3000
    areas = np.array([height * width for _, _, height, width in found]) / (400 * 600)
    shapes = np.array([width / height for _, _, height, width in found])
    assert 0.0198 < areas.min() < 0.025
    assert 0.32 < areas.max() < 0.335
    assert 0.29 < shapes.min() < 0.32
    assert 3.1 < shapes.max() < 3.4
    assert all(t + h <= 400 and h < 400 and x + w <= 600 and w < 600 for t, x, h, w in found)


def test_nothing_is_erased_of_a_frame_of_one_pixel_in_height() -> None:
    whole = Augmentation(erase_prob=1.0)
    frames = np.full((2, 1, 40, 3), 7, dtype=np.uint8)
    # 1 px high: a box of less is 0 px high, and nothing is erased
    assert (whole(frames, (1, 40), random.Random(0)) == 7).all()


def test_erasing_fills_one_box_with_other_noise_in_each_frame() -> None:
    clip = torch.full((16, 3, 40, 50), 9, dtype=torch.uint8)
    erased = erase(clip, (10, 20, 25, 30), random.Random(0))
    assert erased.dtype == torch.uint8
    assert (clip == 9).all()  # the clip that was given stays
    outside = torch.ones(40, 50, dtype=torch.bool)
    outside[10:35, 20:50] = False
    assert (erased[..., outside] == 9).all()
    inside = erased[:, :, 10:35, 20:50]
    assert not torch.equal(inside[0], inside[1])
    colours = inside.float().transpose(0, 1).flatten(1)  # (3, all pixels of all frames)
    assert colours.mean(1).tolist() == pytest.approx([255 * m for m in IMAGENET_MEAN], abs=2)
    assert colours.std(1).tolist() == pytest.approx([255 * s for s in IMAGENET_STD], abs=3)
    cut = ((colours == 0) | (colours == 255)).float().mean(1)
    assert cut.tolist() == pytest.approx([0.03, 0.03, 0.04], abs=0.006)


# All of it


def test_the_same_draw_gives_the_same_pixels_and_another_draw_others() -> None:
    frames = noise_frames(6, 48, 64)
    clips = [EVERYTHING(frames, (32, 32), random.Random(seed)) for seed in range(8)]
    for seed, clip in enumerate(clips):
        assert clip.shape == (6, 3, 32, 32)
        assert clip.dtype == torch.uint8
        assert torch.equal(clip, EVERYTHING(frames, (32, 32), random.Random(seed)))
    assert all(not torch.equal(clips[0], clip) for clip in clips[1:])


def test_nothing_is_drawn_from_global_generators() -> None:
    python, torch_state, legacy = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]
    for seed in range(4):
        EVERYTHING(noise_frames(2, 48, 64), (32, 32), random.Random(seed))
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], legacy)


@pytest.mark.parametrize("crop", ["multi_scale", "random_resized"])
def test_equal_frames_stay_equal(crop: Any) -> None:
    still = np.repeat(noise_frames(1, 48, 64), 16, axis=0)
    moves = Augmentation(crop=crop, flip=True, rand_augment_ops=4)
    for seed in range(40):
        clip = moves(still, (32, 32), random.Random(seed))
        assert torch.equal(clip, clip[:1].expand_as(clip))


def test_half_of_the_clips_are_mirrored_and_none_without_being_asked() -> None:
    frames = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    frames[:, :, 4:] = 255
    one_box = Augmentation(crop_scales=(1.0,), flip=True)
    clips = [one_box(frames, (8, 8), random.Random(seed)) for seed in range(400)]
    mirrored = sum(int(clip[0, 0, 0, 0] == 255) for clip in clips)
    assert all(torch.equal(c, clips[0]) or torch.equal(c, clips[0].flip(-1)) for c in clips)
    assert 160 < mirrored < 240
    plain = Augmentation(crop_scales=(1.0,))
    assert all((plain(frames, (8, 8), random.Random(s))[0, 0, :, 0] == 0).all() for s in range(20))


def test_a_share_of_clips_is_erased() -> None:
    frames = np.full((2, 32, 32, 3), 7, dtype=np.uint8)
    quarter = Augmentation(erase_prob=0.25)
    erased = [bool((quarter(frames, (32, 32), random.Random(s)) != 7).any()) for s in range(800)]
    assert 160 < sum(erased) < 240


def test_rand_augment_comes_before_the_crop_and_only_reduces_what_is_large() -> None:
    # A crop of an inverted frame and an inverted crop are the same; a rotated frame is not a
    # rotated crop, and shows its corners in grey only where the frame had corners.
    frames = np.full((1, 320, 320, 3), 200, dtype=np.uint8)
    turns = Augmentation(rand_augment_ops=1, crop_scales=(0.25,))
    seed = next(
        s for s in range(1000) if [n for n, _ in draw_ops(1, draw=random.Random(s))] == ["rotate"]
    )
    draw, again = random.Random(seed), random.Random(seed)
    clip = turns(frames, (224, 224), draw)
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2)
    turned = apply_ops(whole, draw_ops(1, draw=again))
    top, left, height, width = random_crop_box(320, 320, (224, 224), (0.25,), again)
    cut = turned[..., top : top + height, left : left + width].contiguous()
    resized = F.interpolate(cut, size=(224, 224), mode="bilinear", antialias=True)
    assert torch.equal(clip, resized)
    assert augment._reduced(whole, (224, 224)).shape == (1, 3, 320, 320)
    large = torch.zeros(1, 3, 720, 1280, dtype=torch.uint8)
    assert augment._reduced(large, (224, 224)).shape == (1, 3, 320, 569)
    assert augment._reduced(large, (112, 224)).shape == (1, 3, 180, 320)


def test_threads_change_nothing() -> None:
    frames = noise_frames(4, 48, 64)

    def clip(seed: int) -> Tensor:
        return EVERYTHING(frames, (32, 32), random.Random(seed))

    alone = [clip(seed) for seed in range(24)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(clip, range(24)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_settings_ask_for_an_augmentation_by_its_names() -> None:
    assert Augmentation.of(PretrainSettings(flip=True)) == Augmentation(flip=True)
    asked = {"crop": "random_resized", "rand_augment_ops": 4, "erase_prob": 0.25}
    assert Augmentation.of(FinetuneSettings(**asked)) == Augmentation(**asked)  # type: ignore[arg-type]


def test_rand_augment_without_torchvision_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(augment, "find_spec", lambda _: None)
    Augmentation(flip=True, erase_prob=0.25)
    with pytest.raises(ConfigError, match=r"=4 needs torchvision.*install 'videomae"):
        Augmentation(rand_augment_ops=4)


# Mixing


def test_one_hot_by_hand() -> None:
    targets = smooth_one_hot(torch.tensor([0, 2]), 4, 0.2)  # 0.05 each, and 0.8 more for the class
    expected = torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]])
    assert torch.allclose(targets, expected)
    assert smooth_one_hot(torch.tensor([1]), 3, 0.0).tolist() == [[0, 1, 0]]


def batch(size: int = 8) -> tuple[Tensor, Tensor, list[int]]:
    """Four clips, of 0, 1, 2 and 3 everywhere and of class 0 to 3, in pairs of neighbours."""
    pixels = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 3, size, size).clone()
    return pixels, torch.eye(4), [1, 0, 3, 2]


MIXUP = FinetuneSettings(mixup_alpha=0.8)
CUTMIX = FinetuneSettings(cutmix_alpha=1.0)


def test_mixup_by_hand() -> None:
    pixels, targets, partner = batch()
    kept = random.Random(1)
    kept.random()  # whether at all
    share = kept.betavariate(0.8, 0.8)
    mixed, soft = mix(pixels, targets, partner, MIXUP, random.Random(1))
    # 0 with 1, 1 with 0, 2 with 3, 3 with 2; e.g. 0 * 0.7 + 1 * 0.3 = 0.3
    expected = [1 - share, share, 3 - share, 2 + share]
    assert mixed[:, 0, 0, 0, 0].tolist() == pytest.approx(expected)
    assert torch.allclose(mixed, mixed[:, :1, :1, :1, :1].expand_as(mixed))
    a, b = share, 1 - share
    by_hand = torch.tensor([[a, b, 0, 0], [b, a, 0, 0], [0, 0, a, b], [0, 0, b, a]])
    assert torch.allclose(soft, by_hand)
    assert torch.equal(pixels, batch()[0])  # what was given stays
    assert torch.equal(targets, torch.eye(4))


def test_cutmix_pastes_one_box_into_all_frames_and_counts_what_is_left_of_it() -> None:
    for seed in range(30):
        pixels, targets, partner = batch()
        mixed, soft = mix(pixels, targets, partner, CUTMIX, random.Random(seed))
        swapped = mixed != pixels
        assert torch.equal(swapped, swapped[:1, :1, :1].expand_as(swapped))
        assert torch.equal(mixed[swapped], pixels[partner][swapped])
        inside = swapped[0, 0, 0]
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert inside.sum() == rows * columns  # a box
        share = 1 - inside.float().mean()
        assert torch.allclose(soft, torch.eye(4) * share + torch.eye(4)[partner] * (1 - share))


@pytest.mark.parametrize("height", [8, 9])
def test_boxes_of_cutmix_by_hand(height: int) -> None:
    draw = random.Random(0)
    boxes = {draw_paste_box(height, 8, kept=0.75, draw=draw) for _ in range(2000)}
    assert (0, 0, 2, 2) in boxes  # half of 8 px is 4 px, of which 2 are left in a corner
    assert (2, 2, 4, 4) in boxes
    assert (height - 3, 5, 3, 3) in boxes  # centred on the last pixel: 2 px before it, and itself
    assert len(boxes) == 8 * height
    assert draw_paste_box(8, 8, kept=1.0, draw=draw)[2:] == (0, 0)


def test_shares_follow_beta_and_both_ways_are_as_likely() -> None:
    pixels, targets, partner = batch(size=4)
    pasted, kept = 0, []
    for seed in range(600):
        both = replace(MIXUP, cutmix_alpha=1.0)
        mixed, soft = mix(pixels, targets, partner, both, random.Random(seed))
        whole = bool(set(mixed[0].unique().tolist()) <= {0.0, 1.0})
        pasted += whole
        if not whole:
            kept.append(float(soft[0, 0]))
    assert pasted == pytest.approx(300, abs=60)
    assert np.mean(kept) == pytest.approx(0.5, abs=0.07)
    assert np.std(kept) == pytest.approx(math.sqrt(1 / (4 * 2.6)), abs=0.04)  # of Beta(0.8, 0.8)


def test_nothing_is_mixed_where_it_is_off_or_not_drawn() -> None:
    pixels, targets, partner = batch()
    for never in (FinetuneSettings(), replace(MIXUP, mix_prob=0.0)):
        mixed, soft = mix(pixels, targets, partner, never, random.Random(0))
        assert torch.equal(mixed, pixels)
        assert torch.equal(soft, targets)
    half = replace(MIXUP, mix_prob=0.5)
    changed = [
        not torch.equal(mix(pixels, targets, partner, half, random.Random(s))[0], pixels)
        for s in range(200)
    ]
    assert 75 < sum(changed) < 125


def test_a_row_that_meets_itself_stays() -> None:
    pixels, targets, _ = batch()
    itself = [0, 1, 2, 3]
    for how in (MIXUP, CUTMIX):
        mixed, soft = mix(pixels, targets, itself, how, random.Random(0))
        assert torch.allclose(mixed, pixels)
        assert torch.allclose(soft, targets)


def test_labels_without_a_class_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels \[0, -1\] must be .* from 0 to 2; .* have -1"):
        smooth_one_hot(torch.tensor([0, -1]), 3, 0.1)
    with pytest.raises(ConfigError, match=r"labels \[3\] must be a list of class numbers"):
        smooth_one_hot(torch.tensor([3]), 3, 0.1)
