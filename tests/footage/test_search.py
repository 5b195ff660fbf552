"""Indexes of hand-made features: which rows are nearest, and what is taken for a copy."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from videomae.data.manifest import Video
from videomae.errors import ConfigError, VideoError
from videomae.footage import duplicates
from videomae.footage.batch import PartWriter, Row
from videomae.footage.duplicates import (
    Pair,
    joined,
    nearest_others,
    similar_pairs,
    similarity_of_copies,
    usual_threshold,
)
from videomae.footage.search import Index, Stretch, open_index
from videomae.inference.predict import Embedding

FACTS: dict[str, Any] = {"task": "embed", "model": "tiny", "weights_sha256": "0f", "settings": {}}


def write_index(folder: Path, videos: dict[str, Any]) -> Path:
    """An index whose videos have these vectors, one per window of 2 s."""
    width = len(next(iter(videos.values()))[0])
    with PartWriter(folder, {**FACTS, "feature_shape": [width]}) as parts:
        for name, vectors in videos.items():
            rows = [
                Row(name, 2.0 * k, 2.0 * k + 2, Embedding(None, np.array(vector, np.float32)))
                for k, vector in enumerate(vectors)
            ]
            parts.add(Video(name), rows)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Of a and b the second windows are nearly the same; c is the opposite of a's first."""
    return open_index(
        write_index(
            tmp_path / "index",
            {
                "a.mp4": [[1, 0, 0], [0, 1, 0]],
                "b.mp4": [[0, 0, 1], [0.01, 1, 0.01]],
                "c.mp4": [[-1, 0, 0]],
            },
        )
    )


def test_rows_are_on_one_scale(index: Index) -> None:
    assert index.rows[3] == Stretch("b.mp4", 2.0, 4.0)
    assert index.videos.tolist() == [0, 0, 1, 1, 2]
    assert np.linalg.norm(index.unit, axis=1) == pytest.approx(1)
    features = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert index.scaled(features) == pytest.approx(index.unit[:2], abs=1e-6)


def test_a_number_that_is_the_same_for_all_counts_for_nothing(tmp_path: Path) -> None:
    rows = {"a.mp4": [[5, 1]], "b.mp4": [[5, -1]], "c.mp4": [[5, 3]]}
    index = open_index(write_index(tmp_path, rows))
    assert index.unit[:, 0] == pytest.approx(0)
    copies = open_index(write_index(tmp_path / "copies", {"a.mp4": [[3, 4]], "b.mp4": [[3.01, 4]]}))
    assert copies.unit == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8]]), abs=2e-3)
    single = open_index(write_index(tmp_path / "one", {"a.mp4": [[3, 4]]}))
    assert single.unit == pytest.approx(np.array([[0.6, 0.8]]))


def test_features_of_other_shapes_are_refused(tmp_path: Path) -> None:
    facts = {**FACTS, "feature_shape": [2, 2]}
    with PartWriter(tmp_path, facts) as parts:
        row = Row("a.mp4", None, None, Embedding(None, np.zeros((2, 2), np.float32)))
        parts.add(Video("a.mp4"), [row])
    with pytest.raises(ConfigError, match=r"shape \(1, 2, 2\); an index has rows of one vector"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (Stretch("a.mp4"), Stretch("a.mp4", 2.0, 4.0), True),
        (Stretch("a.mp4", 0.0, 2.0), Stretch("a.mp4", 2.0, 4.0), False),
        (Stretch("a.mp4", 1.0, None), Stretch("./a.mp4", 2.0, 4.0), True),
        (Stretch("a.mp4", 5.0, None), Stretch("a.mp4", 2.0, 4.0), False),
        (Stretch("a.mp4"), Stretch("b.mp4"), False),
        (Stretch("tar://a.mp4::x.tar"), Stretch("tar://a.mp4::x.tar", 0.0, 1.0), True),
    ],
)
def test_stretches_that_overlap(one: Stretch, other: Stretch, overlap: bool) -> None:
    assert one.overlaps(other) is overlap
    assert other.overlaps(one) is overlap


def test_the_nearest_rows_are_of_other_videos(index: Index) -> None:
    similarities, numbers = nearest_others(index, 3)
    assert numbers[1, 0] == 3
    assert numbers[3, 0] == 1
    assert similarities[1, 0] == pytest.approx(float(index.unit[1] @ index.unit[3]))
    assert (np.diff(similarities, axis=1) <= 0).all()
    others = index.videos[numbers] != index.videos[:, None]
    assert (others | np.isinf(similarities)).all()


def test_many_rows_are_compared_by_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(2000, 8)).astype(np.float32)
    unit[1500] = unit[3] + 0.01
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows = [Stretch(str(k // 2)) for k in range(2000)]
    index = Index(rows, np.arange(2000) // 2, unit, unit[0], unit[0], {})
    exact = nearest_others(index, 4)
    monkeypatch.setattr(duplicates, "_MOST_EXACT", 1000)
    likely = nearest_others(index, 4)
    assert likely[1][3, 0] == exact[1][3, 0] == 1500
    assert (likely[1][:, 0] == exact[1][:, 0]).mean() > 0.9
    assert (index.videos[likely[1]] != index.videos[:, None]).all()


def test_windows_of_a_long_video_do_not_hide_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    scene = rng.normal(size=8)
    alike = scene + 0.001 * rng.normal(size=(300, 8))  # the windows of the first video
    unit = np.concatenate([alike, rng.normal(size=(1000, 8)), [scene + 0.1]]).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    videos = np.array([0] * 300 + list(range(1, 1002)))
    index = Index([Stretch(str(k)) for k in videos], videos, unit, unit[0], unit[0], {})
    monkeypatch.setattr(duplicates, "_MOST_EXACT", 1000)
    similarities, numbers = nearest_others(index, 4)
    assert (numbers[:300, 0] == 1300).all()
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert similarities[:300, 0] == pytest.approx(unit[:300] @ unit[1300], abs=1e-6)


def test_pairs_of_videos_by_their_best_rows(index: Index) -> None:
    pairs = similar_pairs(index, nearest_others(index), 0.9)
    assert pairs == [Pair(pytest.approx(float(index.unit[1] @ index.unit[3])), 1, 3)]
    every = similar_pairs(index, nearest_others(index), -1)
    assert len(every) == 3
    assert every[0] == pairs[0]


def test_pairs_that_share_a_video_are_one_group(index: Index) -> None:
    pairs = [Pair(0.9, 0, 2), Pair(0.8, 1, 4)]
    assert joined(index, pairs) == [pairs]
    assert joined(index, []) == []
    videos = np.arange(8)
    many = Index([], videos, index.unit, index.mean, index.spread, {})
    places = [(0, 1), (2, 3), (6, 7), (4, 5), (1, 5), (3, 0), (2, 4)]
    pairs = [Pair(1 - k / 10, first, second) for k, (first, second) in enumerate(places)]
    assert joined(many, pairs) == [[*pairs[:2], *pairs[3:]], [pairs[2]]]


def test_the_threshold_lies_between_copies_and_others() -> None:
    rng = np.random.default_rng(0)
    others = np.tanh(rng.normal(1.0, 0.2, 1000)).astype(np.float32)
    copies = np.tanh(rng.normal(3.0, 0.2, 48)).astype(np.float32)
    threshold = usual_threshold(copies, others)
    assert (others > threshold).mean() < 0.01
    assert (copies > threshold).mean() > 0.95
    # A tenth of the rows have copies among the others, and the threshold stays.
    with_copies = np.concatenate([others[:900], np.ones(100, np.float32)])
    assert usual_threshold(copies, with_copies) == pytest.approx(threshold, abs=0.02)
    # Features that tell copies from others badly: the threshold is above most others.
    poor = usual_threshold(others[:48], others)
    assert (others > poor).mean() < 0.01
    # Equal files are copies, whatever rounding makes of them; few videos are none of each other.
    assert usual_threshold(np.ones(3, np.float32), np.ones(3, np.float32)) <= 0.999
    assert usual_threshold(copies, np.array([-1, -1], np.float32)) > 0.6
    # Nothing to compare with, and no copies that can be read.
    assert usual_threshold(copies, np.array([-np.inf], np.float32)) == 1
    assert 0.7 < usual_threshold(copies[:0], others) < 0.99


def test_an_index_opens_no_address_unless_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ("x.mp4", "a::b.mp4", "tar://x.mp4::a.tar", "x.tar (offset=1, num_bytes=2)")
    there = (
        "http://h/x.mp4", "tar://x.mp4::http://h/a.tar", "tar://x::tar://y::a.tar",
        "http://h/x.mp4::a.tar", "s3://b/x.tar (offset=1, num_bytes=2)",
    )  # fmt: skip
    index = open_index(write_index(tmp_path, {name: [[1, 0]] for name in here + there}))
    opened: list[str] = []

    def note(video: Video, _: str) -> None:
        opened.append(video.path)
        raise VideoError("is not there")

    monkeypatch.setattr(duplicates, "open_video", note)
    loaded: Any = SimpleNamespace(job=SimpleNamespace(on_damage="refuse"))
    assert not len(similarity_of_copies(index, loaded))
    assert sorted(opened) == sorted([*here[:3], "x.tar"])
    similarity_of_copies(index, loaded, allow_addresses=True)
    assert len(opened) == 4 + 9
