"""Damaged videos: refused, or used as far as they can be decoded where that is asked for."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from made_videos import damage, encode, scene
from videomae.commands import cli
from videomae.data.manifest import load_videos
from videomae.data.prepare import prepare
from videomae.errors import VideoError
from videomae.inference.predict import classify
from videomae.settings import PrepareSettings
from videomae.video.reader import probe

USED = "is damaged in 1 place; the 54 frames that can be decoded are used"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two videos; one of them is damaged in its middle."""
    for name in ("run/a.mp4", "run/b.mp4", "walk/a.mp4", "walk/b.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        encode(tmp_path / "data" / name, scene(60), codec_options={"g": "12", "bf": "0"})
    damage(tmp_path / "data" / "walk" / "b.mp4", 30)
    return tmp_path / "data"


def test_they_are_classified(data: Path) -> None:
    video = data / "walk" / "b.mp4"
    with pytest.raises(VideoError, match="can be decoded: on_damage='use_readable'"):
        classify(video, num_clips=4)
    with pytest.warns(UserWarning, match=USED):
        assert len(classify(video, num_clips=4, on_damage="use_readable").logits) == 4


def test_they_are_prepared_listed_and_made_whole(data: Path, tmp_path: Path) -> None:
    kept = prepare(PrepareSettings(data, tmp_path / "kept", on_damage="use_readable"))
    assert len(kept.survey.usable) == 4
    report = json.loads((tmp_path / "kept" / "report.json").read_text())
    (entry,) = report["used_in_part"]
    assert (Path(entry["path"]).name, entry["damaged_places"]) == ("b.mp4", 1)
    assert report["summary"]["used in part"] == "1"
    assert any(
        "damaged, used in part: 1 video; train with --on-damage" in w for w in report["warnings"]
    )
    assert "## Damaged, used in part: 1" in kept.report.read_text()

    small = PrepareSettings(
        data, tmp_path / "small", on_damage="use_readable", resize_short=32, check="decode"
    )
    assert any("the small videos are whole" in text for text in prepare(small).survey.warnings())
    counts = [probe(video.path).num_frames for video in load_videos(tmp_path / "small").items]
    assert sorted(counts) == [54, 60, 60, 60]

    refused = prepare(PrepareSettings(data, tmp_path / "kept", check="decode"))
    assert [row.origin for row in refused.survey.unreadable] == ["walk/b.mp4"]


@pytest.mark.filterwarnings("ignore:.*is damaged in 1 place")
def test_they_are_trained_on_and_tested_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        shutil.copytree(data, tmp_path / "both" / split)
    words = ["--data", str(tmp_path / "both"), "--on-damage", "use_readable"]
    run = tmp_path / "run"
    finetune = ["finetune", *words, "--output", str(run), "--init", "actions-tiny", "--epochs", "1"]
    more = ["--batch-size", "2", "--tracker", "none", "--log-every-steps", "1", "--device", "cpu"]
    assert cli.main([*finetune, *more]) == 0
    assert "damaged videos that were used in part: 1" in capsys.readouterr().err
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["num_damaged_videos"] for line in lines if "num_damaged_videos" in line][-1] == 1
    results = json.loads((run / "results.json").read_text())
    assert results["num_unreadable"] == 0
    assert [Path(each["path"]).name for each in results["used_in_part"]] == ["b.mp4"]

    test = ["evaluate", *words, "--model", str(run / "model"), "--device", "cpu"]
    assert cli.main(test) == 0
    assert "damaged, used in part" in capsys.readouterr().out


def test_probe_tells_what_it_does_not_make_up_for(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["probe", str(data / "walk" / "b.mp4"), "--on-damage", "use_readable"]) == 0
    assert "damaged places: 1" in capsys.readouterr().out

    def odd(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.codec_context.color_trc = 18

    path = encode(data / "odd.mp4", scene(4), prepare=odd)
    assert cli.main(["probe", str(path)]) == 0
    assert "pixels 4:3, HDR (HLG)" in capsys.readouterr().out


def test_what_a_folder_holds_besides_is_said(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "notes.txt").touch()
    cli.main(["probe", str(data / "run"), str(data)])
    captured = capsys.readouterr()
    assert f"videomae: {data}: passed over .txt 1" in captured.err
    assert captured.err.count("passed over") == 1
