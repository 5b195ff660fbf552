"""Uploaded files decoded in processes of their own, which a file may kill or hang.

Pebble and not concurrent.futures, whose whole pool breaks when one process dies, and whose tasks
cannot be stopped.
"""

import asyncio
import multiprocessing
import re
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from videomae.compute.cpu import num_cores
from videomae.errors import VideoError
from videomae.processing.views import ViewMaker
from videomae.video.limits import VideoInfo, VideoLimits
from videomae.video.reader import VideoReader

Decoded = tuple[NDArray[np.float32], VideoInfo]


class Decoders:
    """A pool of processes that make views of files; a process that dies or hangs is replaced."""

    def __init__(self, num_processes: int | None) -> None:
        # Forked from a clean process that has the imports already: torch in the parent has threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.count = num_processes or num_cores()
        self._pool = ProcessPool(self.count, context=context, initializer=_begin)

    async def decode(
        self, path: Path, maker: ViewMaker, limits: VideoLimits, *, name: str
    ) -> tuple[torch.Tensor, VideoInfo]:
        """The views (V, T, C, H, W) of a file and what it is; `name` stands for it in errors.

        Raises VideoError for a file that cannot be read, that takes too long or kills its process.
        """
        for attempt in range(2):
            future = self._pool.schedule(
                _decode, (path, maker, limits), timeout=limits.max_decode_seconds
            )
            try:
                views, info = await asyncio.wrap_future(future)
                return torch.from_numpy(views), info
            except VideoError as error:
                raise type(error)(_for_client(str(error), path, name)) from None
            except FutureTimeoutError:
                raise VideoError(
                    f"{name}: decoding took more than {limits.max_decode_seconds:g} seconds"
                ) from None
            except ProcessExpired:
                if attempt:  # another file, or the machine, may have been the cause of the first
                    raise VideoError(f"{name}: decoding it ended its process, twice") from None
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _begin() -> None:
    torch.set_num_threads(1)  # there is a process per core


def _decode(path: Path, maker: ViewMaker, limits: VideoLimits) -> Decoded:
    with VideoReader(path, limits=limits) as reader:
        return maker.read_views(reader).numpy(), reader.info


def _for_client(text: str, path: Path, name: str) -> str:
    """An error in the words of a client, who knows the file by another name and sets no limits."""
    return re.sub(r"; (if you trust the file|read fewer).*", "", text).replace(str(path), name)
