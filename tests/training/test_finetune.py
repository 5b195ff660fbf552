import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.errors import ConfigError
from videomae.modeling import VideoMAEForVideoClassification
from videomae.training.data import list_videos
from videomae.training.finetune import finetune, make_model
from videomae.training.pretrain import pretrain
from videomae.training.report import read_log
from videomae.training.settings import FinetuneSettings, PretrainSettings


@pytest.fixture
def settings(videos_dir: Path, tmp_path: Path, small: dict[str, Any]) -> FinetuneSettings:
    return FinetuneSettings(
        data=videos_dir,
        eval_data=videos_dir,
        output=tmp_path / "run",
        epochs=2,
        warmup_epochs=0.0,
        lr=0.1,
        **small,
    )


def test_a_run_leaves_a_model_that_knows_its_classes(settings: FinetuneSettings) -> None:
    evaluation = finetune(settings)
    assert evaluation is not None
    assert evaluation.num_videos == 10
    model = VideoMAEForVideoClassification.from_pretrained(settings.output / "model")
    assert model.config.id2label == {0: "sway", 1: "zoom_in"}
    assert model.config.use_mean_pooling
    results = json.loads((settings.output / "results.json").read_text())
    assert results["top1"] == evaluation.top1
    assert len((settings.output / "predictions.jsonl").read_text().splitlines()) == 10


def test_ten_videos_can_be_learned_by_heart(settings: FinetuneSettings) -> None:
    evaluation = finetune(
        dataclasses.replace(
            settings, epochs=60, crop_scales=(1.0,), drop_path_rate=0.0, label_smoothing=0.0
        )
    )
    assert evaluation is not None
    assert evaluation.top1 == 100


def test_evaluation_in_between_is_logged(settings: FinetuneSettings) -> None:
    finetune(dataclasses.replace(settings, eval_every_epochs=1))
    assert [row["epoch"] for row in read_log(settings.output) if "top1" in row] == [1]


def test_a_resumed_run_ends_the_same(settings: FinetuneSettings, tmp_path: Path) -> None:
    finetune(dataclasses.replace(settings, drop_path_rate=0.5))
    broken = dataclasses.replace(
        settings, drop_path_rate=0.5, output=tmp_path / "broken", save_every_steps=3
    )
    finetune(broken)
    # As if killed after step 4: the checkpoint of step 3 is what is left.
    one = dataclasses.replace(broken, output=tmp_path / "again", save_every_steps=1)
    shutil.copytree(broken.output, one.output)
    finetune(dataclasses.replace(one, resume=True))
    first = VideoMAEForVideoClassification.from_pretrained(settings.output / "model").state_dict()
    last = VideoMAEForVideoClassification.from_pretrained(one.output / "model").state_dict()
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_the_encoder_comes_from_pre_training(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path, small: dict[str, Any]
) -> None:
    folder = pretrain(
        PretrainSettings(
            data=videos_dir, output=tmp_path / "pre", epochs=1, mask_ratio=0.5, **small
        )
    )
    with pytest.warns(UserWarning, match="mean"):
        model = make_model(dataclasses.replace(settings, init=str(folder)), list_videos(videos_dir))
    assert model.config.drop_path_rate == 0.1
    assert model.fc_norm is not None
    assert model.num_labels == 2


def test_one_class_is_not_enough(settings: FinetuneSettings, videos_dir: Path) -> None:
    with pytest.raises(ConfigError, match="has 0 class folders, and fine-tuning needs at least 2"):
        finetune(dataclasses.replace(settings, data=videos_dir / "sway"))
