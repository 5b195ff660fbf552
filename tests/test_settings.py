from pathlib import Path
from typing import Any

import pytest

from videomae.errors import ConfigError
from videomae.settings import (
    EvaluateSettings,
    FinetuneSettings,
    PretrainSettings,
    load_recipe,
    recipe_names,
    write_recipe,
)


@pytest.mark.parametrize(
    "settings",
    [
        PretrainSettings(data=Path('a "b" c'), mask_ratio=0.75, clip_grad=0.02, num_frames=8),
        FinetuneSettings(init="motion-tiny", eval_data=Path("held out"), crop_scales=(1.0, 0.5)),
        EvaluateSettings(num_clips=5, num_crops=3, output=Path("äöü")),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_a_written_recipe_reads_back_the_same(
    tmp_path: Path, settings: PretrainSettings | FinetuneSettings | EvaluateSettings
) -> None:
    write_recipe(settings, tmp_path / "recipe.toml")
    assert load_recipe(tmp_path / "recipe.toml", type(settings)) == settings


def test_the_about_table_is_for_people(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('epochs = 3\n[about]\nsource = "paper"\n')
    assert load_recipe(tmp_path / "r.toml", PretrainSettings).epochs == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "PretrainSettings has no key 'epoch'; did you mean 'epochs'?"),
        ('epochs = "3"', "epochs='3' should be int"),
        ("epochs = true", "epochs=True should be int"),
        ("epochs = ", "is not valid TOML"),
        ("epochs = 0", "epochs=0 must be at least 1"),
        ('preset = "bsae"', "preset='bsae' is not one of .*did you mean 'base'?"),
        ('mask = "tubes"', "mask='tubes' is not one of tube, random, .*did you mean 'tube'?"),
        ('frame_stride = "unifrom"', "frame_stride='unifrom' is not one of uniform"),
        ("frame_stride = 4.5", "frame_stride=4.5 should be int"),
        ("flip = 1", "flip=1 should be bool"),
        ("num_repeats = 0", "num_repeats=0 must be at least 1"),
        ("draw_every_epochs = 0", "draw_every_epochs=0 must be at least 1"),
        ("keep_every_epochs = -1", "keep_every_epochs=-1 must be at least 0"),
        ("max_bad_fraction = 1.5", "max_bad_fraction=1.5 must lie in 0 to 1"),
        ("crop_scales = [1.5]", "must lie above 0 and up to 1"),
        ("epochs = 100\nwarmup_epochs = 101", "warmup_epochs=101 is longer than epochs=100"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "r.toml", PretrainSettings)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no recipe .*nowhere\.toml, neither a file"):
        load_recipe(tmp_path / "nowhere.toml", PretrainSettings)
    with pytest.raises(ConfigError, match=r"did you mean 'motion-tiny-pretrain'.*recipes` lists"):
        load_recipe("motion-tiny-pretain", PretrainSettings)


def test_recipes_of_the_package_go_by_name() -> None:
    assert load_recipe("motion-tiny-pretrain", PretrainSettings).preset == "tiny"
    assert "motion-tiny-finetune" in recipe_names()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing=1.5 must lie in 0 to 1"),
        ({"problem": "regression", "mixup_alpha": 0.8}, "mixup and cutmix mix classes"),
        ({"problem": "regression", "class_weights": "balanced"}, "no meaning for regression"),
        ({"train_only": "heads"}, "train_only='heads' is not one of all, head"),
    ],
)
def test_fine_tuning_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneSettings(**values)


def test_peak_lr_is_linear_in_the_batch() -> None:
    # Kinetics-400, ViT-B: 1.5e-4 * 2048 / 256
    assert PretrainSettings(batch_size=2048).peak_lr == pytest.approx(1.2e-3)


def test_a_short_run_shortens_the_warm_up_of_the_recipe() -> None:
    assert PretrainSettings(epochs=800).num_warmup_epochs == 40
    assert PretrainSettings(epochs=20).num_warmup_epochs == 2
    assert FinetuneSettings(epochs=75).num_warmup_epochs == 5
    assert FinetuneSettings(epochs=75, warmup_epochs=0.0).num_warmup_epochs == 0


@pytest.mark.parametrize(("stride", "expected"), [(None, {}), (2, 2), ("uniform", None)])
def test_sizes_are_those_that_are_named(stride: object, expected: object) -> None:
    settings = PretrainSettings(frame_stride=stride, num_frames=8)  # type: ignore[arg-type]
    sizes = {"num_frames": 8} if stride is None else {"num_frames": 8, "frame_stride": expected}
    assert settings.sizes == sizes
