"""Videos in, answers out: classify, embed and reconstruct files, bytes, folders, arrays, tensors.

A function takes one video and returns one result, takes a list and returns a list, or takes an
iterator and returns an iterator that gives each result as soon as it is there.

Letters: V views of a video; T, C, H, W as everywhere; N tokens, f slices of time, D features, K
labels.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from videomae.config import VideoMAEConfig, check_choice
from videomae.errors import ConfigError
from videomae.hub import PathLike
from videomae.inference import engines
from videomae.inference.exported import Log, pool
from videomae.masking import MASKS, split_mask
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEPreTrainedModel,
)
from videomae.processing.sampling import check_counts
from videomae.processing.views import (
    Fps,
    FrameStride,
    OnError,
    ViewMaker,
    find_processor,
    prepared,
    run_views,
    shown,
)
from videomae.report import pictures, reconstruction
from videomae.report.reconstruction import Rendering
from videomae.settings import OnDamage
from videomae.tubelets import pixel_targets
from videomae.video.decoder import Frames
from videomae.video.reader import BadVideo, VideoSource, is_source

Model = PathLike | VideoMAEPreTrainedModel
Features = Literal["pooled", "per_time", "tokens"]
Floats = NDArray[np.float32]
Video = VideoSource | NDArray[Any] | Tensor
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


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One clip, what the model saw of it, and what it made of that.

    original, masked, reconstructed: uint8 (T, H, W, 3). mask: bool (f, h, w), True = hidden. loss:
    the mean squared error over hidden tubelets, as in training. path: None for arrays.
    """

    path: Path | None
    original: Frames = field(repr=False)
    masked: Frames = field(repr=False)
    reconstructed: Frames = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    loss: float

    def save(self, path: PathLike, *, fps: float = 8) -> Path:
        """Write all three clips: .png a film strip, .gif or .mp4 side by side, at `fps`."""
        clips = {
            "original": self.original,
            f"{self.mask.mean():.0%} hidden": self.masked,
            "reconstructed": self.reconstructed,
        }
        return pictures.save_clips(path, clips, fps=fps)


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
    model: Model = "motion-tiny",
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
    result.labels[0], result.scores[0]          # ('zoom_in', 0.98)
    for result in classify(iter(paths), model="MCG-NJU/videomae-base-finetuned-kinetics"):
        print(result.path, result.labels)       # one by one, however many there are
    ```
    """
    check_counts(top_k=top_k, num_clips=num_clips, num_crops=num_crops, batch_size=batch_size)
    options = {"engine": engine, "dtype": dtype, "device": device}
    ready, processor = ready_model(
        model, processor, VideoMAEForVideoClassification, tell, **options
    )
    maker = ViewMaker(ready.config, processor, frame_stride, num_clips, num_crops, fps, on_damage)

    def answer(path: Path | None, logits: Tensor) -> Classification:
        return classification(logits, ready.config, top_k=top_k, path=path)

    return _answers(run_views(prepared(videos, maker, on_error), ready, batch_size), answer)


def classification(
    logits: Tensor, config: VideoMAEConfig, *, top_k: int, path: Path | None = None
) -> Classification:
    """The labels that the logits (V, K) of one video's views stand for, averaged over views."""
    scores = mean_scores(logits, config)
    best = scores.topk(min(top_k, len(scores)))
    names = config.id2label or {}
    return Classification(
        path,
        tuple(names.get(index, str(index)) for index in best.indices.tolist()),
        tuple(best.values.tolist()),
        logits.numpy(),
        are_shares=config.problem_type != "regression",
    )


def mean_scores(logits: Tensor, config: VideoMAEConfig) -> Tensor:
    """The scores (K,) that the logits (V, K) of one video's views stand for, averaged over them."""
    if config.problem_type == "regression":
        return logits.mean(0)
    multi_label = config.problem_type == "multi_label_classification"
    return (logits.sigmoid() if multi_label else logits.softmax(-1)).mean(0)


@over_videos
def embed(
    videos: Iterable[Any],
    *,
    model: Model = "motion-tiny",
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
    ready, processor = ready_model(model, processor, VideoMAEPreTrainedModel, tell, **options)
    maker = ViewMaker(ready.config, processor, frame_stride, num_clips, num_crops, fps, on_damage)

    def answer(path: Path | None, found: Tensor) -> Embedding:
        return Embedding(path, found.mean(0).numpy())  # only pooled ones can have several views

    run = functools.partial(ready.run, describing(ready, features))
    return _answers(run_views(prepared(videos, maker, on_error), run, batch_size), answer)


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
        return pool(ready.answer(pixel_values), features, slices, norm)

    return compute


@over_videos
def reconstruct(
    videos: Iterable[Any],
    *,
    model: Model = "motion-tiny-pretrain",
    processor: Any = None,
    mask: str = "tube",
    mask_ratio: float = 0.9,
    seed: int = 0,
    rendering: Rendering = "plain",
    frame_stride: FrameStride = "config",
    fps: Fps = "config",
    on_damage: OnDamage = "refuse",
    dtype: str | torch.dtype = "auto",
    engine: str = "auto",
    device: str | torch.device | None = None,
    tell: Log | None = None,
    on_error: OnError = "raise",
) -> Iterator[Reconstruction | BadVideo]:
    """Hide most of a clip, and let a pre-trained model reconstruct what it cannot see.

    Args:
        model: a pre-training checkpoint with its decoder, or a loaded VideoMAEForPreTraining.
        mask: "tube", "random", "frame" or "running_cell"; see `videomae.masking`.
        mask_ratio: the share that is hidden; the paper trains with 0.9.
        seed: seeds the mask, which is the same for each video.
        rendering: "plain" shows what the model knows; "paper", as in the published pictures, takes
            brightness and contrast of hidden patches from the original, which looks better than
            the model is. See `reconstruction.paste_reconstruction`.

    Other arguments, several videos and errors: see `classify`. Returns a Reconstruction, or a list
    or iterator of them.

    ```python
    reconstruct("clip.mp4", mask_ratio=0.75).save("clip.gif")
    ```
    """
    check_choice("mask", mask, MASKS)
    options = {"engine": engine, "dtype": dtype, "device": device}
    ready, processor = ready_model(model, processor, VideoMAEForPreTraining, tell, **options)
    hidden = clip_mask(ready.config, mask, mask_ratio, seed)

    def answer(path: Path | None, pixel_values: Tensor) -> Reconstruction:
        return reconstruct_clip(pixel_values, hidden, ready, processor, rendering, path=path)

    maker = ViewMaker(ready.config, processor, frame_stride, fps=fps, on_damage=on_damage)
    return _answers(prepared(videos, maker, on_error), answer)


def clip_mask(config: VideoMAEConfig, mask: str, mask_ratio: float, seed: int) -> Tensor:
    """The mask (1, N) of one clip, True = hidden."""
    generator = torch.Generator().manual_seed(seed)
    return MASKS[mask](config.grid, mask_ratio, generator=generator)


def reconstruct_clip(
    pixel_values: Tensor,
    hidden: Tensor,
    ready: engines.Engine,
    processor: Any,
    rendering: Rendering = "plain",
    *,
    path: Path | None = None,
) -> Reconstruction:
    """Reconstruct the tubelets of one clip (1, T, C, H, W) that `hidden` (1, N) marks."""
    config = ready.config
    hidden_tokens = split_mask(hidden, config.grid.num_tokens)[1]  # (1, M)
    predictions = ready.run(
        lambda pixels: ready.model(pixels, hidden, return_dict=True).logits, pixel_values
    )  # (1, M, t*p*q*C)
    target = pixel_targets(pixel_values, config.grid, hidden_tokens, normalize=config.norm_pix_loss)
    pixels = shown(pixel_values[0], processor)
    pasted = reconstruction.paste_reconstruction(
        pixels, hidden[0], predictions[0], config, rendering=rendering
    )
    return Reconstruction(
        path=path,
        original=reconstruction.to_frames(pixels),
        masked=reconstruction.to_frames(reconstruction.hide(pixels, hidden[0], config)),
        reconstructed=reconstruction.to_frames(pasted),
        mask=hidden[0].view(tuple(config.grid)).numpy(),
        loss=float(F.mse_loss(predictions, target)),
    )


def ready_model(
    model: Model,
    processor: Any,
    kind: type[VideoMAEPreTrainedModel],
    log: Log | None,
    **options: Any,
) -> tuple[engines.Engine, Any]:
    """Get a model of a kind ready to run, log what runs it, and find its processor if none came."""
    place = None if isinstance(model, VideoMAEPreTrainedModel) else model
    if place is None and not isinstance(model, kind):
        raise ConfigError(
            f"model is a {type(model).__name__}, expected a {kind.__name__}; pass one, or a path "
            "to let it be loaded"
        )
    ready = engines.load(model, model_class=kind, tell=log, **options)
    if log:
        log(ready.describe())
    return ready, processor or find_processor(place, ready.config)


def _answers(
    found: Iterable[tuple[Path | None, Tensor | BadVideo]],
    answer: Callable[[Path | None, Tensor], Result],
) -> Iterator[Result | BadVideo]:
    """Make an answer of what was found for each video; bad videos keep their places."""
    for path, value in found:
        yield value if isinstance(value, BadVideo) else answer(path, value)
