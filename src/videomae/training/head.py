"""A head that is fitted: the features of a frozen encoder, computed once, a linear map on them.

It is all that `train_only="head"` makes, and what `head_init="fitted"` begins with: a random head
would send random gradients through the encoder first (Kumar et al. 2022, "Fine-tuning can distort
pretrained features").

N videos, V clips of each, D features, K classes or values.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.data.manifest import Videos
from videomae.errors import VideoError
from videomae.evaluation.classifiers import (
    check_two_classes,
    fit_several,
    fit_values,
    fit_weights,
    new_linear,
)
from videomae.evaluation.evaluate import true_labels
from videomae.evaluation.features import (
    FEATURES_NAME,
    Features,
    compute_features,
    stored_or_computed,
)
from videomae.evaluation.partial import Partial, answers_key
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import ViewMaker
from videomae.settings import FinetuneSettings
from videomae.training.log import RunLog, open_output
from videomae.training.loop import EpochEnd, check_bad

# What has no meaning for features that are computed once.
_UNUSED = (
    "lr", "epochs", "warmup_epochs", "layer_decay", "label_smoothing", "classifier_dropout",
    "head_init", "head_scale", "ema_decay", "crop_scales", "crop", "flip", "rand_augment_ops",
    "erase_prob", "mixup_alpha", "cutmix_alpha",
)  # fmt: skip


def fit_head(
    settings: FinetuneSettings,
    model: VideoMAEForVideoClassification,
    videos: Videos,
    processor: VideoMAEImageProcessor,
    machine: Machine,
    facts: Mapping[str, Any],
) -> Iterator[EpochEnd]:
    """Give `model` the linear head that suits the features of `videos` best: one end of an epoch.

    Each video is looked at once, in `num_repeats` centred clips spread over it, without
    augmentation. The features, behind the model's own pooling and norm, lie in the run's folder as
    features.npz, and are taken from there by a run that goes on. The head is found as a linear
    probe finds its own: logistic regression, its penalty chosen on a fifth of the videos.
    """
    new_linear()  # a missing package raises before the work
    open_output(settings, machine, {**facts, "num_steps": settings.epochs})
    with RunLog(settings, machine, num_steps=len(videos), title="head") as log:
        defaults = FinetuneSettings(epochs=1)
        unused = [n for n in _UNUSED if getattr(settings, n) != getattr(defaults, n)]
        if unused:
            log.say(
                "train_only=head computes features once, and has no use for: " + ", ".join(unused)
            )
        loss, counts = _fit(settings, model, videos, processor, machine, log)
        epoch = settings.epochs
        log.record(step=epoch, epoch=epoch, loss=loss, **counts)
        yield EpochEnd(epoch, epoch, log, model)


def begin_with_head(
    settings: FinetuneSettings,
    model: VideoMAEForVideoClassification,
    videos: Videos,
    processor: VideoMAEImageProcessor,
    machine: Machine,
) -> None:
    """Give `model` the head of `fit_head` before the first of its steps; a bar is all that shows.

    A run that was stopped before its first checkpoint takes the features that lie in its folder.
    """
    new_linear()  # a missing package raises before the work
    silent = dataclasses.replace(settings, tracker="none", resume=False)
    with RunLog(silent, machine, num_steps=len(videos), title="head") as log:
        loss, _ = _fit(settings, model, videos, processor, machine, log)
        log.say(f"the head begins as it fits the features of the encoder, at a loss of {loss:.3g}")
    model.train()


def _fit(
    settings: FinetuneSettings,
    model: VideoMAEForVideoClassification,
    videos: Videos,
    processor: VideoMAEImageProcessor,
    machine: Machine,
    log: RunLog,
) -> tuple[float, dict[str, int]]:
    """Fit the head in place: its loss, and how many videos could not be read, or in part."""
    model.classifier = nn.Identity()
    model.to(machine.device).eval()
    maker = ViewMaker(
        model.config, processor, num_clips=settings.num_repeats, on_damage=settings.on_damage
    )
    path, key = settings.output / FEATURES_NAME, answers_key(model, maker, machine, videos)

    def compute(partials: list[Partial]) -> list[Features]:
        return [
            compute_features(
                model,
                videos,
                maker,
                lambda output: output.logits.float(),  # (B, D)
                machine=machine,
                batch_size=settings.batch_size,
                num_workers=settings.num_workers,
                on_progress=log.show,
                partial=partials[0],
            )
        ]

    (features,), reused = stored_or_computed(path, key, [videos], machine, compute)
    if reused:
        log.say(f"the features are those of {path}")
    check_bad(settings, videos, features.bad)
    log.list_bad(videos, features.bad)
    rows, targets, of_video = _readable(settings, features)
    model.classifier = _fitted(settings, rows, targets, of_video, len(videos.classes))
    loss = float(model.loss(model.classifier(rows).detach(), targets))
    model.to(machine.device)
    num_damaged = len(dict(machine.gather(maker.damaged.items())))
    damaged = {"num_damaged_videos": num_damaged} if num_damaged else {}
    return loss, {"num_bad_videos": len(features.bad), **damaged}


def _readable(settings: FinetuneSettings, features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Rows to learn from (M, D), their targets, and the number of the video of each (M)."""
    videos, values = features.videos, features.values
    kept = torch.tensor([row for row in range(len(videos)) if row not in features.bad]).long()
    if not len(kept):
        raise VideoError(f"none of {len(videos)} videos to learn from can be read")
    of_video = kept.repeat_interleave(values.shape[1])
    targets = true_labels(videos, settings.problem)
    return values[kept].flatten(0, 1), targets[of_video], of_video


def _fitted(
    settings: FinetuneSettings, rows: Tensor, targets: Tensor, of_video: Tensor, num_classes: int
) -> nn.Linear:
    """The head that fits the rows best."""
    balanced = settings.class_weights == "balanced"
    if settings.problem == "regression":
        weight, bias = fit_values(rows, targets)
    elif settings.problem == "multi_label":
        weight, bias = fit_several(rows, targets, of_video, balanced=balanced)
    else:
        check_two_classes(targets)
        weight, bias = fit_weights(rows, targets, of_video, num_classes, balanced=balanced)
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.weight.data, head.bias.data = weight, bias
    return head
