"""What is run to see whether the paper's findings hold: the whole plan, as data.

A point is one pre-training, or one fine-tuning with all of its seeds. Those that matter most stand
first: the plan is run from the top, so that each prefix of it is an experiment.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.config import VideoMAEConfig
from videomae.settings import Domain, FinetuneSettings, Mask, Preset, PretrainSettings


@dataclass(frozen=True)
class Clips:
    """A rendered set: the first `count` scenes of a seed in one domain."""

    domain: Domain
    count: int
    size: int = 48
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.domain}-{self.size}px-{self.seed}-{self.count}"


@dataclass(frozen=True)
class Scale:
    """What all points of a plan share: model, frames and batches, and what is tested on."""

    preset: Preset = "micro"
    num_frames: int = 16
    video_frames: int = 32
    batch_size: int = 16
    held_out: int = 600
    """Clips that are tested on, of scenes that nothing learns from."""
    probe_clips: int = 1000
    """Labelled clips that a linear probe learns from."""

    def config(self, image_size: int) -> VideoMAEConfig:
        """The model of all points of one size."""
        return VideoMAEConfig.preset(self.preset, image_size=image_size, num_frames=self.num_frames)

    def tested(self, point: "Point") -> Clips:
        """What a point is tested on: clips of its domain and size."""
        return Clips(point.domain, self.held_out, point.image_size, seed=7)

    def probed(self, point: "Pretraining") -> Clips:
        """What the linear probe of a point learns from."""
        return Clips(point.domain, self.probe_clips, point.image_size)


@dataclass(frozen=True)
class Pretraining:
    """One masked pre-training, probed at four milestones and at its end."""

    name: str
    domain: Domain = "camera"
    image_size: int = 48
    clips: int = 3000
    epochs: int = 20
    mask: Mask = "tube"
    mask_ratio: float = 0.9
    decoder_mask_ratio: float | None = None
    decoder_depth: int = 2
    norm_pix_loss: bool = True
    frame_stride: int = 2
    num_repeats: int = 1
    lr: float = 0.0384
    seed: int = 0

    @property
    def data(self) -> Clips:
        return Clips(self.domain, self.clips, self.image_size)

    def settings(self, scale: Scale, folder: Path) -> PretrainSettings:
        """The settings of this run, with its data below `folder/data`.

        A step always has as many clips: with repeats, fewer videos are read for it, and lr, which
        counts videos, makes up for it.
        """
        named = {field.name for field in dataclasses.fields(PretrainSettings)}
        values: dict[str, Any] = {
            key: value for key, value in dataclasses.asdict(self).items() if key in named
        }
        values |= _shared(scale) | {"lr": self.lr * self.num_repeats}
        return PretrainSettings(
            **values,
            data=folder / "data" / self.data.name,
            batch_size=scale.batch_size // self.num_repeats,
            warmup_epochs=self.epochs / 20,
            min_lr=1e-5,
            draw_every_epochs=self.epochs,
            keep_every_epochs=max(self.epochs // 4, 1),
        )


@dataclass(frozen=True)
class Finetuning:
    """Fine-tunings of one start that differ in their seed alone."""

    name: str
    start: Pretraining | None
    """None: fresh weights."""
    domain: Domain = "camera"
    image_size: int = 48
    labels: int = 300
    epochs: int = 20
    frame_stride: int = 2
    lr: float = 1.6e-2
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def data(self) -> Clips:
        return Clips(self.domain, self.labels, self.image_size)

    def settings(self, scale: Scale, folder: Path, *, init: Path | None) -> FinetuneSettings:
        """The settings of one of these runs; the seed is still to be set."""
        return FinetuneSettings(
            **_shared(scale),
            data=folder / "data" / self.data.name,
            eval_data=folder / "data" / scale.tested(self).name,
            image_size=self.image_size,
            init=None if init is None else str(init),
            epochs=self.epochs,
            frame_stride=self.frame_stride,
            batch_size=scale.batch_size,
            lr=self.lr,
            min_lr=1e-5,
            warmup_epochs=self.epochs / 10,
            layer_decay=0.85,
        )


Point = Pretraining | Finetuning


@dataclass(frozen=True)
class Plan:
    """Points in the order of their importance, each after what it starts from."""

    points: tuple[Point, ...]
    scale: Scale = Scale()
    why: str = ""
    """Why the others differ from the first pre-training and not from another, for the page."""

    def clips(self) -> tuple[Clips, ...]:
        """Every rendered set that the points read, each once, in the order of its first use."""
        found: dict[Clips, None] = {}
        for point in self.points:
            found[point.data] = None
            found[self.scale.tested(point)] = None
            if isinstance(point, Pretraining):
                found[self.scale.probed(point)] = None
        return tuple(found)


def _shared(scale: Scale) -> dict[str, Any]:
    return {
        "preset": scale.preset,
        "num_frames": scale.num_frames,
        "crop_scales": (1.0, 0.875, 0.75),
        "num_workers": 1,
        "tracker": "none",
        "device": "cpu",
        "dtype": "float32",
        "log_every_steps": 10,
        "save_every_steps": 250,
        "keep_checkpoints": 1,
        "resume": True,
    }


MASKS: tuple[Mask, ...] = ("tube", "random", "frame")


def masked(mask: Mask, ratio: float, **values: Any) -> Pretraining:
    """A pre-training named after its mask, and after whatever else is not as usual."""
    return Pretraining(f"{mask}-{ratio:.2f}{_named(values)}", mask=mask, mask_ratio=ratio, **values)


def tuned(start: Pretraining | None, **values: Any) -> Finetuning:
    """A fine-tuning named after its start, and after whatever else is not as usual."""
    return Finetuning(
        f"{start.name if start else 'scratch'}-tuned{_named(values)}", start, **values
    )


def _named(values: dict[str, Any]) -> str:
    """What the name of a point says of its settings.

    >>> _named({"domain": "object", "epochs": 60})
    '-object-epochs60'
    """
    return "".join(
        f"-{value}" if isinstance(value, str) else f"-{key}{value}" for key, value in values.items()
    )


def with_tuned(*starts: Pretraining) -> tuple[Point, ...]:
    """Each pre-training, and its fine-tuning on the usual few labels of its own kind of clips."""
    return tuple(point for start in starts for point in (start, tuned_at_home(start)))


def tuned_at_home(start: Pretraining) -> Finetuning:
    """The fine-tuning on the domain, size and frame_stride that a pre-training saw."""
    return dataclasses.replace(
        tuned(start),
        domain=start.domain,
        image_size=start.image_size,
        frame_stride=start.frame_stride,
    )


# Random masks of 0.5 for all but finding 1: tubes need more time to leave the plateau of the loss
# than one point may take, and at 0.75 chance decides whether motion is learned by then. What has
# not learned it says nothing about labels, data or decoders.
BASE = masked("random", 0.5)
# How far two pre-trainings are apart that differ in nothing but chance.
AGAIN = masked("random", 0.5, seed=1)
EDGE = (masked("random", 0.75), masked("random", 0.75, seed=1))
OBJECT = masked("random", 0.5, domain="object")
OBJECT_AGAIN = masked("random", 0.5, domain="object", seed=1)
# Every number of clips is seen for about 3,740 steps.
FEWER_CLIPS = (
    masked("random", 0.5, clips=300, epochs=208),
    masked("random", 0.5, clips=1000, epochs=60),
)
MORE_OF_CAMERA = masked("random", 0.5, clips=10_000, epochs=6)
LESS_OF_OBJECT = masked("random", 0.5, domain="object", clips=1000, epochs=60)
# More labels, fewer epochs: 360, 360, 930 and 1,122 steps.
EPOCHS_OF_LABELS = {100: 60, 300: 20, 1000: 15, 3000: 6}
# For as many steps as the others' pre-training, about 3,740.
EPOCHS_OF_LONGER_SCRATCH = {1000: 60, 300: 208, 100: 624}
# With 8 slices the most that frame masks can hide is 7, 0.875: 0.9 and 0.95 are the same.
HIGHEST = tuple(masked(mask, 0.9) for mask in MASKS)
OTHERS = (
    masked("tube", 0.75),
    masked("frame", 0.75),
    masked("tube", 0.5),
    masked("frame", 0.5),
    masked("tube", 0.95),
    masked("random", 0.95),
)
# Where a copy from another slice is right for all but the object.
STATIC = (masked("random", 0.75, domain="object"), masked("tube", 0.75, domain="object"))
LONGER = (masked("tube", 0.75, epochs=60), masked("tube", 0.75, epochs=150))
# 8 x 8 cells in place of 6 x 6, at the ratio at which tubes hide the least.
FINER = (masked("tube", 0.5, image_size=64), masked("random", 0.5, image_size=64))
ABLATIONS = (
    masked("random", 0.5, decoder_depth=1),
    masked("random", 0.5, decoder_depth=4),
    masked("random", 0.5, norm_pix_loss=False),
    masked("random", 0.5, decoder_mask_ratio=0.5),
    masked("random", 0.5, decoder_mask_ratio=0.75),
    masked("random", 0.5, frame_stride=1),
    masked("random", 0.5, num_repeats=2, epochs=10),
)


def labelled(start: Pretraining | None, labels: int) -> Finetuning:
    """Finding 2: a fine-tuning on so many labels."""
    return tuned(start, labels=labels, epochs=EPOCHS_OF_LABELS[labels])


FULL = Plan(
    (
        *with_tuned(BASE),
        tuned(None),
        *with_tuned(AGAIN, *EDGE, *HIGHEST, *OTHERS),
        *(labelled(start, labels) for labels in (100, 1000, 3000) for start in (BASE, None)),
        *with_tuned(OBJECT),
        *(tuned(start, domain="object") for start in (BASE, AGAIN, None)),
        *with_tuned(LESS_OF_OBJECT),
        MORE_OF_CAMERA,
        tuned(MORE_OF_CAMERA, domain="object"),
        *ABLATIONS,
        *with_tuned(*FEWER_CLIPS, OBJECT_AGAIN),
        *(
            tuned(None, labels=labels, epochs=epochs)
            for labels, epochs in EPOCHS_OF_LONGER_SCRATCH.items()
        ),
        *with_tuned(*STATIC, *FINER, *LONGER),
        labelled(AGAIN, 100),
    ),
    why="Not tubes of 0.9, which [in trials](log.md) stayed on the plateau of the loss, nor random "
    "masks of 0.75, where chance decided.",
)

_QUICK_BASE = masked("frame", 0.5, clips=1000, epochs=45)
_QUICK_TUBES = masked("tube", 0.9, clips=1000, epochs=45)
QUICK = Plan(
    (
        _QUICK_BASE,
        tuned(_QUICK_BASE, epochs=12),
        tuned(None, epochs=12),
        tuned(_QUICK_BASE, domain="object", epochs=12),
        _QUICK_TUBES,
        tuned(_QUICK_TUBES, epochs=12),
        tuned(None, domain="object", epochs=12),
    ),
    Scale(held_out=300, probe_clips=300),
    why="Of all masks these are the soonest to learn motion.",
)
