"""Values of settings that nobody named: by the model, the number of videos and the batch.

The rule, and what it was measured on, stands in docs/training.md.
"""

import dataclasses
import math
from typing import Any, TypeVar

from videomae.config import VideoMAEConfig
from videomae.recipe import read_recipe
from videomae.settings import FinetuneSettings, PretrainSettings, TrainSettings

Settings = TypeVar("Settings", bound=TrainSettings)

# Presets up to this width (micro, tiny) are made to be trained in minutes, in so many steps.
_SMALL_WIDTH = 128
_PRETRAIN_STEPS, _FINETUNE_STEPS = 3200, 600
# With fewer cells in a slice, tubes of 0.9 leave too few to see: nothing is learned in minutes.
_FEW_CELLS = 100


def decide(settings: Settings, num_videos: int, config: VideoMAEConfig) -> Settings:
    """The same settings, each that is left to the rule decided; named ones stay as they are.

    A run that goes on takes what it began with.
    """
    path = settings.output / "settings.toml"
    before = read_recipe(path) if settings.resume and path.is_file() else {}

    def known(name: str, by_rule: Any) -> Any:
        value = getattr(settings, name)
        return before.get(name) or by_rule if value in (0, "auto") else value

    if isinstance(settings, FinetuneSettings) and settings.train_only == "head":
        # nothing is learned step by step, but in a run of an earlier version that goes on
        for name, value in {"epochs": 1, "batch_size": 32, "lr": 0.0, "layer_decay": 0.0}.items():
            settings = dataclasses.replace(settings, **{name: known(name, value)})
        return settings
    is_small = config.hidden_size <= _SMALL_WIDTH
    found: dict[str, Any] = {}
    if isinstance(settings, PretrainSettings):
        is_coarse = config.grid.height * config.grid.width < _FEW_CELLS
        found["mask"] = known("mask", "random" if is_coarse else "tube")
        found["mask_ratio"] = known("mask_ratio", 0.75 if is_coarse else 0.9)
        usual_batch, share, lr_times_width = 64, 4, 0.2
        usual_epochs, least_steps = 800, _PRETRAIN_STEPS
    else:
        assert isinstance(settings, FinetuneSettings)
        usual_batch, share, lr_times_width = 32, 8, 0.13
        usual_epochs, least_steps = 75, _FINETUNE_STEPS
        # made for twelve layers and more: on six they hold back what is learned in minutes
        found["layer_decay"] = known("layer_decay", 1.0 if is_small else 0.75)
        # a head that is small by wish is drawn
        is_fitted = is_small and settings.init is not None and settings.head_scale == 1
        found["head_init"] = known("head_init", "fitted" if is_fitted else "drawn")

    # a power of two, as it may be shared by processes
    fitting = 2 ** round(math.log2(max(num_videos / share, 4)))
    batch_size = found["batch_size"] = known("batch_size", min(usual_batch, fitting))
    epochs = math.ceil(least_steps / max(num_videos // batch_size, 1))
    if not is_small:
        epochs = max(epochs, usual_epochs)
    found["epochs"] = known("epochs", max(epochs, 1))
    # AdamW's noise shrinks with the square root of the batch; wider layers want smaller steps.
    peak = lr_times_width / config.hidden_size * math.sqrt(batch_size / usual_batch)
    found["lr"] = known("lr", float(f"{peak * 256 / batch_size:.3g}"))
    return dataclasses.replace(settings, **found)
