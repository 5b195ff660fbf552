"""How much of this machine the process may use: by affinity, and by the limits of its container."""

import gc
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_ANY_BYTES = 1 << 60  # version 1 writes "no limit" as a number above all memory


def num_cores() -> int:
    """Cores that this process may use, and at least 1; nothing here takes more threads by itself.

    What the system lets it run on (`taskset`, `docker --cpuset-cpus`), and what its container lets
    it have of their time (`docker --cpus`, a limit in Kubernetes; 1.5 is 2), the lesser of both.
    """
    quota, _ = container_limits()
    return min(_cores_by_affinity(), max(1, math.ceil(quota)) if quota else sys.maxsize)


def cores_per_process() -> int:
    """The share of `num_cores` for each of the processes that torchrun started here, at least 1."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, num_cores() // max(1, int(processes) if processes.isdecimal() else 1))


@contextmanager
def without_collector() -> Iterator[None]:
    """Inside, Python looks for no garbage: where much is made and all of it kept, that is in vain.

    A million rows of a manifest take a quarter less time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _cores_by_affinity() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def heed_quota() -> None:
    """Let torch, which goes by affinity, take no more threads than the container has time for.

    For programs, before they import torch: sets OMP_NUM_THREADS, unless it is set.
    """
    if num_cores() < _cores_by_affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cores()))


@cache
def container_limits(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> tuple[float | None, int | None]:
    """Cores and bytes of memory that this process' control groups allow, None: any.

    A container is such a group, of version 1 or 2; those around it hold as well, where they show.
    They are read once, as that takes as long as to resize a frame.
    """
    cores, memory = [], []
    for tree, path in _groups(root, membership):
        inner = tree / path.lstrip("/")
        inner = tree if ".." in inner.parts else inner  # seen from inside, where it does not show
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(tree):
                break
            for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
                match _numbers(folder, *names):
                    case [quota, period] if quota > 0 and period > 0:
                        cores.append(round(quota / period, 2))
            for name in ("memory.max", "memory.limit_in_bytes"):
                memory += [limit for limit in _numbers(folder, name) if limit < _ANY_BYTES]
    return min(cores, default=None), min(memory, default=None)


def _groups(root: Path, membership: Path) -> list[tuple[Path, str]]:
    """The tree of each kind of limit, and the place of this process in it.

    Lines are "0::/a/b" in version 2, which has one tree, and "4:cpu,cpuacct:/a/b" in version 1.
    """
    lines = []
    with suppress(OSError, UnicodeDecodeError):
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    found = [
        (root / kind, path)
        for _, kinds, path in (line for line in lines if len(line) == 3)
        for kind in kinds.split(",")
        if kind in ("", "cpu", "memory")
    ]
    return found or [(root, "")]


def _numbers(folder: Path, *names: str) -> list[int]:
    """The whole numbers in files of a group; none where one is missing or says "max"."""
    with suppress(OSError, ValueError):
        return [int(word) for name in names for word in (folder / name).read_text().split()]
    return []
