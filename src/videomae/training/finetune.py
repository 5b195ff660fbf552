"""Supervised fine-tuning: a pre-trained encoder, or one from scratch, learns to name classes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.modeling import VideoMAEForVideoClassification
from videomae.training.data import Batch, ClipSource, Videos, list_videos, normalize, split_folder
from videomae.training.evaluate import Evaluation, evaluate_model
from videomae.training.loop import run_epochs
from videomae.training.report import open_output
from videomae.training.settings import FinetuneSettings
from videomae.training.setup import Machine, save_model, sizes_of


def finetune(settings: FinetuneSettings) -> Evaluation | None:
    """Fine-tune on a folder per class; returns the evaluation where there is data for one.

    Writes into `settings.output`: the model (`model/`, opened by `from_pretrained`, with class
    names), `checkpoint.pt`, `log.jsonl`, `curve.png` and `results.json`. Videos for evaluation are
    taken from `settings.eval_data`, or from val/ or test/ beside train/ in `settings.data`; each
    counts once, with one centred clip, and an unreadable one counts as wrong.
    """
    machine = Machine.choose(settings.device, settings.dtype)
    train_folder, eval_folder = split_folder(settings.data, settings.eval_data)
    videos = list_videos(train_folder)
    if len(videos.classes) < 2:
        raise ConfigError(
            f"{train_folder} has {len(videos.classes)} class folders, and fine-tuning needs at "
            "least 2: put the videos of each class into a folder of its name"
        )
    held_out = list_videos(eval_folder, classes=videos.classes) if eval_folder else None
    open_output(settings)
    torch.manual_seed(settings.seed)
    model = make_model(settings, videos).to(machine.device).train()
    source = ClipSource(videos, model.config, settings)

    def batch_loss(batch: Batch, rows: slice, _step: int) -> Tensor:
        with machine.autocast():
            logits = model(normalize(batch.pixels[rows], machine.device)).logits
        labels = batch.labels[rows].to(machine.device)
        return F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)

    def evaluate() -> Evaluation | None:
        if held_out is None:
            return None
        return evaluate_model(model, held_out, machine=machine, num_workers=settings.num_workers)

    every = settings.eval_every_epochs
    for end in run_epochs(
        settings,
        model,
        source,
        machine,
        batch_loss,
        title="finetune",
        layer_decay=settings.layer_decay,
    ):
        if every and end.epoch % every == 0 and end.epoch < settings.epochs:
            evaluation = evaluate()
            if evaluation is not None:
                end.log.record(step=end.step, epoch=end.epoch, top1=evaluation.top1)
    save_model(model, settings.output)
    evaluation = evaluate()
    if evaluation is not None:
        evaluation.write(settings.output)
    return evaluation


def make_model(settings: FinetuneSettings, videos: Videos) -> VideoMAEForVideoClassification:
    """The classifier at its start: fresh, or the encoder of `settings.init` with a fresh head."""
    values = sizes_of(settings) | {
        "id2label": dict(enumerate(videos.classes)),
        "num_labels": len(videos.classes),
        "problem_type": "single_label_classification",
        "drop_path_rate": settings.drop_path_rate,
        "classifier_dropout_prob": settings.classifier_dropout,
    }
    if settings.init is not None:
        return VideoMAEForVideoClassification.from_pretrained(
            settings.init, dtype="float32", ignore_mismatched_sizes=True, **values
        )
    return VideoMAEForVideoClassification(VideoMAEConfig.preset(settings.preset, **values))
