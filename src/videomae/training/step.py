"""One update of the weights: forward, backward, clip, step; and where its time went."""

import contextlib
import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.training.data import Batch

# Models up to this width are split over the cores of a CPU, row by row. On two cores (Zen 3) 64
# clips of width 128 then take 0.26 s in place of 0.27 in pre-training, 0.70 in place of 0.84 in
# fine-tuning; 8 clips of ViT-S (384) as long as unsplit, and each core's gradient takes memory: 2
# clips of ViT-B 2.8 GB in place of 1.9.
_SPLIT_MAX_WIDTH = 256

# (network, batch, rows of it) -> mean loss of these rows
BatchLoss = Callable[[nn.Module, Batch, slice], Tensor]


@dataclass(frozen=True)
class StepResult:
    """What one step did: the mean loss over all its clips, and the norm of the gradient.

    num_clips: clips of all processes. skipped: the loss or the norm was no number, and the weights
    were left as they are. stop: a process was told to stop. bad: unreadable videos of this process.
    """

    loss: float
    grad_norm: float
    num_clips: int
    skipped: bool
    stop: bool
    bad: dict[int, str] = field(default_factory=dict)
    index: tuple[int, ...] = ()


class Timer:
    """Seconds that each kind of work took, summed until they are read.

    On a GPU, work is only queued by the calls that are timed here; each step ends by waiting for
    the loss, so that forward and backward together are right, and the waiting counts as backward.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, what: str, share: float = 1.0) -> Iterator[None]:
        began = time.perf_counter()
        yield
        spent = (time.perf_counter() - began) * share
        with self._lock:
            self.seconds[what] += spent

    def take(self) -> dict[str, float]:
        """The sums, which start again from zero."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


@contextlib.contextmanager
def stepper(
    machine: Machine,
    model: VideoMAEPreTrainedModel,
    network: nn.Module,
    optimizer: Any,
    batch_loss: BatchLoss,
    *,
    clip_grad: float | None,
    num_parts: int,
    clips_per_step: int,
    timer: Timer,
    may_split: bool = True,
) -> Iterator[Callable[[Iterable[Batch], Callable[[], bool]], StepResult]]:
    """Gives `step(parts, stop)`: all parts of one step forward and backward, then the update.

    `network` is the model as `machine.place` wrapped it. The gradient is that of the mean over all
    clips of all parts and processes; what an unreadable video leaves out is left out of the mean.

    On a CPU each core takes its own rows of a part, because small products gain little from being
    split over cores; not where `may_split` is False, as clips see each other, nor in a model with
    random layers: all cores would draw from one generator, in an order that no second run repeats.
    Large products do gain, and each core has a gradient of its own: see _SPLIT_MAX_WIDTH.
    """
    cores = torch.get_num_threads()
    split = (
        may_split
        and model.config.hidden_size <= _SPLIT_MAX_WIDTH
        and machine.device.type == "cpu"
        and machine.world == 1
        and cores > 1
        and not has_random_layers(model.config)
    )
    parameters = [p for p in network.parameters() if p.requires_grad]

    def rows_loss(batch: Batch, rows: slice, share: float) -> Any:
        with timer("forward", 1 / cores):
            loss = batch_loss(network, batch, rows) * share
        with timer("backward", 1 / cores):
            return loss.detach(), torch.autograd.grad(loss, parameters)

    def split_part(batch: Batch, pool: ThreadPoolExecutor) -> Tensor:
        count = len(batch.pixels)
        edges = [count * i // cores for i in range(cores + 1)]
        tasks = [
            pool.submit(rows_loss, batch, slice(first, end), (end - first) / clips_per_step)
            for first, end in itertools.pairwise(edges)
        ]
        losses, gradients = zip(*(task.result() for task in tasks), strict=True)
        for parameter, *pieces in zip(parameters, *gradients, strict=True):
            total = torch.stack(pieces).sum(0)
            parameter.grad = total if parameter.grad is None else parameter.grad.add_(total)
        return torch.stack(losses).sum()

    def whole_part(batch: Batch) -> Tensor:
        count = len(batch.pixels)
        if not count:  # the other processes wait for this one's gradients, which are zero
            batch = Batch(
                batch.step, batch.pixels.new_zeros(1, *batch.pixels.shape[1:]), (0,), (0,), (0,)
            )
        torch.set_num_threads(cores)
        with timer("forward"):
            # each process averages over its own clips, and accelerate over the processes
            share = count * machine.world / clips_per_step
            loss = batch_loss(network, batch, slice(None)) * share
        with timer("backward"):
            machine.accelerator.backward(loss)
        torch.set_num_threads(1 if split else cores)
        return loss.detach()

    def step(parts: Iterable[Batch], stop: Callable[[], bool]) -> StepResult:
        losses: list[Tensor] = []
        kept = 0
        bad: dict[int, str] = {}
        index: list[int] = []
        fetched = iter(parts)
        for number in range(num_parts):
            with timer("data"):
                batch = next(fetched)
            bad |= batch.bad
            index += batch.index
            kept += len(batch.pixels)
            if split and len(batch.pixels) >= cores:
                losses.append(split_part(batch, pool))
                continue
            if machine.world == 1 and not len(batch.pixels):
                continue
            last = number == num_parts - 1
            with contextlib.nullcontext() if last else machine.accelerator.no_sync(network):
                losses.append(whole_part(batch))
        with timer("backward"):
            own = float(torch.stack(losses).sum()) / machine.world if losses else 0.0
            total, num_clips, stops = machine.sum(own, kept, stop())
        if not num_clips:
            return StepResult(float("nan"), 0.0, 0, False, bool(stops), bad, ())
        with timer("optimizer"):
            found = update(num_clips) if math.isfinite(total) else float("nan")
        skipped = not math.isfinite(found)
        if skipped and machine.scales_loss and math.isfinite(total):
            skipped = False  # the scaler has left this step out and lowers its scale: as meant
        optimizer.zero_grad()
        loss = total * clips_per_step / num_clips
        return StepResult(loss, found, int(num_clips), skipped, bool(stops), bad, tuple(index))

    def update(num_clips: float) -> float:
        if num_clips < clips_per_step:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(clips_per_step / num_clips)
        norm = machine.clip(parameters, clip_grad)
        if math.isfinite(norm) or machine.scales_loss:
            optimizer.step()
        return norm

    try:
        if split:
            torch.set_num_threads(1)
        with ThreadPoolExecutor(cores) as pool:
            yield step
    finally:
        torch.set_num_threads(cores)


def has_random_layers(config: VideoMAEConfig) -> bool:
    """Whether the model draws numbers while it trains: drop path, dropout."""
    return any(
        (
            config.drop_path_rate,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
            config.classifier_dropout_prob,
        )
    )
