import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos, load_videos
from videomae.errors import ConfigError
from videomae.evaluation.features import Features
from videomae.evaluation.probe import linear_probe, load_encoder, probe
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor
from videomae.settings import LinearProbeSettings

SMALL: dict[str, Any] = {
    "image_size": 16,
    "num_frames": 4,
    "frame_stride": 2,
    "num_hidden_layers": 1,
}


@pytest.fixture
def data(videos_dir: Path, tmp_path: Path) -> Path:
    """Ten videos to learn from and ten to test on, and a model/ beside them."""
    for split in ("train", "test"):
        shutil.copytree(videos_dir, tmp_path / "v" / split)
    config = VideoMAEConfig.preset("tiny", use_mean_pooling=False, **SMALL)
    VideoMAEForPreTraining(config).save_pretrained(tmp_path / "model")
    return tmp_path / "v"


def settings(data: Path, **values: Any) -> LinearProbeSettings:
    places = {"data": data, "model": str(data.parent / "model"), "output": data.parent / "out"}
    return LinearProbeSettings(**{**places, "device": "cpu", "dtype": "float32", **values})


def clusters(num_videos: int, num_clips: int = 1, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features (N, V, 4) around one point for each of 3 classes, and the classes (N)."""
    labels = torch.arange(num_videos) % 3
    centres = 3 * torch.eye(3, 4)[labels][:, None]
    return centres + noise * torch.randn(num_videos, num_clips, 4), labels


def features(values: Tensor, labels: Tensor, bad: dict[int, str] | None = None) -> Features:
    names = ("a", "b", "c")
    items = tuple(Video(f"{k}.mp4", names[label]) for k, label in enumerate(labels.tolist()))
    return Features(Videos(items, names), values, bad or {})


def test_a_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.pipeline", None)
    with pytest.raises(ConfigError, match=r'needs more packages: pip install "videomae\[train\]"'):
        linear_probe(LinearProbeSettings(data=Path("unread"), model="unread"))


def test_clear_classes_are_told_apart_and_unreadable_videos_are_not_forgotten() -> None:
    train, labels = clusters(30, num_clips=2)
    test, wanted = clusters(12)
    train[4], test[5] = torch.nan, torch.nan
    result = probe(
        features(train, labels, {4: "4.mp4: broken"}), features(test, wanted, {5: "torn"})
    )
    assert result.knn.top1 == result.linear.top1 == pytest.approx(100 * 11 / 12)
    assert result.num_train == 29
    assert result.unreadable == ["4.mp4: broken", "5.mp4: torn"]
    assert ("tested on", "12 videos") in result.rows()
    bad = dict.fromkeys(range(26), "broken")
    with pytest.raises(ConfigError, match=r"26 of 30 .* the others are less than 5: broken"):
        probe(features(train, labels, bad), features(test, wanted))
    with pytest.raises(ConfigError, match="clips to learn from are all of one class"):
        probe(features(train, labels * 0), features(test, wanted))


def test_features_are_the_mean_token_after_the_final_norm(data: Path) -> None:
    given = settings(data, num_clips=3)
    result = linear_probe(given)
    with np.load(given.output / "features.npz") as arrays:
        assert arrays["train"].shape == (10, 3, 128)
        assert arrays["test"].shape == (10, 1, 128)
        assert arrays["test_labels"].tolist() == ["throw"] * 5 + ["walk"] * 5
        stored = torch.from_numpy(arrays["train"][7])
    model = VideoMAEForPreTraining.from_pretrained(given.model).videomae
    assert model.layernorm is not None
    processor = find_processor(given.model, model.config)
    clips = ViewMaker(model.config, processor, num_clips=3)(load_videos(data).items[7].path)
    with torch.no_grad():
        tokens = model(clips).last_hidden_state
    torch.testing.assert_close(stored, tokens.mean(1), atol=1e-5, rtol=1e-5)
    figures = json.loads((given.output / "results.json").read_text())
    assert figures["knn"]["top1"] == result.knn.top1
    assert figures["linear"]["top1"] == result.linear.top1
    assert (figures["num_train"], figures["num_test"]) == (10, 10)


def test_a_second_run_takes_the_features_from_the_folder_if_they_are_the_same(
    data: Path,
) -> None:
    first = linear_probe(settings(data))
    second = linear_probe(settings(data, batch_size=2, num_neighbours=3))
    assert (first.reused, second.reused) == (False, True)
    assert torch.equal(first.linear.scores, second.linear.scores)
    assert not linear_probe(settings(data, frame_stride=1)).reused
    assert not linear_probe(settings(data, fps=4)).reused
    assert not linear_probe(settings(data)).reused
    (data.parent / "out" / "features.npz").write_bytes(b"cut off")
    assert not linear_probe(settings(data)).reused
    model = VideoMAEForPreTraining.from_pretrained(data.parent / "model")
    torch.nn.init.normal_(model.videomae.layernorm.bias)  # type: ignore[union-attr]
    model.save_pretrained(data.parent / "model")  # another model of the same name
    assert not linear_probe(settings(data)).reused
    assert linear_probe(settings(data)).reused


def test_a_classifier_keeps_the_norm_it_has_behind_the_mean(data: Path) -> None:
    config = VideoMAEConfig.preset("tiny", **SMALL)
    model = VideoMAEForVideoClassification(config)
    assert model.fc_norm is not None
    torch.nn.init.normal_(model.fc_norm.weight)
    model.save_pretrained(data.parent / "model")
    loaded = load_encoder(settings(data), Machine.start("cpu", "float32"))
    assert torch.equal(loaded.fc_norm.weight, model.fc_norm.weight)  # type: ignore[union-attr]
    linear_probe(settings(data))
    with np.load(data.parent / "out" / "features.npz") as arrays:
        spread = arrays["test"].std(axis=(0, 1))
    assert np.corrcoef(spread, model.fc_norm.weight.abs().detach())[0, 1] > 0.3


def test_bad_videos_are_left_out_of_learning_and_wrong_in_testing(data: Path) -> None:
    for split in ("train", "test"):
        (data / split / "throw" / "bad.mp4").write_bytes(b"junk")
    for _ in range(2):  # computed, then read
        result = linear_probe(settings(data))
        assert (result.num_train, result.knn.num_videos) == (10, 11)
        assert len(result.knn.bad) == 1
        assert len(result.unreadable) == 2
    assert result.reused


def test_what_cannot_be_probed_is_told(data: Path, videos_dir: Path) -> None:
    with pytest.raises(ConfigError, match="has no split test or val to be tested on"):
        linear_probe(settings(videos_dir))
    (data / "test" / "throw").rename(data / "test" / "spin")
    with pytest.raises(ConfigError, match="which the model does not know"):
        linear_probe(settings(data))
    for path in (data / "train" / "throw").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="5 videos of 1 classes to learn from"):
        linear_probe(settings(data))
    with pytest.raises(ConfigError, match="num_clips=0 must be at least 1"):
        LinearProbeSettings(num_clips=0)


def test_another_folder_may_be_tested_on(data: Path, videos_dir: Path) -> None:
    result = linear_probe(
        settings(data / "train", eval_data=videos_dir, model=str(data.parent / "model"))
    )
    assert result.knn.videos.items[0].path.startswith(str(videos_dir))
    assert result.knn.num_videos == 10
