"""Videos in, answers out: classify and embed files, bytes, folders, arrays, tensors.

A function takes one video and returns one result, takes a list and returns a list, or takes an
iterator and returns an iterator that gives each result as soon as it is there.

Letters: V views of a video; T, C, H, W as everywhere; N tokens, f slices of time, D features, K
labels. torch is imported where it computes, which in `classify` and `embed` a graph does not need.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    overload,
)

import numpy as np
from numpy.typing import NDArray

from videomae.compute.cores import without_collector
from videomae.config import VideoMAEConfig, check_choice
from videomae.errors import ConfigError
from videomae.hub import PathLike
from videomae.inference import graphs
from videomae.inference.graphs import Graph
from videomae.processing.sampling import check_counts
from videomae.processing.views import (
    Fps,
    FrameStride,
    OnError,
    ViewMaker,
    find_processor,
    prepared,
    run_views,
)
from videomae.settings import Features, OnDamage
from videomae.video.reader import BadVideo, VideoSource, is_source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videomae.inference import engines
    from videomae.inference.exported import Log
    from videomae.model.modeling import VideoMAEPreTrainedModel

Model = Union[PathLike, "VideoMAEPreTrainedModel", Graph]
Floats = NDArray[np.float32]
Video = Union[VideoSource, NDArray[Any], "Tensor"]
Videos = list[Any] | tuple[Any, ...]
Skip = Literal["skip"]
Options = ParamSpec("Options")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Classification:
    """The labels that a classifier gives one video.

    path: the file or folder, None for an array or bytes. labels: the `top_k` best, best first.
    scores: their probabilities in 0..1, the mean over all views; of a multi-label model each by
    itself, of a regression its values, and then `are_shares` is False. logits: (V, K), before the
    softmax.
    """

    path: Path | None
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    logits: Floats = field(repr=False)
    are_shares: bool = field(default=True, repr=False)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of one video: (D,), (f, D) or (N, D), as was asked for. path: None for arrays."""

    path: Path | None
    features: Floats = field(repr=False)


class OverVideos(Protocol[Options, Result]):
    """A function of videos as type checkers see it: its own options, and results as videos came."""

    @overload
    def __call__(
        self, videos: Iterator[Any], *, on_error: Skip, **options: Any
    ) -> Iterator[Result | BadVideo]: ...
    @overload
    def __call__(
        self, videos: Videos, *, on_error: Skip, **options: Any
    ) -> list[Result | BadVideo]: ...
    @overload
    def __call__(self, videos: Video, *, on_error: Skip, **options: Any) -> Result | BadVideo: ...
    @overload
    def __call__(
        self, videos: Iterator[Any], *args: Options.args, **options: Options.kwargs
    ) -> Iterator[Result]: ...
    @overload
    def __call__(
        self, videos: Videos, *args: Options.args, **options: Options.kwargs
    ) -> list[Result]: ...
    @overload
    def __call__(self, videos: Video, *args: Options.args, **options: Options.kwargs) -> Result: ...


def over_videos(
    function: Callable[Concatenate[Iterable[Any], Options], Iterator[Result | BadVideo]],
) -> OverVideos[Options, Result]:
    """Let a function of many videos take one, a list or an iterator, and give back the same."""

    @functools.wraps(function)
    def answer(videos: Any, *args: Any, **options: Any) -> Any:
        # An open file is an iterator, and bytes are a sequence; both are one video.
        if not is_source(videos):
            if isinstance(videos, Iterator):
                return function(videos, *args, **options)
            if isinstance(videos, Sequence):
                return list(function(videos, *args, **options))
        [result] = function([videos], *args, **options)
        return result

    function.__annotations__ |= {"videos": Any, "return": Any}  # for help(): one or many
    return answer


@over_videos
def classify(
    videos: Iterable[Any],
    *,
    model: Model = "actions-tiny",
    processor: Any = None,
    top_k: int = 5,
    num_clips: int = 1,
    num_crops: int = 1,
    frame_stride: FrameStride = "config",
    fps: Fps = "config",
    on_damage: OnDamage = "refuse",
    dtype: str | torch.dtype = "auto",
    engine: str = "auto",
    device: str | torch.device | None = None,
    tell: Log | None = None,
    batch_size: int = 8,
    on_error: OnError = "raise",
) -> Iterator[Classification | BadVideo]:
    """Label what happens in videos.

    Args:
        videos: a video file, GIF or folder of frames; the bytes of a file, a file opened in binary
            mode, or a torchcodec decoder; a video as uint8 array or tensor, (T, H, W, 3),
            (T, 3, H, W) or grey (T, H, W); or a list or iterator of these.
        model: hub id, folder, weight file, shipped name, or a loaded classifier, which saves
            loading it at each call.
        processor: turns frames into pixels; by default `find_processor` of the model.
        top_k: how many labels to give.
        num_clips, num_crops: clips along time, crops across each; a single one is centred. The
            scores of all views are averaged; the paper tests Kinetics with 5 x 3.
        frame_stride: frames between two sampled ones; "config" is what the model was trained with,
            "uniform" (or None) spreads them over the whole video.
        fps: a number takes each video as if it had so many frames a second, which `frame_stride`
            then counts; "config" is what the model was trained with, "own" (or None) each video's.
        dtype, engine, device: see `engines.load`.
        tell: takes one line on what runs the model, and those of `engines.load`.
        batch_size: views that go through the model at once.
        on_damage: "use_readable" takes what can be decoded of a damaged file, with a warning; see
            `VideoReader`.
        on_error: "raise" stops at the first video that cannot be read; "skip" gives a `BadVideo`
            (path, reason) in its place and goes on.

    Returns a Classification, or a list or iterator of them. Raises VideoError for videos that
    cannot be read, ConfigError for wrong arguments, WeightsError for models that cannot be loaded
    or are not classifiers.

    ```python
    result = classify("clip.mp4")
    result.labels[0], result.scores[0]          # ('throw', 0.98)
    for result in classify(iter(paths), model="MCG-NJU/videomae-base-finetuned-kinetics"):
        print(result.path, result.labels)       # one by one, however many there are
    ```
    """
    check_counts(top_k=top_k, num_clips=num_clips, num_crops=num_crops, batch_size=batch_size)
    options = {"engine": engine, "dtype": dtype, "device": device}
    ready, processor = _ready(model, processor, tell, **options)
    maker = ViewMaker(ready.config, processor, frame_stride, num_clips, num_crops, fps, on_damage)

    def answer(path: Path | None, logits: Tensor | Floats) -> Classification:
        return classification(logits, ready.config, top_k=top_k, path=path)

    run: Callable[[Any], Any] = ready
    return answers_of(run_views(prepared(videos, maker, on_error), run, batch_size), answer)


def classification(
    logits: Tensor | Floats, config: VideoMAEConfig, *, top_k: int, path: Path | None = None
) -> Classification:
    """The labels that the logits (V, K) of one video's views stand for, averaged over views."""
    scores = mean_scores(logits, config)
    indices = np.argsort(-scores, kind="stable")[:top_k].tolist()
    names = config.id2label or {}
    return Classification(
        path,
        tuple(names.get(index, str(index)) for index in indices),
        tuple(scores[indices].tolist()),
        np.asarray(logits),
        are_shares=config.problem_type != "regression",
    )


def mean_scores(logits: Tensor | Floats, config: VideoMAEConfig) -> Floats:
    """The scores (K,) that the logits (V, K) of one video's views stand for, averaged over them."""
    scores = np.asarray(logits)
    if config.problem_type == "multi_label_classification":
        scores = np.exp(-np.logaddexp(0, -scores))  # sigmoid, whatever the size of a logit
    elif config.problem_type != "regression":
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        scores = powers / powers.sum(-1, keepdims=True)
    means: Floats = scores.mean(0)
    return means


@over_videos
def embed(
    videos: Iterable[Any],
    *,
    model: Model = "actions-tiny",
    processor: Any = None,
    features: Features = "pooled",
    num_clips: int = 1,
    num_crops: int = 1,
    frame_stride: FrameStride = "config",
    fps: Fps = "config",
    on_damage: OnDamage = "refuse",
    dtype: str | torch.dtype = "auto",
    engine: str = "auto",
    device: str | torch.device | None = None,
    tell: Log | None = None,
    batch_size: int = 8,
    on_error: OnError = "raise",
) -> Iterator[Embedding | BadVideo]:
    """Describe videos by vectors, for search, clustering and small classifiers.

    `features` says which:

    - "pooled" (D,): the mean over all tokens and views, normalised. A fine-tuned model has its norm
      after the mean over tokens, so that this is what its head sees; a pre-trained one before it.
    - "per_time" (f, D): the same of each time slice, which is `tubelet_size` frames of the clip.
    - "tokens" (N, D): `last_hidden_state`, slice by slice, row by row. Normalised for a pre-trained
      model; a fine-tuned one has no norm for single tokens.

    An encoder that was saved without any norm gives plain means. `model` may be of any kind. Other
    arguments, lists and errors: see `classify`.

    Returns an Embedding, or a list or iterator of them; float32.

    ```python
    embed("clip.mp4", model="MCG-NJU/videomae-base").features.shape          # (768,)
    np.stack([e.features for e in embed(paths, features="pooled")])          # (len(paths), 128)
    ```
    """
    check_counts(num_clips=num_clips, num_crops=num_crops, batch_size=batch_size)
    check_features(features, num_clips, num_crops)
    options = {"engine": engine, "dtype": dtype, "device": device, "tokens": True}
    ready, processor = _ready(model, processor, tell, **options)
    maker = ViewMaker(ready.config, processor, frame_stride, num_clips, num_crops, fps, on_damage)

    def answer(path: Path | None, found: Tensor | Floats) -> Embedding:
        return Embedding(path, np.asarray(found.mean(0)))  # only pooled ones can have several views

    if isinstance(ready, Graph):
        run: Callable[[Any], Any] = functools.partial(ready.features, kind=features)
    else:
        run = functools.partial(ready.run, describing(ready, features))
    return answers_of(run_views(prepared(videos, maker, on_error), run, batch_size), answer)


def check_features(features: str, num_clips: int, num_crops: int) -> None:
    """Raise ConfigError for unknown features, and for places of several views."""
    check_choice("features", features, get_args(Features))
    if features != "pooled" and num_clips * num_crops > 1:
        raise ConfigError(
            f"features={features!r} of {num_clips} clips x {num_crops} crops cannot be averaged; "
            "use features='pooled', or num_clips=1, num_crops=1"
        )


def describing(ready: engines.Engine, features: Features) -> Callable[[Tensor], Tensor]:
    """The function from clips (V, T, C, H, W) to features (V, D), (V, f, D) or (V, N, D).

    `ready` is an engine that answers with tokens.
    """
    slices, norm = ready.config.grid.frames, getattr(ready.model, "fc_norm", None)

    def compute(pixel_values: Tensor) -> Tensor:
        found: Tensor = graphs.pool(ready.answer(pixel_values), features, slices, norm)
        return found

    return compute


def import_engines() -> Any:
    """`engines`, and torch with it, without the garbage collector, which would search in vain.

    What was imported is not searched at the end either. Of the CPU time of `videomae classify`,
    this saves a seventh.
    """
    new = "torch" not in sys.modules
    with without_collector() if new else nullcontext():
        from videomae.inference import engines

        if new:
            gc.freeze()
    return engines


def _ready(
    model: Model, processor: Any, log: Log | None, **options: Any
) -> tuple[engines.Engine | Graph, Any]:
    """A graph, where that can run a model without torch, or else what `ready_model` gives."""
    graph = model if isinstance(model, Graph) else None
    if isinstance(model, str | os.PathLike):
        names = {name: str(options[name] or "auto") for name in ("engine", "dtype", "device")}
        names["dtype"] = names["dtype"].removeprefix("torch.")
        graph = graphs.open_graph(model, tokens="tokens" in options, **names)
    if graph is None:
        return ready_model(model, processor, log, **options)
    if log:
        log(graph.describe())
    if processor is None and "torch" in sys.modules:  # whose pixels are the same, and made faster
        from videomae.processing.processors import VideoMAEImageProcessor

        processor = VideoMAEImageProcessor.from_dict(graph.processor.to_dict())
    return graph, processor or graph.processor


def ready_model(
    model: Model,
    processor: Any,
    log: Log | None,
    *,
    kind: type[VideoMAEPreTrainedModel] | None = None,
    **options: Any,
) -> tuple[engines.Engine, Any]:
    """Get a model ready to run, log what runs it, and find its processor if none came.

    kind: the class it must be of, by default a classifier, or any where `tokens` are asked for.
    """
    engines = import_engines()
    from videomae.model.modeling import VideoMAEForVideoClassification, VideoMAEPreTrainedModel

    any_kind = VideoMAEPreTrainedModel if options.get("tokens") else VideoMAEForVideoClassification
    kind = kind or any_kind
    place = model if isinstance(model, str | os.PathLike) else None
    if place is None and not isinstance(model, kind):
        raise ConfigError(
            f"model is a {type(model).__name__}, expected a {kind.__name__}; pass one, or a path "
            "to let it be loaded"
        )
    ready = engines.load(model, model_class=kind, tell=log, **options)
    if log:
        log(ready.describe())
    return ready, processor or find_processor(place, ready.config)


def answers_of(
    found: Iterable[tuple[Path | None, Tensor | BadVideo]],
    answer: Callable[[Path | None, Tensor], Result],
) -> Iterator[Result | BadVideo]:
    """Make an answer of what was found for each video; bad videos keep their places."""
    for path, value in found:
        yield value if isinstance(value, BadVideo) else answer(path, value)
