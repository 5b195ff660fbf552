"""Times and memory measured side by side: in turns, medians and quartiles; and on what machine.

What runs at the same time on the machine disturbs all alike, because they take turns. One round
warms up and is not counted.
"""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from videomae.compute.cpu import num_cores
from videomae.errors import ConfigError
from videomae.version import __version__

Clock = Literal["wall", "cpu"]
# What is measured: a function, or one that returns an iterator of its phases' names, each given
# when the phase has ended.
Run = Callable[[], object]

# Threads of OpenMP and ONNX Runtime go on spinning for a while after their work, which once made a
# model of 12 ms take 23 when it came next.
_SETTLE_SECONDS = 0.1

_PACKAGES = (
    "torch", "torchvision", "transformers", "numpy", "av", "pillow", "decord", "torchcodec",
    "openvino", "onnxruntime",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Seconds over several rounds: the median, and the quartiles below and above it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Sum up rounds.

        >>> Timing.of([4.0, 1.0, 2.0, 3.0, 5.0])
        Timing(median=3.0, low=2.0, high=4.0)
        """
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
        return cls(median, low, high)


@dataclass(frozen=True)
class Sheet:
    """A table to be read: the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        self.rows.append(cells)


@dataclass(frozen=True)
class Outcome:
    """What came out: tables, the same figures by name, what was left out and why, and charts.

    A chart is a function that draws itself into a folder.
    """

    sheets: list[Sheet] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    charts: list[Callable[[Path], Path]] = field(default_factory=list)

    def sheet(self, title: str, *columns: str) -> Sheet:
        """A new table, to be filled."""
        self.sheets.append(Sheet(title, columns))
        return self.sheets[-1]

    def lacks(self, package: str) -> None:
        self.left_out.append(f"{package} is not installed")


def in_ms(timing: Timing) -> str:
    """The median in ms, and half the distance between the quartiles."""
    return f"{1e3 * timing.median:.1f} ±{500 * (timing.high - timing.low):.1f}"


def ratio(slow: Timing, fast: Timing) -> str:
    """How many times as long the first takes.

    >>> ratio(Timing.of([3.0]), Timing.of([2.0]))
    '1.50x'
    """
    return f"{slow.median / fast.median:.2f}x"


def stopwatch(clock: Clock, device: torch.device) -> Callable[[], float]:
    """A function that tells seconds, once everything that `device` was asked to do is done.

    "wall" is what a user waits for; "cpu" is the time that all threads of this process computed,
    which other work on the machine disturbs less. Raises ConfigError for "cpu" with a GPU, whose
    work it would not see.
    """
    if clock == "cpu" and device.type != "cpu":
        raise ConfigError(f"clock='cpu' sees no work of {device}; use clock='wall'")
    tell = time.process_time if clock == "cpu" else time.perf_counter

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return tell()

    return now


def interleaved(
    runs: Mapping[str, Run],
    now: Callable[[], float],
    *,
    repeats: int,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Timing]]:
    """Let all runs take turns: name -> "total" and each phase -> Timing of `repeats` rounds.

    `tell` hears, outside of what is timed, what runs next.

    ```python
    times = interleaved({"ours": f, "theirs": g}, stopwatch("wall", device), repeats=9)
    times["theirs"]["total"].median / times["ours"]["total"].median
    ```
    """
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            tell(f"{name}, {f'round {turn} of {repeats}' if turn else 'warming up'}")
            time.sleep(_SETTLE_SECONDS)
            start = last = now()
            phases = run()
            for phase in phases if isinstance(phases, Iterator) else ():
                here = now()
                seconds[name][phase].append(here - last)
                last = here
            seconds[name]["total"].append(now() - start)
    return {
        name: {phase: Timing.of(rounds[1:]) for phase, rounds in phases.items()}
        for name, phases in seconds.items()
    }


def child_seconds(clock: Clock, run: Callable[[], object]) -> float:
    """Seconds that `run` takes, which starts other processes and waits for their end."""
    wall, cpu = time.perf_counter(), _children_cpu()
    run()
    return _children_cpu() - cpu if clock == "cpu" else time.perf_counter() - wall


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def peak_of(
    build: Callable[..., Run],
    arguments: tuple[Any, ...],
    *,
    warm_up: tuple[Any, ...],
    device: torch.device,
) -> int:
    """Peak memory in bytes of building a run and running it twice, in a process of its own.

    On a CPU it counts what came on top of the imports: weights, activations, gradients, optimiser.
    On CUDA it is what torch had allocated. `build` is a plain function of a module, and it and its
    arguments can be pickled. `warm_up` are those of a small run before, which imports everything.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        threads = torch.get_num_threads()
        return pool.submit(_peak_here, build, arguments, warm_up, device, threads).result()


def _peak_here(
    build: Callable[..., Run],
    arguments: tuple[Any, ...],
    warm_up: tuple[Any, ...],
    device: torch.device,
    threads: int,
) -> int:
    torch.set_num_threads(threads)
    _finish(build(*warm_up))
    before = peak_bytes()
    run = build(*arguments)
    _finish(run)
    _finish(run)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return max(peak_bytes() - before, 1)


def _finish(run: Run) -> None:
    phases = run()
    for _ in phases if isinstance(phases, Iterator) else ():
        pass


def peak_bytes() -> int:
    """The most memory that this process has had so far.

    Not `ru_maxrss` where there is better: on Linux a child starts with that of its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource  # not on Windows

        unit = 1 if platform.system() == "Darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The k of y = c * x ** k that fits best: least squares between the logarithms.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def about_machine(device: torch.device) -> dict[str, Any]:
    """What a figure hangs on: processor, cores, threads, how busy the machine is, versions."""
    facts: dict[str, Any] = {
        "processor": _processor_name(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "videomae": __version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)  # above `cores`, others compute here as well
    return facts | {name: found for name in _PACKAGES if (found := version_of(name))}


def version_of(package: str) -> str | None:
    """The installed version, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model n"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
