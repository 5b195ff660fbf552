"""The loop of pre-training and fine-tuning: fetch, forward, backward, clip, step, log, save."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine, clip_gradients, step_seed
from videomae.errors import ConfigError, VideoError
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.settings import TrainSettings
from videomae.training.checkpoint import check_room, load_checkpoint, save_checkpoint
from videomae.training.data import Batch, ClipSource, Sampler, train_batches
from videomae.training.log import Meter, RunLog
from videomae.training.optim import (
    learning_rate,
    make_ema,
    make_optimizer,
    scale_gradients,
    set_lr,
)

# (network, batch) -> mean loss of the batch's clips
BatchLoss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch, where a run draws or evaluates as it likes.

    epoch: finished, counted from 1. model: the one to evaluate and to save, which is the trained
    model or has the running means of its weights.
    """

    epoch: int
    step: int
    log: RunLog
    model: Any


def run_epochs(
    settings: TrainSettings,
    model: VideoMAEPreTrainedModel,
    source: ClipSource,
    machine: Machine,
    batch_loss: BatchLoss,
    *,
    title: str,
    layer_decay: float = 1.0,
    ema_decay: float = 0.0,
) -> Iterator[EpochEnd]:
    """Train `model` in place, stopping at each end of an epoch to let the caller act.

    The gradient of a step is that of the mean over all clips of all parts and processes; what an
    unreadable video leaves out is left out of the mean. A loss or a gradient that is no number
    leaves the weights as they are.

    With `settings.resume` the run goes on from its last checkpoint, if there is one, first of all
    with the end of an epoch if it stands at one. A checkpoint is saved every `save_every_steps` and
    at the end. On SIGINT or SIGTERM, to any process, the step is finished, a checkpoint saved, and
    KeyboardInterrupt raised.
    """
    check_room(settings, model)
    num_parameters = model.num_parameters()
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable()
    if settings.compile:
        model.compile()
    network = machine.place(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(settings, model, layer_decay)
    scaler = machine.grad_scaler()
    ema = make_ema(model, ema_decay) if ema_decay else None
    first = load_checkpoint(settings, network, optimizer, ema) if settings.resume else 0

    sampler = make_sampler(settings, source, machine)
    epoch_steps, num_steps = sampler.steps_per_epoch, sampler.steps_per_epoch * settings.epochs
    clips_per_step = sampler.videos_per_step * settings.num_repeats
    made = train_batches(
        source,
        sampler,
        first_step=first,
        num_steps=num_steps,
        num_workers=settings.num_workers,
        pin_memory=machine.device.type == "cuda",
    )
    watch, meter = _Watch(settings, source, machine), Meter()
    with (
        RunLog(settings, machine, num_steps=num_steps, title=title, first_step=first) as log,
        contextlib.closing(made) as batches,
        _stop_signals() as stop,
    ):
        if settings.resume and not first:
            log.say(f"nothing to resume in {settings.output}: starting from the beginning")
        if settings.workers == "processes":
            log.say("workers=processes is a setting of earlier versions: threads decode")
        log.say(
            f"{title}: {len(source.videos)} videos, {num_parameters / 1e6:.1f} M parameters, "
            f"{num_steps} steps of {clips_per_step} clips, peak lr {settings.peak_lr:.2e}, "
            f"{machine}" + (f"; from step {first}" if first else "")
        )

        def epoch_end(step: int) -> EpochEnd:
            return EpochEnd(step // epoch_steps, step, log, ema.module if ema else model)

        if first and first % epoch_steps == 0:
            yield epoch_end(first)
        for step in range(first, num_steps):
            lr = learning_rate(settings, step, epoch_steps)
            set_lr(optimizer, lr)
            torch.manual_seed(step_seed(settings.seed, step, machine.rank))

            own_loss, own_clips = torch.zeros((), device=machine.device), 0
            for number in range(settings.accumulate):
                with meter.timed("data"):
                    batch = next(batches)
                watch.look(batch)
                # each process averages over its own clips, and gradients over the processes
                share = batch.num_clips * machine.world / clips_per_step
                with machine.sharing(network, number == settings.accumulate - 1):
                    with meter.timed("forward"), machine.autocast():
                        loss = batch_loss(network, batch) * share
                    with meter.timed("backward"):
                        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                own_loss += loss.detach() / machine.world
                own_clips += batch.num_clips
            with meter.timed("backward"):  # waits for the device, and for the other processes
                total, num_clips, stops = machine.sum(float(own_loss), own_clips, stop.is_set())

            there = num_clips / clips_per_step  # less than 1 where videos cannot be read
            mean_loss, norm = total / there if there else math.nan, math.nan
            skipped = there > 0
            if math.isfinite(mean_loss):
                with meter.timed("optimizer"):
                    scaler.unscale_(optimizer)
                    scale_gradients(parameters, 1 / there)
                    norm = clip_gradients(parameters, settings.clip_grad)
                    if math.isfinite(norm) or scaler.is_enabled():  # skips overflow by itself
                        scaler.step(optimizer)
                        scaler.update()
                        skipped = False
                        if ema:
                            ema.update_parameters(model)
            optimizer.zero_grad()

            done = step + 1
            last = done == num_steps
            watch.end_step(done, skipped)
            meter.add(num_clips, mean_loss, norm)
            if done % settings.log_every_steps == 0 or last:
                counts = watch.counts()
                log.record(step=done, epoch=done / epoch_steps, lr=lr, **meter.take(), **counts)
            if done % settings.save_every_steps == 0 or last or stops:
                save_checkpoint(settings, machine, network, optimizer, ema, done)
            if stops:
                log.say(f"stopped after step {done}; go on with --resume")
                raise KeyboardInterrupt
            if done % epoch_steps == 0:
                with meter.paused():
                    yield epoch_end(done)
        watch.counts()
        log.list_bad(source.videos, watch.bad)


def make_sampler(settings: TrainSettings, source: ClipSource, machine: Machine) -> Sampler:
    """The sampler of a run: which videos this process looks at in each step."""
    items = source.videos.items
    places: dict[str, int] = {}
    shards = tuple(places.setdefault(video.path, len(places)) for video in items)
    return Sampler(
        num_videos=len(items),
        batch_size=settings.batch_size,
        seed=settings.seed,
        rank=machine.rank,
        world=machine.world,
        accumulate=settings.accumulate,
        shards=shards if any(video.offset is not None for video in items) else (),
    )


class _Watch:
    """Counts what must not become too much: unreadable videos, and steps without a number."""

    def __init__(self, settings: TrainSettings, source: ClipSource, machine: Machine) -> None:
        self.settings, self.videos, self.machine = settings, source.videos, machine
        self.bad: dict[int, str] = {}
        self._index: list[int] = []
        self.num_skipped = self._in_a_row = 0

    def look(self, batch: Batch) -> None:
        """Take note of what could not be read; VideoError where it is too much."""
        self._index += batch.index[: batch.num_clips]
        self.bad |= batch.bad
        self._check_bad()

    def end_step(self, step: int, skipped: bool) -> None:
        """Take note of a step without a number; ConfigError where it is the one too many."""
        index, self._index = self._index, []
        self.num_skipped += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        if self._in_a_row < self.settings.max_nonfinite_steps:
            return
        seen = self.machine.gather(str(self.videos.items[i]) for i in index)
        raise ConfigError(
            f"the loss was no number in {self._in_a_row} steps in a row, to step {step}; "
            "resume from the last checkpoint with a lower lr, with clip_grad=1.0, or in float32. "
            f"The last of these steps had the videos {', '.join(dict.fromkeys(seen))}"
        )

    def counts(self) -> dict[str, int]:
        """Figures for the log, over all processes, whose lists of bad videos become one."""
        for found in self.machine.gather([self.bad]):
            self.bad |= found
        self._check_bad()
        return {"num_bad_videos": len(self.bad), "num_skipped_steps": self.num_skipped}

    def _check_bad(self) -> None:
        allowed, count = self.settings.max_bad_fraction, len(self.videos)
        if len(self.bad) > allowed * count:
            listed = "; ".join(list(self.bad.values())[:50])
            raise VideoError(
                f"{len(self.bad)} of {count} videos cannot be read, more than max_bad_fraction="
                f"{allowed} allows: {listed}"
            )


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
