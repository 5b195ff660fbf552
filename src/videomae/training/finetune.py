"""Supervised fine-tuning: a pre-trained encoder, or one from scratch, learns to name classes."""

import math
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Videos, has_split, load_videos
from videomae.errors import ConfigError
from videomae.evaluation.evaluate import Evaluation, evaluate_model, true_labels
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import ViewMaker, normalize
from videomae.report.card import model_card
from videomae.report.record import read_log
from videomae.settings import FinetuneSettings
from videomae.training.augment import mix, smooth_one_hot
from videomae.training.checkpoint import (
    check_begun,
    checkpoint_paths,
    is_finished,
    run_processor,
    save_model,
)
from videomae.training.data import Batch, ClipSource
from videomae.training.defaults import decide
from videomae.training.estimate import DryRun
from videomae.training.head import begin_with_head, fit_head
from videomae.training.log import finish, keep, own_output, say, say_model
from videomae.training.loop import EpochEnd, Training

_PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def finetune(settings: FinetuneSettings) -> Evaluation | None:
    """Fine-tune on labelled videos; returns the evaluation where there is data for one.

    Writes into `settings.output`: the model (`model/`, opened by `from_pretrained`, with class
    names), the one of the best evaluation (`best/`, where there are several), `checkpoints/`,
    `log.jsonl`, `index.html`, the features of a fitted head (`features.npz`), and what
    `Evaluation.write` leaves. Evaluated is on `settings.eval_data`, or split val or test of
    `settings.data`: each video counts once, with one centred clip, and an unreadable one counts as
    wrong.
    """
    machine = Machine.start(settings.device, settings.dtype, parallel=settings.parallel)
    with own_output(settings, machine, "finetune"):
        return _train(prepare(settings, machine), machine)


def _train(made: "Prepared", machine: Machine) -> Evaluation | None:
    """Make the steps that are left, and the products of each epoch."""
    settings, model, processor, held_out = made.settings, made.model, made.processor, made.held_out
    results = ["results.json"] if held_out else []
    begins = not checkpoint_paths(settings.output)
    if begins and settings.resume:
        check_begun(settings)  # before features are written
    # Earlier versions trained a head step by step, and left checkpoints to go on from.
    if begins and settings.train_only == "head":
        if is_finished(settings, 0, 0, *results):
            keep(settings, machine)
            return None
        ends = fit_head(settings, model, made.videos, processor, machine, made.facts)
    else:
        if begins and made.has_new_head and settings.head_init == "fitted":
            begin_with_head(settings, model, made.videos, processor, machine)
        training = make_training(settings, made, machine)
        if is_finished(settings, training.first_step, training.num_steps, *results):
            keep(settings, machine)
            return None
        ends = training.epochs()

    maker = ViewMaker(model.config, processor, on_damage=settings.on_damage)

    def save(end: EpochEnd, name: str, evaluation: Evaluation | None) -> None:
        card = model_card(settings, model, evaluation)
        save_model(end.model, processor, machine, settings.output / name, card)

    evaluation: Evaluation | None = None
    for end in ends:
        last, every = end.epoch == settings.epochs, settings.eval_every_epochs
        if held_out is None or not (last or (every and end.epoch % every == 0)):
            continue
        evaluation = evaluate_model(
            end.model, held_out, maker, machine=machine, num_workers=settings.num_workers
        )
        # Before the line in the log, so that one follows from the other when a run goes on.
        best, *_ = machine.gather([_best_score(settings.output)])
        if every and evaluation.score > best:
            save(end, "best", evaluation)
        end.log.record(
            step=end.step, epoch=end.epoch, score=evaluation.score, **evaluation.figures()
        )
        if not last:
            end.log.draw_page()
    save(end, "model", evaluation)
    if machine.is_main and evaluation is not None:
        evaluation.write(settings.output, maker=maker)
    finish(settings, machine)
    return evaluation


def _best_score(output: Path) -> float:
    """The highest score of the evaluations in the log."""
    scores = [row["score"] for row in read_log(output) if row.get("score") is not None]
    return max(scores, default=-math.inf)


def dry_run(settings: FinetuneSettings) -> DryRun:
    """Read the data, make the model and compute a few real steps, writing nothing."""
    if settings.train_only == "head":
        raise ConfigError(
            "train_only='head' has no steps to try: it looks at each video once; leave out dry_run"
        )
    machine = Machine.start(settings.device, settings.dtype, parallel=settings.parallel)
    made = prepare(settings, machine)
    return make_training(made.settings, made, machine).dry_run()


@dataclass(frozen=True)
class Prepared:
    """What fine-tuning starts from: videos to learn from and to evaluate on, and the model.

    settings: all decided. has_new_head: the classifier's weights are drawn, not loaded.
    """

    settings: FinetuneSettings
    videos: Videos
    held_out: Videos | None
    model: VideoMAEForVideoClassification
    has_new_head: bool
    processor: VideoMAEImageProcessor
    facts: dict[str, Any]


def prepare(settings: FinetuneSettings, machine: Machine) -> Prepared:
    """Read the lists of videos and make the model; nothing is written."""
    say(f"reading the list of videos in {settings.data}", machine)
    videos = load_videos(settings.data, settings.split, allow_addresses=settings.allow_addresses)
    if settings.problem != "regression" and len(videos.classes) < 2:
        raise ConfigError(
            f"{settings.data} has {len(videos.classes)} classes, and fine-tuning needs at "
            "least 2: put the videos of each class into a folder of its name"
        )
    make_targets(settings, videos)  # wrong labels raise before the model is read
    held_out = held_out_videos(settings, videos)
    facts = run_facts(settings, videos, held_out)
    if "not_evaluated" in facts:
        say(facts["not_evaluated"], machine)
    say_model(settings, machine)
    torch.manual_seed(settings.seed)
    model, has_new_head = make_model(settings, videos)
    settings = decide(settings, len(videos), model.config)
    processor = run_processor(settings, model.config)
    return Prepared(settings, videos, held_out, model.train(), has_new_head, processor, facts)


def make_training(settings: FinetuneSettings, made: Prepared, machine: Machine) -> Training:
    """The training of the model, ready to begin or to go on."""
    targets = make_targets(settings, made.videos)
    weights = class_weights(settings, targets).to(machine.device)

    def batch_loss(network: nn.Module, batch: Batch) -> Tensor:
        pixels = normalize(batch.pixels, made.processor, machine.device)
        wanted = targets[list(batch.index)].to(machine.device)
        if settings.mixes:
            draw = random.Random(f"{settings.seed} {batch.step} mix")  # the same in all parts
            pixels, wanted = mix(pixels, wanted, batch.partner, settings, draw)
        return problem_loss(settings, network(pixels).logits.float(), wanted, weights)

    return Training(
        settings,
        made.model,
        ClipSource(made.videos, made.model.config, settings),
        machine,
        batch_loss,
        title="finetune",
        layer_decay=settings.layer_decay,
        ema_decay=settings.ema_decay,
        facts=made.facts,
    )


def run_facts(
    settings: FinetuneSettings, videos: Videos, held_out: Videos | None
) -> dict[str, Any]:
    """What the page of the run shows: classes, videos to evaluate on, and the loss of guessing."""
    facts: dict[str, Any] = {"num_held_out": len(held_out or ())}
    if held_out is None:
        facts["not_evaluated"] = (
            f"not evaluated: {settings.data} has no val or test split; "
            "`videomae prepare --val-share 0.2` makes one, or name videos by --eval-data"
        )
    if settings.problem != "regression":
        facts["num_classes"] = len(videos.classes)
        # Of even shares: of the classes, or of yes and no for each.
        choices = 2 if settings.problem == "multi_label" else len(videos.classes)
        facts["baseline_loss"] = math.log(choices)
    return facts


def held_out_videos(settings: FinetuneSettings, videos: Videos) -> Videos | None:
    """The videos to evaluate on, or None where there are none."""
    classes = None if settings.problem == "regression" else videos.classes
    data = settings.eval_data or settings.data
    split = next((name for name in ("val", "test") if has_split(data, name)), None)
    if settings.eval_data is None and split is None:
        return None
    return load_videos(data, split, classes=classes, allow_addresses=settings.allow_addresses)


def make_targets(settings: FinetuneSettings, videos: Videos) -> Tensor:
    """The target of each video: shares of the classes (N, K), or values (N, 1)."""
    labels = true_labels(videos, settings.problem)
    if settings.problem == "single_label":
        return smooth_one_hot(labels, len(videos.classes), settings.label_smoothing)
    return labels.float().reshape(len(videos), -1)


def class_weights(settings: FinetuneSettings, targets: Tensor) -> Tensor:
    """The weight of each class (K): 1, or mean videos of a class / videos of this class.

    >>> class_weights(FinetuneSettings(class_weights="balanced"), torch.eye(2)[[0, 0, 0, 1]])
    tensor([0.6667, 2.0000])
    """
    counts = targets.sum(0)
    if settings.class_weights == "none":
        return torch.ones_like(counts)
    return counts.mean() / counts.clamp(min=1)


def problem_loss(
    settings: FinetuneSettings, logits: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    """The mean loss of logits (B, K) against targets (B, K)."""
    if settings.problem == "regression":
        return F.mse_loss(logits, targets)
    if settings.problem == "multi_label":
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weights)
    return F.cross_entropy(logits, targets, weight=weights)


def make_model(
    settings: FinetuneSettings, videos: Videos
) -> tuple[VideoMAEForVideoClassification, bool]:
    """The classifier at its start, and whether its head is fresh.

    All of it is fresh, or the encoder is that of `settings.init`, and the head too where that has
    one of as many classes.
    """
    classes = ("value",) if settings.problem == "regression" else videos.classes
    only_head = settings.train_only == "head"
    values = settings.sizes | {
        "id2label": dict(enumerate(classes)),
        "num_labels": len(classes),
        "problem_type": _PROBLEM_TYPES[settings.problem],
        "drop_path_rate": 0.0 if only_head else settings.drop_path_rate,
        "classifier_dropout_prob": settings.classifier_dropout,
    }
    model: VideoMAEForVideoClassification
    if settings.init is not None:
        with warnings.catch_warnings():
            # A fresh head is what fine-tuning is for; anything else that is new is warned of.
            fresh = r"[^;]*newly initialised, to be trained: ((, )?(fc_norm|classifier)\.\w+)+$"
            warnings.filterwarnings("ignore", message=fresh)
            loaded: Any = VideoMAEForVideoClassification.from_pretrained(
                settings.init,
                dtype="float32",
                ignore_mismatched_sizes=True,
                keep_final_norm=settings.keep_final_norm,
                use_mean_pooling=True,
                output_loading_info=True,
                **values,
            )
        model, report = loaded
        has_new_head = "classifier.weight" in report.newly_initialised
    else:
        model = VideoMAEForVideoClassification(VideoMAEConfig.preset(settings.preset, **values))
        has_new_head = True
    if has_new_head and isinstance(model.classifier, nn.Linear):
        model.classifier.weight.data.mul_(settings.head_scale)
    if has_new_head and settings.problem == "regression":
        # to begin at the mean, not at a far-off zero
        assert isinstance(model.classifier, nn.Linear)
        model.classifier.bias.data.fill_(sum(videos.values()) / len(videos))
    model.set_merge_tokens(settings.merge_tokens)
    if only_head:
        model.videomae.requires_grad_(False)
    return model, has_new_head
