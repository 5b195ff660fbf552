"""The plan of the findings: what it holds, and that each experiment of it could be run."""

import dataclasses
from pathlib import Path

import pytest

from reproduction.plan import (
    BASE,
    EPOCHS_OF_LONGER_SCRATCH,
    FULL,
    OBJECT,
    QUICK,
    Finetuning,
    Plan,
    Pretraining,
    Scale,
    masked,
    tuned,
    with_tuned,
)
from reproduction.run import work_of
from videomae.config import VideoMAEConfig
from videomae.masking import MASKS

PLANS = pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])


@PLANS
def test_names_are_unique_and_starts_come_first(plan: Plan) -> None:
    seen: set[str] = set()
    for experiment in plan.experiments:
        assert experiment.name not in seen
        assert "/" not in experiment.name
        if isinstance(experiment, Finetuning) and experiment.start:
            assert experiment.start.name in seen
            assert experiment.start in plan.experiments
        seen.add(experiment.name)


@PLANS
def test_every_experiment_has_settings_and_masks_that_exist(plan: Plan, tmp_path: Path) -> None:
    for experiment in plan.experiments:
        if isinstance(experiment, Pretraining):
            pretrain = experiment.settings(plan.scale, tmp_path)
            assert pretrain.batch_size * pretrain.num_repeats == plan.scale.batch_size
            config = VideoMAEConfig.preset(pretrain.preset, image_size=pretrain.image_size)
            assert MASKS[experiment.mask](config.grid, experiment.mask_ratio).any()
        else:
            finetune = experiment.settings(plan.scale, tmp_path, init=None)
            assert len(set(experiment.seeds)) >= 3
            assert finetune.eval_data != finetune.data


def test_what_is_compared_takes_as_many_steps() -> None:
    usual = BASE.settings(FULL.scale, Path())
    longer = {masked("tube", 0.75, epochs=60), masked("tube", 0.75, epochs=150)}
    for experiment in set(FULL.pretrainings) - longer:
        settings = experiment.settings(FULL.scale, Path())
        steps = experiment.clips // settings.batch_size * experiment.epochs
        assert abs(steps - 3740) < 75, experiment.name
        assert settings.peak_lr == pytest.approx(usual.peak_lr)
    for labels, epochs in EPOCHS_OF_LONGER_SCRATCH.items():
        assert abs(labels // FULL.scale.batch_size * epochs - 3740) < 75, labels


def test_the_plan_holds_what_the_findings_need() -> None:
    grid = {(p.mask, p.mask_ratio) for p in FULL.experiments if isinstance(p, Pretraining)}
    ratios = (0.5, 0.75, 0.9, 0.95)
    assert grid >= {(mask, ratio) for mask in ("tube", "random") for ratio in ratios}
    assert grid >= {("frame", ratio) for ratio in ratios[:3]}
    for start in (BASE, None):
        assert {p.labels for p in FULL.finetunings if p.start == start} == {100, 300, 1000, 3000}
    sources = {
        (p.start.domain, p.start.clips)
        for p in FULL.experiments
        if isinstance(p, Finetuning) and p.start and p.domain == "object"
    }
    assert sources == {("camera", 3000), ("camera", 10_000), ("object", 1000), ("object", 3000)}


def test_the_quick_plan_is_a_small_one_of_the_same_kinds() -> None:
    def work(plan: Plan) -> int:
        return sum(map(work_of, plan.experiments))

    assert work(QUICK) < work(FULL) / 20
    assert {type(p) for p in QUICK.experiments} == {Pretraining, Finetuning}
    assert {p.domain for p in QUICK.experiments} == {"camera", "object"}


def test_names_say_what_is_not_as_usual() -> None:
    assert masked("tube", 0.9, domain="object", epochs=60).name == "tube-0.90-object-epochs60"
    assert tuned(None, labels=100).name == "scratch-tuned-labels100"
    start, after = with_tuned(OBJECT)
    assert (start, after.domain) == (OBJECT, "object")


def test_an_experiment_names_the_clips_that_it_reads() -> None:
    scale, start = Scale(held_out=5, probe_clips=10), masked("tube", 0.9, clips=20)
    found = scale.clips(start, Path("runs"))
    assert {use: (str(clips.output), clips.clips, clips.seed) for use, clips in found.items()} == {
        "train": ("runs/data/camera-48px-1-20", 20, 1),
        "test": ("runs/data/camera-48px-7-5", 5, 7),
        "probe": ("runs/data/camera-48px-1-10", 10, 1),
    }
    few = scale.clips(tuned(start, labels=10), Path("runs"))
    assert few == {"train": found["probe"], "test": found["test"]}


def test_variants_differ_in_the_named_settings_alone() -> None:
    base, other, longer = masked("tube", 0.9), masked("random", 0.5), masked("tube", 0.9, epochs=60)
    plan = Plan((base, longer, other))
    assert plan.base == base
    assert plan.variants(base, "mask", "mask_ratio") == [base, other]
    assert plan.variants(base, "epochs") == [base, longer]
    assert plan.variants(dataclasses.replace(base, domain="object"), "mask") == []
    assert len(FULL.variants(base, "mask", "mask_ratio")) == 11
