"""How the weights move: groups, learning rate over time, learning rate over depth."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from videomae.errors import ConfigError


def lr_at(step: float, *, peak: float, floor: float, num_warmup: float, num_steps: float) -> float:
    """Learning rate at a step: linear from 0 to `peak`, then half a cosine down to `floor`.

    >>> [round(lr_at(s, peak=1, floor=0, num_warmup=2, num_steps=6), 2) for s in range(7)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < num_warmup:
        return peak * step / num_warmup
    share = min((step - num_warmup) / max(num_steps - num_warmup, 1), 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * share)) / 2


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


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class Ema:
    """A running mean of the weights: mean = decay * mean + (1 - decay) * weights, after each step.

    It begins as the weights themselves. Costs the memory of one more model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"ema_decay={decay} must lie between 0 and 1, say 0.9999")
        if any(isinstance(p, DTensor) for p in model.parameters()):
            raise ConfigError("ema_decay does not go with parallel='fsdp'; use parallel='ddp'")
        self.decay = decay
        self.means = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move each mean a little towards its weight."""
        for name, parameter in model.named_parameters():
            self.means[name].lerp_(parameter, 1 - self.decay)

    @contextlib.contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the means for its weights."""
        own = dict(model.named_parameters())
        kept = {name: parameter.detach().clone() for name, parameter in own.items()}
        try:
            for name, parameter in own.items():
                parameter.data.copy_(self.means[name])
            yield
        finally:
            for name, parameter in own.items():
                parameter.data.copy_(kept[name])

    def state(self) -> dict[str, Tensor]:
        """The means, to be saved."""
        return {name: mean.cpu() for name, mean in self.means.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up saved means."""
        for name, mean in self.means.items():
            mean.copy_(state[name])
