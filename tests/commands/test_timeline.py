import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videomae.commands import timeline as command
from videomae.config import VideoMAEConfig
from videomae.errors import VideoError
from videomae.footage.timeline import Scored
from videomae.footage.windows import live_windows
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import render_clip
from videomae.video.reader import probe
from videomae.video.writer import write_video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that sees pulling everywhere, with a score of 0.95."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "frame_stride": 2}
    names = {0: "pull", 1: "throw"}
    config = VideoMAEConfig.preset("micro", id2label=names, num_attention_heads=2, **sizes)
    made = VideoMAEForVideoClassification(config)
    made.load_state_dict(
        {"classifier.weight": torch.zeros(2, 16), "classifier.bias": torch.tensor([3.0, 0.0])},
        strict=False,
    )
    folder = tmp_path_factory.mktemp("model")
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def run(run: Run, model: Path) -> Run:
    """The command; a model that a test names comes later and counts."""
    return partial(run, "timeline", "--model", model)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 4 s."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("throw", "pull"):
        clip = render_clip(name, seed=1, num_frames=32)
        write_video(folder / f"{name}.mp4", np.concatenate([clip, clip[::-1]]), fps=16)
    return folder


def test_segments_are_shown_and_written(run: Run, videos: Path, tmp_path: Path) -> None:
    code, out, err = run(videos, "--output", tmp_path / "out", "--dtype", "float32")
    assert (code, err) == (0, "")
    rows = [row.split()[:5] for row in out.splitlines()]
    for name, row in zip(("pull", "throw"), rows, strict=True):
        assert row == [str(videos / f"{name}.mp4"), "0:00.0", "0:04.0", "pull", "0.95"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    kinds = ("json", "csv", "scores.csv", "vtt", "png")
    assert names == {f"{name}.{kind}" for name in ("pull", "throw") for kind in kinds}


def test_one_line_of_json_each(run: Run, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    code, out, err = run(
        videos / "pull.mp4", tmp_path / "bad.mp4", "--json", "--hop-seconds", 1, "--top-k", 2
    )
    good, bad = map(json.loads, out.splitlines())
    assert [each["start_seconds"] for each in good["windows"]] == [0, 1, 2, 2.062]
    assert {len(each["labels"]) for each in good["windows"]} == {2}
    assert [each["label"] for each in good["segments"]] == ["pull"]
    assert bad["path"] == str(tmp_path / "bad.mp4")
    assert bad["error"].startswith(bad["path"])
    assert code == 1
    assert err.endswith("1 of 2 videos could not be read whole\n")


def test_without_a_segment_the_best_is_named(run: Run, videos: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        videos / "pull.mp4", "--enter", 0.999, "--output", tmp_path / "a.csv", "--dtype", "float32"
    )
    assert code == 0
    assert "no segment: the highest score is 0.9" in " ".join(out.split())
    assert "(pull at 0:0" in out
    assert (tmp_path / "a.csv").read_text() == "start_seconds,end_seconds,label,score\n"


def test_novelty_takes_a_model_without_labels(run: Run, videos: Path, tmp_path: Path) -> None:
    code, _, err = run(
        *(videos / "pull.mp4", "--novelty", "--model", "actions-tiny-pretrain"),
        *("--frame-stride", 1, "--output", tmp_path / "a.json"),
    )
    assert (code, err) == (0, "")
    windows = json.loads((tmp_path / "a.json").read_text())["windows"]
    assert {each["labels"][0] for each in windows} == {"novelty"}
    code, out, err = run(videos / "pull.mp4", "--novelty", "--window-seconds", 3, "--json")
    assert code == 1
    assert "4 seconds are too short for novelty" in err
    assert "too short" in json.loads(out)["error"]


def stopping(how: BaseException) -> Callable[..., Iterator[Scored]]:
    """What scores windows, and stops after three."""
    whole = command.scored_windows

    def scored(*arguments: Any, **options: Any) -> Iterator[Scored]:
        for row in whole(*arguments, **options):
            if row.window.index == 3:
                raise how
            yield row

    return scored


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "pull.mp4: interrupted; the first 0:02 are kept"),
        (VideoError("pull.mp4: is damaged"), 1, "pull.mp4: is damaged; the first 0:02 are kept"),
    ],
)
def test_what_is_done_is_kept(
    how: BaseException,
    code: int,
    message: str,
    run: Run,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "scored_windows", stopping(how))
    found, out, err = run(
        videos / "pull.mp4", "--output", tmp_path / "a.json", "--hop-seconds", 0.25
    )
    assert found == code
    assert message in err
    assert len(json.loads((tmp_path / "a.json").read_text())["windows"]) == 3
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--output", "a.txt"),
            "--output a.txt: name a file .json, .csv, .scores.csv, .vtt, .png, ",
        ),
        (("--output", "a.vtt"), "--output a.vtt is one file for 2 videos; name a folder"),
        (("--leave", 0.7), "--leave=0.7 is above --enter=0.5: a segment would end where it begins"),
        (
            ("--window-seconds", 0.5),
            "window_seconds=0.5 is 8 of its frames (16 a second), and a clip takes 31",
        ),
    ],
)
def test_wrong_options_are_explained(
    options: tuple[object, ...], message: str, run: Run, videos: Path
) -> None:
    code, out, err = run(videos, *options)
    assert (code, out) == (1, "")
    assert message in err


def test_two_videos_that_would_share_a_table_are_refused(
    run: Run, videos: Path, tmp_path: Path
) -> None:
    for name in ("a.mp4", "a.scores.mp4"):
        shutil.copy(videos / "pull.mp4", tmp_path / name)
    code, _, err = run(tmp_path / "a.mp4", tmp_path / "a.scores.mp4", "--output", tmp_path / "out")
    assert code == 1
    assert re.search(r"a\.scores\.csv would be written for \S+a\S*\.mp4 and for \S+; name a f", err)
    assert not (tmp_path / "out").exists()


def test_labels_are_drawn_into_the_videos(run: Run, videos: Path, tmp_path: Path) -> None:
    code, _, err = run(videos, "--annotate", tmp_path / "drawn")
    assert (code, err) == (0, "")
    for name in ("pull", "throw"):
        assert probe(tmp_path / "drawn" / f"{name}.mp4").num_frames == 64
    code, out, err = run(videos, "--annotate", "a.mp4")
    assert (code, out) == (1, "")
    assert "--annotate a.mp4 is one file for 2 videos; name a folder" in err
    code, out, err = run(videos, "--annotate", "a.avi")
    assert (code, out) == (1, "")
    assert "--annotate a.avi: name a file .mp4 or .mkv, or a folder" in err
    code, _, err = run(videos / "pull.mp4", "--annotate", tmp_path / "a.mkv")
    assert probe(tmp_path / "a.mkv").codec == "h264"


def test_a_video_that_cannot_be_drawn_ends_nothing(
    run: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = command.Timeline.annotate

    def fails_first(found: Any, video: Path, *rest: Any, **options: Any) -> Path:
        if video.stem == "pull":
            raise VideoError("pull.mp4: is gone")
        return draw(found, video, *rest, **options)

    monkeypatch.setattr(command.Timeline, "annotate", fails_first)
    code, _, err = run(videos, "--annotate", tmp_path / "drawn-1.0")
    assert code == 1
    assert err.startswith("videomae: pull.mp4: is gone\nvideomae: 1 of 2 videos could not be")
    assert [path.name for path in (tmp_path / "drawn-1.0").iterdir()] == ["throw.mp4"]


class Camera:
    """Stands in for LiveVideo: 2 s, 16 frames a second."""

    fps: float | None = 16

    def __init__(self, where: str) -> None:
        assert where == "0"

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frames(self, every_seconds: float) -> Iterator[tuple[float, np.ndarray]]:
        assert every_seconds == 2 / 16
        clip = render_clip("throw", seed=1, num_frames=32)
        yield from ((k / 16, clip[k]) for k in range(0, 32, 2))


def test_a_camera_is_labelled_as_it_goes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LiveVideo", Camera)
    code, out, err = run("--camera", 0, "--output", tmp_path / "a.csv")
    assert (code, err) == (0, "")
    assert re.fullmatch(r" +0:01\.9  pull +0\.\d\d  \d+\.\d\d s late\n", out)
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("0.0,1.875,pull,0.")
    code, out, _ = run("--camera", 0, "--json", "--top-k", 1)
    window = json.loads(out)
    assert code == 0
    assert set(window) == {
        *("start_seconds", "end_seconds", "labels", "scores", "delay_seconds", "num_skipped")
    }
    assert (window["labels"], window["num_skipped"]) == (["pull"], 0)
    monkeypatch.setattr(Camera, "fps", None)
    code, _, err = run("--camera", 0)
    assert code == 1
    assert "--camera 0: frames of a clip are to be so many apart; give --fps" in err


def test_a_camera_is_left_by_an_interrupt(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield next(live_windows(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "LiveVideo", Camera)
    monkeypatch.setattr(command, "live_windows", interrupted)
    code, out, err = run("--camera", 0, "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"live.vtt", "live.json"}


@pytest.mark.parametrize(
    ("given", "code"), [(("--camera", 0), 0), (("throw.mp4", "pull.mp4"), 130)]
)
def test_sigterm_is_heard_as_an_interrupt(
    given: tuple[Any, ...],
    code: int,
    run: Run,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("live_windows", "scored_windows"):

        def stopped(whole: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
            yield next(whole(*arguments, **options))
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(command, name, partial(stopped, getattr(command, name)))
    monkeypatch.setattr(command, "LiveVideo", Camera)
    monkeypatch.chdir(videos)
    before = signal.getsignal(signal.SIGTERM)
    assert run(*given, "--output", tmp_path / "out")[0] == code
    assert signal.getsignal(signal.SIGTERM) is before
    name = "live" if code == 0 else "throw"
    assert len(json.loads((tmp_path / "out" / f"{name}.json").read_text())["windows"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("x.mp4",), "--camera 0 does not go with a file; leave one out"),
        (("--novelty",), "--camera 0 does not go with --novelty; leave one out"),
        (("--num-clips", 2), "--camera 0 shows the newest clip again and again; leave out"),
        (("--window-seconds", 3), "--camera 0 shows the newest clip again and again; leave out"),
    ],
)
def test_what_does_not_go_with_a_camera_is_refused(
    options: tuple[object, ...], message: str, run: Run
) -> None:
    code, out, err = run("--camera", 0, *options)
    assert (code, out) == (1, "")
    assert message in err


def test_a_video_is_not_replaced_by_itself(run: Run, videos: Path) -> None:
    for place in (videos, videos / ".." / videos.name):
        code, out, err = run(videos, "--annotate", place)
        assert (code, out) == (1, "")
        assert f"--annotate {place} would replace {videos / 'pull.mp4'}, which is read" in err
