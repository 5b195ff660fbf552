import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import videomae
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.footage.segments import Segment, SegmentRules
from videomae.footage.timeline import Timeline, timeline
from videomae.footage.windows import Window
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import render_clip
from videomae.video.decoder import Frames
from videomae.video.reader import BadVideo, read_frames
from videomae.video.writer import write_video


def made(scores: Any, labels: tuple[str, ...] = ("run", "jump"), **options: Any) -> Timeline:
    """A window of 2 s every second."""
    windows = tuple(Window(k, k + 2, k, len(scores)) for k in range(len(scores)))
    return Timeline(Path("a.mp4"), labels, windows, np.float32(scores), **options)


def test_a_window_speaks_for_the_moments_next_to_its_middle() -> None:
    found = made([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    assert found.edges == [0, 1.5, 2.5, 4]
    assert found.segments == [Segment(0, 2.5, "run", 0.85), Segment(2.5, 4, "jump", 0.7)]
    assert replace(found, rules=SegmentRules(min_seconds=2)).segments == found.segments[:1]
    assert made([[0.9, 0.1]]).segments == [Segment(0, 2, "run", 0.9)]


def test_json_and_csv_hold_segments_and_windows(tmp_path: Path) -> None:
    found = made([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    record = json.loads(found.save(tmp_path / "new" / "a.json", top_k=1).read_text())
    assert record["path"] == "a.mp4"
    assert record["segments"][0] == {
        "start_seconds": 0,
        "end_seconds": 2.5,
        "label": "run",
        "score": 0.85,
    }
    assert record["windows"][2] == {
        "start_seconds": 2,
        "end_seconds": 4,
        "labels": ["jump"],
        "scores": [0.7],
    }
    rows = list(csv.reader(found.save(tmp_path / "a.csv").open(newline="")))
    assert rows == [
        ["start_seconds", "end_seconds", "label", "score"],
        ["0", "2.5", "run", "0.85"],
        ["2.5", "4", "jump", "0.7"],
    ]
    rows = list(csv.reader(found.save(tmp_path / "a.scores.csv").open(newline="")))
    assert rows[0] == ["start_seconds", "end_seconds", "label_1", "score_1", "label_2", "score_2"]
    assert rows[3] == ["2", "4", "jump", "0.7", "run", "0.3"]
    assert made([[0.1, 0.2]]).save(tmp_path / "b.csv").read_text().count("\n") == 1
    with pytest.raises(
        ConfigError, match=r"ends in '.txt'; name a file that ends in .json or .csv"
    ):
        found.save(tmp_path / "a.txt")


def test_subtitles_are_read_back_whatever_a_label_holds(tmp_path: Path) -> None:
    labels = ("a --> b & <i>c</i>\n\n00:01.000", "Grüße")
    found = made([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], labels)
    path = found.save(tmp_path / "a.vtt")
    with av.open(str(path)) as container:
        assert container.format.name == "webvtt"
        stream = container.streams.subtitles[0]
        cues = [
            (float(packet.pts * stream.time_base), float(packet.duration * stream.time_base))
            for packet in container.demux(stream)
            if packet.size
        ]
    assert cues == [(0, 2.5), (2.5, 1.5)]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\n")
    assert "a --&gt; b &amp; &lt;i&gt;c&lt;/i&gt;\\n\\n00:01.000 0.85\n" in text


def test_the_picture_shows_what_holds_longest(tmp_path: Path) -> None:
    labels = tuple("abcdefghijkl")
    scores = np.full((9, 12), 0.02)
    scores[:, 10] = 0.7  # which holds all the time
    frame = np.zeros((8, 12, 3), np.uint8)
    pictures = {1.5: frame, 4.5: frame + 255}
    text = made(scores, labels, pictures=pictures).save(tmp_path / "a.svg").read_text()
    assert "<!-- k -->" in text
    assert text.count("<image") == 1
    with Image.open(made(scores, labels).save(tmp_path / "a.png")) as image:
        assert image.width == pytest.approx(2048, abs=2)


def to_and_fro(action: str, seed: int, num_frames: int) -> Frames:
    clip = render_clip(action, seed=seed)
    return np.concatenate([clip, clip[-2:0:-1]] * 11)[:num_frames]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s of one person, then 6 s of another elsewhere."""
    frames = np.concatenate([to_and_fro("throw", 1, 96), to_and_fro("push", 4, 96)])
    return write_video(tmp_path_factory.mktemp("film") / "x.mp4", frames, fps=16)


@pytest.fixture(scope="module")
def model(film: Path) -> VideoMAEForVideoClassification:
    """A classifier that tells the two halves of the film from each other, and nothing else."""
    names = {0: "first", 1: "second"}
    config = VideoMAEConfig.preset("micro", id2label=names, image_size=32, frame_stride=2)
    model = VideoMAEForVideoClassification(config).eval()
    halves = [read_frames(film, range(start, start + 31)) for start in (30, 126)]
    embedded = videomae.embed(halves, model=model, dtype="float32")
    first, second = (torch.from_numpy(each.features) for each in embedded)
    across = 10 * (second - first) / (second - first).square().sum()
    bias = across @ (first + second) / 2
    with torch.no_grad():
        model.classifier.weight.copy_(torch.stack([-across, across]))
        model.classifier.bias.copy_(torch.stack([bias, -bias]))
    return model


def test_what_happens_when_is_found(film: Path, model: VideoMAEForVideoClassification) -> None:
    found = timeline(film, model=model, hop_seconds=0.5, dtype="float32")
    assert [each.label for each in found.segments] == ["first", "second"]
    first, second = found.segments
    assert (first.start_seconds, second.end_seconds) == (0, 12)
    assert abs(first.end_seconds - 6) < 1
    assert abs(second.start_seconds - 6) < 1
    assert len(found.pictures) == 12
    assert {picture.shape for picture in found.pictures.values()} == {(32, 32, 3)}
    # a window has the scores of classify on its frames
    window, scores = found.windows[3], found.scores[3]
    clip = read_frames(film, range(24, 24 + 31))
    assert (window.start_seconds, window.end_seconds) == (1.5, 55 / 16)
    expected = videomae.classify(clip, model=model, dtype="float32")
    by_label = dict(zip(expected.labels, expected.scores, strict=True))
    np.testing.assert_allclose(scores, [by_label[label] for label in found.labels], atol=1e-5)


def test_pictures_are_what_the_film_shows(film: Path) -> None:
    found = timeline(film, hop_seconds=0.5)
    frames = read_frames(film, [round(seconds * 16) for seconds in found.pictures])
    for frame, picture in zip(frames, found.pictures.values(), strict=True):
        small = np.asarray(Image.fromarray(frame).resize((64, 64), Image.Resampling.BILINEAR))
        assert np.abs(small.astype(int) - picture).mean() < 6


def test_a_list_keeps_its_order_and_bad_videos_their_places(film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    engine_options: dict[str, Any] = {"hop_seconds": 4, "dtype": "float32"}
    bad, good = timeline([tmp_path / "bad.mp4", film], on_error="skip", **engine_options)
    assert isinstance(bad, BadVideo)
    assert isinstance(good, Timeline)
    with pytest.raises(VideoError, match=r"bad\.mp4: "):
        timeline(tmp_path / "bad.mp4")


def test_the_strange_part_is_the_most_novel() -> None:
    """40 s of somebody who throws; for 2 s of it, somebody else walks elsewhere."""
    frames = to_and_fro("throw", 1, 640)
    frames[468:500] = render_clip("walk", seed=77)
    found = timeline(frames, model="actions-tiny-pretrain", novelty=True, fps=16, hop_seconds=0.5)
    assert found.labels == ("novelty",)
    assert float(np.median(found.scores)) == pytest.approx(1)
    best = found.windows[int(found.scores.argmax())]
    begin = 468 / 16
    assert begin - 2 < (best.start_seconds + best.end_seconds) / 2 < begin + 4
