"""A run on disk: where it stands, so that it can go on as if it had never stopped."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videomae.errors import ConfigError, WeightsError
from videomae.hub import atomic_path
from videomae.training.settings import TrainSettings

# What may differ when a run goes on: none of these changes what a step computes.
_FREE_TO_CHANGE = frozenset(
    {
        "resume",
        "output",
        "num_workers",
        "cache_gb",
        "max_bad_fraction",
        "log_every_steps",
        "save_every_steps",
        "draw_every_epochs",
        "eval_every_epochs",
        "eval_data",
        "device",
        "init",
    }
)


def checkpoint_path(output: Path) -> Path:
    """The one checkpoint of a run."""
    return Path(output) / "checkpoint.pt"


def save_checkpoint(
    settings: TrainSettings, model: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write weights, optimiser, step and random state; the old file stays whole until the end."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "settings": _comparable(settings),
    }
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    with atomic_path(checkpoint_path(settings.output)) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    settings: TrainSettings, model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Take up a run where it stopped; returns the steps done.

    Raises WeightsError where there is no readable checkpoint, and ConfigError where a setting
    that changes the result is not the one the run began with.
    """
    path = checkpoint_path(settings.output)
    if not path.is_file():
        raise WeightsError(f"nothing to resume: {path} does not exist; leave --resume out")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"checkpoint {path} cannot be read: {error}") from error
    before, now = state["settings"], _comparable(settings)
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"cannot resume {settings.output}: {'; '.join(changed)}; "
            "use the first settings (settings.toml there), or begin in another folder"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return int(state["step"])


def _comparable(settings: TrainSettings) -> dict[str, Any]:
    values = dataclasses.asdict(settings)
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in values.items()
        if key not in _FREE_TO_CHANGE
    }
