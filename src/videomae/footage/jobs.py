"""Many videos on their way through a model: read, cut into windows, computed on this machine.

Letters: V views of a video or of a window of one; T, C, H, W as everywhere; D numbers.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from videomae.data.inputs import name_of
from videomae.data.manifest import Video
from videomae.data.opening import part_of, read_bytes, seconds_of
from videomae.errors import VideoError, to_json
from videomae.footage.windows import sliding_windows
from videomae.inference.engines import Engine
from videomae.inference.exported import Log
from videomae.inference.predict import (
    Classification,
    Embedding,
    check_features,
    classification,
    describing,
    ready_model,
)
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.processing.sampling import check_counts
from videomae.processing.views import (
    Fps,
    FrameStride,
    ViewMaker,
    in_background,
    read_videos,
    run_views,
    try_twice,
)
from videomae.settings import Features, OnDamage
from videomae.version import __version__
from videomae.video.reader import VideoReader


@dataclass(frozen=True)
class Job:
    """What a model is asked about many videos; for the options see `predict.classify` and `embed`.

    window_seconds, hop_seconds: a row per window, see `windows.sliding_windows`; with neither, a
    row per video. ConfigError for counts below 1 and features that several views cannot have.
    """

    task: Literal["classify", "embed"]
    model: str = "actions-tiny"
    top_k: int = 5
    features: Features = "pooled"
    num_clips: int = 1
    num_crops: int = 1
    frame_stride: FrameStride = "config"
    fps: Fps = "config"
    window_seconds: float | None = None
    hop_seconds: float | None = None
    on_damage: OnDamage = "refuse"
    dtype: str = "auto"
    engine: str = "auto"
    device: str = "auto"
    batch_size: int = 8

    def __post_init__(self) -> None:
        names = ("top_k", "num_clips", "num_crops", "batch_size")
        check_counts(**{name: getattr(self, name) for name in names})
        check_features(self.features, self.num_clips, self.num_crops)

    @property
    def has_windows(self) -> bool:
        """Whether a video is cut into windows."""
        return (self.window_seconds, self.hop_seconds) != (None, None)

    def load(self, tell: Log | None = None) -> "Loaded":
        """Get the model ready to run; for the errors see `engines.load`."""
        embeds = self.task == "embed"
        how: dict[str, Any] = {name: getattr(self, name) for name in ("engine", "dtype", "device")}
        ready, processor = ready_model(self.model, None, tell, tokens=embeds, **how)
        maker = ViewMaker(
            ready.config, processor, self.frame_stride, self.num_clips, self.num_crops, self.fps,
            self.on_damage,
        )  # fmt: skip
        answer = describing(ready, self.features) if embeds else ready.answer
        compute = partial(ready.run, answer, check=False)  # one bad video ends no job
        return Loaded(self, ready, maker, compute)


@dataclass(frozen=True)
class Loaded:
    """A model that is ready for a job. compute: views (B, T, C, H, W) -> (B, ...), float32, CPU."""

    job: Job
    ready: Engine
    maker: ViewMaker
    compute: Callable[[Tensor], Tensor]

    def facts(self) -> dict[str, Any]:
        """What the parts are made by, see `batch.Rows`."""
        job, config = self.job, self.ready.config
        own: dict[str, Any] = {"top_k": job.top_k}
        shape = None
        if job.task == "embed":
            own, grid = {"features": job.features}, config.grid
            vectors = {"pooled": [], "per_time": [grid.frames], "tokens": [grid.num_tokens]}
            shape = [*vectors[job.features], config.hidden_size]
        same = ("num_clips", "num_crops", "window_seconds", "hop_seconds", "on_damage")
        return {
            "task": job.task,
            "model": job.model,
            "weights_sha256": _digest(self.ready.model),
            "settings": {
                **own,
                **{name: getattr(job, name) for name in same},
                "frame_stride": self.maker.stride,
                "fps": self.maker.rate,
                "dtype": str(self.ready.dtype).removeprefix("torch."),
            },
            "feature_shape": shape,
            "processor": self.maker.processor.to_dict(),
            "engine": self.ready.describe(),
            "version": __version__,
        }


def _digest(model: VideoMAEPreTrainedModel) -> str:
    """A checksum of a model's weights and of the names of its classes."""
    digest = hashlib.sha256(to_json(model.config.id2label).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def answer_of(outputs: Tensor, job: Job, config: Any) -> Classification | Embedding:
    """The answer that the outputs (V, ...) of one video's views stand for."""
    if job.task == "classify":
        return classification(outputs, config, top_k=job.top_k)
    return Embedding(None, outputs.mean(0).numpy())


@dataclass(frozen=True)
class Found:
    """A video of a list, or window `window` of `num_windows` of it, on its way through a model.

    value: its views (V, T, C, H, W), what the model makes of them (V, ...), or why there are none.
    """

    number: int
    value: Tensor | str
    window: int = 0
    num_windows: int = 1
    start_seconds: float | None = None
    end_seconds: float | None = None


def read_video(number: int, video: Video, maker: ViewMaker, job: Job) -> Iterator[Found]:
    """Give the views of a video, or of each window of it, until one cannot be read.

    A folder of frames has no seconds, and is one window, unless `maker` has a rate for it.
    """
    source: Any = video.path
    if video.offset is not None or video.is_remote:
        data = try_twice(read_bytes, video)
        if isinstance(data, str):
            yield Found(number, data)
            return
        source = {"path": name_of(video), "bytes": data}
    try:
        is_timed = source is not video.path or not Path(video.path).is_dir()
        if job.has_windows and (is_timed or maker.rate is not None):
            seconds = {"window_seconds": job.window_seconds, "hop_seconds": job.hop_seconds}
            for window, views in sliding_windows(source, maker, **seconds):
                where = (window.index, window.count, window.start_seconds, window.end_seconds)
                yield Found(number, views, *where)
            return
        with VideoReader(source, on_damage=maker.on_damage) as reader:
            part = part_of(video, reader.info, reader.times)
            start, end = seconds_of(part, reader.info, reader.times())
            yield Found(number, maker.read_views(reader, part), 0, 1, start, end)
    except VideoError as error:
        yield Found(number, str(error))


def compute_here(loaded: Loaded, videos: Iterable[tuple[int, Video]]) -> Iterator[Found]:
    """Run numbered videos through a model on this machine, the next ones read meanwhile."""
    job, maker = loaded.job, loaded.maker

    def begin(item: tuple[int, Video]) -> Iterable[Found]:
        made = read_video(*item, maker, job)
        if not job.has_windows:
            return list(made)
        made = in_background(made, num_ahead=max(job.batch_size // maker.num_views, 1))
        return itertools.chain([next(made)], made)

    streams = read_videos(begin, videos)
    found = ((replace(each, value=""), each.value) for stream in streams for each in stream)
    for each, value in run_views(found, loaded.compute, job.batch_size):
        yield replace(each, value=value)
