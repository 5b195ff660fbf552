"""Augmentations of the published recipes: crops, flips, RandAugment, erasing, mixup and cutmix.

Whatever is drawn comes from the `random.Random` that is passed in, and holds for all frames of a
clip: what moves in it stays what moved. torchvision's own transforms draw from torch's global
generator, which threads share, so that draws are made here and only pixels are left to it. Clips
are uint8 (T, C, H, W), boxes (top, left, height, width) in pixels. docs/augmentation.md lists what
differs from the published code. B clips of T frames, C channels, H x W pixels, K classes.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.errors import ConfigError
from videomae.processing.stored import RESAMPLE
from videomae.settings import FinetuneSettings, TrainSettings
from videomae.video.decoder import Frames

Box = tuple[int, int, int, int]

# The published code runs RandAugment on whole frames, which its Kinetics has stored with a short
# side of 320 px for crops of 224 px (its DATASET.md). Larger frames are reduced to that first, so
# that large videos take no more time.
_SHORT_SIDE = 320 / 224
# A whole clip at a time makes tensors so large that they go back to the system after each operation
# (320 x 427 px, 16 frames, 4 operations: 128 ms of CPU time on average, against 75 ms by fours).
_FRAMES_AT_ONCE = 4


@dataclass(frozen=True)
class Augmentation:
    """From the frames of a clip to what a model sees in training.

    The defaults are the crops of the published pre-training; fine-tuning adds the rest. What is
    switched off draws nothing, so that a run does not depend on it.

    crop: "multi_scale" (sides from `crop_scales`, one shape) or "random_resized" (area and shape
    from `crop_area` and `crop_ratio`). flip: mirror half of the clips. rand_augment_ops and
    _magnitude: see `draw_ops`. erase_prob: chance of a box of noise.

    ```python
    augment = Augmentation(crop="random_resized", flip=True, rand_augment_ops=4, erase_prob=0.25)
    clip = augment(frames, (224, 224), random.Random(f"{seed} {epoch} {index}"))
    ```
    """

    crop: Literal["multi_scale", "random_resized"] = "multi_scale"
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    rand_augment_ops: int = 0
    rand_augment_magnitude: float = 7.0
    erase_prob: float = 0.0

    @classmethod
    def of(cls, settings: TrainSettings) -> "Augmentation":
        """The augmentation that the fields of the same names ask for."""
        names = [field.name for field in fields(cls) if hasattr(settings, field.name)]
        return cls(**{name: getattr(settings, name) for name in names})

    def __post_init__(self) -> None:
        if self.rand_augment_ops and find_spec("torchvision") is None:
            raise ConfigError(
                f"rand_augment_ops={self.rand_augment_ops} needs torchvision, which is not "
                "installed; run `pip install 'videomae[train]'`, or set rand_augment_ops=0"
            )

    def __call__(self, frames: Frames, target_hw: tuple[int, int], draw: random.Random) -> Tensor:
        """Frames uint8 (T, H, W, 3) -> clip uint8 (T, 3, height, width) of the target.

        In the published order: RandAugment on the whole frames, then crop, flip and erase.
        """
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, C, H, W)
        ops = draw_ops(self.rand_augment_ops, magnitude=self.rand_augment_magnitude, draw=draw)
        if ops:
            clip = apply_ops(_reduced(clip, target_hw), ops)
        height, width = clip.shape[-2:]
        if self.crop == "multi_scale":
            box = random_crop_box(height, width, target_hw, self.crop_scales, draw)
        else:
            box = random_resized_box(height, width, self.crop_area, self.crop_ratio, draw)
        clip = crop_and_resize(clip, box, target_hw)
        if self.flip and draw.random() < 0.5:
            clip = clip.flip(-1)
        if self.erase_prob and draw.random() < self.erase_prob:
            hole = draw_erase_box(*target_hw, draw)
            if hole is not None:
                clip = erase(clip, hole, draw)
        return clip


def random_crop_box(
    height: int,
    width: int,
    target_hw: tuple[int, int],
    scales: Sequence[float],
    draw: random.Random,
) -> Box:
    """A box with the target's shape, its side drawn from `scales`; 1 is the largest that fits.

    The crops of the published pre-training, but for two things. There height and width are drawn
    apart, one step of `scales` between them at the most, and the box lies at one of 13 fixed
    points; here the shape is kept and every place is as likely.

    60 x 100 px, target 32 x 64: scale 1 is 50 x 100 (as wide as the frame), scale 0.5 is 25 x 50.
    """
    unit = min(height / target_hw[0], width / target_hw[1]) * draw.choice(scales)
    crop_height = max(min(round(target_hw[0] * unit), height), 1)
    crop_width = max(min(round(target_hw[1] * unit), width), 1)
    return _draw_place(height, width, (crop_height, crop_width), draw)


def random_resized_box(
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    draw: random.Random,
) -> Box:
    """A box of some share of the frame's area and some width / height, anywhere in the frame.

    The area is uniform, the ratio log-uniform: 1/2 is as likely as 2. A box that does not fit is
    drawn again; after ten of them it is the largest central one with an allowed ratio::

        10 x 40 px, area (1, 1), ratio (1, 2): nothing fits but 10 x 20 from left = 10
    """
    for _ in range(10):
        shape = _draw_shape(height, width, area, ratio, draw)
        if 0 < shape[0] <= height and 0 < shape[1] <= width:
            return _draw_place(height, width, shape, draw)
    allowed = min(max(width / height, ratio[0]), ratio[1])
    crop_height = max(min(round(width / allowed), height), 1)
    crop_width = max(min(round(height * allowed), width), 1)
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _draw_shape(
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    draw: random.Random,
) -> tuple[int, int]:
    """Height and width of a box by its share of the area and its width / height; may not fit."""
    size = draw.uniform(*area) * height * width
    shape = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(size / shape)), round(math.sqrt(size * shape))


def _draw_place(height: int, width: int, shape: tuple[int, int], draw: random.Random) -> Box:
    top = draw.randint(0, height - shape[0])
    return top, draw.randint(0, width - shape[1]), *shape


def crop_and_resize(clip: Tensor, box: Box, target_hw: tuple[int, int]) -> Tensor:
    """A clip uint8 (T, C, H, W) cut to a box and resized with antialiasing."""
    top, left, height, width = box
    cut = clip[..., top : top + height, left : left + width]
    if (height, width) == target_hw:
        return cut
    return F.interpolate(cut, size=target_hw, mode="bilinear", antialias=True)


def _reduced(clip: Tensor, target_hw: tuple[int, int]) -> Tensor:
    """The whole clip at no more than the size that RandAugment is worth the time for."""
    height, width = clip.shape[-2:]
    share = _SHORT_SIDE * max(target_hw[0] / height, target_hw[1] / width)
    if share >= 1:
        return clip.contiguous()
    smaller = round(height * share), round(width * share)
    return crop_and_resize(clip, (0, 0, height, width), smaller)


# What comes into view from outside. The published code never hands the mean colour of ImageNet on
# to its RandAugment, which then fills with this grey.
_OUTSIDE: dict[str, Any] = {"interpolation": RESAMPLE["bilinear"], "fill": [128.0, 128.0, 128.0]}


def _shear(vf: Any, clip: Tensor, *slopes: float) -> Tensor:
    # About the top left corner, as published.
    angles = [math.degrees(math.atan(slope)) for slope in slopes]
    still = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "center": [0, 0]}
    sheared: Tensor = vf.affine(clip, shear=angles, **still, **_OUTSIDE)
    return sheared


def _translate(vf: Any, clip: Tensor, across: float, down: float) -> Tensor:
    height, width = clip.shape[-2:]
    by = [-across * width, -down * height]
    still = {"angle": 0.0, "shear": [0.0, 0.0], "scale": 1.0}
    moved: Tensor = vf.affine(clip, translate=by, **still, **_OUTSIDE)
    return moved


def _solarize(vf: Any, clip: Tensor, least: float) -> Tensor:
    # torchvision refuses 256, above which there is nothing to invert.
    return clip if least > 255 else vf.solarize(clip, least)


# The operations of RandAugment: (start, reach, signed, pixels). At magnitude m an operation gets
# start ± reach * m / 10, either sign as likely where signed, a whole number where not, and makes
# pixels of (torchvision's functions, clip, that number). Names and numbers are those of the
# increasing operations of timm, "inc1" in the published recipes.
_OPS: dict[str, tuple[float, float, bool, Callable[[Any, Tensor, float], Tensor]]] = {
    "auto_contrast": (0, 0, False, lambda vf, clip, _: vf.autocontrast(clip)),
    "equalize": (0, 0, False, lambda vf, clip, _: vf.equalize(clip)),
    "invert": (0, 0, False, lambda vf, clip, _: vf.invert(clip)),
    "rotate": (0, 30, True, lambda vf, clip, degrees: vf.rotate(clip, degrees, **_OUTSIDE)),
    "posterize": (4, -4, False, lambda vf, clip, bits: vf.posterize(clip, int(bits))),
    "solarize": (256, -256, False, lambda vf, clip, least: _solarize(vf, clip, least)),
    "solarize_add": (0, 110, False, lambda _, x, add: torch.where(x < 128, x + int(add), x)),
    # 0 is grey, or black, or a blur; 1 changes nothing.
    "color": (1, 0.9, True, lambda vf, clip, factor: vf.adjust_saturation(clip, factor)),
    "contrast": (1, 0.9, True, lambda vf, clip, factor: vf.adjust_contrast(clip, factor)),
    "brightness": (1, 0.9, True, lambda vf, clip, factor: vf.adjust_brightness(clip, factor)),
    "sharpness": (1, 0.9, True, lambda vf, clip, factor: vf.adjust_sharpness(clip, factor)),
    # Pixels to the left per pixel down; shares of the width, to the left.
    "shear_x": (0, 0.3, True, lambda vf, clip, slope: _shear(vf, clip, slope, 0.0)),
    "shear_y": (0, 0.3, True, lambda vf, clip, slope: _shear(vf, clip, 0.0, slope)),
    "translate_x": (0, 0.45, True, lambda vf, clip, share: _translate(vf, clip, share, 0.0)),
    "translate_y": (0, 0.45, True, lambda vf, clip, share: _translate(vf, clip, 0.0, share)),
}


def draw_ops(
    count: int, *, magnitude: float = 7.0, std: float = 0.5, draw: random.Random
) -> list[tuple[str, float]]:
    """Draw RandAugment's operations and their numbers; `rand-m7-n4-mstd0.5-inc1` of timm.

    `count` times one of 15 operations, the same ones possibly again, each left out with chance 1/2.
    The magnitude, 0 to 10, is normal around `magnitude`, and anew for each. At 7 exactly::

        rotate ±21 degrees    solarize values from 77    shear_x, shear_y ±0.21
        posterize to 2 bits   solarize_add 77            translate_x, translate_y ±0.315
        color, contrast, brightness, sharpness 0.37 or 1.63
        auto_contrast, equalize, invert take no number, which is written as 0
    """
    ops = []
    for name in (draw.choice(tuple(_OPS)) for _ in range(count)):
        if draw.random() < 0.5:
            start, reach, signed, _ = _OPS[name]
            level = min(max(draw.gauss(magnitude, std), 0.0), 10.0) / 10
            sign = draw.choice((-1, 1)) if signed else 1
            ops.append((name, start + (sign * reach * level if signed else int(reach * level))))
    return ops


def apply_ops(clip: Tensor, ops: Sequence[tuple[str, float]]) -> Tensor:
    """A clip uint8 (T, 3, H, W) after the operations of `draw_ops`, all frames treated alike.

    auto_contrast, equalize and contrast look at the values of each frame by itself, as published.
    """
    # Here, as importing it takes two seconds, which nothing else in training needs.
    from torchvision.transforms.v2 import functional as vf  # type: ignore[import-untyped]

    def treat(frames: Tensor) -> Tensor:
        for name, number in ops:
            *_, pixels = _OPS[name]
            frames = pixels(vf, frames, number)
        return frames

    assert clip.dtype == torch.uint8, "RandAugment comes before the processor's numbers"
    return torch.cat([treat(frames) for frames in torch.split(clip, _FRAMES_AT_ONCE)])


def draw_erase_box(height: int, width: int, draw: random.Random) -> Box | None:
    """A box to be erased, smaller than the frame both ways; None where a hundred did not fit.

    Drawn as in `random_resized_box`: 0.02 to 1/3 of the area, width / height 0.3 to 1 / 0.3.
    """
    for _ in range(100):
        shape = _draw_shape(height, width, (0.02, 1 / 3), (0.3, 1 / 0.3), draw)
        if shape[0] < height and shape[1] < width:
            return _draw_place(height, width, shape, draw)
    return None


def erase(clip: Tensor, box: Box, draw: random.Random) -> Tensor:
    """A clip uint8 (T, 3, H, W) with a box of all frames filled with noise, anew in each frame.

    The noise is what N(0, 1) after normalisation is before it: 255 * (mean + std * noise) of
    ImageNet, cut off at 0 and 255, where 3 % of the red and green and 4 % of the blue values lie
    beyond. The published code erases after normalisation and cuts nothing off.
    """
    top, left, height, width = box
    generator = torch.Generator().manual_seed(draw.getrandbits(63))
    noise = torch.randn(len(clip), 3, height, width, generator=generator)
    mean, std = (torch.tensor(of).view(3, 1, 1) * 255 for of in (IMAGENET_MEAN, IMAGENET_STD))
    erased = clip.clone()
    erased[..., top : top + height, left : left + width] = (
        noise.mul_(std).add_(mean).round_().clamp_(0, 255)
    )
    return erased


def smooth_one_hot(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Class numbers (B) as float targets (B, K): `smoothing` of each spread over all K classes.

    >>> smooth_one_hot(torch.tensor([1]), 4, 0.2)
    tensor([[0.0500, 0.8500, 0.0500, 0.0500]])

    Raises ConfigError where a label is not in 0 .. K-1.
    """
    if labels.ndim != 1 or not bool(((labels >= 0) & (labels < num_classes)).all()):
        raise ConfigError(
            f"labels {labels.tolist()} must be a list of class numbers from 0 to "
            f"{num_classes - 1}; videos without a class have -1 and cannot be learned from"
        )
    return F.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes


def mix(
    pixels: Tensor,
    targets: Tensor,
    partner: Sequence[int],
    settings: FinetuneSettings,
    draw: random.Random,
) -> tuple[Tensor, Tensor]:
    """Mix each clip of a batch with another, or paste a box of another into it.

    pixels: (B, T, C, H, W) float, normalised; anything is done alike to all B clips. targets: (B,
    K) soft targets. partner: the row that each row is mixed with (B).

    Mixup keeps a share of the clip drawn from Beta(mixup_alpha, mixup_alpha). Cutmix draws the
    share of the frame that it keeps likewise; its box is the same in all frames; near the edge it
    is cut off, and targets follow what is left. mix_prob is the chance that anything is done,
    mix_switch_prob that of cutmix where both are on.

    Returns pixels and targets; the given ones are left as they were. With a share of 0.75, a clip
    of class 0 and its partner of class 1 give the target (0.75, 0.25).

    The published code pairs row i with B-1-i, and its cutmix indexes (B, C, T, H, W) as if there
    were no time: it swaps rows of some frames, or nothing at all, and mixes the targets regardless.
    """
    assert pixels.is_floating_point(), "clips are mixed after they are normalised"
    assert targets.is_floating_point(), "targets are mixed as smooth_one_hot makes them"
    if not settings.mixes or draw.random() >= settings.mix_prob:
        return pixels, targets
    mixup, cutmix = settings.mixup_alpha, settings.cutmix_alpha
    pastes = cutmix > 0 and (mixup == 0 or draw.random() < settings.mix_switch_prob)
    alpha = cutmix if pastes else mixup
    kept = draw.betavariate(alpha, alpha)
    other = torch.tensor(partner, device=pixels.device)
    if pastes:
        height, width = pixels.shape[-2:]
        top, left, box_height, box_width = draw_paste_box(height, width, kept=kept, draw=draw)
        inside = (..., slice(top, top + box_height), slice(left, left + box_width))
        mixed = pixels.clone()
        mixed[inside] = pixels[inside][other]
        kept = 1 - box_height * box_width / (height * width)
    else:
        mixed = torch.lerp(pixels[other], pixels, kept)
    return mixed, torch.lerp(targets[other], targets, kept)


def draw_paste_box(height: int, width: int, *, kept: float, draw: random.Random) -> Box:
    """The box of cutmix: a frame's shape, all but a share of its area, centred anywhere.

    What lies outside the frame is cut off: 8 x 8 px, kept=0.75 is a box of 4 x 4 px, of which
    2 x 2 px are left where its centre is the frame's corner.
    """
    side = math.sqrt(1 - kept)
    edges = []
    for length in (height, width):
        centre, reach = draw.randrange(length), int(length * side) // 2
        edges.append((max(centre - reach, 0), min(centre + reach, length)))
    (top, bottom), (left, right) = edges
    return top, left, bottom - top, right - left
