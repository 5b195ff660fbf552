"""Threads that compute: how many, and work on small things that waits for no other core.

PyTorch splits an operation over all cores and waits for the slowest. Where a core is busy with
something else, each operation waits for it, however small it is.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any, Protocol, TypeVar

from videomae.compute.cores import num_cores

Given = TypeVar("Given")
Made = TypeVar("Made")


class Share(Protocol):
    """What `work` makes of each item, in order; the work is shared among threads."""

    def __call__(self, work: Callable[[Given], Made], items: Sequence[Given], /) -> list[Made]: ...


def num_threads() -> int:
    """Threads to compute with on a CPU: as many as torch takes, but no more than there are cores.

    torch goes by OMP_NUM_THREADS, `torch.set_num_threads`, or the cores, and knows of no quota;
    where it is not imported, the same is done here.
    """
    if (torch := sys.modules.get("torch")) is not None:
        asked = int(torch.get_num_threads())
    else:
        number = os.environ.get("OMP_NUM_THREADS", "")
        asked = int(number) if number.isdecimal() else 0
    return min(asked or sys.maxsize, num_cores())


def alone() -> Any:
    """Let this thread compute without helpers: for good, or within `with alone():`.

    Other threads keep theirs, and so do those that start later, unlike with
    `torch.set_num_threads`. Does nothing where torch is not imported.
    """
    if (torch := sys.modules.get("torch")) is None:
        return nullcontext()
    torch.get_num_threads()  # sets the number in a new thread, which would undo the next line
    return _openmp().limit(limits=1)


@cache
def _openmp() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController().select(user_api="openmp")


@contextmanager
def shared() -> Iterator[Share]:
    """Compute alone, and hand out parts of the work, such as frames, to threads that do as well.

    The caller works too. A thread that gets no core delays nothing but the one item that it has.

    ```python
    with shared() as each:
        small = each(resize, frames)
    ```
    """
    count = num_threads()
    with alone():
        yield partial(_share, count)


def _share(count: int, work: Callable[[Given], Made], items: Sequence[Given]) -> list[Made]:
    made: list[Any] = [None] * len(items)
    left = deque(range(len(items)))

    def take() -> None:
        while left:
            try:
                place = left.popleft()
            except IndexError:  # another thread was faster
                return
            made[place] = work(items[place])

    count = min(count, len(items))
    helpers = [_helpers(os.getpid()).submit(take) for _ in range(count - 1)]
    try:
        take()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    return made


@cache
def _helpers(process: int) -> ThreadPoolExecutor:
    """The threads of a process, which wait for work; a fork has none of its parent's."""
    return ThreadPoolExecutor(num_cores(), f"videomae-{process}", initializer=alone)
