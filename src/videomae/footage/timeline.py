"""A whole video over time: scores of its windows, and the segments in which labels hold.

Letters: W windows of a video, K labels, D features.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from videomae.config import check_choice
from videomae.data.rows import write_csv
from videomae.errors import VideoError, to_json
from videomae.footage.segments import Segment, SegmentRules, find_runs, novelty_of, to_vtt
from videomae.footage.windows import Window, sliding_windows
from videomae.hub import PathLike, write_text
from videomae.inference.engines import Engine
from videomae.inference.exported import Log
from videomae.inference.predict import (
    Floats,
    Model,
    describing,
    mean_scores,
    over_videos,
    ready_model,
)
from videomae.processing.sampling import check_counts
from videomae.processing.views import (
    Fps,
    FrameStride,
    OnError,
    ViewMaker,
    in_background,
    run_views,
    shown,
)
from videomae.report.pictures import Labeller, Picture, check_suffix
from videomae.report.plots import plot_timeline
from videomae.report.reconstruction import to_frames
from videomae.settings import OnDamage
from videomae.video.reader import BadVideo, is_source, source_path
from videomae.video.writer import annotate_video

NOVELTY = "novelty"  # the one label of a timeline without labels
NOVELTY_RULES = SegmentRules(enter=2.5, leave=1.5)
_NUM_PICTURES, _NUM_ROWS = 12, 8  # of a picture of a timeline


class Scored(NamedTuple):
    """A window, its scores (K,) or features (D,), and perhaps a picture of it."""

    window: Window
    values: Floats
    picture: Picture | None


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a model says about the windows of one video.

    path: None for a video in memory. labels: K names. windows: W stretches of the video in order.
    scores: (W, K), as `classify` has them, or, with the one label "novelty", how unlike its
    neighbours each window is (`novelty_of`). rules: those for segments. pictures: up to 12 frames,
    as the model sees them, by their seconds.
    """

    path: Path | None
    labels: tuple[str, ...]
    windows: tuple[Window, ...]
    scores: Floats = field(repr=False)
    rules: SegmentRules = field(default_factory=SegmentRules)
    pictures: Mapping[float, Picture] = field(default_factory=dict, repr=False)

    @property
    def edges(self) -> list[float]:
        """The W + 1 seconds between which each window speaks: half-way to its neighbours."""
        middles = [(each.start_seconds + each.end_seconds) / 2 for each in self.windows]
        between = [(before + after) / 2 for before, after in pairwise(middles)]
        return [self.windows[0].start_seconds, *between, self.windows[-1].end_seconds]

    @property
    def segments(self) -> list[Segment]:
        """The segments of all labels in order; those of different labels may overlap."""
        edges, found = self.edges, []
        for k in np.flatnonzero(self.scores.max(0) >= self.rules.enter):
            for first, stop in find_runs(self.scores[:, k], edges, self.rules):
                start, end = round(edges[first], 3), round(edges[stop], 3)
                mean = round(float(self.scores[first:stop, k].mean()), 4)
                found.append(Segment(start, end, self.labels[k], mean))
        return sorted(found, key=lambda each: (each.start_seconds, -each.score))

    def record(self, *, top_k: int = 5) -> dict[str, Any]:
        """All but pictures as JSON has it: segments, and the best labels of each window."""
        windows = []
        for window, scores in zip(self.windows, self.scores, strict=True):
            best = np.argsort(-scores, kind="stable")[:top_k].tolist()
            windows.append(
                {
                    "start_seconds": round(window.start_seconds, 3),
                    "end_seconds": round(window.end_seconds, 3),
                    "labels": [self.labels[k] for k in best],
                    "scores": [round(float(scores[k]), 6) for k in best],
                }
            )
        path = None if self.path is None else str(self.path)
        return {"path": path, "segments": list(map(asdict, self.segments)), "windows": windows}

    def save(self, path: PathLike, *, top_k: int = 5) -> Path:
        """Write a file of the kind that its suffix says, atomically.

        .json: segments, and the `top_k` labels of each window; .csv: a row per segment;
        .scores.csv: a row per window; .vtt: subtitles; .png and .svg: labels over time.
        """
        path = Path(path)
        kind = check_suffix(path, (".json", ".csv", ".vtt", ".png", ".svg"))
        if kind in (".png", ".svg"):
            return self._plot(path)
        record = self.record(top_k=top_k)
        if path.name.lower().endswith(".scores.csv"):
            rows = [_flat(window) for window in record["windows"]]
            return write_csv(path, rows[0], rows)
        if kind == ".csv":
            return write_csv(path, [each.name for each in fields(Segment)], record["segments"])
        write_text(path, to_vtt(self.segments) if kind == ".vtt" else to_json(record) + "\n")
        return path

    def annotate(
        self,
        video: PathLike,
        path: PathLike,
        *,
        progress: Callable[[float], object] = lambda _: None,
        **options: Any,
    ) -> Path:
        """Write a video, a path, with the labels of its segments drawn in, and its sound as it is.

        `progress` is given the seconds as they are done. For others see `writer.annotate_video`.
        """
        segments, label = self.segments, Labeller()

        def draw(seconds: float, frame: Picture) -> Picture:
            progress(seconds)
            now = [s for s in segments if s.start_seconds <= seconds < s.end_seconds]
            return label(frame, [f"{each.label} {each.score:.2f}" for each in now])

        return annotate_video(video, path, draw, **options)

    def _plot(self, path: Path) -> Path:
        """Draw the labels that hold longest, then those with the highest scores."""
        segments = self.segments
        held = dict.fromkeys(self.labels, 0.0)
        for each in segments:
            held[each.label] += each.end_seconds - each.start_seconds
        highest = dict(zip(self.labels, self.scores.max(0), strict=True))
        top = sorted(self.labels, key=lambda label: (-held[label], -highest[label]))[:_NUM_ROWS]
        spans = {
            label: [(s.start_seconds, s.end_seconds) for s in segments if s.label == label]
            for label in top
        }
        curves = {label: self.scores[:, self.labels.index(label)] for label in top}
        return plot_timeline(path, self.edges, curves, spans=spans, pictures=self.pictures)


def scored_windows(
    video: Any,
    ready: Engine,
    maker: ViewMaker,
    *,
    features: bool = False,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    batch_size: int = 8,
) -> Iterator[Scored]:
    """The windows of a video with their scores (K,), or features (D,), one after the other.

    The next ones are decoded by a thread. For arguments and errors see `timeline`.
    """

    def named() -> Iterator[tuple[tuple[Window, Picture | None], Tensor]]:
        pairs = sliding_windows(
            video, maker, window_seconds=window_seconds, hop_seconds=hop_seconds
        )
        for window, views in in_background(pairs, num_ahead=batch_size):
            picture = None
            if _is_pictured(window):
                clip = views[len(views) // 2, None, maker.config.num_frames // 2]
                picture = to_frames(shown(clip, maker.processor))[0]
            yield (window, picture), views

    compute = partial(ready.run, describing(ready, "pooled")) if features else ready
    for (window, picture), found in run_views(named(), compute, batch_size):
        values = found.mean(0).numpy() if features else mean_scores(found, ready.config)
        yield Scored(window, values, picture)


@dataclass
class Gathered:
    """What is known so far of a video: the windows that were scored."""

    windows: list[Window] = field(default_factory=list)
    # One block that grows: thousands of small arrays that are kept between large ones that are not
    # break memory into pieces, which cost 40 kB a window.
    values: "array[float]" = field(default_factory=lambda: array("f"))
    pictures: dict[float, Picture] = field(default_factory=dict)

    def add(self, scored: Scored) -> None:
        """Keep the next window."""
        window = scored.window
        self.windows.append(window)
        self.values.extend(scored.values.tolist())
        if scored.picture is not None:
            self.pictures[(window.start_seconds + window.end_seconds) / 2] = scored.picture

    def timeline(
        self, path: Path | None, labels: Mapping[int, str] | None, rules: SegmentRules | None = None
    ) -> Timeline:
        """The timeline of these windows; no labels stand for novelty."""
        windows = tuple(self.windows)
        scores = np.array(self.values, np.float32).reshape(len(windows), -1)
        if labels is None:
            scores = novelty_of(scores, windows)[:, None]
            labels, rules = {0: NOVELTY}, rules or NOVELTY_RULES
        names = tuple(labels.get(k, str(k)) for k in range(scores.shape[1]))
        return Timeline(path, names, windows, scores, rules or SegmentRules(), self.pictures)


@over_videos
def timeline(
    videos: Iterable[Any],
    *,
    model: Model = "actions-tiny",
    processor: Any = None,
    novelty: bool = False,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    rules: SegmentRules | None = None,
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
) -> Iterator[Timeline | BadVideo]:
    """Say what happens when in videos, by sliding windows; memory stays flat for hours of video.

    Args:
        model: a classifier; with `novelty` a model of any kind.
        novelty: no labels, but how unlike its neighbours each moment is (`novelty_of`).
        window_seconds: how long a window is; None is the span of one clip.
        hop_seconds: from one window to the next; None is half a window. What happens at the end of
            a video: see `windows.sliding_windows`.
        rules: when a label holds, see `SegmentRules`; None is what suits scores or novelty.
        num_clips, num_crops: views of each window, whose scores are averaged.

    Other arguments, several videos and errors: see `classify`. Returns a Timeline, or a list or
    iterator of them.

    ```python
    found = timeline("match.mp4", hop_seconds=1)
    found.segments[0]  # Segment(start_seconds=0.0, end_seconds=4.5, label='walk', score=0.91)
    found.save("match.vtt")
    ```
    """
    check_counts(num_clips=num_clips, num_crops=num_crops, batch_size=batch_size)
    check_choice("on_error", on_error, get_args(OnError))
    options: dict[str, Any] = {"engine": engine, "dtype": dtype, "device": device}
    ready, processor = ready_model(model, processor, tell, tokens=novelty, **options)
    maker = ViewMaker(ready.config, processor, frame_stride, num_clips, num_crops, fps, on_damage)
    labels = None if novelty else ready.config.id2label or {}
    for video in videos:
        path = source_path(video) if is_source(video) else None
        gathered = Gathered()
        try:
            for scored in scored_windows(
                video,
                ready,
                maker,
                features=novelty,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
                batch_size=batch_size,
            ):
                gathered.add(scored)
            yield gathered.timeline(path, labels, rules)
        except VideoError as error:
            if on_error == "raise":
                raise
            yield BadVideo(path, str(error))


def _flat(window: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: window[name] for name in ("start_seconds", "end_seconds")}
    pairs = zip(window["labels"], window["scores"], strict=True)
    for k, (label, score) in enumerate(pairs, start=1):
        row |= {f"label_{k}": label, f"score_{k}": score}
    return row


def _is_pictured(window: Window) -> bool:
    """Whether a window is the middle of one of the parts of which pictures are shown."""
    count = min(_NUM_PICTURES, window.count)
    part = window.index * count // window.count
    return window.index == int((part + 0.5) * window.count / count)
