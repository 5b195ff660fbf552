"""The optimiser: groups, learning rate over time and over depth, running means of the weights."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from videomae.errors import ConfigError
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.settings import TrainSettings


def lr_at(step: float, *, peak: float, floor: float, num_warmup: float, num_steps: float) -> float:
    """Learning rate at a step: linear from 0 to `peak`, then half a cosine down to `floor`.

    >>> [round(lr_at(s, peak=1, floor=0, num_warmup=2, num_steps=6), 2) for s in range(7)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < num_warmup:
        return peak * step / num_warmup
    share = min((step - num_warmup) / max(num_steps - num_warmup, 1), 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * share)) / 2


def learning_rate(settings: TrainSettings, step: int, epoch_steps: int) -> float:
    """The learning rate of a run at a step, of which there are so many in an epoch."""
    return lr_at(
        step,
        peak=settings.peak_lr,
        floor=settings.floor_lr,
        num_warmup=settings.num_warmup_epochs * epoch_steps,
        num_steps=settings.epochs * epoch_steps,
    )


def layer_of(name: str, num_layers: int) -> int:
    """Depth of a parameter: 0 for the embedding, i + 1 for layer i, one more for what follows.

    >>> layer_of("videomae.encoder.layer.3.output.dense.weight", 12)
    4
    """
    if ".embeddings." in f".{name}":
        return 0
    found = re.search(r"encoder\.layer\.(\d+)\.", name)
    return int(found.group(1)) + 1 if found else num_layers + 1


def parameter_groups(
    model: nn.Module, *, weight_decay: float, num_layers: int, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for AdamW, each with `lr_scale` = layer_decay ** (layers above it).

    Vectors (biases, norms) and the mask token are not decayed, as in the published code.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_of(name, num_layers)
        decayed = parameter.ndim > 1 and not name.endswith("mask_token")
        group = groups.setdefault(
            (layer, decayed),
            {
                "params": [],
                "weight_decay": weight_decay if decayed else 0.0,
                "lr_scale": layer_decay ** (num_layers + 1 - layer),
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def make_optimizer(
    settings: TrainSettings, model: VideoMAEPreTrainedModel, layer_decay: float
) -> torch.optim.AdamW:
    """AdamW over the `parameter_groups` of a model."""
    groups = parameter_groups(
        model,
        weight_decay=settings.weight_decay,
        num_layers=model.config.num_hidden_layers,
        layer_decay=layer_decay,
    )
    # fused on a CPU too: 5 ms in place of 19 for the tiny model, 26 for 88 for small
    return torch.optim.AdamW(groups, betas=(0.9, settings.beta2), fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply all gradients; by 1, leave them alone."""
    for parameter in parameters if factor != 1 else ():
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model for the running means of its weights, which begin as the weights.

    After each step `update_parameters(model)` makes mean = decay * mean + (1 - decay) * weights.
    """
    if not 0 < decay < 1:
        raise ConfigError(f"ema_decay={decay} must lie between 0 and 1, say 0.9999")
    if any(hasattr(p, "full_tensor") for p in model.parameters()):
        raise ConfigError("ema_decay does not go with parallel='fsdp'; use parallel='ddp'")
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    ema = AveragedModel(model, multi_avg_fn=average)
    ema.n_averaged += 1  # the weights at the start count: the first step does not replace them
    return ema
