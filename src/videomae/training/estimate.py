"""How long a run takes on this machine and what else would fit: from its first steps."""

import time
from contextlib import suppress
from dataclasses import dataclass

import torch

from videomae.config import PRESETS, VideoMAEConfig
from videomae.errors import ConfigError, counted
from videomae.report.html import duration, short_time
from videomae.settings import FinetuneSettings, PretrainSettings, TrainSettings

# On a CPU, a run over a night is long.
_LONG_SECONDS = 12 * 3600
# The pace is known after so many steps and so many seconds.
_STEADY_STEPS, _STEADY_SECONDS = 3, 5.0


class Pace:
    """How long the steps of a run take, with all that comes between them, and how long is left."""

    def __init__(self, first_step: int, num_steps: int) -> None:
        self.first_step, self.num_steps = first_step, num_steps
        self.num_done = 0
        self.seconds_per_step = self.seconds_left = 0.0
        self.begun = self.warm = time.perf_counter()

    def step(self, done: int) -> None:
        """Take note that so many steps of the run are done."""
        now = time.perf_counter()
        self.num_done = done - self.first_step
        if self.num_done > 1:  # the first one warms up, and counts only while it is alone
            self.seconds_per_step = (now - self.warm) / (self.num_done - 1)
        else:
            self.seconds_per_step, self.warm = now - self.begun, now
        self.seconds_left = self.seconds_per_step * (self.num_steps - done)

    def is_steady(self) -> bool:
        """Whether enough is done to count on."""
        seconds = time.perf_counter() - self.begun
        return self.num_done >= _STEADY_STEPS and seconds > _STEADY_SECONDS

    def __str__(self) -> str:
        each = short_time(self.seconds_per_step)
        return f"about {duration(self.seconds_left)} to the end, at {each} a step"


@dataclass(frozen=True)
class DryRun:
    """What a few steps tell of a run. seconds: of each step; data_share: of waiting for videos."""

    facts: dict[str, float]
    settings: TrainSettings
    config: VideoMAEConfig
    pace: Pace
    data_share: float
    num_bad: int
    memory_bytes: int | None
    checkpoint_bytes: int
    free_bytes: int
    device: torch.device

    def rows(self) -> list[tuple[str, str]]:
        """The figures, named and written out, for people."""
        facts, kept = self.facts, self.settings.keep_checkpoints
        bad = f", {self.num_bad} of those tried unreadable" if self.num_bad else ""
        split = counted(facts["num_steps"] // self.settings.epochs, "step")
        memory = self.memory_bytes
        return [
            ("videos", f"{facts['num_videos']:,}{bad}"),
            ("parameters", f"{facts['num_parameters'] / 1e6:.1f} M"),
            ("clips a step", f"{facts['clips_per_step']:,}"),
            (
                "steps",
                f"{facts['num_steps']:,} ({counted(self.settings.epochs, 'epoch')} of {split})",
            ),
            ("a step", short_time(self.pace.seconds_per_step)),
            ("waiting for videos", f"{self.data_share:.0%} of it"),
            ("memory at its peak", "unknown" if memory is None else gigabytes(memory)),
            (
                "checkpoints",
                f"{gigabytes(self.checkpoint_bytes)} each, {kept} kept; "
                f"{gigabytes(self.free_bytes)} free",
            ),
            ("to the end", f"about {duration(self.pace.seconds_left)}, without evaluations"),
        ]

    def advice(self) -> str:
        """What else would fit this machine; empty where the run is not long."""
        return what_fits(self.settings, self.config, self.pace, self.device)


def what_fits(
    settings: TrainSettings, config: VideoMAEConfig, pace: Pace, device: torch.device
) -> str:
    """What would be done in a night where a run is long for a CPU: a smaller preset, fewer epochs.

    Empty where it is not long, and on a GPU, where runs of days are usual.
    """
    if device.type != "cpu" or pace.seconds_left <= _LONG_SECONDS:
        return ""
    whole = pace.seconds_per_step * pace.num_steps
    ways = []
    if settings.init is None:
        own, costs = clip_cost(config, settings), dict[str, float]()
        for name in PRESETS:
            with suppress(ConfigError):  # one whose patches do not fit the clips
                preset = VideoMAEConfig.preset(name, **settings.sizes)
                costs[name] = clip_cost(preset, settings) / own
        times = {name: whole * cost for name, cost in costs.items() if cost < 0.7}
        short = {name: time for name, time in times.items() if time <= _LONG_SECONDS}
        if times:
            # The largest model that is done in time, or the one that is done first.
            name = max(short, key=short.__getitem__) if short else min(times, key=times.__getitem__)
            ways.append(f"--preset {name} (about {duration(times[name])})")
    elif isinstance(settings, FinetuneSettings) and settings.train_only == "all":
        ways.append("--train-only head")
    if epochs := int(settings.epochs * _LONG_SECONDS / whole):
        ways.append(f"--epochs {epochs} (about {duration(_LONG_SECONDS)})")
    ways.append("a GPU")
    return f"that is long for a CPU; what else would fit: {', '.join(ways)}"


def clip_cost(config: VideoMAEConfig, settings: TrainSettings) -> float:
    """The products of a forward pass of one clip, to be compared with those of other sizes."""
    tokens = config.grid.num_tokens
    if not isinstance(settings, PretrainSettings):
        return config.num_hidden_layers * _layer_cost(
            tokens, config.hidden_size, config.intermediate_size
        )
    visible = tokens * (1 - settings.mask_ratio)
    return config.num_hidden_layers * _layer_cost(
        visible, config.hidden_size, config.intermediate_size
    ) + config.decoder_num_hidden_layers * _layer_cost(
        tokens, config.decoder_hidden_size, config.decoder_intermediate_size
    )


def _layer_cost(tokens: float, width: int, inner: int) -> float:
    """Products with the weights (4 of attention, 2 of the MLP), and those of tokens with tokens."""
    return tokens * (4 * width**2 + 2 * width * inner) + 2 * tokens**2 * width


def gigabytes(num_bytes: float) -> str:
    """A size: 23 MB, 1.2 GB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
