import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae.serving.batching import Batcher


class Doubling:
    """A model that doubles, refuses negative numbers, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, views: Tensor) -> Tensor:
        self.batches.append(len(views))
        if (views < 0).any():
            raise ValueError("negative")
        return views * 2


def serve(model: Doubling, work: Any, **options: Any) -> Any:
    """What `work(batcher)` gives while the batcher runs."""

    async def main() -> Any:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(
                model,
                executor=executor,
                **{
                    "batch_size": 4,
                    "max_wait_seconds": 0.2,
                    "on_batch": lambda *_: None,
                    **options,
                },
            )
            running = asyncio.ensure_future(batcher.run())
            try:
                return await work(batcher)
            finally:
                running.cancel()

    return asyncio.run(main())


def videos(*sizes: int) -> list[Tensor]:
    return [torch.full((size, 2), float(index)) for index, size in enumerate(sizes)]


def ask(batcher: Batcher, views: list[Tensor]) -> Coroutine[Any, Any, list[Any]]:
    async def every() -> list[Any]:
        return await asyncio.gather(*map(batcher, views), return_exceptions=True)

    return every()


def test_waiting_videos_share_a_batch_and_each_gets_its_own() -> None:
    model, views = Doubling(), videos(1, 1, 2)
    found = serve(model, lambda batcher: ask(batcher, views))
    assert model.batches == [4]
    for before, after in zip(views, found, strict=True):
        assert torch.equal(after, before * 2)


def test_a_full_batch_does_not_wait() -> None:
    model = Doubling()

    async def work(batcher: Batcher) -> list[Any]:
        async with asyncio.timeout(5):
            return await ask(batcher, videos(2, 2))

    assert len(serve(model, work, max_wait_seconds=60)) == 2


def test_more_views_than_a_batch_go_in_parts() -> None:
    model, views = Doubling(), videos(9)
    (found,) = serve(model, lambda batcher: ask(batcher, views))
    assert model.batches == [4, 4, 1]
    assert torch.equal(found, views[0] * 2)


def test_the_views_of_one_video_do_not_fail_the_others() -> None:
    views = [torch.ones(1, 2), -torch.ones(1, 2), torch.ones(1, 2)]
    first, second, third = serve(Doubling(), lambda batcher: ask(batcher, views))
    assert isinstance(second, ValueError)
    assert torch.equal(first, third)


def test_what_nobody_waits_for_is_not_computed() -> None:
    model = Doubling()

    async def work(batcher: Batcher) -> Any:
        left = asyncio.ensure_future(batcher(torch.ones(3, 2)))
        await asyncio.sleep(0)
        left.cancel()
        return await batcher(torch.ones(1, 2))

    serve(model, work)
    assert model.batches == [1]


@pytest.mark.parametrize("sizes", [(1,), (2, 1)])
def test_each_batch_is_reported_with_its_views_and_seconds(sizes: tuple[int, ...]) -> None:
    seen: list[tuple[int, float]] = []
    serve(
        Doubling(),
        lambda batcher: ask(batcher, videos(*sizes)),
        on_batch=lambda *each: seen.append(each),
    )
    assert [count for count, _ in seen] == [sum(sizes)]
    assert seen[0][1] >= 0
