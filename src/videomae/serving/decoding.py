"""Uploaded files decoded in processes of their own, which a file may kill or hang.

A pipe to each process and nothing shared: in the pools of concurrent.futures and Pebble, a process
that is killed at a bad moment, or while idle, ends all others.
"""

import asyncio
import multiprocessing
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.compute.cores import num_cores
from videomae.errors import VideoError
from videomae.processing.views import ViewMaker
from videomae.video.limits import VideoInfo, VideoLimits
from videomae.video.reader import VideoReader

Job = tuple[Path, ViewMaker, VideoLimits]
Decoded = tuple[NDArray[np.float32], VideoInfo]


class Decoders:
    """Processes that make views of files; one that dies or hangs is replaced."""

    def __init__(self, num_processes: int | None) -> None:
        self.count = num_processes or num_cores()
        self._workers = {_Worker() for _ in range(self.count)}
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        for worker in self._workers:
            self._free.put_nowait(worker)
        self._threads = ThreadPoolExecutor(self.count, "videomae-decoder")  # each waits for one

    async def decode(
        self, path: Path, maker: ViewMaker, limits: VideoLimits, *, name: str
    ) -> tuple[torch.Tensor, VideoInfo]:
        """The views (V, T, C, H, W) of a file and what it is; `name` stands for it in errors.

        Raises VideoError for a file that cannot be read, that takes too long or kills its process.
        """
        for attempt in range(2):
            try:
                views, info = await self._ask((path, maker, limits))
                return torch.from_numpy(views), info
            except VideoError as error:
                raise type(error)(_for_client(str(error), path, name)) from None
            except TimeoutError:
                raise VideoError(
                    f"{name}: decoding took more than {limits.max_decode_seconds:g} seconds"
                ) from None
            except (EOFError, ConnectionError):
                if attempt:  # another file, or the machine, may have been the cause of the first
                    raise VideoError(f"{name}: decoding it ended its process, twice") from None
        raise AssertionError("the loop returns or raises")

    async def _ask(self, job: Job) -> Decoded:
        worker, answered = await self._free.get(), False
        try:
            async with asyncio.timeout(job[-1].max_decode_seconds):
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._threads, worker.ask, job)
            answered = True
        finally:
            if not answered:  # it died, took too long, or nobody waits for it any more
                worker.stop()
                self._workers.remove(worker)
                worker = _Worker()
                self._workers.add(worker)
            self._free.put_nowait(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown()


class _Worker:
    """A process that answers one job after the other; it starts with the first."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None
        self._is_stopped = False

    def ask(self, job: Job) -> Decoded | Exception:
        """What comes of a job. Raises EOFError or ConnectionError if the process dies of it."""
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send(job)
            answer: Decoded | Exception = self._pipe.recv()
        except OSError as error:  # in the middle of an answer
            raise EOFError from error
        return answer

    def stop(self) -> None:
        """End the process, and with it `ask` in another thread."""
        self._is_stopped = True
        if self._process is not None:
            self._process.kill()

    def _start(self) -> None:
        # Forked from a clean process that has the imports already: torch in the parent has threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pipe, there = context.Pipe()
        process = context.Process(target=_work, args=(there,), daemon=True)
        process.start()
        there.close()
        self._process = process
        if self._is_stopped:  # in the meantime
            self._process.kill()


def _work(pipe: Connection) -> None:
    """Answer jobs until the service is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    torch.set_num_threads(1)  # there is a process per core
    _limit_memory(VideoLimits().max_memory_bytes)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_decode(*job))
        except Exception as error:
            pipe.send(error)


def _limit_memory(num_bytes: int) -> None:
    """Let this process allocate no more, where the system has such a limit (Linux)."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, num_bytes))


def _decode(path: Path, maker: ViewMaker, limits: VideoLimits) -> Decoded:
    try:
        with VideoReader(path, limits=limits) as reader:
            return maker.read_views(reader).numpy(), reader.info
    except MemoryError:
        raise VideoError(f"{path}: decoding it needs too much memory") from None


def _for_client(text: str, path: Path, name: str) -> str:
    """An error in the words of a client, who knows the file by another name and sets no limits."""
    return re.sub(r"; (if you trust the file|read fewer).*", "", text).replace(str(path), name)
