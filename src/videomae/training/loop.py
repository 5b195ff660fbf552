"""The loop that pre-training and fine-tuning share: fetch, forward, backward, step, log, save."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from videomae.compute.distributed import Machine, step_seed
from videomae.errors import ConfigError, VideoError
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.settings import TrainSettings
from videomae.training.checkpoint import check_room, load_checkpoint, save_checkpoint
from videomae.training.data import ClipSource, Plan, train_batches
from videomae.training.log import RunLog
from videomae.training.optim import Ema, lr_at, parameter_groups, set_lr
from videomae.training.step import BatchLoss, StepResult, Timer, stepper


@dataclass(frozen=True)
class EpochEnd:
    """What a run does at the end of an epoch is up to it: draw, evaluate."""

    epoch: int  # finished, counted from 1
    step: int
    log: RunLog
    ema: Ema | None


def make_plan(settings: TrainSettings, source: ClipSource, machine: Machine) -> Plan:
    """What each step of a run looks at."""
    items = source.videos.items
    places: dict[str, int] = {}
    shards = tuple(places.setdefault(video.path, len(places)) for video in items)
    return Plan(
        num_videos=len(items),
        batch_size=settings.batch_size,
        seed=settings.seed,
        rank=machine.rank,
        world=machine.world,
        accumulate=settings.accumulate,
        shards=shards if any(video.offset is not None for video in items) else (),
    )


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
    may_split: bool = True,
) -> Iterator[EpochEnd]:
    """Train `model` in place, stopping at each end of an epoch to let the caller act.

    With `settings.resume` the run goes on from its last checkpoint, if there is one; it saves one
    every `save_every_steps` and at the end. On SIGINT or SIGTERM, to any process, the step is
    finished, a checkpoint saved, and KeyboardInterrupt raised. `may_split`: see `stepper`.
    """
    plan = make_plan(settings, source, machine)
    total = plan.steps_per_epoch * settings.epochs
    num_parameters = model.num_parameters()
    check_room(settings, model)
    optimizer = torch.optim.AdamW(
        parameter_groups(
            model,
            weight_decay=settings.weight_decay,
            num_layers=model.config.num_hidden_layers,
            layer_decay=layer_decay,
        ),
        betas=(0.9, settings.beta2),
        fused=True,  # on a CPU too: 5 ms in place of 19 for the tiny model, 26 for 88 for small
    )
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable()
    if settings.compile:
        model.compile()
    network, moved = machine.place(model, optimizer)
    inner = getattr(moved, "optimizer", moved)
    ema = Ema(model, ema_decay) if ema_decay else None
    state = load_checkpoint(settings, network, inner) if settings.resume else None
    first = int(state["step"]) if state else 0
    if state and ema:
        ema.load(state["ema"])
    timer = Timer()

    with (
        RunLog(settings, machine, num_steps=total, title=title, first_step=first) as log,
        stepper(
            machine,
            model,
            network,
            moved,
            batch_loss,
            clip_grad=settings.clip_grad,
            num_parts=settings.accumulate,
            clips_per_step=plan.videos_per_step * settings.num_repeats,
            timer=timer,
            may_split=may_split,
        ) as take_step,
        _stop_signals() as stop,
        contextlib.closing(
            train_batches(
                source,
                plan,
                first_step=first,
                num_steps=total,
                num_workers=settings.num_workers,
                workers=settings.workers,
                pin_memory=machine.device.type == "cuda",
            )
        ) as batches,
    ):
        if settings.resume and not state:
            log.say(f"nothing to resume in {settings.output}: starting from the beginning")
        log.say(
            f"{title}: {len(source.videos)} videos, {num_parameters / 1e6:.1f} M parameters, "
            f"{total} steps of {plan.videos_per_step * settings.num_repeats} clips, peak lr "
            f"{settings.peak_lr:.2e}, {machine}" + (f"; from step {first}" if first else "")
        )

        def save(step: int) -> None:
            extra = {"ema": ema.state()} if ema else {}
            save_checkpoint(settings, machine, network, inner, step, extra)

        watch = _Watch(settings, source, machine)
        meter = _Meter(timer)
        for step in range(first, total):
            lr = lr_at(
                step,
                peak=settings.peak_lr,
                floor=settings.min_lr * settings.batch_size / 256,
                num_warmup=settings.num_warmup_epochs * plan.steps_per_epoch,
                num_steps=total,
            )
            set_lr(inner, lr)
            torch.manual_seed(step_seed(settings.seed, step, machine.rank))
            result = take_step(islice(batches, settings.accumulate), stop.is_set)
            watch.look(step, result)
            if ema and not result.skipped:
                ema.update(model)
            meter.add(result)
            done = step + 1
            if done % settings.log_every_steps == 0 or done == total:
                bad = watch.count_bad()
                figures = meter.take()
                log.record(
                    step=done,
                    epoch=done / plan.steps_per_epoch,
                    lr=lr,
                    **figures,
                    num_bad_videos=bad,
                    num_skipped_steps=watch.num_skipped,
                )
                log.advance(
                    done,
                    f"loss {figures['loss']:.3f}  {figures['clips_per_second']:.0f} clips/s  "
                    f"data {figures['data_share']:.0%}",
                )
            if done % settings.save_every_steps == 0 or done == total or result.stop:
                save(done)
            if result.stop:
                log.say(f"stopped after step {done}; go on with --resume")
                raise KeyboardInterrupt
            if done % plan.steps_per_epoch == 0:
                with meter.paused():
                    yield EpochEnd(done // plan.steps_per_epoch, done, log, ema)
        watch.count_bad()
        log.list_bad(source.videos, watch.bad)


class _Watch:
    """Counts what must not become too much: unreadable videos, and steps without a number."""

    def __init__(self, settings: TrainSettings, source: ClipSource, machine: Machine) -> None:
        self.settings, self.source, self.machine = settings, source, machine
        self.bad: dict[int, str] = {}
        self.num_skipped = self._in_a_row = 0

    def look(self, step: int, result: StepResult) -> None:
        """Take note of a step; ConfigError or VideoError where it is the one too many."""
        self.bad |= result.bad
        if result.bad:
            self._check_bad()
        if not result.skipped:
            self._in_a_row = 0
            return
        self.num_skipped += 1
        self._in_a_row += 1
        if self._in_a_row < self.settings.max_nonfinite_steps:
            return
        items = self.source.videos.items
        seen = self.machine.gather(str(items[index]) for index in result.index)
        raise ConfigError(
            f"the loss was no number in {self._in_a_row} steps in a row, to step {step + 1}; "
            "resume from the last checkpoint with a lower lr, with clip_grad=1.0, or in float32. "
            f"The last of these steps had the videos {', '.join(dict.fromkeys(seen))}"
        )

    def count_bad(self) -> int:
        """How many videos all processes found unreadable; their lists become one."""
        for found in self.machine.gather([self.bad]):
            self.bad |= found
        self._check_bad()
        return len(self.bad)

    def _check_bad(self) -> None:
        allowed, count = self.settings.max_bad_fraction, len(self.source.videos)
        if len(self.bad) > allowed * count:
            listed = "; ".join(list(self.bad.values())[:50])
            raise VideoError(
                f"{len(self.bad)} of {count} videos cannot be read, more than max_bad_fraction="
                f"{allowed} allows: {listed}"
            )


class _Meter:
    """Means over the steps since the last line of the log."""

    def __init__(self, timer: Timer) -> None:
        self.timer = timer
        self._start()

    def _start(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.num_clips = self.num_steps = 0
        self.since = time.perf_counter()

    def add(self, result: StepResult) -> None:
        self.num_steps += 1
        self.num_clips += result.num_clips
        if not result.skipped:
            self.losses.append(result.loss)
            self.norms.append(result.grad_norm)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside counts for no speed."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Figures for the log; ms of each kind are those of one step."""
        spent = time.perf_counter() - self.since
        kinds = self.timer.take()
        figures = {
            "loss": _mean(self.losses),
            "grad_norm": _mean(self.norms),
            "clips_per_second": self.num_clips / spent,
            "data_share": kinds.get("data", 0.0) / spent,
            **{f"{kind}_ms": 1000 * kinds[kind] / self.num_steps for kind in sorted(kinds)},
        }
        self._start()
        return figures


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


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
