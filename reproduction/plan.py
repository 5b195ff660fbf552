"""The experiments that test the paper's findings: the whole plan, as data.

An experiment is one pre-training, or one fine-tuning with all of its seeds. What decides stands
first: the plan is run from the top, and what is done at any time is of use.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reproduction.motion import MotionSettings
from videomae.config import VideoMAEConfig
from videomae.settings import (
    ActionsSettings,
    FinetuneSettings,
    Mask,
    Preset,
    PretrainSettings,
    RenderSettings,
)

ClipKind = Literal["actions", "motion"]


@dataclass(frozen=True)
class Scale:
    """The sizes that all experiments of a plan share."""

    preset: Preset = "micro"
    image_size: int = 64
    num_frames: int = 16
    video_frames: int = 32
    batch_size: int = 64
    tuned_batch_size: int = 32
    labelled: int = 3000
    """Labelled clips of people, from which the probes learn."""
    held_out: int = 600
    """Test clips: other people before other grounds, or other planes."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"

    def config(self, preset: Preset | None = None) -> VideoMAEConfig:
        """The model of a pre-training; by default that of most."""
        sizes = {"image_size": self.image_size, "num_frames": self.num_frames}
        return VideoMAEConfig.preset(preset or self.preset, **sizes)

    def rendered(self, kind: ClipKind, count: int, seed: int, folder: Path) -> RenderSettings:
        """The settings of a rendered set below a folder."""
        output = folder / "data" / f"{kind}-{self.image_size}px-{seed}-{count}"
        if kind == "motion":
            return MotionSettings(
                output, clips=count, seed=seed, size=self.image_size, num_frames=self.video_frames
            )
        labelled = self.labelled_set(folder)
        if (count, seed) == (labelled.clips, labelled.seed):
            return labelled
        return dataclasses.replace(labelled, output=output, clips=count, seed=seed, test_clips=0)

    def labelled_set(self, folder: Path) -> ActionsSettings:
        """Clips of people with labels: what probes learn from, and all are tested on."""
        return ActionsSettings(
            folder / "data" / f"actions-{self.image_size}px-labelled-{self.labelled}",
            clips=self.labelled,
            seed=2,
            size=self.image_size,
            num_frames=self.video_frames,
            test_clips=self.held_out,
        )

    def settings(self) -> dict[str, Any]:
        """The settings that all runs share."""
        return {
            "image_size": self.image_size,
            "num_frames": self.num_frames,
            "frame_stride": 2,
            "crop_scales": (1.0, 0.875, 0.75),
            "num_workers": 1,
            "tracker": "none",
            "device": "cpu",
            "dtype": self.dtype,
            "log_every_steps": 10,
            "save_every_steps": 100,
            "keep_checkpoints": 1,
            "resume": True,
        }


@dataclass(frozen=True)
class Pretraining:
    """One masked pre-training; models are kept and probed at equal distances."""

    name: str
    mask: Mask
    mask_ratio: float
    kind: ClipKind = "actions"
    clips: int = 10_000
    epochs: int = 20
    preset: Preset | None = None
    """None: that of the plan."""
    warmup_clips: int = 10_000
    num_probes: int = 4
    seed: int = 0

    @property
    def clips_seen(self) -> int:
        return self.clips * self.epochs

    def sets(self, scale: Scale, folder: Path) -> list[RenderSettings]:
        """The rendered sets that it needs."""
        own = scale.rendered(self.kind, self.clips, 1, folder)
        return [own, scale.labelled_set(folder)]

    def settings(self, scale: Scale, folder: Path) -> PretrainSettings:
        """The settings of this run, with its data below `folder/data`."""
        return PretrainSettings(
            **scale.settings(),
            data=scale.rendered(self.kind, self.clips, 1, folder).output,
            preset=self.preset or scale.preset,
            mask=self.mask,
            mask_ratio=self.mask_ratio,
            decoder_mask_ratio=0.5,
            epochs=self.epochs,
            batch_size=scale.batch_size,
            lr=6e-3,
            min_lr=4e-5,
            warmup_epochs=min(self.warmup_clips / self.clips, self.epochs / 10),
            seed=self.seed,
            draw_every_epochs=self.epochs,
            keep_every_epochs=max(self.epochs // self.num_probes, 1),
        )


@dataclass(frozen=True)
class Finetuning:
    """Fine-tunings from one start that differ only in their seed."""

    name: str
    start: Pretraining | None
    """None: random weights."""
    labels: int
    epochs: int
    kind: ClipKind = "actions"
    head_init: Literal["fitted", "drawn"] = "fitted"
    seeds: tuple[int, ...] = (0, 1, 2)

    def sets(self, scale: Scale, folder: Path) -> list[RenderSettings]:
        """The rendered sets: what it learns from, and what it is tested on."""
        test: RenderSettings = scale.labelled_set(folder)
        if self.kind == "motion":
            test = scale.rendered("motion", scale.held_out, 3, folder)
        return [scale.rendered(self.kind, self.labels, 2, folder), test]

    def settings(self, scale: Scale, folder: Path, *, init: Path | None) -> FinetuneSettings:
        """The settings of one of these runs; the seed is still to be set."""
        own, test = self.sets(scale, folder)
        # what lets a small model learn most in so few steps (docs/log.md)
        gentle = {"crop_scales": (1.0,), "layer_decay": 1.0, "drop_path_rate": 0.0}
        return FinetuneSettings(
            **scale.settings() | gentle,
            data=own.output,
            eval_data=test.output,
            preset=scale.preset,
            init=None if init is None else str(init),
            epochs=self.epochs,
            batch_size=scale.tuned_batch_size,
            head_init=self.head_init,
            lr=8e-3,
            min_lr=8e-5,
            warmup_epochs=self.epochs / 10,
        )


Experiment = Pretraining | Finetuning


@dataclass(frozen=True)
class Plan:
    """Steps by name, in the order of their importance; each is a page worth reading by itself.

    The first pre-training is the one that the others are compared with.
    """

    steps: dict[str, tuple[Experiment, ...]]
    scale: Scale = Scale()

    @property
    def experiments(self) -> list[Experiment]:
        """Each stands after the one that it starts from."""
        return [each for step in self.steps.values() for each in step]

    @property
    def pretrainings(self) -> list[Pretraining]:
        return [each for each in self.experiments if isinstance(each, Pretraining)]

    @property
    def finetunings(self) -> list[Finetuning]:
        return [each for each in self.experiments if isinstance(each, Finetuning)]


def masked(mask: Mask, ratio: float, **values: Any) -> Pretraining:
    """A pre-training named after its mask, and after the settings that are not the usual ones.

    >>> masked("tube", 0.9, seed=1).name
    'tube-0.90-seed1'
    """
    return Pretraining(f"{mask}-{ratio:.2f}{_named(values)}", mask, ratio, **values)


def _named(values: dict[str, Any]) -> str:
    return "".join(
        f"-{value}" if isinstance(value, str) else f"-{key}{value}" for key, value in values.items()
    )


# More labels, fewer epochs: 120, 180, 248 and 372 steps.
EPOCHS = {100: 40, 300: 20, 1000: 8, 3000: 4}


def tuned(start: Pretraining | None, labels: int = 300, **values: Any) -> Finetuning:
    """A fine-tuning named after its start, its labels, and what else is not usual."""
    name = f"{start.name if start else 'scratch'}-labels{labels}{_named(values)}"
    if "epochs" not in values:
        values["epochs"] = EPOCHS[labels]
    return Finetuning(name, start, labels, **values)


def twice(experiment: Pretraining) -> Pretraining:
    """The same with another seed."""
    return dataclasses.replace(experiment, name=f"{experiment.name}-seed1", seed=1)


TUBE, RANDOM = masked("tube", 0.9), masked("random", 0.75)
# The same preset and clips as the shipped model, and as many of these: the method given its time.
LONG = Pretraining(
    "tube-0.90-long", "tube", 0.9, preset="tiny", epochs=150, warmup_clips=30_000, num_probes=10
)
OTHERS = (
    masked("tube", 0.75),
    masked("frame", 0.75),
    masked("random", 0.9),
    masked("tube", 0.5),
)
_SIZES = {1000: 200, 3000: 67}  # clips -> epochs, for as many steps
PEOPLE = [masked("tube", 0.9, clips=n, epochs=epochs) for n, epochs in _SIZES.items()]
MOTION = [
    masked("tube", 0.9, kind="motion", clips=n, epochs=epochs)
    for n, epochs in {**_SIZES, 10_000: 20}.items()
]

# Labels in other numbers, and motion, are fine-tuned from the pre-trainings with the other seed.
_STARTS = (twice(TUBE), twice(RANDOM), None)

FULL = Plan(
    {
        "1. tube 0.9 and random 0.75, two seeds": (
            *(arm for arm in (TUBE, RANDOM, *_STARTS) if arm),
            *(tuned(start) for start in (TUBE, RANDOM, *_STARTS)),
        ),
        "2. fewer and more labels": (
            *(tuned(start, 100) for start in (TUBE, RANDOM, None)),
            *(tuned(start, 1000) for start in _STARTS),
            # For as long as a pre-training and its fine-tuning take together, each seed.
            dataclasses.replace(tuned(None, 300, epochs=160), seeds=(0, 1)),
        ),
        "3. as many clips of motion, and fewer of people": (
            *(each for start in (MOTION[2], PEOPLE[0]) for each in (start, tuned(start))),
            *(tuned(start, kind="motion") for start in (twice(TUBE), MOTION[2], None)),
        ),
        "1. other masks": tuple(each for arm in OTHERS for each in (arm, tuned(arm))),
        "3. other numbers": tuple(
            each for start in (MOTION[0], PEOPLE[1], MOTION[1]) for each in (start, tuned(start))
        ),
        "a longer pre-training": (LONG,),
    }
)

_QUICK_ARMS = tuple(
    dataclasses.replace(arm, clips=2000, epochs=40, num_probes=2) for arm in (RANDOM, TUBE)
)
QUICK = Plan(
    {
        "masks and labels": (
            *_QUICK_ARMS,
            *(tuned(start, seeds=(0, 1)) for start in (*_QUICK_ARMS, None)),
        )
    },
    Scale(labelled=1000, held_out=300),
)
