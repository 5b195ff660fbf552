"""What is left to the rule: by width, number of videos and batch; what is named stays."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from videomae.config import VideoMAEConfig
from videomae.recipe import load_recipe, recipe_names, write_recipe
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.training.defaults import decide

DECIDED = ("epochs", "batch_size", "lr", "layer_decay", "head_init", "mask", "mask_ratio")


def decided(kind: Any, preset: str, num_videos: int, **named: Any) -> dict[str, Any]:
    config = VideoMAEConfig.preset(preset)
    values = vars(decide(kind(**named), num_videos, config))
    return {name: values[name] for name in DECIDED if name in values}


def test_three_hundred_clips_by_hand() -> None:
    assert decided(PretrainSettings, "tiny", 300) == {
        "epochs": 800,  # 3,200 steps of 64 in epochs of 4
        "batch_size": 64,
        "lr": 6.25e-3,  # its peak: 0.2 / 128
        "mask": "random",
        "mask_ratio": 0.75,
    }
    # 600 steps of 32 in epochs of 9; a peak of 0.13 / 128
    assert decided(FinetuneSettings, "tiny", 300) == {
        "epochs": 67, "batch_size": 32, "lr": 0.00813, "layer_decay": 1.0, "head_init": "drawn",
    }  # fmt: skip
    assert decided(FinetuneSettings, "base", 300) == {
        "epochs": 75, "batch_size": 32, "lr": 1.35e-3, "layer_decay": 0.75, "head_init": "drawn",
    }  # fmt: skip
    # on an encoder that has learned, unless the head is to be small
    heads = {("tiny", 1): "fitted", ("tiny", 0.001): "drawn", ("base", 1): "drawn"}
    for (preset, scale), head in heads.items():
        found = decided(FinetuneSettings, preset, 300, init="encoder", head_scale=scale)
        assert found["head_init"] == head
    base = decided(PretrainSettings, "base", 300)
    assert (base["epochs"], base["mask"], base["mask_ratio"]) == (800, "tube", 0.9)


def test_few_videos_get_small_batches_and_enough_steps_and_many_no_more_than_published() -> None:
    for num_videos, batch, epochs in ((2, 4, 600), (12, 4, 200), (60, 8, 86), (100, 16, 100)):
        found = decided(FinetuneSettings, "base", num_videos)
        assert (found["batch_size"], found["epochs"]) == (batch, epochs)
    assert decided(FinetuneSettings, "base", 240_000)["epochs"] == 75
    assert decided(FinetuneSettings, "tiny", 3000)["epochs"] == 7
    assert decided(PretrainSettings, "tiny", 3000)["epochs"] == 70


@pytest.mark.parametrize(("name", "value"), [("lr", 1e-3), ("epochs", 3), ("batch_size", 7)])
def test_what_is_named_stays(name: str, value: float) -> None:
    found = decided(PretrainSettings, "tiny", 300, **{name: value}, mask="tube")
    assert found[name] == value
    assert (found["mask"], found["mask_ratio"]) == ("tube", 0.75)
    assert all(found.values())


def test_recipes_are_never_changed() -> None:
    for name in recipe_names():
        kind: Any = PretrainSettings if name.endswith("-pretrain") else FinetuneSettings
        settings = load_recipe(name, kind)
        config = VideoMAEConfig.preset(settings.preset)
        assert decide(settings, 17, config) == settings, name


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    # as earlier versions wrote them, whose defaults were others
    old = FinetuneSettings(output=tmp_path, epochs=75, batch_size=32, lr=1e-3, layer_decay=0.75)
    write_recipe(old, tmp_path / "settings.toml")
    config = VideoMAEConfig.preset("tiny")
    again = decide(FinetuneSettings(output=tmp_path, resume=True), 60, config)
    assert again == dataclasses.replace(old, resume=True)
    assert decide(FinetuneSettings(output=tmp_path), 60, config).lr != old.lr
    head = FinetuneSettings(output=tmp_path, resume=True, train_only="head")
    assert decide(head, 60, config) == dataclasses.replace(again, train_only="head")
    named = FinetuneSettings(output=tmp_path, resume=True, lr=0.5)
    assert decide(named, 60, config).lr == 0.5  # which the checkpoint then refuses


def test_a_frozen_encoder_needs_no_epochs() -> None:
    found = decided(FinetuneSettings, "tiny", 300, train_only="head")
    assert found == {
        "epochs": 1, "batch_size": 32, "lr": 0, "layer_decay": 0, "head_init": "auto",
    }  # fmt: skip


def test_the_mask_follows_the_grid_and_not_the_name_of_the_preset() -> None:
    config = VideoMAEConfig.preset("tiny", image_size=224)
    assert decide(PretrainSettings(), 300, config).mask == "tube"
    config = VideoMAEConfig.preset("small", image_size=64)
    assert decide(PretrainSettings(), 300, config).mask == "random"


@pytest.mark.parametrize(
    "name",
    ["ucf101-base-finetune", "hmdb51-base-finetune", "ucf101-base-pretrain",
     "kinetics400-base-pretrain", "kinetics400-huge-pretrain", "actions-tiny-finetune",
     "actions-tiny-pretrain"],
)  # fmt: skip
def test_learning_rates_are_near_those_of_recipes(name: str) -> None:
    kind: Any = PretrainSettings if name.endswith("-pretrain") else FinetuneSettings
    recipe = load_recipe(name, kind)
    rule = decide(kind(batch_size=recipe.batch_size), 10_000, VideoMAEConfig.preset(recipe.preset))
    assert 1 / 2.1 < rule.peak_lr / recipe.peak_lr < 2.1
