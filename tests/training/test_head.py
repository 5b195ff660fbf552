"""A linear head on frozen features: exact, cached, saved like any other model."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videomae.data.manifest import Video, Videos, load_videos, write_manifest
from videomae.errors import ConfigError, VideoError
from videomae.evaluation.evaluate import Evaluation, evaluate
from videomae.inference.predict import classify
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.report.record import read_run
from videomae.settings import EvaluateSettings, FinetuneSettings
from videomae.training import finetune as finetune_file
from videomae.training import head as head_file
from videomae.training.finetune import finetune, make_model


@pytest.fixture
def settings(videos_dir: Path, tmp_path: Path, small: dict[str, Any]) -> FinetuneSettings:
    # Ten videos, learned by heart from features of random weights.
    return FinetuneSettings(
        data=videos_dir, eval_data=videos_dir, output=tmp_path / "run", train_only="head", **small
    )


def run(settings: FinetuneSettings) -> Evaluation:
    evaluation = finetune(settings)
    assert evaluation is not None
    return evaluation


def test_a_frozen_encoder_gets_a_head_that_every_command_takes(
    settings: FinetuneSettings, videos_dir: Path
) -> None:
    torch.manual_seed(settings.seed)
    model, _ = make_model(settings, load_videos(videos_dir))
    before = model.state_dict()
    evaluation = run(settings)
    assert evaluation.top1 >= 80
    model = settings.output / "model"
    after = VideoMAEForVideoClassification.from_pretrained(model)
    assert after.config.id2label == {0: "throw", 1: "walk"}
    moved = {k for k, v in after.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"classifier.weight", "classifier.bias"}

    asked = EvaluateSettings(data=videos_dir, model=str(model), device="cpu", dtype="float32")
    torch.testing.assert_close(evaluate(asked).scores, evaluation.scores, atol=1e-5, rtol=0)
    video = evaluation.videos.items[7]
    answer = classify(video.path, model=model, engine="torch", dtype="float32")
    assert answer.labels[0] == video.label
    assert read_run(settings.output).is_finished
    assert (settings.output / "index.html").is_file()
    card = (model / "README.md").read_text()
    assert "| trained | the classifier alone, fitted to features of the frozen encoder |" in card
    assert "learning rate" not in card


def test_features_are_computed_once(
    settings: FinetuneSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(dataclasses.replace(settings, num_repeats=3))
    with np.load(settings.output / "features.npz") as arrays:
        assert arrays["train"].shape == (10, 3, 128)
    again = dataclasses.replace(settings, num_repeats=3, resume=True)
    (settings.output / "results.json").unlink()  # as if killed before its end
    with monkeypatch.context() as patch:
        patch.setattr(head_file, "compute_features", None)
        assert torch.equal(run(again).scores, first.scores)
    assert "the features are those of" in capsys.readouterr().err


def test_a_finished_head_stays_as_it_is(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings)
    before = (settings.output / "model" / "model.safetensors").read_bytes()
    again = dataclasses.replace(settings, resume=True)
    assert finetune(again) is None
    assert "is finished and stays as it is" in capsys.readouterr().err
    other = labelled(tmp_path / "other", videos_dir, ["x", "y"] * 5)
    for change in ({"data": other, "eval_data": other}, {"num_repeats": 2}):
        with pytest.raises(ConfigError, match=r"cannot resume"):
            finetune(dataclasses.replace(again, **change))
    assert (settings.output / "model" / "model.safetensors").read_bytes() == before


def test_another_video_in_the_place_of_one_has_its_own_features(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(videos_dir, data)
    asked = dataclasses.replace(settings, data=data, eval_data=data)
    first = run(asked)
    (settings.output / "results.json").unlink()
    one, other, *_ = sorted(data.rglob("*.mp4"))
    one.write_bytes(other.read_bytes())
    again = run(dataclasses.replace(asked, resume=True))
    assert not torch.equal(again.scores[0], first.scores[0])
    assert torch.equal(again.scores[0], again.scores[1])


def test_without_a_readable_video_there_is_no_head(
    settings: FinetuneSettings, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / "x.mp4").write_bytes(b"no video")
    data = tmp_path / "v"
    asked = dataclasses.replace(settings, data=data, eval_data=data, max_bad_fraction=1.0)
    with pytest.raises(VideoError, match="none of 2 videos to learn from can be read"):
        run(asked)


def test_settings_of_a_training_are_said_to_have_no_part(
    settings: FinetuneSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(dataclasses.replace(settings, lr=0.5, mixup_alpha=0.8))
    err = capsys.readouterr().err
    assert "and has no use for: lr, mixup_alpha" in err


def test_a_run_of_an_earlier_version_goes_on_as_it_began(
    settings: FinetuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = dataclasses.replace(settings, epochs=2, warmup_epochs=0.0, lr=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(finetune_file, "checkpoint_paths", lambda _: ["some"])
        run(old)
    assert not (settings.output / "features.npz").exists()
    left = settings.output / "model"
    whole = VideoMAEForVideoClassification.from_pretrained(left).classifier.weight
    (left / "model.safetensors").unlink()
    run(dataclasses.replace(old, resume=True))
    assert not (settings.output / "features.npz").exists()
    again = VideoMAEForVideoClassification.from_pretrained(left).classifier.weight
    assert torch.equal(whole, again)  # type: ignore[arg-type]


def labelled(folder: Path, videos_dir: Path, labels: list[str]) -> Path:
    names = sorted({name for label in labels for name in label.split("|")})
    paths = sorted(videos_dir.rglob("*.mp4"))
    rows = tuple(Video(str(path), label) for path, label in zip(paths, labels, strict=True))
    folder.mkdir()
    write_manifest(folder, Videos(rows, tuple(names)))
    return folder


def test_several_labels_and_values_have_heads_too(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    several = labelled(tmp_path / "several", videos_dir, ["a|b", "a", "b", "c", "a|c"] * 2)
    asked = dataclasses.replace(settings, data=several, eval_data=several, problem="multi_label")
    assert run(asked).figures()["mean_ap"] > 80  # 58 of a guess
    values = labelled(tmp_path / "values", videos_dir, [str(60 + k / 2) for k in range(10)])
    asked = dataclasses.replace(
        settings, data=values, eval_data=values, problem="regression", output=tmp_path / "value"
    )
    assert run(asked).figures()["mae"] < 1.25  # of the mean for all


def test_unreadable_videos_are_left_out_listed_and_limited(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    data = labelled(tmp_path / "data", videos_dir, ["a", "b"] * 5)
    with (data / "manifest.csv").open("a") as file:
        file.write("missing.mp4,a,train\n")
    asked = dataclasses.replace(settings, data=data, eval_data=data, max_bad_fraction=0.1)
    assert run(asked).num_videos == 11
    (bad,) = json.loads((settings.output / "bad_videos.json").read_text())
    assert bad.endswith("missing.mp4")
    strict = dataclasses.replace(asked, output=tmp_path / "strict", max_bad_fraction=0.01)
    with pytest.raises(VideoError, match=r"1 of 11 videos .* more than max_bad_fraction=0.01 al"):
        run(strict)


def test_one_class_is_not_enough(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    data = labelled(tmp_path / "data", videos_dir, ["a"] * 10)
    (data / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ConfigError, match="10 clips to learn from are all of one class"):
        run(dataclasses.replace(settings, data=data, eval_data=data))


def test_a_missing_scikit_learn_is_named(
    settings: FinetuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.pipeline", None)
    with pytest.raises(ConfigError, match=r'needs more packages: pip install "videomae\[train\]"'):
        run(settings)


def test_fine_tuning_may_begin_with_the_head_that_fits(
    settings: FinetuneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = run(settings)
    whole = dataclasses.replace(
        settings, train_only="all", output=tmp_path / "whole", epochs=1, head_init="fitted"
    )
    still = dataclasses.replace(whole, lr=1e-12, min_lr=0.0)  # steps that move nothing
    torch.testing.assert_close(run(still).scores, alone.scores, atol=1e-5, rtol=0)
    assert "the head begins as it fits the features of the encoder" in capsys.readouterr().err
    assert "loss" in (whole.output / "log.jsonl").read_text().splitlines()[0]

    # Stopped before its first checkpoint, it goes on with the features that lie there.
    drop(still.output, "checkpoints", "model", "log.jsonl", "results.json")
    with monkeypatch.context() as patch:
        patch.setattr(head_file, "compute_features", None)
        again = run(dataclasses.replace(still, resume=True))
    torch.testing.assert_close(again.scores, alone.scores, atol=1e-5, rtol=0)

    # What has a checkpoint, or a trained head for these classes, keeps that.
    monkeypatch.setattr(finetune_file, "begin_with_head", None)
    longer = dataclasses.replace(still, resume=True)
    assert finetune(longer) is None
    on = dataclasses.replace(still, init=str(still.output / "model"), output=tmp_path / "on")
    torch.testing.assert_close(run(on).scores, alone.scores, atol=1e-5, rtol=0)


def drop(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
