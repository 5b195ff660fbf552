"""Times and memory measured side by side: in turns, medians and quartiles; and on what machine.

Whatever else runs on the machine disturbs all alike, because they take turns. One round warms up
and is not counted.
"""

import itertools
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich import box
from rich.table import Table

from videomae.compute.cpu import CPU_CAPABILITIES, num_cores
from videomae.errors import ConfigError
from videomae.version import __version__

Clock = Literal["wall", "cpu"]
# What is measured: a function, or one that returns an iterator of its phases' names, each given
# when the phase has ended.
Job = Callable[[], object]

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

    def __str__(self) -> str:
        """The median in ms, and half the distance between the quartiles.

        >>> str(Timing(0.1, 0.09, 0.13))
        '100.0 ±20.0 ms'
        """
        return f"{1e3 * self.median:.1f} ±{500 * (self.high - self.low):.1f} ms"

    def over(self, other: "Timing") -> str:
        """The ratio to another, in words.

        >>> Timing.of([3.0]).over(Timing.of([2.0]))
        '1.50x'
        """
        return f"{self.median / other.median:.2f}x"


def stopwatch(clock: Clock, device: torch.device) -> Callable[[], float]:
    """A function that reads the seconds, once `device` has done everything it was asked to do.

    "wall" is what a user waits for; "cpu" is the time that all threads of this process computed,
    and the processes started by it that have ended, which other work on the machine disturbs less.
    Raises ConfigError for "cpu" with a GPU, whose work it would not see.
    """
    if clock == "cpu" and device.type != "cpu":
        raise ConfigError(f"clock='cpu' sees no work of {device}; use clock='wall'")

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        if clock == "wall":
            return time.perf_counter()
        ended = os.times()
        return time.process_time() + ended.children_user + ended.children_system

    return now


def take_turns(
    jobs: Mapping[str, Job],
    now: Callable[[], float],
    *,
    repeats: int,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Timing]]:
    """Let all jobs take turns: name -> "total" and each phase -> Timing of `repeats` rounds.

    `log` is given what runs next, outside of what is timed.

    ```python
    times = take_turns({"ours": f, "theirs": g}, stopwatch("wall", device), repeats=9)
    times["theirs"]["total"].over(times["ours"]["total"])  # 1.50x
    ```
    """
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            log(f"{name}, {f'round {turn} of {repeats}' if turn else 'warming up'}")
            time.sleep(_SETTLE_SECONDS)
            start = last = now()
            for phase in _phases(job):
                here = now()
                seconds[name][phase].append(here - last)
                last = here
            seconds[name]["total"].append(now() - start)
    return {
        name: {phase: Timing.of(rounds[1:]) for phase, rounds in phases.items()}
        for name, phases in seconds.items()
    }


def _phases(job: Job) -> Iterator[str]:
    """Do a job, stopping at the end of each phase that it names."""
    phases = job()
    if isinstance(phases, Iterator):
        yield from phases


def peak_of(build: Callable[[Any], Job], what: Any, *, small: Any, device: torch.device) -> int:
    """Peak memory in bytes of building a job of `what` and doing it twice, in an own process.

    On a CPU it counts what came on top of the imports: weights, activations, gradients, optimiser.
    On CUDA it is what torch had allocated. `build` is a function of a module, or a partial of one,
    that can be pickled. `small` goes through it before, so that everything is imported.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        threads = torch.get_num_threads()
        return pool.submit(_peak_here, build, what, small, device, threads).result()


def _peak_here(
    build: Callable[[Any], Job], what: Any, small: Any, device: torch.device, threads: int
) -> int:
    torch.set_num_threads(threads)
    list(_phases(build(small)))
    before = peak_bytes()
    job = build(what)
    for _ in range(2):
        list(_phases(job))
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return max(peak_bytes() - before, 1)


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


def about_machine(device: torch.device) -> dict[str, Any]:
    """The facts that a figure depends on: processor, cores, threads, load, versions."""
    facts: dict[str, Any] = {
        "processor": CPU_CAPABILITIES.get("cpu_name") or platform.processor() or platform.machine(),
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
    for name in _PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return facts


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The k of y = c * x ** k that fits best: least squares between the logarithms.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def as_plain(figures: Any) -> Any:
    """Figures as JSON holds them."""
    if isinstance(figures, Timing):
        return {name: round(value, 6) for name, value in asdict(figures).items()}
    if isinstance(figures, Mapping):
        return {str(key): as_plain(value) for key, value in figures.items()}
    return figures


def table_of(rows: Mapping[str, Any]) -> Table:
    """Figures to be read: a row per name, a column per figure; times with ratios to the first."""
    cells = {name: row if isinstance(row, Mapping) else {"": row} for name, row in rows.items()}
    columns = dict.fromkeys(itertools.chain(*cells.values()))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_header=any(columns))
    for index, column in enumerate(["", *columns]):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    first = next(iter(cells.values()))
    for name, row in cells.items():
        table.add_row(name, *(_in_words(row.get(each), first.get(each)) for each in columns))
    return table


def _in_words(figure: Any, first: Any) -> str:
    if isinstance(figure, Timing):
        return f"{figure}" if figure is first else f"{figure} ({figure.over(first)})"
    if isinstance(figure, float):
        return f"{figure:.3g}"
    return "" if figure is None else f"{figure:,}"
