"""The loop that pre-training and fine-tuning share: fetch, forward, backward, step, log, save."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from videomae.modeling import VideoMAEPreTrainedModel
from videomae.training.checkpoint import load_checkpoint, save_checkpoint
from videomae.training.data import Batch, ClipSource, num_steps, train_batches
from videomae.training.optim import lr_at, parameter_groups, set_lr
from videomae.training.report import RunLog, forget_after
from videomae.training.settings import TrainSettings
from videomae.training.setup import Machine, updater

# (batch, rows of it, step) -> mean loss of these rows
BatchLoss = Callable[[Batch, slice, int], Tensor]


@dataclass(frozen=True)
class EpochEnd:
    """What a run does at the end of an epoch is up to it: draw, evaluate."""

    epoch: int  # finished, counted from 1
    step: int
    log: RunLog


def run_epochs(
    settings: TrainSettings,
    model: VideoMAEPreTrainedModel,
    source: ClipSource,
    machine: Machine,
    batch_loss: BatchLoss,
    *,
    title: str,
    layer_decay: float = 1.0,
) -> Iterator[EpochEnd]:
    """Train `model` in place, stopping at each end of an epoch to let the caller act.

    Takes up the checkpoint where `settings.resume` says so, saves one every `save_every_steps` and
    at the end. On SIGINT or SIGTERM the step is finished, a checkpoint saved, and KeyboardInterrupt
    raised.
    """
    optimizer = torch.optim.AdamW(
        parameter_groups(
            model,
            weight_decay=settings.weight_decay,
            num_layers=model.config.num_hidden_layers,
            layer_decay=layer_decay,
        ),
        betas=(0.9, settings.beta2),
    )
    steps_per_epoch = num_steps(len(source.videos), settings.batch_size)
    total = steps_per_epoch * settings.epochs
    step = 0
    if settings.resume:
        step = load_checkpoint(settings, model, optimizer)
        forget_after(settings.output, step)

    with (
        RunLog(settings, num_steps=total, title=title) as log,
        updater(machine, model, optimizer, clip_grad=settings.clip_grad) as update,
        _stop_signals() as stop,
    ):
        log.say(
            f"{title}: {len(source.videos)} videos, "
            f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {total} steps "
            f"of {settings.batch_size} clips, peak lr {settings.peak_lr:.2e}, {machine}"
        )
        losses: list[Tensor] = []
        num_clips, since = 0, time.perf_counter()
        for epoch in range(step // steps_per_epoch, settings.epochs):
            batches = train_batches(
                source,
                batch_size=settings.batch_size,
                epoch=epoch,
                start_step=step % steps_per_epoch,
                num_workers=settings.num_workers,
            )
            for batch in batches:
                lr = lr_at(
                    step,
                    peak=settings.peak_lr,
                    floor=settings.min_lr * settings.batch_size / 256,
                    num_warmup=settings.num_warmup_epochs * steps_per_epoch,
                    num_steps=total,
                )
                set_lr(optimizer, lr)
                losses.append(update(_bound(batch_loss, batch, step), len(batch.pixels)))
                num_clips += len(batch.pixels)
                step += 1
                if step % settings.log_every_steps == 0 or step == total:
                    mean = torch.stack(losses).mean().item()
                    speed = num_clips / (time.perf_counter() - since)
                    log.record(
                        step=step,
                        epoch=step / steps_per_epoch,
                        loss=mean,
                        lr=lr,
                        clips_per_second=speed,
                        num_bad_videos=len(source.bad),
                    )
                    log.advance(step, f"loss {mean:.3f}  {speed:.0f} clips/s")
                    losses, num_clips, since = [], 0, time.perf_counter()
                if step % settings.save_every_steps == 0 or step == total or stop.is_set():
                    save_checkpoint(settings, model, optimizer, step)
                if stop.is_set():
                    log.say(f"stopped after step {step}; go on with --resume")
                    raise KeyboardInterrupt
            paused = time.perf_counter()
            yield EpochEnd(epoch + 1, step, log)
            since += time.perf_counter() - paused
        log.draw_curve()
        for path, reason in source.bad.items():
            log.say(f"skipped {path}: {reason}")


def _bound(batch_loss: BatchLoss, batch: Batch, step: int) -> Callable[[slice], Tensor]:
    return lambda rows: batch_loss(batch, rows, step)


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step in progress is finished first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
