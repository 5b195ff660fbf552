"""What is run to see whether the paper's findings hold: the whole plan, as data.

A point is one pre-training, or one fine-tuning with all of its seeds. Those that matter most stand
first: the plan is run from the top, so that each prefix of it is an experiment.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.motion import Domain
from videomae.training.settings import FinetuneSettings, Mask, Preset, PretrainSettings


@dataclass(frozen=True)
class Clips:
    """A rendered set: the first `count` scenes of a seed in one domain."""

    domain: Domain
    count: int
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.domain}-{self.seed}-{self.count}"


@dataclass(frozen=True)
class Scale:
    """What all points of a plan share: sizes of clips, model and batches, and what is tested on."""

    preset: Preset = "micro"
    image_size: int = 48
    num_frames: int = 16
    video_frames: int = 32
    batch_size: int = 16
    held_out: int = 600
    """Clips that are tested on, of scenes that nothing learns from."""
    probe_clips: int = 1000
    """Labelled clips that a linear probe learns from."""

    def tested(self, domain: Domain) -> Clips:
        return Clips(domain, self.held_out, seed=7)


@dataclass(frozen=True)
class Pretraining:
    """One masked pre-training, probed at four milestones and at its end."""

    name: str
    domain: Domain = "camera"
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
        return Clips(self.domain, self.clips)

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
    labels: int = 300
    epochs: int = 20
    frame_stride: int = 2
    lr: float = 1.6e-2
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def data(self) -> Clips:
        return Clips(self.domain, self.labels)

    def settings(self, scale: Scale, folder: Path, *, init: Path | None) -> FinetuneSettings:
        """The settings of one of these runs; the seed is still to be set."""
        return FinetuneSettings(
            **_shared(scale),
            data=folder / "data" / self.data.name,
            eval_data=folder / "data" / scale.tested(self.domain).name,
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

    def clips(self) -> tuple[Clips, ...]:
        """Every rendered set that the points read, each once, in the order of its first use."""
        found: dict[Clips, None] = {}
        for point in self.points:
            found[point.data] = None
            found[self.scale.tested(point.domain)] = None
            if isinstance(point, Pretraining):
                found[Clips(point.domain, self.scale.probe_clips)] = None
        return tuple(found)


def _shared(scale: Scale) -> dict[str, Any]:
    return {
        "preset": scale.preset,
        "image_size": scale.image_size,
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
FEW_LABELS = 300


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
    """Each pre-training, and the fine-tuning of it on the usual few labels of its own domain."""
    return tuple(point for start in starts for point in (start, tuned_at_home(start)))


def tuned_at_home(start: Pretraining) -> Finetuning:
    """The fine-tuning on a pre-training's own domain and frame_stride."""
    values = {key: getattr(start, key) for key in ("domain", "frame_stride")}
    usual = {"domain": "camera", "frame_stride": 2}
    point = tuned(start)
    return dataclasses.replace(point, **{k: v for k, v in values.items() if v != usual[k]})


BASE = masked("tube", 0.9)
OBJECT = masked("tube", 0.9, domain="object")
LABELS = (100, 300, 1000, 3000)
# More labels, fewer epochs: between 375 and 1,870 steps.
EPOCHS_OF_LABELS = {100: 60, 300: 20, 1000: 15, 3000: 10}


def labelled(start: Pretraining | None, labels: int) -> Finetuning:
    """Finding 2: a fine-tuning on so many labels."""
    if labels == FEW_LABELS:
        return tuned(start)
    return tuned(start, labels=labels, epochs=EPOCHS_OF_LABELS[labels])


# Every clip count is seen for about 3,740 steps.
FEWER_CLIPS = (
    masked("tube", 0.9, clips=300, epochs=208),
    masked("tube", 0.9, clips=1000, epochs=60),
)
MORE_OF_A = masked("tube", 0.9, clips=10_000, epochs=6)
LESS_OF_B = masked("tube", 0.9, domain="object", clips=1000, epochs=60)
# Of frame masks with 8 slices, 0.875 is the most that leaves one: 0.9 and 0.95 hide as many.
GRID = tuple(
    masked(mask, ratio)
    for ratio in (0.9, 0.75, 0.5, 0.95)
    for mask in MASKS
    if (mask, ratio) != ("frame", 0.95)
)
STATIC = tuple(
    masked(mask, ratio, domain="object")
    for ratio in (0.9, 0.75, 0.95, 0.5)
    for mask in ("tube", "random")
)
LONGER = tuple(masked(mask, 0.9, epochs=60) for mask in ("tube", "random"))
ABLATIONS = (
    masked("tube", 0.9, decoder_depth=1),
    masked("tube", 0.9, decoder_depth=4),
    masked("tube", 0.9, norm_pix_loss=False),
    masked("tube", 0.9, frame_stride=1),
    masked("tube", 0.9, num_repeats=2, epochs=10),
    masked("tube", 0.9, decoder_mask_ratio=0.5),
)

FULL = Plan(
    tuple(
        dict.fromkeys(  # each once, where it stands first
            (
                BASE,
                masked("random", 0.9),
                tuned(BASE),
                tuned(None),
                tuned(masked("random", 0.9)),
                *with_tuned(OBJECT),
                tuned(BASE, domain="object"),
                tuned(None, domain="object"),
                *with_tuned(*GRID[:6]),
                labelled(BASE, 100),
                labelled(None, 100),
                labelled(BASE, 1000),
                labelled(None, 1000),
                LESS_OF_B,
                tuned(LESS_OF_B, domain="object"),
                MORE_OF_A,
                tuned(MORE_OF_A, domain="object"),
                *with_tuned(*STATIC[:4]),
                *with_tuned(*GRID[6:]),
                *with_tuned(*FEWER_CLIPS),
                *with_tuned(*ABLATIONS),
                labelled(BASE, 3000),
                labelled(None, 3000),
                tuned(None, epochs=80),
                *with_tuned(*STATIC[4:]),
                *with_tuned(*LONGER),
            )
        )
    )
)

_QUICK_BASE = masked("tube", 0.9, clips=1000, epochs=16)
QUICK = Plan(
    (
        *with_tuned(_QUICK_BASE),
        tuned(None),
        *with_tuned(masked("random", 0.9, clips=1000, epochs=16)),
    ),
    Scale(held_out=300, probe_clips=300),
)
