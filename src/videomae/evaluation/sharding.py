"""Every video of a list once: its views through a model, the work shared by all processes.

N videos, V views of each, D numbers that the model gives for a view.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from videomae.compute.distributed import Machine
from videomae.errors import VideoError
from videomae.training.data import ClipSource

Progress = Callable[[int, int], None]  # (videos done, videos in all)


def compute_videos(
    source: ClipSource,
    compute: Callable[[Tensor], Tensor],
    combine: Callable[[Tensor], Tensor],
    *,
    machine: Machine,
    num_clips: int,
    num_crops: int = 1,
    batch_size: int,
    num_workers: int,
    in_step: bool = False,
    on_progress: Progress | None = None,
) -> list[Tensor | str]:
    """What `combine` makes of the views of each video, in the order of the list; or the reason.

    `compute` takes uint8 clips (B, T, C, H, W), B up to `batch_size`, and gives (B, D); `combine`
    takes those of one video (V, D). Each video is decoded once and never replaced by another: one
    that cannot be read, in two tries, gives the reason as a text.

    Of several processes each takes the videos rank, rank + world, ..., and all get all the results.
    `in_step`: the model is split over them, so that all must call it equally often.
    """
    num_views, count = num_clips * num_crops, len(source.videos)
    at_once = max(batch_size // num_views, 1)
    own = range(machine.rank, count, machine.world)
    rounds = -(-count // (machine.world * at_once))
    num_calls = -(-at_once * num_views // batch_size) if in_step else 0
    no_clip = torch.zeros(1, source.config.num_frames, 3, *source.config.image_hw).byte()

    def results(views: list[Tensor]) -> list[Tensor]:
        parts = list(torch.split(torch.cat(views), batch_size)) if views else []
        outputs = [compute(part).cpu() for part in parts]
        for _ in range(len(parts), num_calls):
            compute(no_clip)
        return list(torch.split(torch.cat(outputs), num_views)) if outputs else []

    def read(index: int) -> Tensor | str:
        return _try_twice(source, index, num_clips, num_crops)

    rows: list[Tensor | str] = []
    with contextlib.closing(_ahead(read, own, num_workers, 2 * at_once)) as decoded:
        for _ in range(rounds):
            group = list(islice(decoded, at_once))
            made = iter(results([views for views in group if isinstance(views, Tensor)]))
            rows += [x if isinstance(x, str) else _checked(combine(next(made))) for x in group]
            if on_progress and machine.is_main:
                on_progress(min(len(rows) * machine.world, count), count)
    every = machine.gather([rows])
    return [every[number % machine.world][number // machine.world] for number in range(count)]


def _try_twice(source: ClipSource, index: int, num_clips: int, num_crops: int) -> Tensor | str:
    """The views of a video, tried twice, as disks and networks stumble; else the reason."""
    try:
        return source.view_clips(index, num_clips=num_clips, num_crops=num_crops)
    except VideoError:
        try:
            return source.view_clips(index, num_clips=num_clips, num_crops=num_crops)
        except VideoError as error:
            return str(error)


def _checked(row: Tensor) -> Tensor | str:
    if not row.isfinite().all():
        return "the model's answer is no number; try dtype=float32"
    return row.clone()  # a piece of the batch would keep, and pickle, the whole of it


def _ahead(
    read: Callable[[int], Tensor | str], order: range, num_workers: int, num_ahead: int
) -> Generator[Tensor | str]:
    """What `read` gives for each number, in order, prepared ahead by threads."""
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="videomae-views")
    waiting: deque[Future[Tensor | str]] = deque()
    try:
        for index in order:
            waiting.append(pool.submit(read, index))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and keeps no gradients; after, all is as before."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def is_split(model: nn.Module) -> bool:
    """Whether the model's weights lie split over the processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
