from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.recipe import load_recipe, recipe_names, write_recipe
from videomae.settings import EvaluateSettings, FinetuneSettings, PretrainSettings


@pytest.mark.parametrize(
    "settings",
    [
        PretrainSettings(data=Path('a "b" c'), mask_ratio=0.75, clip_grad=0.02, num_frames=8),
        FinetuneSettings(init="actions-tiny", eval_data=Path("held out"), crop_scales=(1.0, 0.5)),
        EvaluateSettings(num_clips=5, num_crops=3, output=Path("äöü")),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_a_written_recipe_reads_back_the_same(
    tmp_path: Path, settings: PretrainSettings | FinetuneSettings | EvaluateSettings
) -> None:
    write_recipe(settings, tmp_path / "recipe.toml")
    assert load_recipe(tmp_path / "recipe.toml", type(settings)) == settings


def test_the_about_table_and_a_key_of_earlier_versions_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('epochs = 3\nworkers = "processes"\n[about]\nsource = ""\n')
    assert load_recipe(tmp_path / "r.toml", PretrainSettings).epochs == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "PretrainSettings has no key 'epoch'; did you mean 'epochs'?"),
        ('epochs = "3"', "epochs='3' should be int"),
        ("epochs = true", "epochs=True should be int"),
        ("epochs = 1979-05-27", r"epochs=datetime\.date\(1979, 5, 27\) should be int"),
        ("lr = 07:32:00", r"lr=datetime\.time\(7, 32\) should be float"),
        ("epochs = ", "is not valid TOML"),
        ("epochs = -1", "epochs=-1 must be at least 0"),
        ('preset = "bsae"', "preset='bsae' is not one of .*did you mean 'base'?"),
        ('mask = "tubes"', "mask='tubes' is not one of tube, random, .*did you mean 'tube'?"),
        ('frame_stride = "unifrom"', "frame_stride='unifrom' is not one of uniform"),
        ("frame_stride = 4.5", "frame_stride=4.5 should be int"),
        ("flip = 1", "flip=1 should be bool"),
        ("num_repeats = 0", "num_repeats=0 must be at least 1"),
        ("draw_every_epochs = 0", "draw_every_epochs=0 must be at least 1"),
        ("keep_every_epochs = -1", "keep_every_epochs=-1 must be at least 0"),
        ("max_bad_fraction = 1.5", "max_bad_fraction=1.5 must lie in 0 to 1"),
        ('crop_scales = ["a"]', "crop_scales=.a. should be float"),
        ("crop_scales = [[1.0]]", r"crop_scales=\[1.0\] should be float"),
        (f"epochs = {10**400}", "epochs=1000.*0+ must lie in -9223372036854775808 to"),
        ("epochs = " + "9" * 5000, "is not valid TOML: Exceeds"),
        ("lr = nan", "lr=nan must be at least 0"),
        ("min_lr = nan", "min_lr=nan must be at least 0"),
        ("about = " + "[" * 100_000, "is not valid TOML: nested too deeply"),
        ("crop_scales = [1.5]", "crop_scales=1.5 must be above 0 and at most 1"),
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
    with pytest.raises(ConfigError, match=r"did you mean 'actions-tiny-pretrain'.*recipes` lists"):
        load_recipe("actions-tiny-pretain", PretrainSettings)


def test_recipes_of_the_package_go_by_name() -> None:
    assert load_recipe("actions-tiny-pretrain", PretrainSettings).preset == "tiny"
    assert "actions-tiny-finetune" in recipe_names()
