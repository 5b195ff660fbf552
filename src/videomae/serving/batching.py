"""Clips of several requests through a model at once.

LitServe, BentoML, mosec and Ray Serve batch too, as platforms of their own, with no hold on limits,
on a 429 before the body, and on requests whose client went away.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

import torch
from torch import Tensor

Compute = Callable[[Tensor], Tensor]
Waiting = tuple[Tensor, asyncio.Future[Tensor]]


class Batcher:
    """Call with views (V, ...) of one video to get their outputs (V, ...), computed with others'.

    compute: what a batch goes through, in a thread of `executor`. batch_size: the most views at
    once. max_wait_seconds: how long a batch waits to be filled. on_batch: takes the number of
    views of each batch and the seconds it took.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        executor: Executor,
        batch_size: int,
        max_wait_seconds: float,
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._compute, self._executor, self._on_batch = compute, executor, on_batch
        self._batch_size, self._max_wait_seconds = batch_size, max_wait_seconds
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self.num_waiting = 0  # videos that are not yet at the model

    async def __call__(self, views: Tensor) -> Tensor:
        answer: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((views, answer))
        self.num_waiting += 1
        return await answer

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            group = await self._gather()
            self.num_waiting -= len(group)
            # A client that went away has cancelled its future.
            group = [(views, answer) for views, answer in group if not answer.done()]
            if group:
                await self._answer(group)

    async def _gather(self) -> list[Waiting]:
        group = [await self._queue.get()]
        deadline = time.monotonic() + self._max_wait_seconds
        while sum(len(views) for views, _ in group) < self._batch_size:
            left = deadline - time.monotonic()
            try:
                # What waits already is taken without waiting.
                async with asyncio.timeout(max(left, 0) if self._queue.empty() else None):
                    group.append(await self._queue.get())
            except TimeoutError:
                break
        return group

    async def _answer(self, group: list[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        views = [each for each, _ in group]
        try:
            outputs = await loop.run_in_executor(self._executor, self._timed, torch.cat(views))
        except Exception as error:
            if len(group) == 1:
                _settle(group[0][1], error)
                return
            for one in group:  # so that the views of one request cannot fail another's
                await self._answer([one])
            return
        parts = torch.split(outputs, [len(each) for each in views])
        for (_, answer), part in zip(group, parts, strict=True):
            _settle(answer, part)

    def _timed(self, views: Tensor) -> Tensor:
        start = time.perf_counter()
        outputs = torch.cat([self._compute(part) for part in torch.split(views, self._batch_size)])
        self._on_batch(len(views), time.perf_counter() - start)
        return outputs


def _settle(answer: "asyncio.Future[Tensor]", result: Tensor | Exception) -> None:
    if answer.done():  # cancelled
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
