"""The loop of pre-training and fine-tuning: fetch, forward, backward, clip, step, log, save."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from videomae.compute.cpu import take_fastest_products
from videomae.compute.devices import peak_memory
from videomae.compute.distributed import Machine, clip_gradients, step_seed
from videomae.data.manifest import Videos
from videomae.errors import ConfigError, VideoError, counted
from videomae.evaluation.sharding import list_unreadable
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.settings import TrainSettings
from videomae.training.checkpoint import (
    check_room,
    checkpoint_bytes,
    free_bytes,
    load_checkpoint,
    save_checkpoint,
)
from videomae.training.data import Batch, ClipSource, Sampler, train_batches
from videomae.training.estimate import DryRun, Pace, what_fits
from videomae.training.log import Meter, RunLog, open_output, resume_command
from videomae.training.optim import learning_rate, make_ema, make_optimizer, scale_gradients, set_lr
from videomae.training.signals import stop_signals

# Steps of a dry run: as many, or fewer where they take longer than so many seconds.
_DRY_STEPS, _DRY_SECONDS = 10, 30.0

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


@dataclass(frozen=True)
class StepEnd:
    """What one step came to, over all processes; loss and norm are NaN where there is none."""

    loss: float
    norm: float
    num_clips: float
    is_skipped: bool
    is_last: bool  # somebody asked to stop


class Training:
    """A run made ready: its model, its optimiser, the order of its videos, and where it begins.

    What `own_output` let pass is refused here, before anything is written: other settings than
    those the run began with, a batch that cannot be split, a full disk.
    With `settings.resume` the run goes on from its last checkpoint, if there is one.

    facts: what the page of the run shows beside the settings; see `open_output`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: VideoMAEPreTrainedModel,
        source: ClipSource,
        machine: Machine,
        batch_loss: BatchLoss,
        *,
        title: str,
        layer_decay: float = 1.0,
        ema_decay: float = 0.0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.machine, self.title = settings, machine, title
        self.model: Any = model
        self.source, self.batch_loss = source, batch_loss
        self.sampler = make_sampler(settings, source, machine)
        self.epoch_steps = self.sampler.steps_per_epoch
        self.num_steps = self.epoch_steps * settings.epochs
        self.clips_per_step = self.sampler.videos_per_step * settings.num_repeats
        self.facts = {
            "num_videos": len(source.videos),
            "num_parameters": model.num_parameters(),
            "num_steps": self.num_steps,
            "clips_per_step": self.clips_per_step,
            **(facts or {}),
        }
        if settings.activation_checkpointing:
            model.gradient_checkpointing_enable()
        if settings.compile:
            model.compile()
        take_fastest_products(model)
        self.network = machine.place(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(settings, model, layer_decay)
        self.scaler = machine.grad_scaler()
        self.ema = make_ema(model, ema_decay) if ema_decay else None
        self.first_step, self.seen = 0, dict[str, Any]()
        if settings.resume:
            self.first_step, self.seen = load_checkpoint(
                settings, self.network, self.optimizer, self.ema
            )
            before = self.seen.get("clips_per_step", self.clips_per_step)
            if before != self.clips_per_step:
                raise ConfigError(
                    f"cannot resume {settings.output}: a step had {before} clips and has "
                    f"{self.clips_per_step} now; use the videos, the number of processes and the "
                    "accumulate that the run began with"
                )
        if self.first_step < self.num_steps:
            check_room(settings, checkpoint_bytes(model, self.ema))

    def __str__(self) -> str:
        return (
            f"{self.title}: {counted(self.facts['num_videos'], 'video')}, "
            f"{self.facts['num_parameters'] / 1e6:.1f} M parameters, "
            f"{counted(self.num_steps, 'step')} of {counted(self.clips_per_step, 'clip')}, "
            f"peak lr {self.settings.peak_lr:.2e}, {self.machine}"
            + (f"; from step {self.first_step}" if self.first_step else "")
        )

    def epochs(self) -> Iterator[EpochEnd]:
        """Train the model in place, stopping at each end of an epoch to let the caller act.

        The gradient of a step is that of the mean over all clips of all parts and processes; what
        an unreadable video leaves out is left out of the mean. A loss or a gradient that is no
        number leaves the weights as they are.

        A run that goes on begins with the end of an epoch if it stands at one. A checkpoint is
        saved every `save_every_steps` and at the end. On SIGINT or SIGTERM, to any process, the
        step is finished, a checkpoint saved, and KeyboardInterrupt raised; a second SIGINT raises
        it at once.
        """
        settings, machine, first = self.settings, self.machine, self.first_step
        open_output(settings, machine, self.facts)
        watch, meter, told = _Watch(settings, self.source, machine), Meter(), False
        watch.go_on(self.seen)
        with (
            RunLog(
                settings, machine, num_steps=self.num_steps, title=self.title, first_step=first
            ) as log,
            contextlib.closing(self._batches(first, self.num_steps)) as batches,
            stop_signals(log) as stop,
        ):
            if settings.resume and not first:
                log.say(f"nothing to resume in {settings.output}: starting from the beginning")
            log.say(str(self))
            if first and first % self.epoch_steps == 0:
                yield self._epoch_end(first, log)
            for step in range(first, self.num_steps):
                end = self._step(step, batches, watch, meter, stop)
                done = step + 1
                last = done == self.num_steps
                watch.end_step(done, end.is_skipped)
                meter.add(end.num_clips, end.loss, end.norm)
                log.advance(done)
                if not told and log.pace.is_steady():
                    told = True
                    long = what_fits(settings, self.model.config, log.pace, machine.device)
                    log.say("; ".join(filter(None, (str(log.pace), long))))
                if done % settings.log_every_steps == 0 or last:
                    epoch, lr = done / self.epoch_steps, self._lr(step)
                    log.record(step=done, epoch=epoch, lr=lr, **meter.take(), **watch.counts())
                    with meter.paused():
                        log.draw_page()
                if done % settings.save_every_steps == 0 or last or end.is_last:
                    parts = self.network, self.optimizer, self.ema
                    seen = watch.seen() | {"clips_per_step": self.clips_per_step}
                    save_checkpoint(settings, machine, *parts, done, seen)
                if end.is_last:
                    command = resume_command(self.title, settings.output)
                    log.say(f"stopped after step {done}; go on with {command}")
                    raise KeyboardInterrupt
                if done % self.epoch_steps == 0:
                    with meter.paused():
                        yield self._epoch_end(done, log)
            watch.counts()
            log.list_bad(self.source.videos, watch.bad)
            if watch.damaged:
                log.say(f"damaged videos that were used in part: {len(watch.damaged)}")

    def dry_run(self) -> DryRun:
        """Compute a few real steps, and write nothing; the model is of no use afterwards."""
        first, machine = self.first_step, self.machine
        if first == self.num_steps:
            raise ConfigError(f"{self.settings.output} is finished: there is no step to try")
        end = min(first + _DRY_STEPS, self.num_steps)
        watch, meter = _Watch(self.settings, self.source, machine), Meter()
        pace, enough = Pace(first, self.num_steps), Event()
        with contextlib.closing(self._batches(first, end)) as batches:
            for step in range(first, end):
                done = self._step(step, batches, watch, meter, enough)
                pace.step(step + 1)
                meter.add(done.num_clips, done.loss, done.norm)
                if step == first or step + 1 == end or done.is_last:
                    data_share = meter.take()["data_share"]  # that of the first one is left behind
                if done.is_last:  # as in a run, all processes stop together
                    break
                if pace.num_done > 1 and time.perf_counter() - pace.begun > _DRY_SECONDS:
                    enough.set()
        return DryRun(
            facts=self.facts,
            settings=self.settings,
            config=self.model.config,
            pace=pace,
            data_share=data_share,
            num_bad=watch.counts()["num_bad_videos"],
            memory_bytes=peak_memory(machine.device),
            checkpoint_bytes=checkpoint_bytes(self.model, self.ema),
            free_bytes=free_bytes(self.settings.output),
            device=machine.device,
        )

    def _step(
        self, step: int, batches: Iterator[Batch], watch: "_Watch", meter: Meter, stop: Event
    ) -> StepEnd:
        """Fetch, forward, backward, clip, step."""
        settings, machine = self.settings, self.machine
        set_lr(self.optimizer, self._lr(step))
        torch.manual_seed(step_seed(settings.seed, step, machine.rank))
        own_loss, own_clips = torch.zeros((), device=machine.device), 0
        for number in range(settings.accumulate):
            with meter.timed("data"):
                batch = next(batches)
            watch.look(batch)
            # each process averages over its own clips, and gradients over the processes
            share = batch.num_clips * machine.world / self.clips_per_step
            with machine.sharing(self.network, number == settings.accumulate - 1):
                with meter.timed("forward"), machine.autocast():
                    loss = self.batch_loss(self.network, batch) * share
                with meter.timed("backward"):
                    self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            own_loss += loss.detach() / machine.world
            own_clips += batch.num_clips
        with meter.timed("backward"):  # waits for the device, and for the other processes
            total, num_clips, stops = machine.sum(float(own_loss), own_clips, stop.is_set())

        there = num_clips / self.clips_per_step  # less than 1 where videos cannot be read
        mean_loss, norm = total / there if there else math.nan, math.nan
        skipped = there > 0
        if math.isfinite(mean_loss):
            with meter.timed("optimizer"):
                self.scaler.unscale_(self.optimizer)
                scale_gradients(self.parameters, 1 / there)
                norm = clip_gradients(self.parameters, settings.clip_grad)
                if math.isfinite(norm) or self.scaler.is_enabled():  # skips overflow by itself
                    self.scaler.step(self.optimizer)
                    self.scaler.update()
                    # The first scales are meant to be too large, and are halved.
                    skipped = not math.isfinite(norm) and self.scaler.get_scale() < 1
                    if self.ema:
                        self.ema.update_parameters(self.model)
        self.optimizer.zero_grad()
        return StepEnd(mean_loss, norm, num_clips, skipped, bool(stops))

    def _lr(self, step: int) -> float:
        return learning_rate(self.settings, step, self.epoch_steps)

    def _batches(self, first: int, num_steps: int) -> Generator[Batch]:
        return train_batches(
            self.source,
            self.sampler,
            first_step=first,
            num_steps=num_steps,
            num_workers=self.settings.num_workers,
            pin_memory=self.machine.device.type == "cuda",
        )

    def _epoch_end(self, step: int, log: RunLog) -> EpochEnd:
        trained = self.ema.module if self.ema else self.model
        return EpochEnd(step // self.epoch_steps, step, log, trained)


def make_sampler(settings: TrainSettings, source: ClipSource, machine: Machine) -> Sampler:
    """The sampler of a run: which videos this process looks at in each step."""
    items = source.videos.items
    shards: tuple[int, ...] = ()
    if any(video.offset is not None for video in items):
        places: dict[str, int] = {}
        shards = tuple(places.setdefault(video.path, len(places)) for video in items)
    return Sampler(
        num_videos=len(items),
        batch_size=settings.batch_size,
        seed=settings.seed,
        rank=machine.rank,
        world=machine.world,
        accumulate=settings.accumulate,
        shards=shards,
    )


class _Watch:
    """Counts what must not become too much: unreadable videos, and steps without a number."""

    def __init__(self, settings: TrainSettings, source: ClipSource, machine: Machine) -> None:
        self.settings, self.videos, self.machine = settings, source.videos, machine
        self.damaged = source.damaged  # used in part, as was asked for
        self.bad: dict[int, str] = {}
        self._index: list[int] = []
        self.num_skipped = self._in_a_row = 0

    def look(self, batch: Batch) -> None:
        """Take note of what could not be read; VideoError where it is too much."""
        self._index += batch.index[: batch.num_clips]
        self.bad |= batch.bad
        check_bad(self.settings, self.videos, self.bad)

    def end_step(self, step: int, skipped: bool) -> None:
        """Take note of a step without a number; ConfigError where it is the one too many."""
        index, self._index = self._index, []
        self.num_skipped += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        if self._in_a_row < self.settings.max_nonfinite_steps:
            return
        seen = self.machine.gather(str(self.videos.items[i]) for i in index)
        raise ConfigError(
            f"the loss or its gradients were no numbers in {self._in_a_row} steps in a row, to "
            f"step {step}; resume with a lower lr, with clip_grad=1.0, or in float32. "
            f"The last of these steps had the videos {', '.join(dict.fromkeys(seen))}"
        )

    def go_on(self, seen: Mapping[str, Any]) -> None:
        """Take up what `seen` gave."""
        self.bad |= seen.get("bad", {})
        self.damaged |= seen.get("damaged", {})
        self.num_skipped, self._in_a_row = seen.get("skipped", (0, 0))

    def seen(self) -> dict[str, Any]:
        """All that was noted, over all processes, whose lists become one."""
        for bad, damaged in self.machine.gather([(self.bad, self.damaged)]):
            self.bad |= bad
            self.damaged |= damaged
        check_bad(self.settings, self.videos, self.bad)
        skipped = self.num_skipped, self._in_a_row
        return {"bad": self.bad, "damaged": self.damaged, "skipped": skipped}

    def counts(self) -> dict[str, int]:
        """Figures for the log, over all processes."""
        self.seen()
        counts = {"num_bad_videos": len(self.bad), "num_skipped_steps": self.num_skipped}
        return counts | ({"num_damaged_videos": len(self.damaged)} if self.damaged else {})


def check_bad(settings: TrainSettings, videos: Videos, bad: Mapping[int, str]) -> None:
    """Raise VideoError where more videos cannot be read than the settings allow."""
    allowed = settings.max_bad_fraction
    if len(bad) > allowed * len(videos):
        listed = "; ".join(list_unreadable(videos, bad)[:50])
        raise VideoError(
            f"{len(bad)} of {len(videos)} videos cannot be read, more than max_bad_fraction="
            f"{allowed} allows: {listed}"
        )
