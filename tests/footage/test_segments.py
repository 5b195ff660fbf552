import numpy as np
import pytest

from videomae.errors import ConfigError, VideoError
from videomae.footage.segments import Segment, SegmentRules, find_runs, novelty_of, to_vtt
from videomae.footage.windows import Window

# One window a second, which speaks for the second around its middle.
SCORES = [0.1, 0.6, 0.4, 0.3, 0.5, 0.2, 0.2, 0.9, 0.1]
EDGES = list(range(10))


@pytest.mark.parametrize(
    ("rules", "runs"),
    [
        (SegmentRules(0.5, 0.4, 0, 0), [(1, 3), (4, 5), (7, 8)]),
        (SegmentRules(0.5, 0.4, 0, 1), [(1, 5), (7, 8)]),
        (SegmentRules(0.5, 0.4, 2, 1), [(1, 5)]),
        (SegmentRules(0.5, 0.4, 2, 0), [(1, 3)]),  # gaps are closed first
        (SegmentRules(0.5, 0.4, 0, 2), [(1, 8)]),
        (SegmentRules(0.5, 0.5, 0, 0), [(1, 2), (4, 5), (7, 8)]),
        (SegmentRules(0.5, 0.1, 0, 0), [(1, 9)]),  # to the end of the video
        (SegmentRules(0.95, 0.1, 0, 0), []),
        (SegmentRules(0, 0, 0, 0), [(0, 9)]),
    ],
)
def test_runs_by_hand(rules: SegmentRules, runs: list[tuple[int, int]]) -> None:
    assert find_runs(SCORES, EDGES, rules) == runs


def test_lengths_are_seconds_and_forgive_sums_of_fractions() -> None:
    edges = list(np.cumsum([0.1] * 10))  # 0.1, 0.2, 0.30000000000000004, ...
    assert find_runs(SCORES, edges, SegmentRules(0.5, 0.4, 0.2, 0)) == [(1, 3)]
    assert find_runs(SCORES, edges, SegmentRules(0.5, 0.4, 0.2, 0.1)) == [(1, 5)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"leave": 0.6}, "leave=0.6 is above enter=0.5: a segment would end where it begins; give"),
        ({"enter": float("nan")}, "leave=0.4 is above enter=nan"),
        ({"min_seconds": -1}, "min_seconds=-1; expected seconds, at least 0"),
        ({"max_gap_seconds": float("nan")}, "max_gap_seconds=nan; expected seconds, at least 0"),
    ],
)
def test_rules_that_cannot_be_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentRules(**wrong)


def test_novelty_by_hand() -> None:
    # Neighbours share no moment: of window 0 (0 to 2 s) these are 2, 3 and 4.
    windows = [Window(k, k + 2, k, 5) for k in range(5)]
    features = np.float32([[0], [0], [3], [0], [0]])
    # means of neighbours: (3 + 0 + 0) / 3, 0, 0, 0, (0 + 0 + 3) / 3
    assert novelty_of(features, windows).tolist() == [1, 0, 3, 0, 1]


def test_novelty_looks_half_a_minute_around() -> None:
    windows = [Window(10 * k, 10 * k + 10, k, 9) for k in range(9)]
    features = np.zeros((9, 1), np.float32)
    features[0] = 8
    # Window 4 begins 30 s after window 0 ends, and has all others as neighbours.
    expected = [8, 8 / 5, 8 / 6, 8 / 7, 8 / 8, 0, 0, 0, 0]
    np.testing.assert_allclose(novelty_of(features, windows), expected, rtol=1e-6)


def test_novelty_needs_neighbours() -> None:
    windows = [Window(0, 2, 0, 2), Window(1, 3, 1, 2)]
    with pytest.raises(VideoError, match="3 seconds are too short for novelty: a window of 2 sec"):
        novelty_of(np.zeros((2, 4), np.float32), windows)


def test_subtitles_count_hours() -> None:
    text = to_vtt([Segment(3599.9996, 360_000, "x", 1.0)])
    assert text == "WEBVTT\n\n01:00:00.000 --> 100:00:00.000\nx 1.00\n"
