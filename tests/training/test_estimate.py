"""How long a run takes, by hand, and what a dry run leaves behind: nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.training import estimate, finetune, pretrain
from videomae.training.estimate import Pace, clip_cost, gigabytes, what_fits

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds."""
    now = [100.0]
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    return now


def test_the_first_step_counts_only_while_it_is_alone(clock: list[float]) -> None:
    pace = Pace(10, 20)
    clock[0] += 8
    pace.step(11)
    assert (pace.seconds_per_step, pace.seconds_left) == (8, 72)
    for _ in range(3):
        clock[0] += 2
        pace.step(pace.first_step + pace.num_done + 1)
    assert (pace.seconds_per_step, pace.seconds_left) == (2, 12)
    assert pace.is_steady()
    assert str(pace) == "about 12 s to the end, at 2.00 s a step"


def test_a_few_quick_steps_are_no_pace(clock: list[float]) -> None:
    pace = Pace(0, 1000)
    for done in range(1, 50):
        clock[0] += 0.1
        pace.step(done)
    assert not pace.is_steady()


def slow(hours: float) -> Pace:
    pace = Pace(0, 1000)
    pace.seconds_per_step, pace.seconds_left = 3.6 * hours, 3600 * hours
    return pace


def test_what_else_fits_is_said_where_a_run_is_long() -> None:
    settings = PretrainSettings(preset="small", epochs=800, mask_ratio=0.9)
    config = VideoMAEConfig.preset("small")
    assert what_fits(settings, config, slow(11), CPU) == ""
    assert what_fits(settings, config, slow(100), torch.device("cuda")) == ""
    said = what_fits(settings, config, slow(100), CPU)
    assert said.startswith("that is long for a CPU; what else would fit: --preset micro (about ")
    assert said.endswith("--epochs 96 (about 12 h), a GPU")


def test_presets_that_do_not_fit_the_clips_are_not_named() -> None:
    settings = PretrainSettings(epochs=800, preset="tiny", image_size=64)  # giant: patches of 14
    config = VideoMAEConfig.preset("tiny", image_size=64)
    assert "--preset micro" in what_fits(settings, config, slow(24), CPU)


def test_a_model_that_is_given_is_not_made_smaller() -> None:
    settings = FinetuneSettings(init="MCG-NJU/videomae-base", epochs=75)
    said = what_fits(settings, VideoMAEConfig.preset("base"), slow(24), CPU)
    assert said.endswith("would fit: --train-only head, --epochs 37 (about 12 h), a GPU")


def test_the_cost_of_a_clip_by_hand() -> None:
    config = VideoMAEConfig.preset("micro")  # 288 tokens, 4 layers of 96, 2 of 64
    whole = 4 * (288 * 12 * 96**2 + 2 * 288**2 * 96)
    assert clip_cost(config, FinetuneSettings()) == whole
    shown = 4 * (72 * 12 * 96**2 + 2 * 72**2 * 96)
    decoder = 2 * (288 * 12 * 64**2 + 2 * 288**2 * 64)
    assert clip_cost(config, PretrainSettings(mask_ratio=0.75)) == shown + decoder


def test_sizes_are_read_at_a_glance() -> None:
    assert [gigabytes(size) for size in (7e6, 1.13e9)] == ["7 MB", "1.1 GB"]


@pytest.mark.parametrize("kind", [PretrainSettings, FinetuneSettings])
def test_a_dry_run_says_what_a_run_takes_and_writes_nothing(
    kind: Any, videos_dir: Path, tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = kind(data=videos_dir, output=tmp_path / "run", epochs=30, **small)
    run = pretrain.dry_run if kind is PretrainSettings else finetune.dry_run
    if kind is PretrainSettings:
        settings = dataclasses.replace(settings, mask_ratio=0.5)
    made = run(settings)
    rows = dict(made.rows())
    assert rows["videos"] == "10"
    assert rows["clips a step"] == "4"
    assert rows["steps"] == "60 (30 epochs of 2 steps)"
    assert rows["a step"].endswith(" ms")
    assert rows["memory at its peak"].endswith("B")
    assert made.pace.num_done == 10
    assert 0 <= made.data_share <= 1
    assert made.advice() == ""
    assert not list(tmp_path.iterdir())


def test_a_head_has_no_steps_to_try(videos_dir: Path) -> None:
    with pytest.raises(ConfigError, match="train_only='head' has no steps to try: it looks at"):
        finetune.dry_run(FinetuneSettings(data=videos_dir, train_only="head"))
