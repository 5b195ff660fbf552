"""Scores over time to segments and subtitles, and features over time to novelty: pure functions.

Letters: W windows of a video, D features.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from videomae.errors import ConfigError, VideoError, one_line
from videomae.footage.windows import Window
from videomae.inference.predict import Floats

_NEIGHBOUR_SECONDS = 30.0


@dataclass(frozen=True)
class Segment:
    """A stretch in which a label holds. score: the mean over its windows."""

    start_seconds: float
    end_seconds: float
    label: str
    score: float


@dataclass(frozen=True)
class SegmentRules:
    """When a label holds: a segment begins with the first window whose score reaches `enter`, and
    ends before the next whose score is below `leave`. Then gaps between segments of a label that
    last `max_gap_seconds` at most are closed, and segments shorter than `min_seconds` left out."""

    enter: float = 0.5
    leave: float = 0.4
    min_seconds: float = 1.0
    max_gap_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not self.leave <= self.enter:
            raise ConfigError(
                f"leave={self.leave} is above enter={self.enter}: a segment would end where it "
                "begins; give leave a value up to that of enter"
            )
        for name in ("min_seconds", "max_gap_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)}; expected seconds, at least 0")


def find_runs(
    scores: Sequence[float] | Floats, edges: Sequence[float], rules: SegmentRules
) -> list[tuple[int, int]]:
    """The runs of windows (first, stop) in which one label holds, by its scores (W,).

    `edges` are the W + 1 seconds between which each window speaks. With enter 0.5 and leave 0.4,
    `#` are windows of a run; a gap of 1 s is then closed, and what is shorter than 2 s left out::

        seconds    0    1    2    3    4    5    6    7    8
        scores      .1   .6   .4   .3   .5   .2   .2   .9   .1
        runs        .    #    #    .    #    .    .    #    .     (1, 3), (4, 5), (7, 8)
        closed      .    #    #    #    #    .    .    #    .     (1, 5), (7, 8)
        long        .    #    #    #    #    .    .    .    .     (1, 5)
    """
    runs: list[tuple[int, int]] = []
    first = None
    for index, score in enumerate([*scores, -np.inf]):
        if first is None and score >= rules.enter:
            first = index
        elif first is not None and score < rules.leave:
            # A hair of tolerance, as seconds are sums of fractions.
            if runs and edges[first] - edges[runs[-1][1]] <= rules.max_gap_seconds + 1e-6:
                first = runs.pop()[0]
            runs.append((first, index))
            first = None
    return [run for run in runs if edges[run[1]] - edges[run[0]] >= rules.min_seconds - 1e-6]


def novelty_of(features: Floats, windows: Sequence[Window]) -> Floats:
    """How unlike its neighbours each window is, (W,), by its features (W, D).

    The distance from its features to the mean of those of the windows up to 30 s before and after
    it, divided by the median of all these distances: 2 is twice as unlike as is usual here.

    Raises VideoError where a window has no neighbour that it shares no moment with.
    """
    hair = 1e-6  # as seconds are sums of fractions
    starts = np.array([each.start_seconds for each in windows])
    ends = np.array([each.end_seconds for each in windows])
    near = np.searchsorted(ends, starts - _NEIGHBOUR_SECONDS - hair)
    before = np.maximum(np.searchsorted(ends, starts + hair), near)
    after = np.searchsorted(starts, ends - hair)
    far = np.searchsorted(starts, ends + _NEIGHBOUR_SECONDS + hair)
    counts = (before - near) + (far - after)
    if not counts.all():
        raise VideoError(
            f"{ends[-1]:.3g} seconds are too short for novelty: a window of {ends[0]:.3g} seconds "
            "has no other to be compared with; give a smaller window_seconds"
        )
    sums = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, 0, np.float64)])
    means = (sums[before] - sums[near] + sums[far] - sums[after]) / counts[:, None]  # (W, D)
    distances = np.linalg.norm(features - means, axis=1)
    return np.asarray(distances / max(np.median(distances), 1e-12), np.float32)


def to_vtt(segments: Sequence[Segment]) -> str:
    r"""Segments as WebVTT subtitles; in a label, what would be markup is escaped.

    >>> to_vtt([Segment(1.5, 3.25, "cut & run", 0.9)])
    'WEBVTT\n\n00:00:01.500 --> 00:00:03.250\ncut &amp; run 0.90\n'
    """
    cues = [
        f"{_stamp(each.start_seconds)} --> {_stamp(each.end_seconds)}\n"
        f"{html.escape(one_line(each.label), quote=False)} {each.score:.2f}\n"
        for each in segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _stamp(seconds: float) -> str:
    """Hours, minutes, seconds and their thousandths: 01:02:03.450."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
