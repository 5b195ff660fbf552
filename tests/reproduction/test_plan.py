"""The plan of the findings: what it holds, and that each point of it could be run."""

from pathlib import Path

import pytest

from reproduction.claims import longer_than_base
from reproduction.plan import (
    BASE,
    EPOCHS_OF_LONGER_SCRATCH,
    FULL,
    OBJECT,
    QUICK,
    Clips,
    Finetuning,
    Plan,
    Pretraining,
    Scale,
    masked,
    tuned,
    with_tuned,
)
from videomae.config import VideoMAEConfig
from videomae.masking import MASKS

PLANS = pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])


@PLANS
def test_names_are_unique_and_starts_come_first(plan: Plan) -> None:
    seen: set[str] = set()
    for point in plan.points:
        assert point.name not in seen
        assert "/" not in point.name
        if isinstance(point, Finetuning) and point.start:
            assert point.start.name in seen
            assert point.start in plan.points
        seen.add(point.name)


@PLANS
def test_every_point_has_settings_and_masks_that_exist(plan: Plan, tmp_path: Path) -> None:
    for point in plan.points:
        if isinstance(point, Pretraining):
            pretrain = point.settings(plan.scale, tmp_path)
            assert pretrain.batch_size * pretrain.num_repeats == plan.scale.batch_size
            config = VideoMAEConfig.preset(pretrain.preset, image_size=pretrain.image_size)
            assert MASKS[point.mask](config.grid, point.mask_ratio).any()
        else:
            finetune = point.settings(plan.scale, tmp_path, init=None)
            assert len(set(point.seeds)) >= 3
            assert finetune.eval_data != finetune.data


def test_what_is_compared_takes_as_many_steps() -> None:
    usual = BASE.settings(FULL.scale, Path())
    for point in FULL.points:
        if isinstance(point, Pretraining) and point not in longer_than_base(FULL):
            settings = point.settings(FULL.scale, Path())
            steps = point.clips // settings.batch_size * point.epochs
            assert abs(steps - 3740) < 75, point.name
            assert settings.peak_lr == pytest.approx(usual.peak_lr)
    for labels, epochs in EPOCHS_OF_LONGER_SCRATCH.items():
        assert abs(labels // FULL.scale.batch_size * epochs - 3740) < 75, labels


def test_the_plan_holds_what_the_findings_need() -> None:
    grid = {(p.mask, p.mask_ratio) for p in FULL.points if isinstance(p, Pretraining)}
    ratios = (0.5, 0.75, 0.9, 0.95)
    assert grid >= {(mask, ratio) for mask in ("tube", "random") for ratio in ratios}
    assert grid >= {("frame", ratio) for ratio in ratios[:3]}
    for start in (BASE, None):
        tunings = [p for p in FULL.points if isinstance(p, Finetuning) and p.start == start]
        assert {p.labels for p in tunings} == {100, 300, 1000, 3000}
    sources = {
        (p.start.domain, p.start.clips)
        for p in FULL.points
        if isinstance(p, Finetuning) and p.start and p.domain == "object"
    }
    assert sources == {("camera", 3000), ("camera", 10_000), ("object", 1000), ("object", 3000)}


def test_the_quick_plan_is_a_small_one_of_the_same_kinds() -> None:
    def work(plan: Plan) -> int:
        return sum(p.epochs * p.data.count for p in plan.points)

    assert work(QUICK) < work(FULL) / 20
    assert {type(p) for p in QUICK.points} == {Pretraining, Finetuning}
    assert {p.domain for p in QUICK.points} == {"camera", "object"}


def test_names_say_what_is_not_as_usual() -> None:
    assert masked("tube", 0.9, domain="object", epochs=60).name == "tube-0.90-object-epochs60"
    assert tuned(None, labels=100).name == "scratch-tuned-labels100"
    start, after = with_tuned(OBJECT)
    assert (start, after.domain) == (OBJECT, "object")


def test_the_clips_of_a_plan_are_each_listed_once() -> None:
    point = masked("tube", 0.9, clips=20)
    plan = Plan((point, tuned(point, labels=10)), Scale(held_out=5, probe_clips=10))
    assert plan.clips() == (
        Clips("camera", 20),
        Clips("camera", 5, seed=7),
        Clips("camera", 10),
    )
    assert plan.clips()[1].name == "camera-48px-7-5"
