"""Times measured side by side: in turns, as medians and quartiles; and on what machine."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch

from videomae.compute.environment import environment
from videomae.errors import ConfigError

Clock = Literal["wall", "cpu"]
Timing = dict[str, float]  # seconds over several rounds: the "median", the quartiles "low", "high"

# Threads of OpenMP and ONNX Runtime go on spinning after their work, which slows what comes next.
_SETTLE_SECONDS = 0.1


def stopwatch(clock: Clock, device: torch.device) -> Callable[[], float]:
    """A function that reads the seconds, once `device` has done everything it was asked to do.

    "wall" is what a user waits for; "cpu" is the time that all threads of this process computed,
    and the processes started by it that have ended, which other work on the machine disturbs less.
    Raises ConfigError for "cpu" with a GPU, whose work it would not see.
    """
    if clock == "cpu" and device.type != "cpu":
        raise ConfigError(f"clock='cpu' sees no work of {device}; use clock='wall'")

    def now() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        if clock == "wall":
            return time.perf_counter()
        ended = os.times()
        return time.process_time() + ended.children_user + ended.children_system

    return now


def take_turns(
    jobs: Mapping[str, Callable[[], object]], now: Callable[[], float], *, repeats: int
) -> dict[str, Timing]:
    """Time jobs by name, in `repeats` rounds after one to warm up.

    Whatever else runs on the machine disturbs all alike, because they take turns.

    ```python
    take_turns({"ours": f, "theirs": g}, stopwatch("wall", device), repeats=9)["ours"]["median"]
    ```
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            time.sleep(_SETTLE_SECONDS)
            start = now()
            job()
            seconds[name].append(now() - start)
    timings = {}
    for name, rounds in seconds.items():
        low, median, high = np.quantile(rounds[1:], (0.25, 0.5, 0.75)).round(6).tolist()
        timings[name] = {"median": median, "low": low, "high": high}
    return timings


def about_machine(device: torch.device) -> dict[str, Any]:
    """The facts that a figure depends on: versions, processor, cores, threads, device, load."""
    facts = environment() | {"device": str(device)}
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)  # above `cores`, others compute here as well
    return facts
