"""On what a run computes, and how one update is made there."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae.config import VideoMAEConfig
from videomae.engines import as_device, as_dtype
from videomae.errors import ConfigError
from videomae.modeling import VideoMAEPreTrainedModel
from videomae.processing import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.training.settings import TrainSettings


@dataclass(frozen=True)
class Machine:
    """Device and precision of a run. Weights stay float32; products run in `dtype`."""

    device: torch.device
    dtype: torch.dtype
    scaler: torch.amp.GradScaler

    @classmethod
    def choose(cls, device: str, dtype: str) -> "Machine":
        """The best that is there where a choice is `auto`; ConfigError for what is not."""
        chosen = as_device(device)
        precision = as_dtype(dtype, chosen)
        if precision == torch.float16 and chosen.type == "cpu":
            raise ConfigError("training in float16 needs a GPU; use bfloat16 or float32")
        # float16 gradients underflow without a scale; for the others the scaler does nothing.
        scaler = torch.amp.GradScaler(chosen.type, enabled=precision == torch.float16)
        return cls(chosen, precision, scaler)

    def __str__(self) -> str:
        return f"{self.device} in {str(self.dtype).removeprefix('torch.')}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run the block's products in `dtype`."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


@contextlib.contextmanager
def updater(
    machine: Machine,
    model: VideoMAEPreTrainedModel,
    optimizer: torch.optim.Optimizer,
    *,
    clip_grad: float | None,
) -> Iterator[Callable[[Callable[[slice], Tensor], int], Tensor]]:
    """Gives `update(loss_of, batch_size)`: forward, backward, clip, step; it returns the loss.

    `loss_of(rows)` is the mean loss of these rows of the batch. On a CPU each core takes its own
    rows, because small products gain little from being split over cores. A model with random
    layers is not split: all cores would draw from one generator, in an order that no second run
    repeats. Raises ConfigError when the loss is no
    longer a number.
    """
    cores = torch.get_num_threads()
    split = machine.device.type == "cpu" and cores > 1 and not _has_random_layers(model.config)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def part(loss_of: Callable[[slice], Tensor], rows: slice, share: float) -> Any:
        loss = loss_of(rows) * share
        return loss.detach(), torch.autograd.grad(loss, parameters)

    def backward(loss_of: Callable[[slice], Tensor], batch_size: int) -> Tensor:
        if not split or batch_size < cores:
            loss = loss_of(slice(0, batch_size))
            torch.autograd.backward(machine.scaler.scale(loss))
            return loss.detach()
        edges = [batch_size * i // cores for i in range(cores + 1)]
        tasks = [
            pool.submit(part, loss_of, slice(first, end), (end - first) / batch_size)
            for first, end in itertools.pairwise(edges)
        ]
        losses, gradients = zip(*(task.result() for task in tasks), strict=True)
        for parameter, *pieces in zip(parameters, *gradients, strict=True):
            parameter.grad = torch.stack(pieces).sum(0)
        return torch.stack(losses).sum()

    def update(loss_of: Callable[[slice], Tensor], batch_size: int) -> Tensor:
        loss = backward(loss_of, batch_size)
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss became {loss.item()}; resume from the last checkpoint with a lower lr, "
                "with clip_grad=1.0, or in float32"
            )
        if clip_grad is not None:
            machine.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip_grad)
        machine.scaler.step(optimizer)
        machine.scaler.update()
        optimizer.zero_grad()
        return loss

    try:
        if split:
            torch.set_num_threads(1)
        with ThreadPoolExecutor(cores) as pool:
            yield update
    finally:
        torch.set_num_threads(cores)


def _has_random_layers(config: VideoMAEConfig) -> bool:
    return any(
        (
            config.drop_path_rate,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
            config.classifier_dropout_prob,
        )
    )


def sizes_of(settings: TrainSettings) -> dict[str, Any]:
    """The config fields that the settings name; the others stay the preset's or checkpoint's."""
    names = ("image_size", "num_frames", "frame_stride")
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}


def save_model(model: VideoMAEPreTrainedModel, output: Path) -> Path:
    """Write the finished model with its processors into `output`/model, and return that folder."""
    folder = Path(output) / "model"
    model.eval().save_pretrained(folder)
    height, width = model.config.image_hw
    size = {"shortest_edge": min(height, width)}
    crop = {"height": height, "width": width}
    VideoMAEImageProcessor(size=size, crop_size=crop).save_pretrained(folder)
    VideoMAEVideoProcessor(size=size, crop_size=crop).save_pretrained(folder)
    return folder
