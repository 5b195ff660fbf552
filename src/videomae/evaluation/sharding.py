"""Every video of a list once: its views through a model, the work shared by all processes.

N videos, V views of each, D numbers that the model gives for a view.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from videomae.compute.distributed import Machine
from videomae.data.manifest import Video, Videos
from videomae.data.opening import open_video, part_of
from videomae.evaluation.partial import Partial
from videomae.processing.views import ViewMaker, read_ahead, run_views, try_twice

Progress = Callable[[int, int], None]  # (videos done, videos in all)


def views_of(video: Video, maker: ViewMaker) -> Tensor:
    """The views (V, T, C, H, W) of a row of a manifest, of its part alone where it names one."""
    with open_video(video, maker.on_damage) as reader:
        return maker.read_views(reader, part_of(video, reader.info, reader.times))


def compute_videos(
    model: nn.Module,
    videos: Videos,
    maker: ViewMaker,
    answer_of: Callable[[Any], Tensor],
    combine: Callable[[Tensor], Tensor],
    *,
    shape: tuple[int, ...],
    machine: Machine,
    batch_size: int,
    num_workers: int | None,
    on_progress: Progress | None = None,
    partial: Partial | None = None,
    early_exit: int = 0,
) -> tuple[Tensor, dict[int, str]]:
    """Run each video through a model: what `combine` makes of its views, (N, *shape).

    The model, in evaluation mode meanwhile, takes up to `batch_size` views (B, T, C, H, W) at once;
    `answer_of` makes (B, D) of its output, and `combine` makes `shape` of those of one video
    (V, D). Each video is decoded once and never replaced by another: one that cannot be read, in
    two tries, is NaN, and its row has the reason in the dict.

    Of several processes each takes the videos rank, rank + world, ..., and all get all the results.
    Answers go to `partial` as they come; those that it has are taken from there. For `early_exit`
    see `run_views`; it goes with no model that is split over processes.
    """
    assert not (early_exit and is_split(model)), "its processes must call it equally often"
    count, at_once = len(videos), max(batch_size // maker.num_views, 1)
    num_calls = 0
    own = range(machine.rank, count, machine.world)
    known: dict[int, Tensor] = {}
    if partial is not None:
        known = {row: answer for row, answer in partial.read(shape).items() if row in own}
        machine.wait()  # all have read before any writes
        partial.begin(machine.rank, known)

    def compute(views: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        with machine.autocast():
            output = model(views.to(machine.device), return_dict=True)
        return answer_of(output).cpu()

    made = read_ahead(
        lambda row: (row, try_twice(views_of, videos.items[row], maker)),
        [row for row in own if row not in known],
        num_threads=num_workers,
        num_ahead=at_once,
    )
    answers: list[tuple[int, Tensor | str]] = list(known.items())
    num_kept = len(answers)

    def keep() -> None:
        nonlocal num_kept
        if partial is not None:
            # Damaged videos are to be counted in each run, and so are read again.
            new = [
                (row, a)
                for row, a in answers[num_kept:]
                if isinstance(a, Tensor) and videos.items[row].path not in maker.damaged
            ]
            partial.add(machine.rank, new)
            num_kept = len(answers)

    def in_batches() -> Iterator[tuple[int, Tensor | str]]:
        for each in made:
            # The next batch begins, and what is kept ends with a whole one: work that goes on then
            # has the batches, and so the last bits, of work that was never broken off.
            keep()
            yield each

    with evaluating(model), contextlib.closing(made):
        for row, outputs in run_views(in_batches(), compute, batch_size, early_exit):
            answer = outputs if isinstance(outputs, str) else combine(outputs)
            if isinstance(answer, Tensor) and not answer.isfinite().all():
                answer = "the model's answer is no number; try dtype=float32"
            # A piece of the batch would keep, and pickle, the whole of it.
            answers.append((row, answer if isinstance(answer, str) else answer.clone()))
            if on_progress and machine.is_main:
                on_progress(min(len(answers) * machine.world, count), count)
        keep()
        if is_split(model):  # the processes must call it equally often
            batches = math.ceil(count / (machine.world * at_once))
            most = batches * math.ceil(at_once * maker.num_views / batch_size)
            config = maker.config
            nothing = torch.zeros(1, config.num_frames, config.num_channels, *config.image_hw)
            while num_calls < most:
                compute(nothing)
    values, bad = torch.full((count, *shape), torch.nan), {}
    for row, answer in sorted(machine.gather(answers), key=lambda pair: pair[0]):
        if isinstance(answer, str):
            bad[row] = answer
        else:
            values[row] = answer
    return values, bad


def list_unreadable(videos: Videos, bad: Mapping[int, str]) -> list[str]:
    """The reasons, by row, why videos could not be read, each with the video's name."""
    pairs = [(str(videos.items[row]), reason) for row, reason in bad.items()]
    return [reason if name in reason else f"{name}: {reason}" for name, reason in pairs]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, without gradients; afterwards all is as before."""
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
