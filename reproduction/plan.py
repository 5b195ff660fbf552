"""The experiments that test the paper's findings: the whole plan, as data.

An experiment is one pre-training, or one fine-tuning with all of its seeds. The most important
ones stand first: the plan is run from the top, and what is done at any time is of use.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.config import VideoMAEConfig
from videomae.settings import (
    Domain,
    FinetuneSettings,
    Mask,
    MotionSettings,
    Preset,
    PretrainSettings,
)

KINDS: tuple[Mask, ...] = ("tube", "random", "frame")


@dataclass(frozen=True)
class Scale:
    """The sizes that all experiments of a plan share."""

    preset: Preset = "micro"
    num_frames: int = 16
    video_frames: int = 32
    batch_size: int = 16
    held_out: int = 600
    """Test clips, of scenes that no training sees."""
    probe_clips: int = 1000
    """Labelled clips that a linear probe learns from."""

    def config(self, image_size: int) -> VideoMAEConfig:
        """The model of all experiments of one image size."""
        return VideoMAEConfig.preset(self.preset, image_size=image_size, num_frames=self.num_frames)

    def clips(self, experiment: "Experiment", folder: Path) -> dict[str, MotionSettings]:
        """The rendered sets that an experiment reads: train, test, and probe of a pre-training."""
        if isinstance(experiment, Pretraining):
            counts = {"train": experiment.clips, "test": self.held_out, "probe": self.probe_clips}
        else:
            counts = {"train": experiment.labels, "test": self.held_out}
        domain, size, found = experiment.domain, experiment.image_size, {}
        for use, count in counts.items():
            seed = 7 if use == "test" else 1
            found[use] = MotionSettings(
                folder / "data" / f"{domain}-{size}px-{seed}-{count}",
                clips=count, seed=seed, size=size, num_frames=self.video_frames, domain=domain,
                workers=2,
            )  # fmt: skip
        return found

    def settings(self) -> dict[str, Any]:
        """The settings that all runs share."""
        return {
            "preset": self.preset,
            "num_frames": self.num_frames,
            "crop_scales": (1.0, 0.875, 0.75),
            "num_workers": 1,
            "tracker": "none",
            "device": "cpu",
            "dtype": "float32",
            "log_every_steps": 10,
            "save_every_steps": 250,
            "keep_checkpoints": 1,
            "min_lr": 1e-5,
            "resume": True,
        }


@dataclass(frozen=True)
class Pretraining:
    """One masked pre-training, probed after each quarter of its epochs."""

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

    def settings(self, scale: Scale, folder: Path) -> PretrainSettings:
        """The settings of this run, with its data below `folder/data`.

        All steps have the same number of clips: with repeats, fewer videos are read for a step,
        and lr, which counts videos, makes up for it.
        """
        values = dataclasses.asdict(self) | scale.settings()
        for not_a_setting in ("name", "domain", "clips"):
            del values[not_a_setting]
        values["lr"] *= self.num_repeats
        return PretrainSettings(
            **values,
            data=scale.clips(self, folder)["train"].output,
            batch_size=scale.batch_size // self.num_repeats,
            warmup_epochs=self.epochs / 20,
            draw_every_epochs=self.epochs,
            keep_every_epochs=max(self.epochs // 4, 1),
        )


@dataclass(frozen=True)
class Finetuning:
    """Fine-tunings from one start that differ only in their seed."""

    name: str
    start: Pretraining | None
    """None: random weights."""
    domain: Domain = "camera"
    image_size: int = 48
    labels: int = 300
    epochs: int = 20
    frame_stride: int = 2
    lr: float = 1.6e-2
    seeds: tuple[int, ...] = (0, 1, 2)

    def settings(self, scale: Scale, folder: Path, *, init: Path | None) -> FinetuneSettings:
        """The settings of one of these runs; the seed is still to be set."""
        clips = scale.clips(self, folder)
        return FinetuneSettings(
            **scale.settings(),
            data=clips["train"].output,
            eval_data=clips["test"].output,
            image_size=self.image_size,
            init=None if init is None else str(init),
            epochs=self.epochs,
            frame_stride=self.frame_stride,
            batch_size=scale.batch_size,
            lr=self.lr,
            warmup_epochs=self.epochs / 10,
            layer_decay=0.85,
        )


Experiment = Pretraining | Finetuning


@dataclass(frozen=True)
class Plan:
    """Experiments in the order of their importance, each after the one that it starts from."""

    experiments: tuple[Experiment, ...]
    scale: Scale = Scale()

    @property
    def pretrainings(self) -> list[Pretraining]:
        return [each for each in self.experiments if isinstance(each, Pretraining)]

    @property
    def finetunings(self) -> list[Finetuning]:
        return [each for each in self.experiments if isinstance(each, Finetuning)]

    @property
    def base(self) -> Pretraining:
        """The pre-training that all others differ from: the first."""
        return self.pretrainings[0]

    def variants(self, like: Pretraining, *names: str) -> list[Pretraining]:
        """The pre-trainings that differ from one in no more than these settings, sorted."""
        same = {k: v for k, v in vars(like).items() if k not in ("name", *names)}
        found = [each for each in self.pretrainings if same.items() <= vars(each).items()]
        return sorted(
            found,
            key=lambda p: (
                p.domain, KINDS.index(p.mask), p.mask_ratio, p.clips, p.epochs, p.seed
            ),
        )  # fmt: skip


def masked(mask: Mask, ratio: float, **values: Any) -> Pretraining:
    """A pre-training named after its mask, and after the settings that are not the usual ones."""
    return Pretraining(f"{mask}-{ratio:.2f}{_named(values)}", mask=mask, mask_ratio=ratio, **values)


def tuned(start: Pretraining | None, **values: Any) -> Finetuning:
    """A fine-tuning named after its start, and after the settings that are not the usual ones."""
    return Finetuning(
        f"{start.name if start else 'scratch'}-tuned{_named(values)}", start, **values
    )


def _named(values: dict[str, Any]) -> str:
    """
    >>> _named({"domain": "object", "epochs": 60})
    '-object-epochs60'
    """
    return "".join(
        f"-{value}" if isinstance(value, str) else f"-{key}{value}" for key, value in values.items()
    )


def with_tuned(*starts: Pretraining) -> tuple[Experiment, ...]:
    """Each pre-training, and its fine-tuning on 300 labels of the same kind of clips."""
    return tuple(
        experiment
        for start in starts
        for experiment in (
            start,
            Finetuning(f"{start.name}-tuned", start, start.domain, start.image_size),
        )
    )


# Random masks of 0.5 for all but finding 1: tubes need more time to leave the plateau of the loss
# than one experiment may take, and at 0.75 chance decides whether motion is learned by then. A
# model that has not learned it says nothing about labels, data or decoders.
BASE = masked("random", 0.5)
AGAIN = masked("random", 0.5, seed=1)  # what the seed of a pre-training changes
OBJECT = masked("random", 0.5, domain="object")
MORE_CLIPS = masked("random", 0.5, clips=10_000, epochs=6)
# More labels, fewer epochs: 360, 360, 930 and 1,122 steps.
EPOCHS_OF_LABELS = {100: 60, 300: 20, 1000: 15, 3000: 6}
# From random weights for as many steps as the pre-training of the others takes, about 3,740.
EPOCHS_OF_LONGER_SCRATCH = {1000: 60, 300: 208, 100: 624}

FULL = Plan(
    (
        *with_tuned(BASE),
        tuned(None),
        # Finding 1. With 8 slices frame masks hide at most 7, 0.875: 0.9 and 0.95 are the same.
        *with_tuned(AGAIN, masked("random", 0.75), masked("random", 0.75, seed=1)),
        *with_tuned(*(masked(mask, 0.9) for mask in KINDS)),
        *with_tuned(*(masked(mask, ratio) for ratio in (0.75, 0.5) for mask in ("tube", "frame"))),
        *with_tuned(masked("tube", 0.95), masked("random", 0.95)),
        # Finding 2.
        *(
            tuned(start, labels=labels, epochs=EPOCHS_OF_LABELS[labels])
            for labels in (100, 1000, 3000)
            for start in (BASE, None)
        ),
        # Finding 3.
        *with_tuned(OBJECT),
        *(tuned(start, domain="object") for start in (BASE, AGAIN, None)),
        *with_tuned(masked("random", 0.5, domain="object", clips=1000, epochs=60)),
        MORE_CLIPS,
        tuned(MORE_CLIPS, domain="object"),
        # What else the paper ablates.
        *(masked("random", 0.5, decoder_depth=depth) for depth in (1, 4)),
        masked("random", 0.5, norm_pix_loss=False),
        *(masked("random", 0.5, decoder_mask_ratio=ratio) for ratio in (0.5, 0.75)),
        masked("random", 0.5, frame_stride=1),
        masked("random", 0.5, num_repeats=2, epochs=10),
        # Fewer clips, each for about 3,740 steps.
        *with_tuned(masked("random", 0.5, clips=300, epochs=208)),
        *with_tuned(masked("random", 0.5, clips=1000, epochs=60)),
        *with_tuned(masked("random", 0.5, domain="object", seed=1)),
        *(tuned(None, labels=n, epochs=epochs) for n, epochs in EPOCHS_OF_LONGER_SCRATCH.items()),
        # Where a copy from another slice is right for all but the object.
        *with_tuned(*(masked(mask, 0.75, domain="object") for mask in ("random", "tube"))),
        # 8 x 8 cells in place of 6 x 6, at the ratio at which tubes hide the least.
        *with_tuned(*(masked(mask, 0.5, image_size=64) for mask in ("tube", "random"))),
        # Longer, in case the plateau alone decides.
        *with_tuned(*(masked("tube", 0.75, epochs=epochs) for epochs in (60, 150))),
        tuned(AGAIN, labels=100, epochs=EPOCHS_OF_LABELS[100]),
    )
)

# Of all masks, these of frames are the soonest to learn motion.
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
)
