import json
import shutil
from pathlib import Path

import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.modeling import VideoMAEForVideoClassification
from videomae.training.data import ClipSource, list_videos, normalize
from videomae.training.evaluate import Prediction, _summary, evaluate, evaluate_model
from videomae.training.settings import EvaluateSettings
from videomae.training.setup import Machine, save_model


@pytest.fixture
def model() -> VideoMAEForVideoClassification:
    config = VideoMAEConfig.preset(
        "tiny",
        image_size=16,
        num_frames=4,
        num_hidden_layers=1,
        id2label={0: "sway", 1: "zoom_in"},
    )
    model = VideoMAEForVideoClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    return model.eval()


def test_scores_are_the_mean_softmax_over_views(
    model: VideoMAEForVideoClassification, videos_dir: Path
) -> None:
    videos = list_videos(videos_dir)
    machine = Machine.choose("cpu", "float32")
    evaluation = evaluate_model(model, videos, machine=machine, num_clips=2, num_crops=3)
    assert (evaluation.num_videos, evaluation.num_views) == (10, 6)
    views = ClipSource(videos, model.config).view_clips(7, num_clips=2, num_crops=3)
    with torch.no_grad():
        shares = model(normalize(views, machine.device)).logits.softmax(-1).mean(0)
    assert evaluation.predictions[7].scores == pytest.approx(shares.tolist(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_size_changes_nothing(
    model: VideoMAEForVideoClassification, videos_dir: Path, batch_size: int
) -> None:
    machine = Machine.choose("cpu", "float32")
    videos = list_videos(videos_dir)
    one = evaluate_model(model, videos, machine=machine, batch_size=batch_size)
    other = evaluate_model(model, videos, machine=machine, batch_size=4, num_workers=1)
    assert [p.path for p in one.predictions] == [str(path) for path in videos.paths]
    for a, b in zip(one.predictions, other.predictions, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-5)


def test_the_model_is_left_in_its_mode(
    model: VideoMAEForVideoClassification, videos_dir: Path
) -> None:
    evaluate_model(model.train(), list_videos(videos_dir), machine=Machine.choose("cpu", "float32"))
    assert model.training


def test_unreadable_videos_count_as_wrong_and_are_listed(
    model: VideoMAEForVideoClassification, videos_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    bad = tmp_path / "v" / "sway" / "bad.mp4"
    bad.write_bytes(b"junk")
    save_model(model, tmp_path)
    evaluation = evaluate(
        EvaluateSettings(
            data=tmp_path / "v",
            model=str(tmp_path / "model"),
            device="cpu",
            dtype="float32",
            output=tmp_path / "out",
        )
    )
    assert evaluation.num_videos == 11
    assert list(evaluation.bad) == [str(bad)]
    assert "1 unreadable, counted as wrong" in str(evaluation)
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    assert figures["num_videos"] == 11
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [p.path for p in evaluation.predictions]


def test_accuracies_counted_by_hand(videos_dir: Path) -> None:
    videos = list_videos(videos_dir, classes=["zoom_in", "sway", "a", "b", "c", "d", "e"])
    right = (0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0)  # sway first
    sixth = (0.3, 0.0, 0.2, 0.2, 0.2, 0.1, 0.0)  # sway (1) after 0, 2, 3, 4, 5: not in the top 5
    tie = (0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0)  # goes to the smaller number, zoom_in
    scores = [right, right, sixth, tie, ()] + [tie] * 5  # 5 of sway, 5 of zoom_in
    predictions = [
        Prediction(str(path), videos.classes[label], row, None if row else "unreadable")
        for path, label, row in zip(videos.paths, videos.labels, scores, strict=True)
    ]
    evaluation = _summary(predictions, videos, 1)
    assert evaluation.top1 == pytest.approx(70)  # 2 + 5 of 10
    assert evaluation.top5 == pytest.approx(80)  # and the tie
    assert evaluation.per_class == {"zoom_in": 100, "sway": 40}
    assert len(evaluation.bad) == 1
